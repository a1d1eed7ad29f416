//! A daemon that is ended by a signal, and the one that goes on: what it stopped goes on as after a crash, and nothing else does.

mod survive_support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use survive_support::{daemon_pid, eventually, keeper_pid, kill_daemon, serve_again, starts_of};
use toka_tests::{Detached, Document, Scene, User, as_both_users};

as_both_users!(
    what_a_person_stopped_the_clock_owns_or_nobody_restarts_stays_so,
    what_was_stopping_when_the_daemon_was_killed_goes_on_once,
    what_was_to_begin_anew_does_so_in_the_next_daemon,
    a_change_that_was_not_done_leaves_what_was_declared_whole,
    one_that_cannot_go_on_yet_does_when_it_can,
    one_whose_folder_is_not_there_yet_waits_for_it,
    a_run_that_nobody_drives_is_brought_down,
    what_goes_on_without_its_daemon_is_not_nothing,
    what_a_daemon_has_left_already_is_brought_down_with_the_rest,
    a_project_whose_keeper_hangs_ends_when_it_goes_on,
    what_waits_for_a_person_or_a_time_waits_for_it_in_the_next_daemon,
    an_end_of_the_past_ends_no_run_that_was_changed_since,
    what_waits_for_readiness_waits_for_it_in_the_next_daemon,
);

/// Ends by nothing but a file, and waits for the next in its next life.
const DEAF: &str = "trap '' TERM; until [ -e ~/go ]; do sleep 0.02; done; rm ~/go";
const LONG: &str = "stop: {grace_period: 1000s}";

fn terminate(scene: &Scene) {
    kill(Pid::from_raw(daemon_pid(scene)), Signal::SIGTERM).expect("it runs");
}

fn terminate_and_wait(scene: &Scene) {
    terminate(scene);
    is_gone(scene);
}

fn is_gone(scene: &Scene) {
    eventually("the daemon has ended", || scene.toka(&["ps"]).stdout == "nothing runs\n");
}

fn release(scene: &Scene, agent: &str) {
    let agents = scene.state().join("projects").join(scene.name()).join("agents");
    scene.write(&agents.join(agent).join("home/go"), "");
}

fn comes_to(detached: &Detached<'_>, agent: &str, state: &str) {
    eventually(&format!("{agent} is {state}"), || detached.state(agent) == state);
}

