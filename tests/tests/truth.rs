//! No end is told as another, and every wait, block and refusal names its reason: in text and in JSON.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use toka_tests::{Document, Finished, Need, Scene, User, as_both_users, require, toka_binary, until};

const PATIENCE: Duration = Duration::from_secs(20);

as_both_users!(
    a_state_folder_that_is_not_there_is_said,
    one_that_had_to_be_killed_is_told_apart_from_one_that_went,
    who_is_blocked_knows_by_what_and_why,
    who_waits_says_for_what,
    a_start_that_comes_to_nothing_says_so,
    a_restart_that_something_overtakes_is_no_success,
    a_wait_for_readiness_that_never_was_is_no_success,
    who_comes_back_again_and_again_is_not_healthy,
    a_wall_that_an_agent_speaks_of_is_told_with_what_opens_it,
    the_patch_that_is_told_opens_the_wall,
    an_objective_that_is_not_met_is_told_wherever_ends_are,
    what_is_left_running_is_killed_and_told,
);

fn exit_code_of(finished: &Finished, expected: i32) {
    assert_eq!(finished.code, Some(expected), "{finished:#?}");
}

/// Text without its layout: tables wrap.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn a_state_folder_that_is_not_there_is_said(user: User) {
    let scene = Scene::new(user);
    let nowhere = scene.folder().join("nowhere").display().to_string();
    let toka = toka_binary().display().to_string();
    for words in [
        &["ps"][..],
        &["ps", "--json"],
        &["top"],
        &["health"],
        &["stop", "x"],
        &["wait", "x"],
        &["events"],
        &["down"],
        &["inspect", "x"],
    ] {
        let finished = scene.run(&[&[toka.as_str()], words, &["--state-dir", &nowhere]].concat());
        exit_code_of(&finished, 69);
        assert!(
            flat(&finished.stderr).contains(&format!("there is no state folder {nowhere}")),
            "{words:?}: {finished:#?}"
        );
        assert!(!scene.folder().join("nowhere").exists(), "{words:?} makes none");
    }
}

fn one_that_had_to_be_killed_is_told_apart_from_one_that_went(user: User) {
    let scene = Scene::new(user);
    let deaf = "trap '' INT; echo up; while :; do sleep 0.05; done";
    let goes = "trap 'exit 0' INT; echo up; while :; do sleep 0.05; done";
    let service = |name: &str, script: &str| {
        Document::service(name, script)
            .spec("stop: {signal: SIGINT, grace_period: 300ms}")
            .spec("readiness_probe: {log_line: up}")
    };
    let work = Document::shell("work", "true")
        .section("dependencies: {required: {deaf: {condition: ready}, goes: {condition: ready}}}");
    let agents = [service("deaf", deaf), service("goes", goes), work];
    let plain = scene.toka_run(&agents, &[]);
    exit_code_of(&plain, 0);
    let text = flat(&plain.stdout);
    assert!(text.contains("deaf stopped by end of run (killed after 300ms)"), "{plain:#?}");
    assert!(!text.contains("goes stopped by end of run (killed"), "{plain:#?}");
    let json = scene.toka_run(&agents, &["--json"]);
    assert_eq!(json.exit_of("deaf")["killed_after"]["nanos"], 300_000_000, "{json:#?}");
    assert!(json.exit_of("goes")["killed_after"].is_null(), "{json:#?}");
}

fn who_is_blocked_knows_by_what_and_why(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell("s", "echo starting"),
        Document::shell("d", "true")
            .section("dependencies: {required: {s: {reason: r, condition: {log_line: ready to serve}}}}"),
        Document::shell("e", "true").after(&["d"]),
    ];
    let plain = scene.toka_run(&agents, &[]);
    exit_code_of(&plain, 1);
    let why = "blocked by s: s succeeded without writing \"ready to serve\"";
    let text = flat(&plain.stdout);
    assert_eq!(text.matches(&format!("d: {why}")).count(), 1, "{plain:#?}");
    assert_eq!(
        text.matches(&format!("e: {why}")).count(),
        1,
        "who depends on it is told the same: {plain:#?}"
    );
    assert!(text.contains("d.yaml:"), "the line that asks for it: {plain:#?}");
    let json = scene.toka_run(&agents, &["--json"]);
    let blocked = json.events().into_iter().find(|event| event["type"] == "agent_blocked").expect("an event");
    assert_eq!(blocked["why"]["on"], "s");
    assert_eq!(blocked["why"]["condition"], "log line \"ready to serve\"");
    let summary = json.events().pop().expect("a summary");
    assert!(summary["agents"].to_string().contains("blocked_why"), "{summary}");
}

