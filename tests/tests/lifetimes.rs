//! What a run is for, when it ends, and what becomes of agents that depend on others which come and go.

use std::time::Duration;

use serde_json::Value;
use toka_tests::{Document, Finished, Scene, User, as_both_users, toka_binary, until};

/// Longer than anything that is waited for here.
const LONG: Duration = Duration::from_secs(30);

as_both_users!(
    a_service_after_a_task_is_what_the_run_is_for,
    with_until_tasks_end_the_last_task_ends_the_run,
    what_never_came_to_its_turn_is_told_so,
    an_agent_of_which_nothing_is_enabled_is_skipped,
    the_end_of_an_agent_ends_the_run_where_that_is_declared,
    the_first_failure_ends_the_run_with_fail_fast,
    the_exit_status_may_be_that_of_an_agent,
    ends_that_are_declared_a_success_are_one,
    restarts_may_be_without_a_limit_or_end_without_a_failure,
    only_those_agents_that_are_named_run_with_what_they_require,
    what_a_person_starts_waits_for_that,
    who_follows_a_scheduled_task_runs_again_after_it,
    the_next_life_waits_for_what_has_to_be_ready,
    one_that_was_given_up_while_its_dependency_was_away_comes_back,
    one_that_was_given_up_before_its_dependency_went_comes_back_with_it,
    the_former_end_is_not_how_a_start_went,
    a_command_tells_what_an_agent_waits_for,
    a_stop_of_a_scheduled_agent_tells_that_its_schedule_goes_on,
    replicas_are_meant_by_their_common_name_and_by_patterns,
    a_shell_is_offered_the_names_of_what_runs,
    one_that_waits_and_begins_anew_blocks_nobody,
    a_queued_time_waits_for_all_that_follow,
    whoever_starts_the_first_starts_all_that_follow,
);

fn exit_code_of(finished: &Finished, expected: i32) {
    assert_eq!(finished.code, Some(expected), "{finished:#?}");
}

/// Text without its layout: tables wrap.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn outcome_in_summary(finished: &Finished, agent: &str) -> String {
    let summary = finished.events().pop().expect("a summary");
    let agents = summary["agents"].as_array().expect("agents");
    let found = agents.iter().find(|known| known["agent"] == agent).expect("the agent");
    found["outcome"].as_str().expect("a word").to_owned()
}

/// Compose's usual pair: a migration, and the service that needs it.
fn migration() -> [Document; 2] {
    let api = Document::service("api", "echo up; sleep 0.2; exit 0").spec("restart: \"no\"");
    [Document::shell("migrate", "true"), api.after(&["migrate"])]
}

fn a_service_after_a_task_is_what_the_run_is_for(user: User) {
    let scene = Scene::new(user);
    let finished = scene.toka_run(&migration(), &["--json"]);
    exit_code_of(&finished, 0);
    assert_eq!(finished.exit_of("api")["code"], 0, "it ran to its end: {finished:#?}");
    let validated = scene.toka(&["validate"]);
    assert!(!validated.stderr.contains("warning"), "{validated:#?}");
    scene.assert_nothing_left();
}

fn with_until_tasks_end_the_last_task_ends_the_run(user: User) {
    let scene = Scene::new(user);
    let finished = scene.toka_run(&migration(), &["--json", "--until-tasks-end"]);
    exit_code_of(&finished, 0);
    assert_eq!(finished.exit_of("api")["cause"], "not_started", "{finished:#?}");
    assert_eq!(outcome_in_summary(&finished, "api"), "not started");
}

fn what_never_came_to_its_turn_is_told_so(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::service("slow", "sleep 600").spec("readiness_probe: {log_line: never}"),
        Document::shell("waits", "true").section("dependencies: {required: {slow: {condition: ready}}}"),
    ];
    let mut running = scene.start(&agents, &[]);
    running.wait_for("agent_started", "slow");
    running.signal(nix::sys::signal::Signal::SIGINT);
    let finished = running.finish();
    exit_code_of(&finished, 130);
    let exit = finished.exit_of("waits");
    assert_eq!((&exit["cause"], &exit["by"]), (&"not_started".into(), &"SIGINT".into()), "{finished:#?}");
}

