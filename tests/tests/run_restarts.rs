//! `toka run` from end to end: agents that end and are started again, and what becomes of those that never stay up.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use toka_tests::{Document, Scene, User, as_both_users, until};

as_both_users!(
    a_task_that_fails_twice_succeeds_in_its_third_life,
    one_that_never_stays_up_is_quarantined_and_fails_the_run,
    a_killed_service_comes_back_and_its_dependents_wait_for_it,
    a_run_that_is_interrupted_starts_nothing_again,
    nothing_of_an_earlier_life_reaches_into_the_next,
);

/// Back-offs short enough to wait for, and no chance in them.
const QUICK: &str = "backoff: {initial: 1ms, max: 10ms, jitter: 0}";

/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(20);

fn a_task_that_fails_twice_succeeds_in_its_third_life(user: User) {
    let scene = Scene::new(user);
    // Its home outlives a life.
    let script = "echo life >> ~/lives; cat ~/lives; [ $(wc -l < ~/lives) = 3 ]";
    let flaky = Document::shell("flaky", script).spec(&format!("restart: {{policy: on-failure, {QUICK}}}"));
    let after = Document::shell("after", "true").after(&["flaky"]);
    let finished = scene.toka_run(&[flaky, after], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let restarts = finished.all("agent_restarting", "flaky");
    let told: Vec<_> = restarts.iter().map(|event| (&event["restarts"], &event["exit"]["code"])).collect();
    assert_eq!(told, [(&1.into(), &1.into()), (&2.into(), &1.into())]);
    assert_eq!(finished.all("agent_started", "flaky").len(), 3);
    assert_eq!(finished.all("agent_ended", "flaky").len(), 1, "one end, however many lives");
    let log = scene.state().join("projects").join(scene.name()).join("agents/flaky/log");
    let lines = std::fs::read_to_string(log).expect("one log for all lives");
    assert_eq!(lines.lines().count(), 1 + 2 + 3, "{lines}");
    scene.assert_nothing_left();
}

fn one_that_never_stays_up_is_quarantined_and_fails_the_run(user: User) {
    let scene = Scene::new(user);
    let declared = format!("restart: {{policy: always, max_restarts: 3, {QUICK}}}");
    let flapping = Document::shell("flapping", "exit 0").spec(&declared);
    let waiting = Document::shell("waiting", "true")
        .section("dependencies: {required: {flapping: {reason: it serves, condition: ready}}}");
    let finished = scene.toka_run(&[flapping, waiting], &["--json"]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let given_up = finished.all("agent_quarantined", "flapping");
    assert_eq!(given_up.len(), 1, "{finished:#?}");
    assert_eq!(given_up[0]["restarts"], 3);
    assert_eq!(finished.all("agent_started", "flapping").len(), 4);
    assert_eq!(finished.all("agent_blocked", "waiting")[0]["by"], "flapping");
    scene.assert_nothing_left();
}

fn a_killed_service_comes_back_and_its_dependents_wait_for_it(user: User) {
    let scene = Scene::new(user);
    let serving = format!("{}; exec sleep 600", "[ -e ~/again ] && toka report ready; touch ~/again");
    let service = Document::shell("service", &serving)
        .spec("type: service")
        .spec(&format!("restart: {{policy: on-failure, {QUICK}}}"));
    let user_of_it = Document::shell("user-of-it", "true")
        .section("dependencies: {required: {service: {reason: it serves, condition: ready}}}");
    let mut run = scene.start(&[service, user_of_it], &[]);
    let pid = |event: &Value| i32::try_from(event["pid"].as_i64().expect("a pid")).expect("a pid");
    let first = pid(&run.wait_for("agent_started", "service"));
    let again = scene.state().join("projects").join(scene.name()).join("agents/service/home/again");
    until(SOON, "the first life to come so far", || again.exists().then_some(()));
    // A child of the keeper that this test started; nobody else can have its number while it runs.
    kill(Pid::from_raw(first), Signal::SIGKILL).expect("it runs");
    let restarting = run.wait_for("agent_restarting", "service");
    assert_eq!(restarting["exit"]["cause"], "signal", "{restarting}");
    run.wait_until("another life", |event| event["type"] == "agent_started" && pid(event) != first);
    run.wait_for("agent_ready", "service");
    run.wait_for("agent_started", "user-of-it");
    let finished = run.finish();
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(
        finished.exit_of("service")["cause"],
        "stopped",
        "the run ended, it did not fail: {finished:#?}"
    );
    scene.assert_nothing_left();
}

fn a_run_that_is_interrupted_starts_nothing_again(user: User) {
    let scene = Scene::new(user);
    let declared = "restart: {policy: always, backoff: {initial: 10m, max: 10m}}";
    let mut run = scene.start(&[Document::shell("patient", "exit 4").spec(declared)], &[]);
    run.wait_for("agent_restarting", "patient");
    run.signal(Signal::SIGINT);
    let finished = run.finish();
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    assert_eq!(finished.all("agent_started", "patient").len(), 1);
    assert_eq!(finished.exit_of("patient")["cause"], "stopped", "{finished:#?}");
    scene.assert_nothing_left();
}

fn nothing_of_an_earlier_life_reaches_into_the_next(user: User) {
    let scene = Scene::new(user);
    // What the first life leaves behind would say so in the second.
    let script = "if [ -e ~/first ]; then exec sleep 0.3; fi; touch ~/first; (setsid sh -c 'trap \"\" TERM; sleep 0.1; echo ghost' &); exit 1";
    let agent = Document::shell("agent", script).spec(&format!("restart: {{policy: on-failure, {QUICK}}}"));
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let log = scene.state().join("projects").join(scene.name()).join("agents/agent/log");
    let lines = std::fs::read_to_string(log).expect("its log");
    assert!(!lines.contains("ghost"), "{lines}");
    scene.assert_nothing_left();
}