fn waiting() -> [Document; 2] {
    let probe =
        "readiness_probe: {exec: {command: [test, -e, gate]}, period: 100ms, failure_threshold: 9999}";
    [
        Document::service("a", "while :; do test -e gone && exit 3; sleep 0.05; done")
            .spec(probe)
            .spec("restart: \"no\"")
            .section("security: {capabilities_required: [filesystem-read]}"),
        Document::service("b", "sleep 600").section("dependencies: {required: {a: {condition: ready}}}"),
    ]
}

fn who_waits_says_for_what(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&waiting());
    let unmet = detached.inspect("b");
    assert_eq!(unmet["waits"]["on"], "a", "{unmet}");
    assert_eq!(unmet["waits"]["text"], "a is not ready");
    for words in [&["ps"][..], &["health"], &["health", "b"]] {
        let shown = flat(&detached.toka(words).stdout);
        assert!(shown.contains("a is not ready"), "{words:?}: {shown}");
    }
}

fn a_start_that_comes_to_nothing_says_so(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&waiting());
    detached.toka(&["stop", "b"]);
    let (started, ()) = std::thread::scope(|scope| {
        let start = scope.spawn(|| detached.try_toka(&["start", "b"]));
        // What it waits for ends: it never comes.
        scene.write(&scene.workspace().join("gone"), "");
        (start.join().expect("it returns"), ())
    });
    exit_code_of(&started, 1);
    assert!(started.stdout.contains("not started: a ended without being ready: exit code 3"), "{started:#?}");

    // A restart that somebody overtakes returns at once, and is no success.
    let deaf = Document::service("deaf", "trap '' TERM; echo up; while :; do sleep 0.05; done")
        .spec("stop: {grace_period: 2s}")
        .spec("readiness_probe: {log_line: up}");
    let other = Scene::new(user);
    let detached = other.detach(&[deaf]);
    detached.toka(&["wait", "--for", "ready", "deaf"]);
    let restarted = std::thread::scope(|scope| {
        let restart = scope.spawn(|| detached.try_toka(&["restart", "deaf"]));
        while detached.state("deaf") != "stopping" {
            std::thread::sleep(Duration::from_millis(10));
        }
        detached.toka(&["stop", "deaf"]);
        restart.join().expect("it returns")
    });
    exit_code_of(&restarted, 1);
    assert!(restarted.stdout.contains("not restarted: stopped by operator"), "{restarted:#?}");
}

fn a_restart_that_something_overtakes_is_no_success(user: User) {
    let slow = |name: &str| {
        let script = "trap 'echo > ~/asked; until [ -e ~/go ]; do sleep 0.02; done; exit 0' TERM; while :; do sleep 0.02; done";
        Document::service(name, script).spec("stop: {grace_period: 60s}")
    };
    for overtakes in ["down", "apply"] {
        let scene = Scene::new(user);
        let other = Document::service("other", "exec sleep 1000");
        let any = "metadata: {name: any}\nspec: {process: {shell: 'true'}}\n";
        scene.write(&scene.workspace().join("any.yaml"), any);
        let detached = scene.detach(&[slow("slow"), other.clone()]);
        until(PATIENCE, "it runs", || (detached.state("slow") == "running").then_some(()));
        let line = ["restart", "slow", "--project", scene.name(), "--state-dir"].map(OsString::from);
        let line = [&[toka_binary().into()], &line[..], &[scene.state().into()]].concat();
        let restart =
            scene.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("toka");
        let home = scene.state().join("projects").join(scene.name()).join("agents/slow/home");
        until(PATIENCE, "it is asked to stop", || home.join("asked").exists().then_some(()));
        std::thread::scope(|scope| {
            let overtaken = scope.spawn(|| match overtakes {
                "down" => detached.toka(&["down"]),
                _ => scene.apply(std::slice::from_ref(&other), &[]),
            });
            let is_asked = || match overtakes {
                "down" => detached
                    .try_toka(&["events", "--json", "--kind", "run_ending"])
                    .stdout
                    .contains("run_ending"),
                _ => {
                    let asked = detached.try_toka(&["apply", "--dry-run", "any.yaml"]);
                    asked.stderr.contains("another change of the project is under way")
                }
            };
            until(PATIENCE, "it is overtaken", || is_asked().then_some(()));
            std::fs::write(home.join("go"), "").expect("its home");
            assert_eq!(overtaken.join().expect("no panic").code, Some(0), "{overtakes}");
        });
        let restart = Finished::from(restart.wait_with_output().expect("its end"));
        exit_code_of(&restart, 1);
        assert!(restart.stdout.starts_with("slow  not restarted: "), "{overtakes}: {restart:#?}");
    }
}