fn an_agent_of_which_nothing_is_enabled_is_skipped(user: User) {
    let scene = Scene::new(user);
    let admin = || {
        Document::bare("admin")
            .section("tasks: {conditional: {admin: [{description: migrate, run: \"echo migrated\"}]}}")
    };
    let needs = |more: &str| {
        Document::shell("needs", "true")
            .section(&format!("dependencies: {{required: {{admin: {{reason: r{more}}}}}}}"))
    };
    let blocked = scene.toka_run(&[admin(), needs("")], &["--json"]);
    exit_code_of(&blocked, 1);
    assert_eq!(outcome_in_summary(&blocked, "admin"), "skipped");
    assert_eq!(outcome_in_summary(&blocked, "needs"), "blocked");
    let plain = scene.toka_run(&[admin(), needs("")], &[]);
    let text = flat(&plain.stdout);
    assert!(text.contains("admin: skipped: its tasks are in the group admin"), "{plain:#?}");
    assert!(text.contains("(`--enable admin`)"), "the way out: {plain:#?}");
    let skipped = scene.toka_run(&[admin(), needs(", if_skipped: skip")], &["--json"]);
    exit_code_of(&skipped, 0);
    assert_eq!(outcome_in_summary(&skipped, "needs"), "skipped");
    let started = scene.toka_run(&[admin(), needs(", if_skipped: start")], &["--json"]);
    exit_code_of(&started, 0);
    assert_eq!(outcome_in_summary(&started, "needs"), "succeeded");
    let enabled = scene.toka_run(&[admin(), needs("")], &["--json", "--enable", "admin"]);
    exit_code_of(&enabled, 0);
    assert_eq!(outcome_in_summary(&enabled, "admin"), "succeeded");
}

fn the_end_of_an_agent_ends_the_run_where_that_is_declared(user: User) {
    let scene = Scene::new(user);
    let agents = |code: i32| {
        [
            Document::shell("main", &format!("exit {code}"))
                .spec("on_end: {success: stop-run, failure: stop-run}"),
            Document::service("helper", "sleep 600"),
            Document::shell("never", "true")
                .section("dependencies: {required: {helper: {condition: {log_line: x}}}}"),
        ]
    };
    let good = scene.toka_run(&agents(0), &["--json"]);
    exit_code_of(&good, 0);
    assert_eq!(good.exit_of("helper")["by"], "the end of main", "{good:#?}");
    assert_eq!(outcome_in_summary(&good, "never"), "not started");
    exit_code_of(&scene.toka_run(&agents(3), &["--json"]), 1);
    // The same in the background.
    let detached = scene.detach(&agents(0));
    detached.try_toka(&["wait", "main"]);
    until(LONG, "the run is over", || {
        let listed: Value = serde_json::from_str(&detached.toka(&["ps", "--json"]).stdout).ok()?;
        listed.as_array()?.is_empty().then_some(())
    });
}

fn the_first_failure_ends_the_run_with_fail_fast(user: User) {
    let scene = Scene::new(user);
    let agents = || [Document::shell("bad", "exit 3"), Document::shell("long", "sleep 600")];
    let finished = scene.toka_run(&agents(), &["--json", "--fail-fast"]);
    exit_code_of(&finished, 1);
    assert_eq!(finished.exit_of("long")["by"], "the end of bad", "{finished:#?}");
}

fn the_exit_status_may_be_that_of_an_agent(user: User) {
    let scene = Scene::new(user);
    let agents = |end: &str| [Document::shell("test", end), Document::service("db", "sleep 600")];
    for (end, status) in [("exit 42", 42), ("exit 0", 0), ("kill -9 $$", 137)] {
        let finished = scene.toka_run(&agents(end), &["--json", "--exit-code-from", "test"]);
        exit_code_of(&finished, status);
        let ended =
            finished.events().into_iter().find(|event| event["type"] == "run_ended").expect("an event");
        assert_eq!(ended["exit_code"], status);
        assert_eq!(finished.exit_of("db")["by"], "the end of test", "{finished:#?}");
    }
    // Of a list of tasks it is that of the task that failed.
    let tasks = "tasks: {default: [{description: one, run: 'true'}, {description: two, run: exit 42}]}";
    let list = [Document::bare("test").section(tasks), Document::service("db", "sleep 600")];
    let finished = scene.toka_run(&list, &["--json", "--exit-code-from", "test"]);
    exit_code_of(&finished, 42);
    exit_code_of(&scene.toka_run(&agents("true"), &["--dry-run", "--exit-code-from", "tset"]), 2);
    // Stopped because another one failed, it has no status of its own.
    let both = [Document::service("db", "sleep 600"), Document::shell("fails", "exit 3")];
    exit_code_of(&Scene::new(user).toka_run(&both, &["--fail-fast", "--exit-code-from", "db"]), 1);
    // In the background there is no command left that could end with it.
    exit_code_of(&scene.toka_run(&agents("true"), &["--detach", "--exit-code-from", "test"]), 2);
    let unknown = scene.toka_run(&agents("true"), &["--exit-code-from", "tset"]);
    exit_code_of(&unknown, 2);
    assert!(unknown.stderr.contains("no agent is called tset"), "{unknown:#?}");
}

