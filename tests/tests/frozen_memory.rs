//! Memory of agents that are paused: what is frozen can still grow, up to its limit and beyond, and is killed for that. Whoever
//! asked for the pause is told, can go on, and can stop it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use serde_json::Value;
use toka_tests::{Detached, Document, Need, Scene, User, require, until};

const MIB: u64 = 1 << 20;
/// What agents may hold here.
const LIMIT: u64 = 64;
/// What they set aside and do not touch themselves.
const ASIDE: u64 = 256;

/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(40);

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    until(SOON, what, || is_so().then_some(()));
}

/// Root, where there are groups to freeze and to limit.
fn able() -> Option<User> {
    User::root().filter(|_| require(&[Need::Cgroups, Need::Program("python3")]))
}

/// A service of this program, with the limit.
fn limited(name: &str, program: &str) -> Document {
    Document::command(name, &["python3", "-c", program])
        .spec("type: service")
        .section(&format!("security: {{resource_limits: {{max_memory: {LIMIT}MiB}}}}"))
}

/// One that has set memory aside, and says so.
fn aside(name: &str, restart: &str) -> Document {
    let program = format!(
        "import mmap,time; m=mmap.mmap(-1,{ASIDE}<<20,flags=mmap.MAP_PRIVATE|mmap.MAP_ANONYMOUS); print('up',flush=True); time.sleep(1000)"
    );
    limited(name, &program).spec(&format!("restart: {restart}")).spec("readiness_probe: {log_line: up}")
}

fn pid_of(detached: &Detached<'_>, agent: &str) -> Value {
    detached.toka(&["wait", "--for", "ready", agent]);
    detached.inspect(agent)["pid"].clone()
}

/// Fills so much of what a process has set aside, as a debugger does: the kernel counts it as that process's own
/// (proc_pid_mem(5)), whether that runs or not. Less, if it is killed meanwhile.
fn fill(pid: &Value, amount: u64) {
    let process = format!("/proc/{pid}");
    let maps = std::fs::read_to_string(format!("{process}/maps")).expect("it is there");
    let ranges = maps.lines().filter_map(|line| {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
    });
    // It may lie beside another mapping, and so be one with it.
    let (_, to) = ranges.into_iter().find(|(from, to)| to - from >= ASIDE * MIB).expect("it set it aside");
    let memory = File::options().write(true).open(format!("{process}/mem")).expect("root may");
    for page in (to - ASIDE * MIB..to).step_by(4096).take(usize::try_from(amount * MIB / 4096).expect("few"))
    {
        if memory.write_all_at(b"x", page).is_err() {
            break;
        }
    }
}

fn told(detached: &Detached<'_>, agent: &str) -> Vec<String> {
    let events = detached.toka(&["events", "--json", agent]).events();
    events.iter().filter_map(|event| event["type"].as_str().map(str::to_owned)).collect()
}

fn assert_oom(exit: &Value) {
    assert_eq!((&exit["cause"], &exit["limit"]), (&"oom".into(), &(LIMIT * MIB).into()), "{exit}");
}

#[test]
fn one_that_is_killed_for_its_memory_while_it_is_paused_is_told() {
    let Some(user) = able() else { return };
    let scene = Scene::new(user);
    let again = "{policy: always, max_restarts: 9, backoff: {initial: 10ms, jitter: 0}}";
    let detached = scene.detach(&[aside("calm", "no"), aside("once", "no"), aside("again", again)]);
    let [calm, once, again] = ["calm", "once", "again"].map(|agent| pid_of(&detached, agent));
    detached.toka(&["pause", "calm", "once", "again"]);
    for (pid, amount) in [(&calm, LIMIT / 2), (&once, ASIDE), (&again, ASIDE)] {
        fill(pid, amount);
    }
    eventually("it has ended", || detached.state("once") == "ended");
    assert_oom(&detached.inspect("once")["exit"]);
    let life: Vec<String> =
        told(&detached, "once").into_iter().skip_while(|kind| kind != "agent_paused").collect();
    assert_eq!(life, ["agent_paused", "agent_ended"]);
    // Its next life is not paused.
    eventually("it is started again", || {
        detached.state("again") == "running" && detached.inspect("again")["ready"] == true
    });
    assert_ne!(detached.inspect("again")["pid"], again);
    let restarting = detached.toka(&["events", "--json", "--kind", "agent_restarting", "again"]).events();
    assert_oom(&restarting[0]["exit"]);
    // What is below its limit stays what it was, and comes to its end from there.
    assert_eq!((detached.state("calm"), &detached.inspect("calm")["pid"]), ("paused".to_owned(), &calm));
    assert_eq!(detached.toka(&["stop", "calm"]).stdout, "calm  stopped\n");
    assert_eq!(detached.inspect("calm")["exit"]["cause"], "stopped");
}

#[test]
fn one_that_goes_on_eating_after_a_pause_is_killed_for_it() {
    let Some(user) = able() else { return };
    let scene = Scene::new(user);
    let eats = format!(
        "import os,time\nheld=[bytearray({}<<20)]\nprint('up',flush=True)\nwhile not os.path.exists(os.environ['HOME']+'/go'): time.sleep(0.01)\nwhile True: held.append(bytearray(1<<20))",
        LIMIT / 2
    );
    let eats = |name: &str| limited(name, &eats).spec("restart: no").spec("readiness_probe: {log_line: up}");
    let detached = scene.detach(&[eats("goes-on"), eats("stops")]);
    let before = ["goes-on", "stops"].map(|agent| pid_of(&detached, agent));
    detached.toka(&["pause", "goes-on", "stops"]);
    for agent in ["goes-on", "stops"] {
        let home = scene.state().join("projects").join(scene.name()).join("agents").join(agent).join("home");
        scene.write(&home.join("go"), "");
    }
    // Its greed is frozen with it; that it is thawed to be stopped, and eats again, holds up nobody.
    assert_eq!(["goes-on", "stops"].map(|agent| detached.inspect(agent)["pid"].clone()), before);
    detached.toka(&["stop", "stops"]);
    let exit = detached.inspect("stops")["exit"].clone();
    assert!(["stopped", "oom"].contains(&exit["cause"].as_str().unwrap_or_default()), "{exit}");
    detached.try_toka(&["resume", "goes-on"]);
    assert_eq!(detached.try_toka(&["wait", "goes-on"]).code, Some(1));
    assert_oom(&detached.inspect("goes-on")["exit"]);
}