fn a_wait_for_readiness_that_never_was_is_no_success(user: User) {
    let scene = Scene::new(user);
    let never = Document::service("never", "sleep 0.3")
        .spec("readiness_probe: {exec: {command: ['false']}, period: 100ms, failure_threshold: 99}")
        .spec("restart: \"no\"");
    let was = Document::service("was", "echo up; sleep 0.3")
        .spec("readiness_probe: {log_line: up}")
        .spec("restart: \"no\"");
    let detached = scene.detach(&[never, was]);
    let waited = detached.try_toka(&["wait", "--for", "ready", "never"]);
    exit_code_of(&waited, 1);
    assert!(waited.stderr.contains("never: it ended without being ready: succeeded"), "{waited:#?}");
    detached.toka(&["wait", "was"]);
    exit_code_of(&detached.try_toka(&["wait", "--for", "ready", "was"]), 0);
    // It is the agent that `ps` tells of, with its kind and its title.
    let waited: Value =
        serde_json::from_str(&detached.toka(&["wait", "--json", "was"]).stdout).expect("JSON");
    let listed: Value = serde_json::from_str(&detached.toka(&["ps", "--json", "was"]).stdout).expect("JSON");
    assert_eq!(waited[0], listed[0]["agents"][0]);
    assert_eq!(waited[0]["kind"], "service");
}

fn who_comes_back_again_and_again_is_not_healthy(user: User) {
    let scene = Scene::new(user);
    let flaps = Document::service(
        "flaps",
        "test -e two && exec sleep 600; test -e one && touch two || touch one; exit 4",
    )
    .spec("restart: {policy: always, max_restarts: 9, backoff: {initial: 1ms}}")
    .section("security: {capabilities_required: [filesystem-read, filesystem-write]}");
    let detached = scene.detach(&[flaps]);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while detached.inspect("flaps")["restart_count"] != 2 || detached.state("flaps") != "running" {
        assert!(std::time::Instant::now() < deadline, "{}", detached.inspect("flaps"));
        std::thread::sleep(Duration::from_millis(10));
    }
    let health: Value =
        serde_json::from_str(&detached.try_toka(&["health", "flaps", "--json"]).stdout).expect("JSON");
    let text = health.to_string();
    assert!(text.contains("\"degraded\"") && text.contains("\"restarted\""), "{health}");
    let shown = flat(&detached.try_toka(&["health"]).stdout);
    assert!(shown.contains("restarted 2 times within 10m00s, last after: exit code 4"), "{shown}");
}

