//! `toka run` from end to end, through the program: signals, a second run, and a foreground that is killed. Whatever
//! happens, nothing of an agent is left.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toka_tests::{Document, Need, Scene, User, as_both_users, processes_with, require, until};

as_both_users!(
    an_agent_that_closes_its_own_folders_keeps_nobody_from_the_next_run,
    an_interrupt_stops_gracefully,
    a_second_interrupt_kills,
    a_termination_is_143,
    a_hangup_is_143,
    agents_stop_in_reverse_order,
    the_grace_period_ends,
    a_killed_foreground_leaves_nothing,
    a_killed_run_is_told_while_its_keeper_ends_it,
    tasks_of_a_killed_run_end_when_they_are_asked_to,
    a_killed_run_is_told_beside_others_and_can_be_killed,
    a_project_runs_once_at_a_time,
    a_run_that_ends_takes_its_own_socket_for_nobodys_removal,
    when_down_is_done_the_next_run_may_begin,
);

/// Longer than any grace period here, so that nobody ends by it by chance.
const SOON: Duration = Duration::from_secs(20);

/// Writes how it was stopped, and ends.
const POLITE: &str = "trap 'echo $TOKA_AGENT >> \"$TOKA_ARTIFACTS/end\"; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
/// Ignores the request to stop, and so does everything that it starts.
const STUBBORN: &str = "trap '' TERM INT HUP; while :; do sleep 600; done";

fn polite(name: &str) -> Document {
    Document::shell(name, POLITE)
}

/// Starts one polite agent and waits until its trap is set: until it has written its first line.
fn started(scene: &Scene, documents: &[Document]) -> toka_tests::Running {
    let mut run = scene.start(documents, &[]);
    for document in documents {
        run.wait_for("agent_started", document.name());
        let log = scene
            .state()
            .join("projects")
            .join(scene.name())
            .join("agents")
            .join(document.name())
            .join("log");
        until(SOON, "the agent's first line", || {
            let text = std::fs::read_to_string(&log).ok()?;
            text.contains("ready").then_some(())
        });
    }
    run
}