/// Also after a change of them, and whoever depends on them.
fn what_waits_for_a_person_or_a_time_waits_for_it_in_the_next_daemon(user: User) {
    let scene = Scene::new(user);
    let agents = |script: &str| {
        [
            Document::shell("deploy", script).spec("start: manual"),
            Document::shell("after", "true").after(&["deploy"]),
            Document::shell("nightly", script).spec("schedule: {cron: '@yearly'}"),
            Document::service("api", "exec sleep 1000"),
        ]
    };
    let detached = scene.detach(&agents("true"));
    comes_to(&detached, "api", "running");
    let applied = scene.apply(&agents("echo other"), &[]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    let all_wait = || {
        for agent in ["deploy", "after", "nightly"] {
            assert_eq!(
                (detached.state(agent).as_str(), starts_of(&detached, agent)),
                ("pending", 0),
                "{agent}"
            );
        }
    };
    all_wait();
    kill_daemon(&scene);
    serve_again(&scene);
    comes_to(&detached, "api", "running");
    all_wait();
    terminate_and_wait(&scene);
    serve_again(&scene);
    comes_to(&detached, "api", "running");
    all_wait();
    detached.toka(&["start", "deploy"]);
    comes_to(&detached, "after", "ended");
}

fn an_end_of_the_past_ends_no_run_that_was_changed_since(user: User) {
    let scene = Scene::new(user);
    let agents = |more: &str| {
        [Document::shell("fails", "exit 1").spec(more), Document::service("api", "exec sleep 1000")]
    };
    let detached = scene.detach(&agents("description: before"));
    comes_to(&detached, "fails", "ended");
    comes_to(&detached, "api", "running");
    let applied = scene.apply(&agents("on_end: {failure: stop-run}"), &["--fail-fast"]);
    assert!(applied.stdout.contains("= fails  goes on: spec.description, spec.on_end"), "{applied:#?}");
    assert!(applied.stdout.contains("= --fail-fast is on"), "{applied:#?}");
    kill_daemon(&scene);
    serve_again(&scene);
    comes_to(&detached, "api", "running");
    assert_eq!(starts_of(&detached, "api"), 1);
    // What happens from now on counts.
    detached.try_toka(&["start", "--no-wait", "fails"]);
    is_over(&scene);
}

fn is_over(scene: &Scene) {
    eventually("the run is over", || scene.toka(&["ps", "--quiet"]).stdout.is_empty());
}

fn what_waits_for_readiness_waits_for_it_in_the_next_daemon(user: User) {
    let scene = Scene::new(user);
    let up = scene.workspace().join("up");
    scene.write(&up, "");
    let reads = "security: {capabilities_required: [filesystem-read]}";
    let probe = "readiness_probe: {exec: {command: [test, -e, up]}, period: 50ms, failure_threshold: 1}";
    let needs = |name: &str, restart: &str| {
        Document::service(name, "while test -e up; do sleep 0.02; done; exit 1")
            .spec(restart)
            .section("dependencies: {required: {db: {condition: ready}}}")
            .section(reads)
    };
    let detached = scene.detach(&[
        Document::service("db", "exec sleep 1000").spec(probe).section(reads),
        needs("api", "restart: {policy: always, max_restarts: 0}"),
        needs("page", "restart: {policy: always, backoff: {initial: 300ms}}"),
    ]);
    for agent in ["api", "page"] {
        comes_to(&detached, agent, "running");
    }
    std::fs::remove_file(&up).expect("removed");
    comes_to(&detached, "api", "quarantined");
    eventually("page waits", || !detached.inspect("page")["waits"].is_null());
    kill_daemon(&scene);
    serve_again(&scene);
    comes_to(&detached, "api", "quarantined");
    comes_to(&detached, "page", "backoff");
    assert_eq!(starts_of(&detached, "page"), 1, "it does not try while db is away");
    scene.write(&up, "");
    for agent in ["api", "page"] {
        comes_to(&detached, agent, "running");
        assert_eq!(starts_of(&detached, agent), 2, "{agent}");
    }
}

fn what_a_person_stopped_the_clock_owns_or_nobody_restarts_stays_so(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[
        Document::service("db", "echo up; exec sleep 1000").spec("readiness_probe: {log_line: up}"),
        Document::service("api", "exec sleep 1000")
            .section("dependencies: {required: {db: {reason: it serves, condition: ready}}}"),
        Document::shell("nightly", "true").spec("schedule: {cron: '@yearly'}"),
        Document::shell("report", "true").after(&["nightly"]),
        Document::shell("once", "exec sleep 1000"),
        Document::shell("then", "true").after(&["once"]),
        Document::shell("limited", "exec sleep 1000").spec("restart: {policy: on-watchdog}"),
        Document::shell("failing", "exit 3").spec("restart: {policy: on-abnormal, max_restarts: 9}"),
    ]);
    for agent in ["api", "once", "limited"] {
        comes_to(&detached, agent, "running");
    }
    comes_to(&detached, "failing", "ended");
    detached.toka(&["stop", "db"]);
    terminate_and_wait(&scene);
    serve_again(&scene);
    comes_to(&detached, "api", "running");
    comes_to(&detached, "then", "blocked");
    for (agent, state, starts) in [
        ("db", "ended", 1),
        ("api", "running", 2),
        ("nightly", "pending", 0),
        ("report", "pending", 0),
        ("once", "ended", 1),
        ("then", "blocked", 0),
        ("limited", "ended", 1),
        ("failing", "ended", 1),
    ] {
        assert_eq!((detached.state(agent).as_str(), starts_of(&detached, agent)), (state, starts), "{agent}");
    }
    // The clock still owns it, and so it does after a crash.
    kill_daemon(&scene);
    serve_again(&scene);
    assert_eq!([detached.state("nightly"), detached.state("report")], ["pending", "pending"]);
    detached.toka(&["start", "--no-wait", "nightly"]);
    detached.toka(&["wait", "nightly", "report"]);
}

