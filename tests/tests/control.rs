//! The daemon that outlives its terminal, and the verbs that people control it with, through the binary.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;
use toka_tests::{Document, Finished, Scene, User, as_both_users, processes_with, toka_binary, until};

as_both_users!(
    a_project_runs_in_the_background_until_it_is_down,
    agents_are_paused_resumed_stopped_and_started,
    a_restart_is_another_process_in_the_order_of_the_plan,
    a_person_lifts_a_quarantine,
    only_what_changed_is_restarted,
    what_a_process_does_not_depend_on_changes_under_it,
    another_content_of_an_environment_file_is_a_change,
    apply_only_leaves_all_others_as_they_are,
    what_is_broken_changes_nothing,
    a_change_that_the_disk_does_not_take_is_undone,
    a_daemon_that_was_started_for_nothing_ends,
    who_only_asks_starts_nothing,
    a_run_in_the_foreground_answers_too,
    waiting_ends_with_the_status_of_what_was_waited_for,
    no_agent_controls_toka,
    what_happened_in_a_run_that_has_ended_is_told,
    the_clock_starts_an_agent_again_and_again,
    what_still_runs_when_its_time_comes,
    nonsense_gets_a_clear_answer_and_the_daemon_goes_on,
);

/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(30);

/// A service that says that it is up, and then waits to be stopped.
fn service(name: &str) -> Document {
    Document::shell(name, "echo up; exec sleep 1000").spec("type: service")
}

fn ready_service(name: &str) -> Document {
    service(name).spec("readiness_probe: {log_line: up}")
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    until(SOON, what, || is_so().then_some(()));
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:#?}"))
}

fn a_project_runs_in_the_background_until_it_is_down(user: User) {
    let scene = Scene::new(user);
    let detached =
        scene.detach(&[ready_service("db"), service("api").after(&["db"]), Document::shell("job", "true")]);
    detached.toka(&["wait"]);
    detached.toka(&["wait", "--for", "ready", "db"]);
    eventually("api runs", || detached.state("api") == "running");
    let projects = json(&scene.toka(&["ps", "--json"]));
    let states: Vec<(&str, &str)> = projects[0]["agents"]
        .as_array()
        .expect("agents")
        .iter()
        .map(|agent| (agent["name"].as_str().expect("text"), agent["state"].as_str().expect("text")))
        .collect();
    assert_eq!(states.len(), 3, "{states:?}");
    assert!(states.contains(&("job", "ended")), "{states:?}");
    let again = scene.toka_run(&[service("db")], &["--detach"]);
    assert_eq!(again.code, Some(73), "{again:#?}");
    assert!(again.stderr.contains("toka apply"), "{again:#?}");
    let down = detached.toka(&["down"]);
    assert!(down.stdout.contains("is down"), "{down:#?}");
    assert_eq!(scene.toka(&["ps"]).stdout, "nothing runs\n");
}

fn agents_are_paused_resumed_stopped_and_started(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[ready_service("db"), service("api").after(&["db"])]);
    eventually("api runs", || detached.state("api") == "running");
    let paused = detached.try_toka(&["pause", "api"]);
    if paused.code == Some(0) {
        assert_eq!(paused.stdout, "api  paused\n");
        assert_eq!(detached.state("api"), "paused");
        assert!(detached.toka(&["pause", "api"]).stdout.contains("is paused already"));
        assert_eq!(detached.toka(&["resume", "api"]).stdout, "api  running\n");
    } else {
        // Without groups of its own an ordinary user has nothing to freeze with.
        assert_eq!(user, User::Ordinary, "{paused:#?}");
        assert!(paused.stdout.contains("no control group"), "{paused:#?}");
    }
    assert_eq!(detached.toka(&["stop", "--all"]).stdout, "api  stopped\ndb  stopped\n");
    assert!(detached.toka(&["stop", "db"]).stdout.contains("has ended already"));
    let denied = detached.try_toka(&["signal", "USR1", "db"]);
    assert_eq!(denied.code, Some(1), "{denied:#?}");
    assert_eq!(detached.toka(&["start", "api"]).stdout, "api  running\n");
    assert_eq!(detached.state("db"), "running", "what it needs was started before it");
    let started = detached.inspect("api")["pid"].clone();
    detached.toka(&["kill", "api"]);
    let ended = detached.inspect("api");
    assert_eq!((&ended["state"], &ended["exit"]["cause"]), (&"ended".into(), &"stopped".into()), "{started}");
}

