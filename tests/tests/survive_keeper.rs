//! A keeper that is killed, alone or with its daemon: as root its agents live on in their control groups, and another keeper
//! takes them over. Those of an ordinary user end with it, and that is told.

mod survive_support;

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, listen, socket};
use nix::unistd::{Pid, close};
use serde_json::Value;
use survive_support::{
    daemon_pid, eventually, keeper_pid, kill_both, kill_daemon, kill_keeper, lines_of, serve_again,
    starts_of, told,
};
use toka_tests::{Detached, Document, Need, Scene, User, as_both_users, require};

as_both_users!(
    agents_of_a_killed_keeper_are_looked_after,
    agents_whose_keeper_and_daemon_were_killed_are_looked_after,
    a_run_in_the_foreground_has_another_keeper,
);

#[test]
fn a_terminal_outlives_a_keeper_and_then_a_daemon() {
    let Some(user) = User::root().filter(|user| live_on(*user)) else { return };
    let scene = Scene::new(user);
    let asked = Document::bare("asked").spec(&format!("process: {{shell: {ASKED:?}, tty: true}}"));
    let detached = scene.detach(&[asked]);
    eventually("it has begun", || lines_of(&scene, "asked") == ["begun"]);
    let pid = detached.inspect("asked")["pid"].clone();
    kill_keeper(&scene);
    eventually("another has taken over", || told(&detached, "keeper_succeeded").len() == 1);
    detached.toka(&["ps"]);
    kill_daemon(&scene);
    serve_again(&scene);
    ask(&scene, "asked");
    eventually("it has said both", || lines_of(&scene, "asked") == ["begun", "asked"]);
    assert_eq!(detached.inspect("asked")["pid"], pid);
}

#[test]
fn the_next_keeper_sets_aside_what_git_would_obey() {
    let Some(scene) = User::root().filter(|user| live_on(*user)).map(Scene::new) else { return };
    scene.make_folder(&scene.workspace().join(".git"));
    let script = "echo begun; until [ -e ~/go ]; do sleep 0.02; done; echo evil > .git/commondir
        while [ -e .git/commondir ]; do sleep 0.02; done; echo gone; exec sleep 1000";
    let writes = "security: {capabilities_required: [filesystem-read, filesystem-write]}";
    let detached = scene.detach(&[Document::service("maker", script).section(writes)]);
    eventually("it has begun", || lines_of(&scene, "maker") == ["begun"]);
    kill_both(&scene);
    ask(&scene, "maker");
    serve_again(&scene);
    eventually("it is gone", || lines_of(&scene, "maker") == ["begun", "gone"]);
    eventually("it is told", || told(&detached, "agent_planted").len() == 1);
}

/// Under cgroup v1 a group forgets the kills of groups below it that are removed, and a `toka exec` has such a group.
#[test]
fn kills_for_memory_are_counted_on_by_the_next_keeper() {
    let Some(scene) = User::root().filter(|user| live_on(*user)).map(Scene::new) else { return };
    scene.write(&scene.workspace().join("eat.py"), "b = []\nwhile True: b.append(b'x' * (8 << 20))\n");
    let limits = "security: {capabilities_required: [filesystem-read], resource_limits: {max_memory: 64MB}}";
    let detached = scene.detach(&[Document::service("eats", "exec sleep 1000").section(limits)]);
    let kill_one = |count: u64| {
        let killed =
            scene.exec_beside("eats", &[], &["/usr/bin/python3", "eat.py"]).output().expect("it starts");
        assert_eq!(killed.status.code(), Some(137), "{killed:?}");
        eventually("the kill is reported", || detached.inspect("eats")["oom_kills"] == count);
    };
    kill_one(1);
    kill_one(2);
    kill_keeper(&scene);
    eventually("another has taken over", || told(&detached, "keeper_succeeded").len() == 1);
    kill_one(3);
    kill_both(&scene);
    serve_again(&scene);
    kill_one(4);
    kill_daemon(&scene);
    serve_again(&scene);
    kill_one(5);
    let events = detached.toka(&["events", "--json"]).stdout;
    assert_eq!(events.matches("agent_oom_killed").count(), 5, "{events}");
}