fn what_was_stopping_when_the_daemon_was_killed_goes_on_once(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[
        Document::service("deaf", DEAF).spec(LONG),
        Document::service("unwanted", DEAF).spec(LONG),
    ]);
    for agent in ["deaf", "unwanted"] {
        comes_to(&detached, agent, "running");
    }
    terminate(&scene);
    for agent in ["deaf", "unwanted"] {
        comes_to(&detached, agent, "stopping");
    }
    kill_daemon(&scene);
    serve_again(&scene);
    assert_eq!(detached.state("deaf"), "stopping");
    detached.toka(&["stop", "--no-wait", "unwanted"]);
    for agent in ["deaf", "unwanted"] {
        release(&scene, agent);
    }
    eventually("it goes on", || starts_of(&detached, "deaf") == 2);
    comes_to(&detached, "unwanted", "ended");
    detached.toka(&["stop", "--no-wait", "deaf"]);
    release(&scene, "deaf");
    comes_to(&detached, "deaf", "ended");
    detached.toka(&["upgrade"]);
    assert_eq!(["deaf", "unwanted"].map(|agent| detached.state(agent)), ["ended", "ended"]);
    assert_eq!(["deaf", "unwanted"].map(|agent| starts_of(&detached, agent)), [2, 1]);
}

fn what_was_to_begin_anew_does_so_in_the_next_daemon(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[
        Document::service("restarted", DEAF).spec(LONG),
        Document::service("stopped", DEAF).spec(LONG),
    ]);
    for (agent, request) in [("restarted", "restart"), ("stopped", "stop")] {
        comes_to(&detached, agent, "running");
        detached.toka(&[request, "--no-wait", agent]);
        comes_to(&detached, agent, "stopping");
    }
    terminate(&scene);
    for agent in ["restarted", "stopped"] {
        release(&scene, agent);
    }
    is_gone(&scene);
    serve_again(&scene);
    eventually("it begins anew", || starts_of(&detached, "restarted") == 2);
    assert_eq!((detached.state("stopped").as_str(), starts_of(&detached, "stopped")), ("ended", 1));
    release(&scene, "restarted");
}

fn a_change_that_was_not_done_leaves_what_was_declared_whole(user: User) {
    let scene =
        Scene::new(user).env("FORMER", "former-value").env("LATER", "later-value").env("TOKA_TRUST", "all");
    let seeing = |variable: &str| {
        let line = format!("echo ${variable}; {DEAF}");
        Document::bare("changed")
            .spec(&format!("process: {{shell: {line:?}, environment_from: [{variable}]}}"))
            .spec(LONG)
            .spec("restart: {policy: on-failure}")
    };
    let detached = scene.detach(&[seeing("FORMER")]);
    comes_to(&detached, "changed", "running");
    std::thread::scope(|scope| {
        let apply = scope.spawn(|| scene.apply(&[seeing("LATER")], &[]));
        comes_to(&detached, "changed", "stopping");
        terminate(&scene);
        release(&scene, "changed");
        let applied = apply.join().expect("it ends");
        assert_ne!(applied.code, Some(0), "{applied:#?}");
    });
    is_gone(&scene);
    serve_again(&scene);
    let log = scene.state().join("projects").join(scene.name()).join("agents/changed/log");
    let seen = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("it begins anew", || seen() == "former-value\nformer-value\n");
}

