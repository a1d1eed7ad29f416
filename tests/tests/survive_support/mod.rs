//! What tests of killed daemons and keepers have in common.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toka_tests::{Detached, Scene, listener_at, until};

/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(40);

pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    until(SOON, what, || is_so().then_some(()));
}

/// Kills the daemon, not the keeper.
pub(crate) fn kill_daemon(scene: &Scene) {
    kill(Pid::from_raw(daemon_pid(scene)), Signal::SIGKILL).expect("it runs");
    eventually("nobody answers", || scene.toka(&["ps"]).code == Some(69));
}

/// Kills the keeper, not the daemon, which starts another.
pub(crate) fn kill_keeper(scene: &Scene) {
    kill(Pid::from_raw(keeper_pid(scene)), Signal::SIGKILL).expect("it runs");
}

/// Kills both, the daemon before it can start another keeper.
pub(crate) fn kill_both(scene: &Scene) {
    let (daemon, keeper) = (Pid::from_raw(daemon_pid(scene)), Pid::from_raw(keeper_pid(scene)));
    kill(daemon, Signal::SIGSTOP).expect("it runs");
    kill(keeper, Signal::SIGKILL).expect("it runs");
    kill(daemon, Signal::SIGKILL).expect("it runs");
    eventually("nobody answers", || scene.toka(&["ps"]).code == Some(69));
}

pub(crate) fn daemon_pid(scene: &Scene) -> i32 {
    listener_at(&scene.state().join("run/daemon.sock")).expect("a daemon")
}

/// The keeper of the scene's project.
pub(crate) fn keeper_pid(scene: &Scene) -> i32 {
    let path = scene.state().join("run").join(scene.name()).join("keeper.sock");
    until(SOON, "a keeper", || listener_at(&path))
}

pub(crate) fn serve_again(scene: &Scene) {
    let served = scene.toka(&["serve", "--detach"]);
    assert_eq!(served.code, Some(0), "{served:#?}");
}

pub(crate) fn starts_of(detached: &Detached<'_>, agent: &str) -> usize {
    let events = detached.toka(&["events", "--json", "--kind", "agent_started"]).events();
    events.iter().filter(|event| event["agent"] == agent).count()
}

/// What the journal tells of a kind, the oldest first.
pub(crate) fn told(detached: &Detached<'_>, kind: &str) -> Vec<serde_json::Value> {
    detached.toka(&["events", "--json", "--kind", kind]).events()
}

/// Everything that an agent has written in all its lives.
pub(crate) fn lines_of(scene: &Scene, agent: &str) -> Vec<String> {
    let logs = scene.toka(&["logs", "--project", scene.name(), agent, "--run", "all"]);
    logs.stdout.lines().map(|line| line.rsplit("| ").next().unwrap_or(line).to_owned()).collect()
}