fn a_run_that_ends_takes_its_own_socket_for_nobodys_removal(user: User) {
    let scene = Scene::new(user).env("TOKA_LOG", "warn");
    // The control socket is watched from 0.2 s on.
    let finished = scene.toka_run(&[Document::shell("brief", "sleep 0.3")], &[]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(!finished.stderr.contains("control socket"), "{finished:#?}");
    scene.assert_nothing_left();
}

fn when_down_is_done_the_next_run_may_begin(user: User) {
    let scene = Scene::new(user);
    // The keeper ends, the journal is closed and the lock is given back before the answer: each of these takes a moment.
    for _ in 0..8 {
        let mut run = scene.start(&[Document::shell("one", "exec sleep 1000")], &[]);
        run.wait_for("agent_started", "one");
        let down = scene.toka(&["down", "--kill", "--project", scene.name()]);
        assert_eq!(down.code, Some(0), "{down:#?}");
        let next = scene.toka_run(&[Document::shell("one", "true")], &[]);
        assert_eq!(next.code, Some(0), "{next:#?}");
        run.finish();
    }
    scene.assert_nothing_left();
}

fn ends_with(user: User, signal: Signal, code: i32) {
    let scene = Scene::new(user);
    let run = started(&scene, &[polite("one")]);
    run.signal(signal);
    let finished = run.finish();
    assert_eq!(finished.code, Some(code), "{finished:#?}");
    assert_eq!(scene.artifact("one", "end"), "one\n", "it was asked and had its time: {finished:#?}");
    assert_eq!(finished.exit_of("one")["cause"], "stopped", "{finished:#?}");
    scene.assert_nothing_left();
}

fn an_interrupt_stops_gracefully(user: User) {
    ends_with(user, Signal::SIGINT, 130);
}

fn a_termination_is_143(user: User) {
    ends_with(user, Signal::SIGTERM, 143);
}

fn a_hangup_is_143(user: User) {
    ends_with(user, Signal::SIGHUP, 143);
}

fn a_second_interrupt_kills(user: User) {
    let scene = Scene::new(user);
    let stubborn =
        Document::shell("one", &format!("echo ready; {STUBBORN}")).spec("stop: {grace_period: 10m}");
    let mut run = started(&scene, &[stubborn]);
    run.signal(Signal::SIGINT);
    run.wait_for("agent_stopping", "one");
    run.signal(Signal::SIGINT);
    let begun = Instant::now();
    let finished = run.finish();
    assert!(begun.elapsed() < SOON, "nobody waits for the grace period");
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    scene.assert_nothing_left();
}

fn agents_stop_in_reverse_order(user: User) {
    let scene = Scene::new(user);
    let base = polite("base").spec("type: service");
    let middle = polite("middle").spec("type: service").after(&["base"]);
    let run = started(&scene, &[base, middle, polite("top").after(&["middle"])]);
    run.signal(Signal::SIGTERM);
    let finished = run.finish();
    assert_eq!(finished.code, Some(143), "{finished:#?}");
    for (first, then) in [("top", "middle"), ("middle", "base")] {
        let (ended, stopping) =
            (finished.place_of("agent_ended", first), finished.place_of("agent_stopping", then));
        assert!(ended.is_some() && ended < stopping, "{first} ends before {then} is asked: {finished:#?}");
    }
    scene.assert_nothing_left();
}

fn the_grace_period_ends(user: User) {
    let scene = Scene::new(user);
    let stubborn =
        Document::shell("one", &format!("echo ready; {STUBBORN}")).spec("stop: {grace_period: 1s}");
    let run = started(&scene, &[stubborn]);
    run.signal(Signal::SIGTERM);
    let begun = Instant::now();
    let finished = run.finish();
    assert!(begun.elapsed() >= Duration::from_millis(900), "it had its grace period");
    assert!(begun.elapsed() < SOON, "and not much more");
    assert_eq!(finished.code, Some(143), "{finished:#?}");
    scene.assert_nothing_left();
}

fn a_killed_foreground_leaves_nothing(user: User) {
    let scene = Scene::new(user);
    let sandbox = "security: {capabilities_required: [filesystem-read], filesystem: {execute: [attack]}}";
    let marker = format!("marker-{}", scene.name());
    let daemonises = format!("./attack outlive {marker}; echo ready; {STUBBORN}");
    let agents = [
        Document::shell("one", &daemonises).spec("stop: {grace_period: 1s}").section(sandbox),
        polite("two"),
    ];
    let run = started(&scene, &agents);
    // Between the two there is a process for a moment.
    until(SOON, "the shell and its grandchild that wants to stay", || {
        (processes_with(&marker).len() == 2).then_some(())
    });
    run.signal(Signal::SIGKILL);
    let finished = run.finish();
    assert_eq!(finished.code, None, "killed: {finished:#?}");
    until(SOON, "everything to be gone", || {
        let left = processes_with(scene.name()).len() + toka_tests::cgroups_of(scene.name()).len();
        (left == 0).then_some(())
    });
    assert_eq!(scene.artifact("two", "end"), "two\n", "the keeper asked before it killed");
    scene.assert_nothing_left();
    let again = scene.toka_run(&[Document::shell("one", "true"), Document::shell("two", "true")], &[]);
    assert_eq!(again.code, Some(0), "the project can run again: {again:#?}");
}

fn a_killed_run_is_told_while_its_keeper_ends_it(user: User) {
    let scene = Scene::new(user);
    let stubborn = |grace: &str| {
        Document::shell("one", &format!("echo ready; {STUBBORN}"))
            .spec(&format!("stop: {{grace_period: {grace}}}"))
    };
    let run = started(&scene, &[stubborn("8s")]);
    run.signal(Signal::SIGKILL);
    // At once, while the kernel still closes what the process had.
    let looks: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| scene.toka(&["ps"]))).collect();
        all.into_iter().map(|look| look.join().expect("no panic")).collect()
    });
    let silent = looks.iter().find(|ps| ps.code != Some(69));
    assert!(silent.is_none(), "{silent:#?}");
    for words in [&["ps"][..], &["ps", "--json"], &["health"]] {
        let told = scene.toka(words);
        assert_eq!(told.code, Some(69), "{words:?}: {told:#?}");
        assert!(told.stderr.contains("its keeper ends the agents"), "{words:?}: {told:#?}");
    }
    let again = scene.toka_run(&[Document::shell("one", "true")], &[]);
    assert_eq!(again.code, Some(73), "{again:#?}");
    assert!(again.stderr.contains("was killed") && again.stderr.contains("toka down"), "{again:#?}");
    let would = scene.apply(&[Document::shell("one", "true")], &["--dry-run"]);
    assert_eq!(would.code, Some(73), "{would:#?}");
    assert!(would.stderr.contains("was killed"), "{would:#?}");
    let down = scene.toka(&["down", "--project", scene.name()]);
    assert_eq!(down.code, Some(0), "{down:#?}");
    assert!(processes_with(scene.name()).is_empty(), "it waited for that");
    run.finish();
    assert_eq!(scene.toka_run(&[Document::shell("one", "true")], &[]).code, Some(0));
    scene.assert_nothing_left();
}