fn a_wall_that_an_agent_speaks_of_is_told_with_what_opens_it(user: User) {
    let scene = Scene::new(user);
    let script = "python3 -c 'import socket; socket.socket()'";
    let agent =
        Document::shell("talks", script).section("security: {capabilities_required: [python-execution]}");
    let plain = scene.toka_run(&[agent], &[]);
    exit_code_of(&plain, 1);
    let text = flat(&plain.stdout);
    assert!(
        text.contains("hint: it wrote") && text.contains("`security.network` gives it one"),
        "{plain:#?}"
    );
    // What is closed in a directory that it may write leads to another key than what is not open.
    scene.make_folder(&scene.workspace().join("agents"));
    let plants = Document::shell("plants", "echo x > agents/new.py")
        .section("security: {capabilities_required: [filesystem-read, filesystem-write]}");
    let text = flat(&scene.toka_run(&[plants], &[]).stdout);
    assert!(text.contains("`declaration-write` opens it"), "{text}");
    if user == User::Root {
        let others = Scene::new(User::Ordinary);
        let writes = Document::shell("writes", "echo x > new.txt")
            .section("security: {capabilities_required: [filesystem-read, filesystem-write]}");
        let root = Scene::new(user);
        let mut words = root.run_words(&[writes], &[]);
        let at = words.iter().position(|word| word == "--workdir").expect("the option");
        words[at + 1] = others.workspace().into();
        let theirs = root.run(&words);
        assert!(flat(&theirs.stdout).contains("`spec.process.user` makes it"), "{theirs:#?}");
    }
    let other = Document::shell("fails", "echo nothing of the kind; exit 3");
    assert!(!Scene::new(user).toka_run(&[other], &[]).stdout.contains("hint: "));
}

/// What is told is put into the declaration as it stands, and the agent does what it could not.
fn the_patch_that_is_told_opens_the_wall(user: User) {
    let scene = Scene::new(user);
    for (name, line, key) in
        [("reads", "cat docs/guide.txt", "read"), ("writes", "echo x > docs/new.txt", "write")]
    {
        let reads = if key == "write" { "filesystem-read" } else { "" };
        let agent = |patch: &str| {
            let section = format!("security: {{capabilities_required: [{reads}]{patch}}}");
            Document::shell(name, line).section(&section)
        };
        let refused = scene.toka_run(&[agent("")], &["--json"]);
        assert_ne!(refused.code, Some(0), "{refused:#?}");
        let hint = refused.all("agent_hint", name).pop().unwrap_or_else(|| panic!("{refused:#?}"));
        let (told, path) = (hint["opening"]["key"].as_str(), hint["opening"]["path"].as_str());
        assert_eq!(told, Some(key), "{hint}");
        if key == "write" {
            assert!(hint["origin"]["file"]["line"].as_u64() >= Some(4), "{hint}");
        }
        let patch = format!(", filesystem: {{{key}: [{}]}}", path.expect("a path"));
        let text = flat(&scene.toka(&["events", "--project", scene.name(), "--kind", "agent_hint"]).stdout);
        assert!(text.contains(&format!("opens it: security: {{{}}}", &patch[2..])), "{text}");
        let opened = scene.toka_run(&[agent(&patch)], &[]);
        assert_eq!(opened.code, Some(0), "{opened:#?}");
        std::fs::remove_file(scene.folder().join("workstreams").join(format!("{name}.yaml"))).expect("there");
    }
}

/// Under version 1 of control groups `tasks` is a file in every group: an agent may be called so all the same.
fn what_is_left_running_is_killed_and_told(user: User) {
    let scene = Scene::new(user);
    let agents = [
        // A shell's child has the shell's name until it executes its program.
        Document::shell("lingers", "sleep 1000 & until grep -q sleep /proc/$!/comm; do :; done; echo x | cat"),
        Document::shell("tidy", "for i in 1 2 3 4 5 6 7 8 9; do seq 1000 | head -1; done"),
        Document::bare("tasks")
            .section("tasks: {default: [{description: leaves, run: 'sleep 1000 & until grep -q sleep /proc/$!/comm; do :; done'}]}"),
        Document::service("stopped", "sleep 1000 & wait")
            .spec("readiness_probe: {exec: {command: [\"true\"]}}"),
        Document::shell("waits", "true").section("dependencies: {required: {stopped: {condition: ready}}}"),
    ];
    let ran = scene.toka_run(&agents, &["--follow"]);
    exit_code_of(&ran, 0);
    let text = flat(&ran.stdout);
    if user == User::Root {
        assert!(
            text.contains("lingers: warning: it left 1 process running (sleep), killed with it"),
            "{text}"
        );
    }
    assert!(text.contains("\"leaves\" left sleep running in the background: killed with it"), "{text}");
    for quiet in ["tidy", "stopped", "waits"] {
        assert!(!text.contains(&format!("{quiet}: warning")), "{quiet}: {text}");
    }
    scene.assert_nothing_left();
}