#[test]
fn a_keeper_that_dies_while_it_is_attached_to_is_nobody() {
    let Some(user) = User::root().filter(|user| live_on(*user)) else { return };
    let scene = Scene::new(user);
    let detached = scene.detach(&[Document::service("kept", "exec sleep 1000")]);
    eventually("it runs", || detached.state("kept") == "running");
    let before = detached.inspect("kept")["pid"].clone();
    kill_both(&scene);
    // What a killed process listened with can be reached until the kernel has closed it.
    let path = scene.state().join("run").join(scene.name()).join("keeper.sock");
    fs::remove_file(&path).expect("it left its socket");
    let dying =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    bind(dying.as_raw_fd(), &UnixAddr::new(&path).expect("it fits")).expect("bound");
    listen(&dying, Backlog::new(1).expect("one")).expect("it listens");
    let gone = std::thread::spawn(move || {
        let reached = accept(dying.as_raw_fd()).expect("a daemon");
        drop(dying);
        close(reached).expect("ours");
    });
    serve_again(&scene);
    gone.join().expect("no panic");
    assert_eq!(detached.inspect("kept")["pid"], before);
    assert_eq!(starts_of(&detached, "kept"), 1);
}

#[test]
fn who_says_that_it_is_ready_on_a_descriptor_is_heard_whoever_was_killed() {
    let Some(user) = User::root().filter(|user| live_on(*user)) else { return };
    let scene = Scene::new(user);
    let line = "until [ -e ~/go ]; do sleep 0.02; done; echo >&7; echo said; touch ~/said; exec sleep 1000";
    let names = ["meanwhile", "later", "last"];
    let agents = names.map(|name| {
        Document::service(name, line).spec("readiness_probe: {notification_fd: 7, failure_threshold: 100000}")
    });
    let detached = scene.detach(&agents);
    let pids = || inspect_all(&detached, &names).into_iter().map(|agent| agent["pid"].clone());
    for agent in names {
        eventually("it runs", || detached.state(agent) == "running");
    }
    let before: Vec<Value> = pids().collect();
    let is_ready = |agent: &str| detached.inspect(agent)["ready"] == true;
    kill_both(&scene);
    ask(&scene, "meanwhile");
    let said = scene.state().join("projects").join(scene.name()).join("agents/meanwhile/home/said");
    eventually("it has said so to nobody", || said.exists());
    serve_again(&scene);
    eventually("what it said is heard", || is_ready("meanwhile"));
    assert!(!is_ready("later") && !is_ready("last"));
    ask(&scene, "later");
    eventually("it is heard", || is_ready("later"));
    // The one after the other.
    let keeper = keeper_pid(&scene);
    kill_keeper(&scene);
    eventually("another has taken over", || told(&detached, "keeper_succeeded").len() == 1);
    assert_ne!(keeper_pid(&scene), keeper);
    kill_daemon(&scene);
    serve_again(&scene);
    assert!(is_ready("meanwhile") && is_ready("later") && !is_ready("last"));
    ask(&scene, "last");
    eventually("it is heard", || is_ready("last"));
    assert_eq!(pids().collect::<Vec<_>>(), before);
    for agent in names {
        eventually("it has said so", || lines_of(&scene, agent) == ["said"]);
    }
}

#[test]
fn a_run_in_the_foreground_leaves_to_the_daemon_what_still_runs() {
    let Some(user) = User::root().filter(|user| live_on(*user)) else { return };
    let scene = Scene::new(user);
    let detached = scene.detach(&[Document::service("api", "exec sleep 1000")]);
    eventually("it runs", || detached.state("api") == "running");
    let pid = detached.inspect("api")["pid"].clone();
    kill_both(&scene);
    let refused = scene.toka_run(&[Document::shell("job", "true")], &[]);
    assert_eq!(refused.code, Some(73), "{refused:#?}");
    assert!(refused.stderr.contains("still run: api"), "{refused:#?}");
    assert!(refused.stderr.contains("toka serve --detach"), "{refused:#?}");
    serve_again(&scene);
    assert_eq!(detached.inspect("api")["pid"], pid);
}