fn ends_that_are_declared_a_success_are_one(user: User) {
    let scene = Scene::new(user);
    let accepts = |name: &str, end: &str| {
        Document::shell(name, end).spec("success_exit_codes: [0, 130, SIGTERM]").spec("restart: on-failure")
    };
    let agents = [
        accepts("code", "exit 130"),
        accepts("signal", "kill -TERM $$"),
        Document::shell("after", "true").after(&["code", "signal"]),
    ];
    let finished = scene.toka_run(&agents, &["--json"]);
    exit_code_of(&finished, 0);
    let code = finished.exit_of("code");
    assert_eq!((&code["cause"], &code["status"]["code"]), (&"accepted".into(), &130.into()), "{code}");
    assert_eq!(finished.exit_of("signal")["status"]["signal"], 15);
    assert!(finished.place_of("agent_restarting", "code").is_none(), "{finished:#?}");
    let plain = scene.toka_run(&agents, &[]);
    assert!(flat(&plain.stdout).contains("succeeded with exit code 130"), "{plain:#?}");
    let other = scene.toka_run(&[accepts("code", "exit 131").replaced("on-failure", "\"no\"")], &[]);
    exit_code_of(&other, 1);
}

fn restarts_may_be_without_a_limit_or_end_without_a_failure(user: User) {
    let scene = Scene::new(user);
    // Seven restarts are more than the five that there are by default.
    let counts = "n=$(cat ~/n 2>/dev/null || echo 0); echo $((n + 1)) > ~/n; test $n -ge 7";
    let endless = Document::shell("endless", counts)
        .spec("restart: {policy: on-failure, max_restarts: unlimited, backoff: {initial: 1ms, max: 1ms}}");
    let finished = scene.toka_run(&[endless], &["--json"]);
    exit_code_of(&finished, 0);
    assert_eq!(finished.all("agent_restarting", "endless").len(), 7, "{finished:#?}");
    let accepted = Document::shell("poll", "true").spec(
        "restart: {policy: always, max_restarts: 2, when_exhausted: accept, backoff: {initial: 1ms, max: 1ms}}",
    );
    let finished = scene.toka_run(&[accepted], &["--json"]);
    exit_code_of(&finished, 0);
    assert_eq!(outcome_in_summary(&finished, "poll"), "succeeded");
    let failed = Document::shell("poll", "true")
        .spec("restart: {policy: always, max_restarts: 2, backoff: {initial: 1ms, max: 1ms}}");
    let finished = scene.toka_run(&[failed], &[]);
    exit_code_of(&finished, 1);
    let text = flat(&finished.stdout);
    assert!(text.contains("quarantined after 2 restarts: it ended once more, with success"), "{finished:#?}");
}

fn only_those_agents_that_are_named_run_with_what_they_require(user: User) {
    let scene = Scene::new(user);
    let agents = || {
        [
            Document::shell("fetch", "true"),
            Document::shell("build", "true").section("dependencies: {required: [fetch], optional: [lint]}"),
            Document::shell("lint", "exit 1"),
            Document::shell("test", "exit 1").after(&["build"]),
        ]
    };
    let finished = scene.toka_run(&agents(), &["--json", "--only", "build"]);
    exit_code_of(&finished, 0);
    let began = finished.events().into_iter().find(|event| event["type"] == "run_started").expect("an event");
    assert_eq!(began["agents"], serde_json::json!(["fetch", "build"]), "{finished:#?}");
    let unknown = scene.toka_run(&agents(), &["--only", "biuld*"]);
    exit_code_of(&unknown, 2);
    assert!(unknown.stderr.contains("no agent is called biuld*"), "{unknown:#?}");
    assert!(unknown.stderr.contains("the agents are build, fetch, lint, test"), "{unknown:#?}");
}