fn an_objective_that_is_not_met_is_told_wherever_ends_are(user: User) {
    let scene = Scene::new(user);
    let agent = Document::shell("a", "exit 0")
        .section("objectives: [{description: the report is there, check: \"test -s report.txt\"}]");
    let detached = scene.detach(std::slice::from_ref(&agent));
    detached.toka(&["wait"]);
    let unmet = "succeeded; objective not met: the report is there";
    for words in [&["ps"][..], &["health"]] {
        let shown = flat(&detached.try_toka(words).stdout);
        assert!(shown.contains("objective not met: the report is there"), "{words:?}: {shown}");
    }
    drop(detached);
    let plain = scene.toka_run(std::slice::from_ref(&agent), &[]);
    exit_code_of(&plain, 0);
    assert!(flat(&plain.stdout).contains(unmet), "{plain:#?}");
    let summary = scene.toka_run(&[agent], &["--json"]).events().pop().expect("a summary");
    assert_eq!(summary["agents"][0]["unmet"][0], "the report is there", "{summary}");
}

#[test]
fn one_that_lives_on_after_a_kill_for_memory_is_told_so_while_it_lives() {
    let Some(scene) = User::root().filter(|_| require(&[Need::Root])).map(Scene::new) else { return };
    scene.write(&scene.workspace().join("eat.py"), "b = []\nwhile True: b.append(b'x' * (8 << 20))\n");
    let limits = "security: {capabilities_required: [filesystem-read], resource_limits: {max_memory: 64MB}}";
    let script = "/usr/bin/python3 eat.py; exec sleep 1000";
    let detached = scene.detach(&[Document::service("eats", script).section(limits)]);
    let told = || (detached.inspect("eats")["oom_kills"] == 1).then_some(());
    until(PATIENCE, "the kill to be told", told);
    assert_eq!(detached.state("eats"), "running");
    let said = "the kernel killed a process of it for memory";
    let shown = flat(&detached.toka(&["ps"]).stdout);
    assert!(shown.contains(said), "{shown}");
    let events = flat(&detached.toka(&["events"]).stdout);
    assert_eq!(events.matches(said).count(), 1, "{events}");
    // One that was executed beside it has a group of its own below the agent's, which goes with it.
    let killed = scene.exec_beside("eats", &[], &["/usr/bin/python3", "eat.py"]).output().expect("it starts");
    assert_eq!(killed.status.code(), Some(137), "{killed:?}");
    until(PATIENCE, "both kills to be told", || (detached.inspect("eats")["oom_kills"] == 2).then_some(()));
}

#[test]
fn a_child_that_the_kernel_killed_for_memory_is_told() {
    let Some(scene) = User::root().filter(|_| require(&[Need::Root])).map(Scene::new) else { return };
    let file = scene.workspace().join("eat.py");
    scene.write(&file, "b = []\nwhile True: b.append(b'x' * (8 << 20))\n");
    let limits = "security: {capabilities_required: [filesystem-read], resource_limits: {max_memory: 64MB}}";
    let agents = [
        Document::shell("goes-on", "/usr/bin/python3 eat.py; exit 0").section(limits),
        Document::shell("exits-seven", "/usr/bin/python3 eat.py || exit 7").section(limits),
        Document::bare("has-tasks")
            .section("tasks: {default: [{description: d, run: \"/usr/bin/python3 eat.py; true\"}]}")
            .section(limits),
    ];
    let ran = scene.toka_run(&agents, &[]);
    exit_code_of(&ran, 1);
    let text = flat(&ran.stdout);
    for said in [
        "exits-seven: exit code 7; the kernel killed a process of it for memory",
        "goes-on: succeeded; the kernel killed a process of it for memory",
        "has-tasks: succeeded; the kernel killed a process of it for memory",
    ] {
        assert!(text.contains(said), "{said}: {ran:#?}");
    }
}