#[test]
fn a_run_ends_what_an_earlier_one_in_the_foreground_left() {
    let Some(user) = User::root().filter(|user| live_on(*user)) else { return };
    let scene = Scene::new(user);
    let mut run = scene.start(&[Document::shell("job", "exec sleep 1000")], &[]);
    let left = run.wait_for("agent_started", "job")["pid"].as_i64().expect("a pid");
    let (toka, keeper) = (run.pid(), Pid::from_raw(keeper_of(run.pid())));
    for (pid, signal) in [(toka, Signal::SIGSTOP), (keeper, Signal::SIGKILL), (toka, Signal::SIGKILL)] {
        kill(pid, signal).expect("ours");
    }
    run.finish();
    assert!(Path::new(&format!("/proc/{left}")).exists(), "nobody was there to end it");
    let next = scene.toka_run(&[Document::shell("job", "true")], &["--json"]);
    assert_eq!(next.code, Some(0), "{next:#?}");
    let told = next.events();
    let warned = told.iter().filter_map(|event| event["message"].as_str());
    assert!(warned.into_iter().any(|message| message.contains("what was left of job is ended")), "{told:#?}");
    scene.assert_nothing_left();
}

#[test]
fn whoever_is_killed_nothing_is_started_twice_lost_or_written_twice() {
    let Some(user) = User::root().filter(|user| live_on(*user)) else { return };
    rounds(&Scene::new(user));
}

const FIELDS: [&str; 5] = ["pid", "state", "since_ms", "started_ms", "restart_count"];

/// Whether agents live on without their keeper.
fn live_on(user: User) -> bool {
    user.uid() == 0 && require(&[Need::Cgroups])
}

fn assert_unnoticed(detached: &Detached<'_>, before: &[Value]) {
    let names: Vec<&str> = before.iter().filter_map(|former| former["name"].as_str()).collect();
    for (former, now) in before.iter().zip(inspect_all(detached, &names)) {
        for field in FIELDS {
            assert_eq!(now[field], former[field], "{field}: {now:#}");
        }
    }
}

fn inspect_all(detached: &Detached<'_>, agents: &[&str]) -> Vec<Value> {
    let finished = detached.toka(&[&["inspect", "--json"], agents].concat());
    serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:#?}"))
}

/// One that says something when its file is there, and another thing after that.
const ASKED: &str = "echo begun; until [ -e ~/go ]; do sleep 0.02; done; echo asked; exec sleep 1000";

fn ask(scene: &Scene, agent: &str) {
    let home = scene.state().join("projects").join(scene.name()).join("agents").join(agent).join("home");
    scene.write(&home.join("go"), "");
}

fn four(scene: &Scene) -> Detached<'_> {
    let again = "restart: {policy: always, max_restarts: 9, backoff: {initial: 10ms, jitter: 0}}";
    let detached = scene.detach(&[
        // Its output goes elsewhere.
        Document::service("api", "exec sleep 1000 > ~/out").spec(again),
        Document::service("paused", "exec sleep 1000").spec(again),
        Document::service("asked", ASKED).spec("restart: {policy: no}"),
        Document::service("deaf", "trap '' TERM; echo deaf; while :; do sleep 1000; done")
            .spec("stop: {grace_period: 1000s}")
            .spec("restart: {policy: no}"),
    ]);
    for agent in ["api", "paused", "asked", "deaf"] {
        eventually("it runs", || detached.state(agent) == "running");
    }
    eventually("it has begun", || lines_of(scene, "asked") == ["begun"]);
    eventually("it is deaf", || lines_of(scene, "deaf") == ["deaf"]);
    detached.try_toka(&["pause", "paused"]);
    detached.try_toka(&["stop", "--no-wait", "deaf"]);
    eventually("it is asked", || detached.state("deaf") == "stopping");
    detached
}

fn all_of(detached: &Detached<'_>) -> Vec<Value> {
    inspect_all(detached, &["api", "paused", "asked", "deaf"])
}

/// They go on as if nothing had been, or begin again as their policies say.
fn assert_looked_after(scene: &Scene, detached: &Detached<'_>, user: User, before: &[Value]) {
    if live_on(user) {
        assert_unnoticed(detached, before);
        ask(scene, "asked");
        eventually("it has said both", || lines_of(scene, "asked") == ["begun", "asked"]);
        assert_eq!(detached.toka(&["resume", "paused"]).stdout, "paused  running\n");
        assert_eq!(starts_of(detached, "api"), 1);
        assert_eq!(told(detached, "warning"), Vec::<Value>::new());
        detached.toka(&["kill", "deaf"]);
    } else {
        eventually("it is started again", || {
            detached.state("api") == "running" && starts_of(detached, "api") == 2
        });
        eventually("it has ended", || detached.state("asked") == "ended");
        // It was killed with its keeper, which is known unless its new parent has collected it at once.
        let exit = detached.inspect("asked")["exit"].clone();
        assert!(exit["cause"] == "unknown" || exit["signal"] == 9, "{exit}");
    }
    eventually("it is stopped", || detached.state("deaf") == "ended");
    detached.toka(&["restart", "api"]);
    detached.toka(&["stop", "api", "paused"]);
}