fn what_a_person_starts_waits_for_that(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell("deploy", "echo deployed").spec("start: manual"),
        Document::service("web", "sleep 600"),
    ];
    let alone = scene.toka_run(
        &[Document::shell("deploy", "true").spec("start: manual"), Document::shell("t", "true")],
        &["--json"],
    );
    exit_code_of(&alone, 0);
    assert_eq!(outcome_in_summary(&alone, "deploy"), "not started");
    // Who names it has started it; a pattern is no name.
    let named = scene.toka_run(&agents, &["--json", "--only", "deploy"]);
    exit_code_of(&named, 0);
    assert_eq!(outcome_in_summary(&named, "deploy"), "succeeded");
    let pattern = scene.toka_run(&agents, &["--json", "--only", "deplo*"]);
    assert_eq!(outcome_in_summary(&pattern, "deploy"), "not started");
    let asked = scene.apply(&agents, &["--dry-run"]);
    assert!(asked.stdout.contains("+ deploy"), "{asked:#?}");
    let detached = scene.detach(&agents);
    until(LONG, "web runs", || (detached.state("web") == "running").then_some(()));
    assert_eq!(detached.state("deploy"), "pending");
    detached.toka(&["start", "deploy"]);
    detached.toka(&["wait", "deploy"]);
    assert_eq!(detached.inspect("deploy")["exit"]["code"], 0);
}

fn who_follows_a_scheduled_task_runs_again_after_it(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell("extract", "date +%s%N > \"$TOKA_ARTIFACTS/t\"")
            .spec("schedule: \"* * * * * *\"")
            .spec("type: task"),
        Document::shell("load", "cp \"$TOKA_INPUTS/extract/t\" \"$TOKA_ARTIFACTS/t\"").after(&["extract"]),
        Document::shell("report", "cp \"$TOKA_INPUTS/load/t\" \"$TOKA_ARTIFACTS/t\"").after(&["load"]),
    ];
    let mut running = scene.start(&agents, &[]);
    let mut seen = Vec::new();
    let mut last = 0;
    for _ in 0..3 {
        let ended = running.wait_until("another run of the last task", |event| {
            let is_later = event["seq"].as_u64().is_some_and(|seq| seq > last);
            is_later && event["type"] == "agent_ended" && event["agent"] == "report"
        });
        last = ended["seq"].as_u64().expect("a number");
        let [first, last] = ["extract", "report"].map(|agent| scene.artifact(agent, "t"));
        seen.push((first, last));
    }
    running.signal(nix::sys::signal::Signal::SIGTERM);
    let finished = running.finish();
    let reports: std::collections::BTreeSet<_> = seen.iter().map(|(_, report)| report).collect();
    assert_eq!(reports.len(), 3, "each time it had what was new: {seen:?}");
    // Nothing ran on what another was just making.
    let order: Vec<String> = finished
        .events()
        .into_iter()
        .filter(|event| event["type"] == "agent_starting")
        .map(|event| event["agent"].as_str().expect("a name").to_owned())
        .collect();
    for life in order.chunks_exact(3) {
        assert_eq!(life, ["extract", "load", "report"], "{order:?}");
    }
    let validated = scene.toka(&["validate"]);
    assert!(!validated.stderr.contains("warning"), "{validated:#?}");
}

/// A service that is ready only while the file `up` is there, and one that requires it and falls over at once without it.
fn fragile() -> [Document; 2] {
    let probe = "readiness_probe: {exec: {command: [test, -e, up]}, period: 50ms, failure_threshold: 1}";
    let read = "security: {capabilities_required: [filesystem-read]}";
    [
        Document::service("web", "sleep 600").spec(probe).section(read),
        Document::service("worker", "while test -e up; do sleep 0.02; done; exit 1")
            .spec("restart: {policy: always, max_restarts: 1, backoff: {initial: 300ms, max: 300ms}}")
            .section("dependencies: {required: {web: {condition: ready}}}")
            .section(read),
    ]
}