fn one_that_cannot_go_on_yet_does_when_it_can(user: User) {
    let scene = Scene::new(user).env("KEY", "s3cret-value").env("TOKA_TRUST", "all");
    let secret = |name: &str| Document::service(name, "exec sleep 1000").spec("secrets: {key: {env: KEY}}");
    let agents = [secret("keyed"), secret("unwanted"), Document::service("plain", "exec sleep 1000")];
    let detached = scene.detach(&agents);
    for agent in ["keyed", "unwanted", "plain"] {
        comes_to(&detached, agent, "running");
    }
    // The daemon after the next one still knows of it.
    for round in 2..4 {
        terminate_and_wait(&scene);
        serve_again(&scene);
        eventually("the others go on", || starts_of(&detached, "plain") == round);
        let health = detached.try_toka(&["health", "keyed"]);
        let text = health.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in ["cannot go on", "KEY, which is not set", "toka apply"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert_eq!(starts_of(&detached, "keyed"), 1);
    }
    detached.toka(&["stop", "unwanted"]);
    let applied = scene.apply(&agents, &[]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    comes_to(&detached, "keyed", "running");
    assert_eq!((detached.state("unwanted").as_str(), starts_of(&detached, "unwanted")), ("ended", 1));
    assert!(!detached.try_toka(&["health"]).stdout.contains("cannot go on"));
    terminate_and_wait(&scene);
    serve_again(&scene);
    assert!(!detached.try_toka(&["health", "unwanted"]).stdout.contains("cannot go on"));
}

fn one_whose_folder_is_not_there_yet_waits_for_it(user: User) {
    let scene = Scene::new(user);
    let (folder, away) = (scene.workspace().join("sub"), scene.workspace().join("away"));
    scene.make_folder(&folder);
    let process = "process: {shell: 'exec sleep 1000', working_dir: sub}";
    let agents = [Document::bare("inside").spec(process).spec("type: service")];
    let detached = scene.detach(&agents);
    comes_to(&detached, "inside", "running");
    terminate_and_wait(&scene);
    std::fs::rename(&folder, &away).expect("ours");
    serve_again(&scene);
    eventually("it is told", || detached.try_toka(&["health"]).stdout.contains("cannot go on"));
    assert_eq!(detached.inspect("inside")["exit"]["cause"], "stopped");
    std::fs::rename(&away, &folder).expect("ours");
    let applied = scene.apply(&agents, &[]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    comes_to(&detached, "inside", "running");
}

fn a_run_that_nobody_drives_is_brought_down(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[Document::service("idle", "exec sleep 1000")]);
    comes_to(&detached, "idle", "running");
    terminate_and_wait(&scene);
    assert_eq!(detached.toka(&["down"]).stdout, format!("{} is down\n", scene.name()));
    assert_eq!(detached.try_toka(&["down"]).code, Some(69), "it is");
    serve_again(&scene);
    assert_eq!(scene.toka(&["ps", "--json"]).stdout.trim(), "[]");
}

/// Its keeper goes on with it: what is to be ended needs a daemon first.
fn what_goes_on_without_its_daemon_is_not_nothing(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[Document::service("idle", "exec sleep 1000")]);
    comes_to(&detached, "idle", "running");
    kill(Pid::from_raw(daemon_pid(&scene)), Signal::SIGKILL).expect("it runs");
    eventually("the daemon is gone", || scene.toka(&["ps"]).code == Some(69));
    for words in [&["down", "--all"][..], &["down", "--all", "--kill"]] {
        let down = scene.toka(words);
        assert_eq!((down.code, down.stdout.as_str()), (Some(69), ""), "{down:#?}");
        assert!(
            down.stderr.contains("the daemon is gone, and no other looks after what it ran"),
            "{down:#?}"
        );
    }
    serve_again(&scene);
}

fn what_a_daemon_has_left_already_is_brought_down_with_the_rest(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[Document::service("idle", "exec sleep 1000")]);
    comes_to(&detached, "idle", "running");
    std::fs::remove_dir_all(scene.folder().join("workstreams")).expect("it was written");
    let other = ["--detach", "--project", "other"];
    let began = scene.toka_run(&[Document::service("deaf", DEAF).spec(LONG)], &other);
    assert_eq!(began.code, Some(0), "{began:#?}");
    let shown = |word: &str| scene.toka(&["ps", "--json"]).stdout.contains(word);
    eventually("both run", || shown("idle") && shown("deaf"));
    terminate(&scene);
    eventually("one has ended", || !shown("idle") && shown("deaf"));
    let down = scene.toka(&["down", "--all", "--kill"]);
    for line in [&format!("{} is down", scene.name()), "other is down", "the daemon has ended"] {
        assert!(down.stdout.contains(line), "{down:#?}");
    }
    serve_again(&scene);
    assert_eq!(scene.toka(&["ps", "--json"]).stdout.trim(), "[]");
}

fn a_project_whose_keeper_hangs_ends_when_it_goes_on(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[Document::service("idle", "exec sleep 1000")]);
    comes_to(&detached, "idle", "running");
    let keeper = Pid::from_raw(keeper_pid(&scene));
    kill(keeper, Signal::SIGSTOP).expect("it is ours");
    let down = detached.try_toka(&["down"]);
    let events = detached.toka(&["events", "--json", "--kind", "run_ending"]).events();
    kill(keeper, Signal::SIGCONT).expect("it is ours");
    assert_eq!(down.code, Some(69), "{down:#?}");
    assert!(down.stderr.contains("its agents end when it goes on"), "{down:#?}");
    assert_eq!(events.len(), 1, "{events:#?}");
    eventually("it has ended", || scene.toka(&["ps", "--json"]).stdout.trim() == "[]");
}