fn agents_of_a_killed_keeper_are_looked_after(user: User) {
    let scene = Scene::new(user);
    let detached = four(&scene);
    let (before, keeper, daemon) = (all_of(&detached), keeper_pid(&scene), daemon_pid(&scene));
    kill_keeper(&scene);
    eventually("another has taken over", || told(&detached, "keeper_succeeded").len() == 1);
    assert_ne!(keeper_pid(&scene), keeper);
    assert_eq!(daemon_pid(&scene), daemon);
    if live_on(user) {
        // The next daemon finds all that this one has.
        kill_daemon(&scene);
        serve_again(&scene);
    }
    assert_looked_after(&scene, &detached, user, &before);
}

fn agents_whose_keeper_and_daemon_were_killed_are_looked_after(user: User) {
    let scene = Scene::new(user);
    let detached = four(&scene);
    let before = all_of(&detached);
    kill_both(&scene);
    let told = scene.toka(&["ps"]);
    assert!(told.stderr.contains("serve --detach"), "{told:#?}");
    serve_again(&scene);
    assert_looked_after(&scene, &detached, user, &before);
}

/// The keeper of a run in the foreground: all that this starts.
fn keeper_of(toka: Pid) -> i32 {
    let children = fs::read_to_string(format!("/proc/{toka}/task/{toka}/children")).expect("its children");
    children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a keeper")
}

/// As root its agents live on, and another keeper takes them over; those of an ordinary user end with it, and are started anew
/// where their policy says so.
fn a_run_in_the_foreground_has_another_keeper(user: User) {
    let scene = Scene::new(user);
    let waits = "echo begun; until [ -e ~/go ]; do sleep 0.02; done; echo done";
    let again = "restart: {policy: on-failure, backoff: {initial: 10ms, jitter: 0}}";
    let job = Document::shell("job", waits).spec(again);
    let mut run = scene.start(&[job, Document::shell("next", "true").after(&["job"])], &[]);
    run.wait_for("agent_started", "job");
    let keeper = keeper_of(run.pid());
    kill(Pid::from_raw(keeper), Signal::SIGKILL).expect("ours");
    let said = run.wait_until("another keeper", |event| event["type"] == "keeper_succeeded");
    assert_ne!(said["pid"], keeper, "{said}");
    ask(&scene, "job");
    let finished = run.finish();
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let begun = lines_of(&scene, "job").iter().filter(|line| *line == "begun").count();
    assert_eq!(begun, if live_on(user) { 1 } else { 2 }, "{finished:#?}");
    scene.assert_nothing_left();
}

/// As root its agents live on in their control groups, and nobody answers for them.
#[test]
fn a_run_in_the_foreground_that_is_killed_with_its_keeper_is_told_and_ended() {
    let Some(user) = User::root().filter(|user| live_on(*user)) else { return };
    let scene = Scene::new(user);
    let mut run = scene.start(&[Document::service("api", "exec sleep 1000")], &[]);
    run.wait_for("agent_started", "api");
    let keeper = keeper_of(run.pid());
    // Stopped, it begins no other keeper.
    run.signal(Signal::SIGSTOP);
    kill(Pid::from_raw(keeper), Signal::SIGKILL).expect("ours");
    run.signal(Signal::SIGKILL);
    run.finish();
    for words in [&["ps"][..], &["health"], &["stop", "api"]] {
        let told = scene.toka(&[words, &["--project", scene.name()]].concat());
        assert_eq!(told.code, Some(69), "{words:?}: {told:#?}");
        assert!(told.stderr.contains("the agents run on"), "{words:?}: {told:#?}");
    }
    let down = scene.toka(&["down", "--all"]);
    assert_eq!((down.code, down.stdout), (Some(0), format!("{} is down\n", scene.name())), "{}", down.stderr);
    scene.assert_nothing_left();
}

/// Counts until it is told to end.
const COUNT: &str = "i=0; until [ -e ~/go ]; do i=$((i+1)); echo line $i; done; echo end $i";
const WRITERS: [&str; 4] = ["one", "two", "three", "four"];