fn the_next_life_waits_for_what_has_to_be_ready(user: User) {
    let scene = Scene::new(user);
    let up = scene.workspace().join("up");
    scene.write(&up, "");
    let detached = scene.detach(&fragile());
    until(LONG, "it runs", || (detached.state("worker") == "running").then_some(()));
    std::fs::remove_file(&up).expect("removed");
    let waits = until(LONG, "it waits", || {
        let worker = detached.inspect("worker");
        (worker["state"] == "backoff" && !worker["waits"].is_null()).then_some(worker)
    });
    assert_eq!(waits["waits"]["text"], "web is not ready");
    assert!(flat(&detached.toka(&["ps"]).stdout).contains("web is not ready"));
    assert_eq!(waits["restart_count"], 1);
    scene.write(&up, "");
    let back = until(LONG, "it runs again", || {
        let worker = detached.inspect("worker");
        (worker["state"] == "running").then_some(worker)
    });
    assert_eq!(back["restart_count"], 1, "it did not use up its restarts meanwhile");
    let events = detached.toka(&["events", "worker"]).stdout;
    assert!(events.contains("its next start waits: web is not ready"), "{events}");
}

fn one_that_was_given_up_while_its_dependency_was_away_comes_back(user: User) {
    let scene = Scene::new(user);
    let up = scene.workspace().join("up");
    scene.write(&up, "");
    let [web, worker] = fragile();
    let detached = scene.detach(&[web, worker.replaced("max_restarts: 1", "max_restarts: 0")]);
    until(LONG, "it runs", || (detached.state("worker") == "running").then_some(()));
    detached.toka(&["stop", "web"]);
    std::fs::remove_file(&up).expect("removed");
    until(LONG, "it is given up", || (detached.state("worker") == "quarantined").then_some(()));
    scene.write(&up, "");
    detached.toka(&["start", "web"]);
    until(LONG, "it comes back", || (detached.state("worker") == "running").then_some(()));
    let events = detached.toka(&["events", "worker"]).stdout;
    assert!(events.contains("begins anew, asked for by recovery"), "{events}");
}

fn one_that_was_given_up_before_its_dependency_went_comes_back_with_it(user: User) {
    let scene = Scene::new(user);
    scene.write(&scene.workspace().join("up"), "");
    let [web, worker] = fragile();
    let ends = worker.replaced("while test -e up; do sleep 0.02; done; exit 1", "exit 1");
    let detached = scene.detach(&[web, ends.replaced("max_restarts: 1", "max_restarts: 0")]);
    until(LONG, "it is given up", || (detached.state("worker") == "quarantined").then_some(()));
    assert!(detached.inspect("worker")["waits"].is_null(), "nothing brings it back");
    detached.toka(&["stop", "web"]);
    let waits = until(LONG, "it waits", || {
        Some(detached.inspect("worker")["waits"].clone()).filter(|waits| !waits.is_null())
    });
    assert!(
        waits["text"].as_str().is_some_and(|text| text.contains("web has ended: stopped by operator")),
        "{waits}"
    );
    detached.toka(&["start", "web"]);
    until(LONG, "it begins anew", || (detached.inspect("worker")["requeues"] == 1).then_some(()));
}

fn the_former_end_is_not_how_a_start_went(user: User) {
    let scene = Scene::new(user);
    let fails = Document::shell("fails", "exit 7");
    let detached = scene.detach(&[fails, Document::service("web", "sleep 600")]);
    until(LONG, "it has failed", || (detached.state("fails") == "ended").then_some(()));
    let started = detached.toka(&["start", "--no-wait", "fails"]);
    assert!(!started.stdout.contains("exit code"), "{started:#?}");
}