fn a_restart_is_another_process_in_the_order_of_the_plan(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[ready_service("db"), service("api").after(&["db"])]);
    eventually("api runs", || detached.state("api") == "running");
    let before = [detached.inspect("db")["pid"].clone(), detached.inspect("api")["pid"].clone()];
    detached.toka(&["restart", "--all"]);
    let after = [detached.inspect("db")["pid"].clone(), detached.inspect("api")["pid"].clone()];
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
    let events = detached.toka(&["events", "--json"]);
    let told: Vec<(Value, Value)> =
        events.events().into_iter().map(|event| (event["type"].clone(), event["agent"].clone())).collect();
    let last =
        |kind: &str, agent: &str| told.iter().rposition(|(k, a)| k == kind && a == agent).expect("told");
    assert!(last("agent_ended", "api") < last("agent_stopping", "db"), "those first that nobody needs");
    assert!(last("agent_ready", "db") < last("agent_starting", "api"), "and started in their order");
}

fn a_person_lifts_a_quarantine(user: User) {
    let scene = Scene::new(user);
    let restart = "restart: {policy: always, max_restarts: 1, backoff: {initial: 1ms, max: 1ms, jitter: 0}}";
    let script = "[ -e ~/mended ] && exec sleep 1000; touch ~/tried; exit 3";
    let detached = scene.detach(&[Document::shell("flapping", script).spec(restart)]);
    eventually("it is given up", || detached.state("flapping") == "quarantined");
    scene.write(&scene.state().join("projects").join(scene.name()).join("agents/flapping/home/mended"), "");
    assert_eq!(detached.toka(&["start", "flapping"]).stdout, "flapping  running\n");
    assert_eq!(detached.inspect("flapping")["restart_count"], 0, "its record is clean");
}