/// Twenty agents in all states that there are.
fn crowd() -> Vec<Document> {
    let again =
        |backoff: &str| format!("restart: {{policy: always, max_restarts: 100000, backoff: {{{backoff}}}}}");
    let mut agents: Vec<Document> = WRITERS.iter().map(|name| Document::shell(name, COUNT)).collect();
    agents.extend(
        ["idle-a", "idle-b", "idle-c", "frozen-a", "frozen-b"]
            .map(|name| Document::service(name, "exec sleep 1000")),
    );
    agents
        .push(Document::service("ready", "echo up; exec sleep 1000").spec("readiness_probe: {log_line: up}"));
    agents.push(
        Document::service("probed", "exec sleep 1000").spec(
            "liveness_probe: {exec: {command: [sleep, '0.01']}, period: 20ms, failure_threshold: 1000}",
        ),
    );
    agents.push(Document::service("waiting", "exit 3").spec(&again("initial: 1000s, max: 1000s, jitter: 0")));
    agents.push(Document::service("flapping", "exit 3").spec(&again("initial: 20ms, max: 20ms, jitter: 0")));
    agents.push(
        Document::service("given-up", "exit 3")
            .spec("restart: {policy: always, max_restarts: 1, backoff: {initial: 1ms}}"),
    );
    agents.push(
        Document::service("deaf", "trap '' TERM; echo deaf; while :; do sleep 1000; done")
            .spec("stop: {grace_period: 1000s}")
            .spec("restart: {policy: no}"),
    );
    agents.push(Document::shell("good", "exit 0"));
    agents.push(Document::shell("bad", "exit 7"));
    agents.push(Document::shell("blocked", "true").after(&["bad"]));
    agents.push(Document::shell("pending", "true").after(&["one"]));
    agents.push(Document::shell("family", "sleep 1000 & (setsid sleep 1000 &) ; exec sleep 1000"));
    agents
}

/// How often the daemon, the keeper and both are killed in turn; more with `TOKA_ROUNDS`.
fn rounds(scene: &Scene) {
    let rounds: usize = std::env::var("TOKA_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let detached = scene.detach(&crowd());
    let states = [
        ("waiting", "backoff"),
        ("given-up", "quarantined"),
        ("deaf", "running"),
        ("good", "ended"),
        ("bad", "ended"),
        ("blocked", "blocked"),
        ("family", "running"),
        ("ready", "running"),
    ];
    for (agent, state) in states {
        eventually(agent, || detached.state(agent) == state);
    }
    eventually("it is deaf", || lines_of(scene, "deaf") == ["deaf"]);
    detached.toka(&["pause", "frozen-a", "frozen-b"]);
    detached.toka(&["stop", "--no-wait", "deaf"]);
    let quiet = [
        "idle-a", "idle-b", "frozen-a", "frozen-b", "ready", "probed", "waiting", "given-up", "deaf", "good",
        "bad", "blocked", "pending", "family", "one", "two", "three", "four",
    ];
    let before = inspect_all(&detached, &quiet);
    for round in 0..rounds {
        if round % 4 == 3 {
            // A start or a stop is under way.
            let _ = detached.try_toka(&["restart", "--no-wait", "idle-c"]);
        }
        match round % 3 {
            0 => kill_daemon(scene),
            1 => kill_keeper(scene),
            _ => kill_both(scene),
        }
        if round % 3 != 1 {
            serve_again(scene);
        }
        assert_unnoticed(&detached, &before);
    }
    for agent in WRITERS {
        ask(scene, agent);
    }
    let _ = detached.try_toka(&["wait", "pending"]);
    for agent in WRITERS {
        assert_eq!(starts_of(&detached, agent), 1, "{agent}");
        let lines = lines_of(scene, agent);
        let (last, counted) = lines.split_last().expect("lines");
        assert_eq!(*last, format!("end {}", counted.len()), "{agent}");
        let is_in_order = (1..).zip(counted).all(|(number, line)| *line == format!("line {number}"));
        assert!(is_in_order, "{agent}");
    }
    // Whatever was asked of it in between, it is there once or is told to have ended.
    let _ = detached.try_toka(&["start", "idle-c"]);
    eventually("it runs", || detached.state("idle-c") == "running");
    detached.toka(&["resume", "frozen-a", "frozen-b"]);
    let restarts = |detached: &Detached<'_>| detached.inspect("flapping")["restart_count"].as_u64();
    let so_far = restarts(&detached);
    eventually("it still flaps", || restarts(&detached) > so_far);
}