/// The runner of a task list tells the daemon of each task's end; without a daemon it must not wait for one.
fn tasks_of_a_killed_run_end_when_they_are_asked_to(user: User) {
    let scene = Scene::new(user);
    let tasks = "tasks: {default: [{description: rests, run: 'echo > ~/begun; exec sleep 1000'}]}";
    let worker = Document::bare("worker").spec("stop: {grace_period: 1h}").section(tasks);
    let mut run = scene.start(&[worker], &[]);
    run.wait_for("task_started", "worker");
    run.signal(Signal::SIGKILL);
    let finished = run.finish();
    assert_eq!(finished.code, None, "killed: {finished:#?}");
    until(SOON, "everything to be gone", || processes_with(scene.name()).is_empty().then_some(()));
    scene.assert_nothing_left();
    // Its own process could not write down that it is over: `down` does, or the next run.
    let told = |words: &[&str]| scene.toka(&[words, &["--project", scene.name()]].concat());
    let journal = || told(&["events", "--json"]).events();
    assert!(!journal().iter().any(|event| event["type"] == "run_ended"));
    assert_eq!(told(&["down"]).code, Some(0));
    let ended = |kind: &str| journal().iter().filter(|event| event["type"] == kind).count();
    assert_eq!((ended("agent_ended"), ended("run_ended")), (1, 1), "{:#?}", journal());
    let end = journal().into_iter().find(|event| event["type"] == "run_ended").expect("an end");
    assert_eq!((&end["exit_code"], ended("run_ending")), (&137.into(), 0), "its process was killed: {end}");
    assert_eq!(told(&["down"]).code, Some(69), "nothing is open any more");
    scene.assert_nothing_left();
}

/// What runs elsewhere changes nothing about it, and a kill waits for no grace period where there are groups.
fn a_killed_run_is_told_beside_others_and_can_be_killed(user: User) {
    let scene = Scene::new(user);
    let stubborn =
        Document::shell("one", &format!("echo ready; {STUBBORN}")).spec("stop: {grace_period: 1h}");
    let run = started(&scene, &[stubborn]);
    let other = [Document::service("other", "exec sleep 1000")];
    let begun = scene.toka_run(&other, &["--detach", "--project", "another"]);
    assert_eq!(begun.code, Some(0), "{begun:#?}");
    run.signal(Signal::SIGKILL);
    let own = ["ps", "--project", scene.name()];
    until(SOON, "the end of the run's own process", || (scene.toka(&own).code == Some(69)).then_some(()));
    for words in [&["ps"][..], &["health"]] {
        let told = scene.toka(words);
        assert_eq!(told.code, Some(0), "{words:?}: {told:#?}");
        assert!(told.stderr.contains("its keeper ends the agents"), "{words:?}: {told:#?}");
    }
    let told = scene.toka(&["health", "--project", scene.name()]);
    assert_eq!(told.code, Some(69), "{told:#?}");
    if require(&[Need::Cgroups]) && user != User::Ordinary {
        let down = scene.toka(&["down", "--kill"]);
        assert_eq!((down.code, down.stdout), (Some(0), format!("{} is down\n", scene.name())));
    } else {
        let agent = processes_with(&format!("{}/agents/one", scene.name()));
        for pid in agent {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    run.finish();
    let down = scene.toka(&["down", "--all", "--kill"]);
    assert_eq!(down.code, Some(0), "{down:#?}");
    scene.assert_nothing_left();
}

fn a_project_runs_once_at_a_time(user: User) {
    let scene = Scene::new(user);
    let run = started(&scene, &[polite("one")]);
    let second = scene.toka_run(&[polite("one")], &[]);
    assert!(
        !matches!(second.code, None | Some(0 | 70)),
        "refused, and not as a fault of Toka's: {second:#?}"
    );
    assert!(second.stderr.contains("already running"), "it says why: {second:#?}");
    assert!(second.stderr.contains("--project"), "and what helps: {second:#?}");
    let other = scene.toka_run(&[Document::shell("one", "true")], &["--project", "another"]);
    assert_eq!(other.code, Some(0), "{other:#?}");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.finish().code, Some(143));
    scene.assert_nothing_left();
}

fn an_agent_that_closes_its_own_folders_keeps_nobody_from_the_next_run(user: User) {
    let scene = Scene::new(user);
    let close = "mkdir -p \"$TMPDIR/in\"; chmod 000 \"$TMPDIR/in\" \"$TMPDIR\" \"$TOKA_ARTIFACTS\"";
    for _ in 0..2 {
        let finished = scene.toka_run(&[Document::shell("sulky", close)], &[]);
        assert_eq!(finished.code, Some(0), "{finished:#?}");
    }
}
