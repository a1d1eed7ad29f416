//! `toka run` from end to end: agents that are alive and do nothing, and those that say that they are alive.

use serde_json::Value;
use toka_tests::{Document, Scene, User, as_both_users};

as_both_users!(
    a_busy_agent_and_one_that_writes_are_left_alone,
    one_that_keeps_saying_so_is_alive_and_one_that_stops_is_not,
    one_that_calls_for_help_is_ended_at_once_and_comes_back,
);

/// Only where the host tells how much CPU an agent uses is silence told from work.
#[test]
fn silence_is_told_then_signalled_then_ended() {
    if !toka_tests::require(&[toka_tests::Need::Root, toka_tests::Need::Cgroups]) {
        return;
    }
    let scene = Scene::new(User::Root);
    let deaf = Document::shell("deaf", "trap 'echo aborted' ABRT; while :; do sleep 600; done")
        .spec("watchdog: 200ms")
        .spec("restart: no");
    let finished = scene.toka_run(&[deaf], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let stages: Vec<_> = finished.all("agent_wedged", "deaf").iter().map(|e| e["stage"].clone()).collect();
    assert_eq!(stages, ["warn", "signal", "restart"], "{finished:#?}");
    assert_eq!(finished.exit_of("deaf")["cause"], "watchdog", "{finished:#?}");
    scene.assert_nothing_left();
}

#[test]
fn one_that_dies_of_the_signal_died_of_the_watchdog() {
    if !toka_tests::require(&[toka_tests::Need::Root, toka_tests::Need::Cgroups]) {
        return;
    }
    let scene = Scene::new(User::Root);
    let script = "[ -e ~/again ] && exit 0; touch ~/again; exec sleep 600";
    let agent = Document::shell("agent", script)
        .spec("watchdog: 200ms")
        .spec("restart: {policy: on-watchdog, backoff: {initial: 1ms}}");
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let restarting = finished.all("agent_restarting", "agent");
    assert_eq!(restarting[0]["exit"]["cause"], "watchdog", "{finished:#?}");
    scene.assert_nothing_left();
}

fn a_busy_agent_and_one_that_writes_are_left_alone(user: User) {
    let scene = Scene::new(user);
    let writes = Document::shell("writes", "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.1; done")
        .spec("watchdog: 400ms");
    let reports =
        Document::shell("reports", "for i in 1 2 3 4 5; do toka report progress 0.$i; sleep 0.1; done")
            .spec("watchdog: 2s");
    let finished = scene.toka_run(&[writes, reports], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.all("agent_wedged", "writes"), Vec::<Value>::new());
    scene.assert_nothing_left();
}

/// An ordinary user without delegated groups: the silence is told, and that nothing follows, and what would make it follow.
#[test]
fn a_watchdog_that_can_only_tell_says_so() {
    let Some(user) = User::ordinary() else { return };
    let scene = Scene::new(user);
    let deaf = Document::shell("deaf", "sleep 600").spec("watchdog: 100ms");
    let mut running = scene.start(&[deaf], &[]);
    let warning = running.wait_for("warning", "deaf");
    let message = warning["message"].as_str().expect("a text");
    assert!(message.contains("does nothing more") && message.contains("WATCHDOG=1"), "{message}");
    running.signal(nix::sys::signal::Signal::SIGINT);
    let finished = running.finish();
    assert_eq!(finished.all("warning", "deaf").len(), 1, "once: {finished:#?}");
}

/// `WATCHDOG=1` as a shell can say it.
const ALIVE: &str = "python3 -c 'import os,socket; s=socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.sendto(b\"WATCHDOG=1\", os.environ[\"NOTIFY_SOCKET\"])'";

fn one_that_keeps_saying_so_is_alive_and_one_that_stops_is_not(user: User) {
    let scene = Scene::new(user);
    // It writes on and on, but has said once that its word is what counts.
    let script =
        format!("[ $WATCHDOG_USEC = 500000 ] || exit 9; {ALIVE}; while :; do echo busy; sleep 0.05; done");
    let agent = Document::shell("agent", &script).spec("watchdog: 500ms").spec("restart: no");
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert_eq!(finished.exit_of("agent")["cause"], "watchdog", "{finished:#?}");
    scene.assert_nothing_left();
}

fn one_that_calls_for_help_is_ended_at_once_and_comes_back(user: User) {
    let scene = Scene::new(user);
    let help = ALIVE.replace("WATCHDOG=1", "WATCHDOG=trigger");
    let script = format!("[ -e ~/again ] && exit 0; touch ~/again; {help}; exec sleep 600");
    let agent = Document::shell("agent", &script)
        .spec("watchdog: 1h")
        .spec("restart: {policy: on-watchdog, backoff: {initial: 1ms}}");
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.all("agent_restarting", "agent")[0]["exit"]["cause"], "watchdog");
    scene.assert_nothing_left();
}

#[test]
fn what_a_probe_does_is_no_sign_of_life() {
    if !toka_tests::require(&[toka_tests::Need::Root, toka_tests::Need::Cgroups]) {
        return;
    }
    let scene = Scene::new(User::Root);
    let busy = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done";
    let agent = Document::shell("agent", "exec sleep 600").spec("watchdog: 400ms").spec("restart: no").spec(
        &format!("liveness_probe: {{exec: {{command: [sh, -c, '{busy}']}}, period: 50ms, timeout: 5s}}"),
    );
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.exit_of("agent")["cause"], "watchdog", "{finished:#?}");
    scene.assert_nothing_left();
}