fn a_command_tells_what_an_agent_waits_for(user: User) {
    let scene = Scene::new(user);
    let [web, worker] = fragile();
    let detached = scene.detach(&[web, worker]);
    let why = "waits: web is not ready";
    for words in [&["start", "--no-wait", "worker"][..], &["restart", "--no-wait", "worker"]] {
        let told = detached.toka(words);
        assert!(flat(&told.stdout).contains(why), "{words:?}: {told:#?}");
    }
    // It has its place already: the command lasts until its turn comes.
    let waited = detached.try_toka(&["start", "--timeout", "1200ms", "worker"]);
    assert!(flat(&waited.stderr).contains(why), "{waited:#?}");
    exit_code_of(&waited, 124);
    let waited = detached.try_toka(&["wait", "--for", "ready", "--timeout", "1200ms", "worker"]);
    assert!(flat(&waited.stderr).contains(why), "{waited:#?}");
    until(LONG, "the probe has failed", || {
        flat(&detached.toka(&["ps", "web"]).stdout).contains("not ready: ").then_some(())
    });
    // One that waits for its end tells it meanwhile.
    detached.toka(&["stop", "worker"]);
    let waited = detached.try_toka(&["start", "--timeout", "3s", "worker"]);
    assert!(flat(&waited.stderr).contains(why), "{waited:#?}");
    exit_code_of(&waited, 124);
}

fn a_stop_of_a_scheduled_agent_tells_that_its_schedule_goes_on(user: User) {
    let scene = Scene::new(user);
    let nightly = Document::shell("nightly", "true").spec("schedule: {cron: \"0 3 * * *\"}");
    let detached = scene.detach(&[nightly]);
    detached.toka(&["start", "nightly"]);
    until(LONG, "it has ended", || (detached.state("nightly") == "ended").then_some(()));
    let stopped = detached.toka(&["stop", "nightly"]);
    assert_eq!(flat(&stopped.stdout), "nightly has ended already; its schedule goes on");
}

/// The registration scripts of shells ask like this.
fn a_shell_is_offered_the_names_of_what_runs(user: User) {
    let scene = Scene::new(user);
    let _detached =
        scene.detach(&[Document::service("web", "sleep 600"), Document::service("db", "sleep 600")]);
    let toka = toka_binary().to_str().expect("a path of a test is text").to_owned();
    let state = scene.state();
    let state = state.to_str().expect("a path of a test is text");
    let offered = |words: &[&str]| {
        let index = format!("_CLAP_COMPLETE_INDEX={}", words.len());
        let ask = ["env", "TOKA_COMPLETE=bash", &index, "_CLAP_IFS=\n", &toka, "--", "toka"];
        let shown = scene.run(&[&ask[..], words].concat()).success();
        shown.lines().map(ToOwned::to_owned).collect::<Vec<String>>()
    };
    let agents = offered(&["stop", "--state-dir", state, ""]);
    assert!(agents.starts_with(&["db".to_owned(), "web".to_owned()]), "{agents:?}");
    assert_eq!(offered(&["stop", "--state-dir", state, "w"]), ["web"]);
    assert_eq!(offered(&["stop", "--state-dir", state, "--project", ""]), [scene.name()]);
    let with_project = format!("{}/web", scene.name());
    assert_eq!(offered(&["stop", "--state-dir", state, &with_project]), [with_project.as_str()]);
    assert_eq!(offered(&["explain", "spec.restart.ma"]), ["spec.restart.max_restarts"]);
}

fn replicas_are_meant_by_their_common_name_and_by_patterns(user: User) {
    let scene = Scene::new(user);
    let worker = Document::service("worker", "echo hi; sleep 600")
        .spec("replicas: 2")
        .spec("readiness_probe: {log_line: hi}");
    let detached = scene.detach(&[worker, Document::service("web", "sleep 600")]);
    detached.toka(&["wait", "--for", "ready", "worker"]);
    let lines = |words: &[&str]| {
        let shown = detached.toka(words).stdout;
        ["worker-1", "worker-2", "web"].map(|name| shown.contains(name))
    };
    for words in [
        &["ps", "worker"][..],
        &["logs", "worker"],
        &["health", "worker-*"],
        &["events", "worker"],
        &["inspect", "worker"],
    ] {
        assert_eq!(lines(words), [true, true, false], "{words:?}");
    }
    assert_eq!(lines(&["stop", "worker"]), [true, true, false]);
    assert_eq!(
        ["worker-1", "worker-2", "web"].map(|agent| detached.state(agent)),
        ["ended", "ended", "running"]
    );
    assert_eq!(lines(&["restart", "w*"]), [true; 3]);
    let toka = toka_binary().to_str().expect("a path of a test is text").to_owned();
    let state = scene.state();
    let state = state.to_str().expect("a path of a test is text");
    let several = scene.run(&[
        toka.as_str(),
        "exec",
        "--project",
        scene.name(),
        "--state-dir",
        state,
        "worker",
        "--",
        "true",
    ]);
    exit_code_of(&several, 2);
    assert!(several.stderr.contains("worker means 2 agents: worker-1, worker-2"), "{several:#?}");
    let unknown = detached.try_toka(&["stop", "wroker"]);
    exit_code_of(&unknown, 2);
}