fn only_what_changed_is_restarted(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[service("stays"), service("changes"), service("goes")]);
    for agent in ["stays", "changes", "goes"] {
        eventually("it runs", || detached.state(agent) == "running");
    }
    let pid = |agent: &str| detached.inspect(agent)["pid"].clone();
    let (stays, changes) = (pid("stays"), pid("changes"));
    let next = [service("stays"), service("changes").spec("watchdog: 300s"), service("comes")];
    let told = scene.apply(&next, &["--dry-run"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    for line in ["+ comes", "~ changes  restarts: spec.watchdog", "- goes", "1 agent as before"] {
        assert!(told.stdout.contains(line), "{line}: {told:#?}");
    }
    assert_eq!(pid("changes"), changes, "nothing was done");
    let applied = scene.apply(&next, &[]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    eventually("the new one runs", || detached.state("comes") == "running");
    eventually("the changed one runs", || detached.state("changes") == "running");
    assert_eq!(pid("stays"), stays);
    assert_ne!(pid("changes"), changes);
    assert_eq!(detached.try_toka(&["inspect", "goes"]).code, Some(2));
    let idle = scene.apply(&next, &[]);
    assert!(idle.stdout.contains("is what the files say"), "{idle:#?}");
}

/// Neither for a run that is refused nor for one that cannot be read does a daemon go on for nobody.
fn a_daemon_that_was_started_for_nothing_ends(user: User) {
    let scene = Scene::new(user);
    let socket = scene.state().join("run/daemon.sock");
    let refused = service("api").section("security: {network: full}");
    let is_over = || UnixStream::connect(&socket).is_err() && processes_with(scene.name()).is_empty();
    assert_eq!(scene.apply(std::slice::from_ref(&refused), &[]).code, Some(77));
    eventually("it ends", is_over);
    assert_eq!(scene.toka_run(&[refused], &["--detach"]).code, Some(77));
    eventually("it ends", is_over);
    scene.assert_nothing_left();
}

fn what_is_broken_changes_nothing(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[service("api")]);
    eventually("it runs", || detached.state("api") == "running");
    let pid = detached.inspect("api")["pid"].clone();
    let broken = scene.apply(&[service("api").spec("stopp: {grace_period: 3s}")], &[]);
    assert_eq!(broken.code, Some(65), "{broken:#?}");
    let lost = scene.apply(&[Document::command("api", &["no-such-program"]).spec("type: service")], &[]);
    assert_eq!(lost.code, Some(65), "{lost:#?}");
    assert!(lost.stderr.contains("no-such-program"), "{lost:#?}");
    assert_eq!(detached.inspect("api")["pid"], pid);
    assert_eq!(detached.state("api"), "running");
}

/// Its agents were stopped for it already: they start again as they were, and the same change succeeds later.
fn a_change_that_the_disk_does_not_take_is_undone(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[service("stays"), service("changes"), service("goes")]);
    for agent in ["stays", "changes", "goes"] {
        eventually("it runs", || detached.state(agent) == "running");
    }
    let pid = |agent: &str| detached.inspect(agent)["pid"].clone();
    let before = ["stays", "changes", "goes"].map(pid);
    let obstacle = scene.state().join("projects").join(scene.name()).join("declaration.json.new");
    std::fs::create_dir(&obstacle).expect("a folder where the daemon writes a file");
    let next = [service("stays"), service("changes").spec("watchdog: 300s")];
    let failed = scene.apply(&next, &[]);
    assert_eq!(failed.code, Some(73), "{failed:#?}");
    for part in ["declaration.json", "start again as they were"] {
        assert!(failed.stderr.contains(part), "{part}: {failed:#?}");
    }
    for (at, agent) in [(1, "changes"), (2, "goes")] {
        eventually("it runs again", || detached.state(agent) == "running" && pid(agent) != before[at]);
    }
    assert_eq!(pid("stays"), before[0]);
    std::fs::remove_dir(&obstacle).expect("it is empty");
    let applied = scene.apply(&next, &[]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    eventually("the changed one runs", || detached.state("changes") == "running");
    assert_eq!(detached.try_toka(&["inspect", "goes"]).code, Some(2));
    assert_eq!(pid("stays"), before[0]);
}

fn another_content_of_an_environment_file_is_a_change(user: User) {
    let scene = Scene::new(user);
    let file = scene.workspace().join("settings");
    scene.write(&file, "A=1\n");
    let reads = Document::bare("reads")
        .spec("type: service")
        .spec("process: {shell: 'echo it is $A; exec sleep 1000', environment_file: [settings]}");
    let agents = [reads, service("other")];
    scene.write(&file, "A=1\nTOKA_AGENT=other\n");
    let forged = scene.toka_run(&agents, &[]);
    let text = forged.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(forged.code == Some(65) && text.contains("TOKA_AGENT is a name of Toka's own"), "{forged:#?}");
    scene.write(&file, "A=1\n");
    let detached = scene.detach(&agents);
    let wrote = |text: &str| detached.try_toka(&["logs", "reads"]).stdout.contains(text);
    eventually("it has read it", || wrote("it is 1"));
    eventually("the other runs", || detached.state("other") == "running");
    let pid = detached.inspect("other")["pid"].clone();
    let same = scene.apply(&agents, &[]);
    assert!(!same.stdout.contains("reads"), "{same:#?}");
    scene.write(&file, "A=2\n");
    let asked = scene.apply(&agents, &["--dry-run"]);
    let told = "~ reads  restarts: the content of spec.process.environment_file";
    assert!(asked.stdout.contains(told) && !asked.stdout.contains("other"), "{asked:#?}");
    assert!(!wrote("it is 2"), "nothing is done yet");
    assert_eq!(scene.apply(&agents, &[]).code, Some(0));
    eventually("it reads the new one", || wrote("it is 2"));
    assert_eq!(detached.inspect("other")["pid"], pid);
}

fn what_a_process_does_not_depend_on_changes_under_it(user: User) {
    let scene = Scene::new(user);
    // It ends with 3 when it is told to, and is deaf to SIGTERM.
    let script = "trap '' TERM; trap 'exit 3' USR1; echo up; while :; do sleep 0.02; done";
    let app = |more: &[&str]| {
        let app = Document::service("app", script).spec("readiness_probe: {log_line: up}");
        more.iter().fold(app, |app, line| app.spec(line))
    };
    let worker = |count: u32| service("worker").spec(&format!("replicas: {count}"));
    let detached = scene.detach(&[app(&["restart: on-failure"]), worker(2)]);
    detached.toka(&["wait", "--for", "ready", "app"]);
    eventually("they run", || detached.state("worker-2") == "running");
    let pids = || ["app", "worker-1", "worker-2"].map(|agent| detached.inspect(agent)["pid"].clone());
    let before = pids();
    let more = "security: {resource_limits: {max_memory: 600MiB, max_cpu: 200%}}";
    let next = [
        app(&["restart: \"no\"", "stop: {grace_period: 100ms}", "description: other", "priority: high"])
            .section(more),
        worker(3),
    ];
    let asked = scene.apply(&next, &["--dry-run"]);
    let told = "= app  goes on: security.resource_limits.max_cpu, security.resource_limits.max_memory, spec.description, \
        spec.priority, spec.restart, spec.stop";
    let asked_for = asked.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    let asked = Finished { stdout: asked_for, ..asked };
    assert!(asked.stdout.contains(&told) && asked.stdout.contains("+ worker-3"), "{asked:#?}");
    let applied = scene.apply(&next, &[]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    assert_eq!(pids(), before, "nobody was restarted");
    if user == User::Root {
        assert_eq!(
            detached.inspect("app")["resources"]["memory_limit"],
            600_u64 << 20,
            "the kernel's own figure"
        );
    }
    eventually("it runs", || detached.state("worker-3") == "running");
    let fewer = scene.apply(&[next[0].clone(), worker(1)], &[]);
    assert!(fewer.stdout.contains("- worker-2") && fewer.stdout.contains("- worker-3"), "{fewer:#?}");
    assert_eq!(detached.inspect("worker-1")["pid"], before[1]);
    // The new policy holds: it is not restarted.
    detached.toka(&["signal", "USR1", "app"]);
    eventually("it has ended", || detached.state("app") == "ended");
    detached.toka(&["start", "app"]);
    let begun = std::time::Instant::now();
    detached.toka(&["stop", "app"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "the new grace period");
    assert_eq!(detached.inspect("app")["exit"]["killed_after"]["nanos"], 100_000_000);
}

fn apply_only_leaves_all_others_as_they_are(user: User) {
    let scene = Scene::new(user);
    let agents = |db: &str| {
        [service("db").spec(&format!("description: {db}")), service("api").after(&["db"]), service("page")]
    };
    let words = |documents: &[Document], options: &[&str]| scene.apply(documents, options);
    assert_eq!(words(&agents("one"), &["--only", "page"]).code, Some(0));
    let detached = scene.adopt();
    eventually("it runs", || detached.state("page") == "running");
    let page = detached.inspect("page")["pid"].clone();
    let applied = words(&agents("one"), &["--only", "api"]);
    assert!(applied.stdout.contains("+ db") && applied.stdout.contains("+ api"), "{applied:#?}");
    assert!(applied.stdout.contains("1 agent as before"), "{applied:#?}");
    eventually("it runs", || detached.state("db") == "running");
    assert_eq!(detached.inspect("page")["pid"], page);
    let refused = words(&agents("two"), &["--only", "page"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("these are declared otherwise now: db"), "{refused:#?}");
    assert!(refused.stderr.contains("help: apply all of them without --only"), "{refused:#?}");
}

fn who_only_asks_starts_nothing(user: User) {
    let scene = Scene::new(user);
    let told = scene.apply(&[service("db"), service("api")], &["--dry-run"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    assert!(told.stdout.contains("would begin to run") && told.stdout.contains("+ api"), "{told:#?}");
    assert!(told.stderr.contains("no daemon serves"), "{told:#?}");
    assert!(!scene.state().join("daemon.log").exists(), "no daemon was started");
    let named = scene.toka(&["ps", "db"]);
    assert!(named.code == Some(69) && named.stderr.contains("nothing runs"), "{named:#?}");

    let _detached = scene.detach(&[service("db")]);
    for words in [&["ps", "bd"][..], &["ps", "other/db"], &["events", "bd"], &["health", "bd"]] {
        let told = scene.toka(words);
        assert_eq!(told.code, Some(2), "{told:#?}");
        assert!(told.stderr.contains("there is no agent"), "{told:#?}");
    }
    assert_eq!(scene.toka(&["ps", "--quiet", "db"]).stdout, format!("{}/db\n", scene.name()));
    let mut words = scene.run_words(&[service("db")], &[]);
    words[1] = "plan".into();
    words.retain(|word| !word.to_string_lossy().contains("-pressure"));
    let planned = scene.run(&words);
    assert_eq!(planned.code, Some(0), "{planned:#?}");
    assert!(planned.stderr.contains("`toka run` is refused as long as this is so: "), "{planned:#?}");
    for command in ["ps", "top", "health"] {
        let told = scene.toka(&[command, "--project", "other"]);
        assert_eq!(told.code, Some(69), "{told:#?}");
        assert!(told.stderr.contains("the project other does not run"), "{told:#?}");
    }
}

fn a_run_in_the_foreground_answers_too(user: User) {
    let scene = Scene::new(user);
    let agents = [service("api"), Document::shell("job", "exec sleep 1000")];
    let mut running = scene.start(&agents, &["--until-tasks-end"]);
    running.wait_for("agent_started", "job");
    running.wait_for("agent_started", "api");
    let restarted = scene.toka(&["restart", "--project", scene.name(), "job"]);
    assert_eq!(restarted.stdout, "job  running\n", "{restarted:#?}");
    let stopped = scene.toka(&["stop", "--project", scene.name(), "job"]);
    assert_eq!(stopped.code, Some(0), "{stopped:#?}");
    // Its last task has ended: so does the run.
    let finished = running.finish();
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let none = scene.toka(&["stop", "--project", scene.name(), "job"]);
    assert_eq!(none.code, Some(69), "{none:#?}");
    scene.assert_nothing_left();
}

fn waiting_ends_with_the_status_of_what_was_waited_for(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[
        Document::shell("good", "true"),
        Document::shell("bad", "exit 3"),
        Document::shell("slow", "exec sleep 1000").section("security: {resource_limits: {timeout: 10ms}}"),
    ]);
    assert_eq!(detached.try_toka(&["wait", "good"]).code, Some(0));
    assert_eq!(detached.try_toka(&["wait", "good", "bad"]).code, Some(1));
    assert_eq!(detached.try_toka(&["wait", "slow"]).code, Some(124));
    assert_eq!(detached.try_toka(&["wait", "nobody"]).code, Some(2));
}

/// Not even one that is not confined: it has the user's rights, and the socket's address.
fn no_agent_controls_toka(user: User) {
    let scene = Scene::new(user);
    let toka = toka_binary().display().to_string();
    let state = scene.state().display().to_string();
    let line = format!(
        "{toka} ps --state-dir {state} 2>&1; {toka} down --all --kill --state-dir {state} 2>&1; true"
    );
    let rogue = Document::shell("rogue", &line).section("security: {sandbox: false, network: full}");
    let options = ["--detach", "--allow", "sandbox:off", "--allow", "network:full"];
    let started = scene.toka_run(&[rogue, service("api")], &options);
    let detached = scene.adopt();
    assert_eq!(started.code, Some(0), "{started:#?}");
    detached.toka(&["wait", "rogue"]);
    assert_eq!(detached.state("api"), "running");
    let log = scene.state().join("projects").join(scene.name()).join("agents/rogue/log");
    let told = std::fs::read_to_string(log).expect("a log");
    assert_eq!(told.matches("agents may not control Toka").count(), 2, "{told}");
}

/// One that the clock starts each second.
fn each_second(name: &str, line: &str, overlap: &str) -> Document {
    let schedule = format!("schedule: {{cron: '* * * * * *', timezone: UTC, overlap: {overlap}}}");
    Document::shell(name, line).spec(&schedule)
}

fn count(events: &[Value], kind: &str, agent: &str) -> usize {
    events.iter().filter(|event| event["type"] == kind && event["agent"] == agent).count()
}

fn what_happened_in_a_run_that_has_ended_is_told(user: User) {
    let scene = Scene::new(user);
    let documents = [Document::shell("works", "true"), Document::shell("fails", "exit 7")];
    let finished = scene.toka_run(&documents, &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let events =
        |words: &[&str]| scene.toka(&[&["events", "--json", "--project", scene.name()], words].concat());
    let told = events(&[]);
    assert!(told.stderr.contains("does not run; this is its last run"), "{told:#?}");
    let ran: Vec<Value> = finished
        .events()
        .into_iter()
        .filter(|event| event["seq"].is_u64())
        .map(|event| event["seq"].clone())
        .collect();
    let kept: Vec<Value> = told.events().iter().map(|event| event["seq"].clone()).collect();
    assert_eq!(kept[..ran.len()], ran, "the same as the run told");
    let ends = events(&["--kind", "agent_ended", "fails"]).events();
    assert!(ends.len() == 1 && ends[0]["exit"]["code"] == 7, "{ends:?}");
    assert_eq!(events(&["--since", "1h"]).events().len(), kept.len());
    let later = events(&["--since", "3"]).events();
    assert_eq!(later[0]["seq"], 4, "{later:?}");
    for (words, code) in [(&["nobody"][..], 2), (&["--follow"], 69)] {
        assert_eq!(events(words).code, Some(code), "{words:?}");
    }
    let run_of = |told: &Finished| told.events()[0]["run"].as_str().expect("a run").to_owned();
    let first = run_of(&told);
    // The next run has its own events; those of the first are asked for by its id, or by how many runs ago it was.
    let detached = scene.detach(&[service("later")]);
    let second = run_of(&events(&[]));
    assert_ne!(first, second);
    assert!(events(&[]).events().iter().all(|event| event["run"] == second.as_str()));
    for choice in [&first, &first[first.len() - 12..], "-1"] {
        let told = events(&["--run", choice]);
        assert_eq!(told.events().len(), kept.len(), "{choice}: {told:#?}");
        assert_eq!(run_of(&told), first, "{choice}");
    }
    assert!(events(&["--run", "all"]).events().len() > kept.len());
    let of_later = |run: &str| events(&["--run", run, "later", "--kind", "agent_started"]).events().len();
    assert_eq!([of_later("all"), of_later("last")], [1, 1]);
    let listed = events(&["--list-runs"]).events();
    let listed =
        listed.iter().map(|run| (run["run"].as_str(), run["running"].as_bool(), run["exit_code"].as_u64()));
    assert_eq!(
        listed.collect::<Vec<_>>(),
        [(Some(&*second), Some(true), None), (Some(&*first), Some(false), Some(1))]
    );
    for (words, why) in [
        (&["--run", "zz"][..], "the last runs are"),
        (&["--run", "-2"], "the last runs are"),
        (&["--run", "-1", "--follow"], "--follow goes on with the last run"),
    ] {
        let refused = events(words);
        assert_eq!(refused.code, Some(2), "{words:?}: {refused:#?}");
        assert!(refused.stderr.contains(why), "{words:?}: {refused:#?}");
    }
    detached.toka(&["down"]);
    let never = scene.toka(&["events", "--project", "never"]);
    assert_eq!(never.code, Some(69), "{never:#?}");
}

fn the_clock_starts_an_agent_again_and_again(user: User) {
    let scene = Scene::new(user);
    let yearly = Document::shell("yearly", "exec sleep 1000").spec("schedule: '@yearly'");
    let detached = scene.detach(&[service("api"), each_second("tick", "true", "skip"), yearly]);
    let events = || detached.toka(&["events", "--json"]).events();
    eventually("it runs three times", || count(&events(), "agent_ended", "tick") >= 3);
    let events = events();
    let first =
        |kind: &str| events.iter().position(|event| event["type"] == kind && event["agent"] == "tick");
    assert!(first("schedule_armed") < first("schedule_fired"));
    assert!(first("schedule_fired") < first("agent_starting"), "not before its time");
    let dues: Vec<i64> = events
        .iter()
        .filter(|event| event["type"] == "schedule_fired" && event["agent"] == "tick")
        .filter_map(|event| event["due_ms"].as_i64())
        .collect();
    assert!(dues.iter().all(|due| due % 1000 == 0), "{dues:?}");
    assert!(dues.windows(2).all(|pair| pair[0] < pair[1]), "each time once: {dues:?}");
    let yearly = detached.inspect("yearly");
    assert_eq!(yearly["state"], "pending");
    assert!(yearly["next_due_ms"].as_i64() > dues.last().copied(), "{yearly}");
    let shown = detached.toka(&["ps"]);
    assert!(shown.stdout.contains("next in"), "{shown:#?}");
    // Nobody has to wait for the clock, and a stop leaves the schedule as it is.
    assert_eq!(detached.toka(&["start", "yearly"]).stdout, "yearly  running\n");
    assert_eq!(detached.toka(&["stop", "yearly"]).stdout, "yearly  stopped; its schedule goes on\n");
    assert_eq!(detached.inspect("yearly")["next_due_ms"], yearly["next_due_ms"]);
    let gone = scene.apply(&[service("api")], &[]);
    assert_eq!(gone.code, Some(0), "{gone:#?}");
    detached.toka(&["down"]);
}

fn what_still_runs_when_its_time_comes(user: User) {
    let scene = Scene::new(user);
    let slow = "exec sleep 1000";
    let detached = scene.detach(&[
        each_second("skips", slow, "skip"),
        Document::shell("follows", "true").after(&["skips"]),
        service("hand").spec("start: manual"),
        each_second("waits", "true", "skip").after(&["hand"]),
        each_second("held", slow, "skip"),
        each_second(
            "queues",
            "[ -e ~/first ] && exit 0; touch ~/first; while [ ! -e ~/go ]; do sleep 0.05; done",
            "queue",
        ),
        each_second("replaces", slow, "replace"),
        Document::shell("fails", "exit 1"),
        each_second("needs", "true", "skip").after(&["fails"]),
    ]);
    let events = || detached.toka(&["events", "--json"]).events();
    let has = |kind: &str, agent: &str, times: usize| {
        eventually(&format!("{kind} of {agent}"), || count(&events(), kind, agent) >= times);
    };
    has("schedule_skipped", "skips", 2);
    has("schedule_skipped", "queues", 1);
    has("agent_started", "replaces", 3);
    has("schedule_skipped", "needs", 1);
    has("schedule_skipped", "waits", 1);
    has("agent_started", "held", 1);
    // An ordinary user has no control group to freeze it in.
    if user == User::Root {
        detached.toka(&["pause", "held"]);
        let paused = |event: &Value| event["agent"] == "held" && event["reason"] == "paused";
        eventually("a time of one that is paused", || events().iter().any(paused));
    }
    let home = scene.state().join("projects").join(scene.name()).join("agents/queues/home");
    scene.write(&home.join("go"), "");
    has("agent_ended", "queues", 2);
    let told = events();
    assert_eq!(count(&told, "agent_started", "skips"), 1);
    assert_eq!(count(&told, "agent_started", "needs"), 0, "what it requires has failed");
    let why = |agent: &str| {
        let skipped = |event: &&Value| event["type"] == "schedule_skipped" && event["agent"] == agent;
        let event = told.iter().find(skipped).expect("skipped");
        [event["reason"].as_str(), event["busy"].as_str()]
    };
    assert_eq!(why("skips"), [Some("still_running"), None], "and not the task that waits for it");
    assert_eq!(why("queues"), [Some("already_queued"), None]);
    assert_eq!(why("needs"), [Some("unmet"), Some("fails")]);
    assert_eq!(why("waits"), [Some("not_begun"), Some("hand")]);
    let replaced = told.iter().find(|event| event["type"] == "agent_ended" && event["agent"] == "replaces");
    assert_eq!(replaced.expect("ended")["exit"]["by"], "schedule");
    detached.toka(&["down"]);
}

fn nonsense_gets_a_clear_answer_and_the_daemon_goes_on(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[service("api")]);
    let unknown = detached.try_toka(&["stop", "apy"]);
    assert_eq!(unknown.code, Some(2), "{unknown:#?}");
    assert!(unknown.stderr.contains("its agents are: api"), "{unknown:#?}");
    let socket = scene.state().join("run/daemon.sock");
    let command = format!("/v1/projects/{}/command", scene.name());
    for (method, path, body, status) in [
        ("POST", command.as_str(), "{".to_owned(), 400),
        ("POST", &command, r#"{"command":"explode"}"#.to_owned(), 422),
        ("POST", &command, r#"{"command":"signal","signal":99}"#.to_owned(), 400),
        ("POST", &command, "x".repeat(2_000_000), 413),
        ("GET", "/v1/projects/NO%2F..%2F..", String::new(), 400),
        ("GET", "/v1/projects/other", String::new(), 404),
        ("DELETE", "/v1/daemon", String::new(), 405),
        ("GET", "/etc/passwd", String::new(), 404),
    ] {
        let answer = ask(&socket, method, path, &body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
    }
    let mut garbage = UnixStream::connect(&socket).expect("the socket");
    garbage.write_all(b"\x00\xff\x16\x03\x01 nonsense\r\n\r\n").expect("it is taken");
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer);
    assert_eq!(detached.state("api"), "running");
}

/// One request, and the whole answer.
fn ask(socket: &std::path::Path, method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the socket");
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: toka\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n"
    );
    // It may have been refused before all of it was sent.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