fn one_that_waits_and_begins_anew_blocks_nobody(user: User) {
    let scene = Scene::new(user);
    let agents = |script: &str| {
        [
            Document::shell("slow", "until [ -e ~/go ]; do sleep 0.02; done"),
            Document::shell("x", script).after(&["slow"]),
            Document::shell("y", "true").after(&["x"]),
        ]
    };
    let detached = scene.detach(&agents("true"));
    until(LONG, "slow runs", || (detached.state("slow") == "running").then_some(()));
    let applied = scene.apply(&agents("echo other"), &[]);
    assert!(applied.stdout.contains("~ x  restarts: spec.process"), "{applied:#?}");
    let home = scene.state().join("projects").join(scene.name()).join("agents/slow/home");
    scene.write(&home.join("go"), "");
    until(LONG, "y has ended", || (detached.state("y") == "ended").then_some(()));
    assert_eq!(detached.inspect("y")["exit"]["code"], 0);
}

fn order_of(finished: &Finished) -> Vec<String> {
    let told = finished.events().into_iter().filter(|event| event["type"] == "agent_starting");
    told.map(|event| event["agent"].as_str().expect("a name").to_owned()).collect()
}

fn a_queued_time_waits_for_all_that_follow(user: User) {
    let scene = Scene::new(user);
    let agents = [
        Document::shell("extract", "sleep 1.2").spec("schedule: {cron: \"* * * * * *\", overlap: queue}"),
        Document::shell("load", "sleep 0.3").after(&["extract"]),
        Document::shell("report", "true").after(&["load"]),
    ];
    let mut running = scene.start(&agents, &[]);
    let mut last = 0;
    for _ in 0..2 {
        let ended = running.wait_until("the last one has ended", |event| {
            let is_later = event["seq"].as_u64().is_some_and(|seq| seq > last);
            is_later && event["type"] == "agent_ended" && event["agent"] == "report"
        });
        last = ended["seq"].as_u64().expect("a number");
    }
    running.signal(nix::sys::signal::Signal::SIGTERM);
    let order = order_of(&running.finish());
    for life in order.chunks_exact(3) {
        assert_eq!(life, ["extract", "load", "report"], "{order:?}");
    }
}

fn whoever_starts_the_first_starts_all_that_follow(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[
        Document::shell("extract", "true").spec("schedule: \"@yearly\""),
        Document::shell("load", "until [ -e ~/go ]; do sleep 0.02; done; rm ~/go").after(&["extract"]),
        Document::bare("idle").section("tasks: {conditional: {x: [{description: d, run: \"true\"}]}}"),
    ]);
    let starts = |agent: &str| {
        let events = detached.toka(&["events", "--json", agent]).events();
        events.iter().filter(|event| event["type"] == "agent_starting").count()
    };
    let home = scene.state().join("projects").join(scene.name()).join("agents/load/home");
    detached.toka(&["start", "extract"]);
    until(LONG, "load runs", || (detached.state("load") == "running").then_some(()));
    // While it works on what was there, nothing is changed under its hands.
    detached.toka(&["start", "--no-wait", "extract"]);
    assert_eq!(starts("extract"), 1);
    scene.write(&home.join("go"), "");
    until(LONG, "both have begun anew", || (starts("load") == 2).then_some(()));
    assert_eq!(starts("extract"), 2);
    until(LONG, "load runs", || (detached.state("load") == "running").then_some(()));
    detached.toka(&["restart", "--no-wait", "extract"]);
    until(LONG, "both have begun anew", || (starts("load") == 3).then_some(()));
    assert_eq!(starts("extract"), 3);
    // One that had nothing to do is nothing to look into.
    let health = detached.try_toka(&["health", "idle"]);
    exit_code_of(&health, 0);
}
