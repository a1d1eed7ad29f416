//! Checks of objectives from end to end, through the program: what they decide, and what they cannot do.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use toka_tests::{Document, Finished, Scene, User, as_both_users, until};

as_both_users!(
    a_met_objective_starts_who_waits_for_it,
    an_unmet_objective_blocks_who_waits_for_it,
    an_agent_that_failed_is_not_checked,
    a_check_that_hangs_times_out,
    a_check_is_bound_by_the_rules_of_its_agent,
    a_stop_ends_the_checks_too,
    waiting_for_the_objectives_of_a_service_is_78,
);

/// `name` waits for the objectives of `on`.
fn awaiting(name: &str, on: &str) -> Document {
    let edge = format!("{on}: {{reason: it is checked, condition: objective_met}}");
    Document::shell(name, "echo ran > \"$TOKA_ARTIFACTS/ran\"")
        .section(&format!("dependencies: {{required: {{{edge}}}}}"))
}

/// One objective with this line as its check.
fn objective(agent: Document, description: &str, check: &str) -> Document {
    agent.section(&format!("objectives: [{{description: {description}, check: {}}}]", Value::from(check)))
}

fn checked(finished: &Finished, agent: &str) -> Vec<Value> {
    let of_agent = |event: &Value| event["type"] == "objective_checked" && event["agent"] == agent;
    finished.events().into_iter().filter(of_agent).collect()
}

fn a_met_objective_starts_who_waits_for_it(user: User) {
    let scene = Scene::new(user);
    let objectives = "objectives: [{description: Seen by people}, \
        {description: There, check: 'echo looking; test \"$(cat \"$TOKA_ARTIFACTS/thing\" \"$TMPDIR/left\")\" = xy'}, \
        {description: Named, check: [\"test\", \"-n\", \"a word\"]}]";
    let agents = [
        Document::shell("maker", "printf x > \"$TOKA_ARTIFACTS/thing\"; printf y > \"$TMPDIR/left\"")
            .section(objectives),
        awaiting("taker", "maker"),
    ];
    let json = scene.toka_run(&agents, &["--json"]);
    assert_eq!(json.code, Some(0), "{json:#?}");
    let results = checked(&json, "maker");
    let seen: Vec<_> = results.iter().map(|event| (&event["index"], &event["description"])).collect();
    assert_eq!(seen, [(&json!(1), &json!("There")), (&json!(2), &json!("Named"))], "{json:#?}");
    assert!(results.iter().all(|event| event["met"] == true), "{results:#?}");
    let places = [("objective_checked", "maker"), ("agent_ended", "maker"), ("agent_started", "taker")]
        .map(|(kind, agent)| json.place_of(kind, agent));
    assert!(places[0].is_some() && places[0] < places[1], "{json:#?}");
    assert!(places[0] < places[2], "{json:#?}");
    assert_eq!(scene.artifact("taker", "ran"), "ran\n");
    let logs = scene.state().join("projects").join(scene.name()).join("agents/maker");
    let log = std::fs::read_to_string(logs.join("objective-1.log")).expect("the log of the check");
    assert_eq!(log, "looking\n");
    assert!(!json.stdout.contains("not in force"), "{json:#?}");
    let plain = scene.toka_run(&agents, &[]);
    assert!(format!("{}{}", plain.stdout, plain.stderr).contains("objective met: There"), "{plain:#?}");
    scene.assert_nothing_left();
}

fn an_unmet_objective_blocks_who_waits_for_it(user: User) {
    let scene = Scene::new(user);
    let agents = [
        objective(Document::shell("maker", "true"), "There", "exit 3"),
        awaiting("taker", "maker"),
        Document::shell("other", "true").after(&["maker"]),
    ];
    let json = scene.toka_run(&agents, &["--json"]);
    assert_eq!(json.code, Some(1), "{json:#?}");
    let results = checked(&json, "maker");
    assert_eq!(results.len(), 1, "{json:#?}");
    assert_eq!(results[0]["met"], false, "{results:#?}");
    assert_eq!(results[0]["exit"], json!({"cause": "code", "code": 3}));
    assert_eq!(json.exit_of("maker"), json!({"cause": "code", "code": 0}), "its own end stays as it was");
    assert!(json.place_of("agent_started", "other").is_some(), "who waits for less starts: {json:#?}");
    let events = json.events();
    let blocked = events.iter().find(|event| event["type"] == "agent_blocked").expect("one is blocked");
    assert_eq!((&blocked["agent"], &blocked["by"]), (&json!("taker"), &json!("maker")));
    assert_eq!(scene.artifact("taker", "ran"), "");
    let plain = scene.toka_run(&agents, &[]);
    let all = format!("{}{}", plain.stdout, plain.stderr);
    assert!(all.contains("objective not met: There") && all.contains("blocked by maker"), "{all}");
    scene.assert_nothing_left();
    let alone = Scene::new(user).toka_run(&agents[..1], &[]);
    assert_eq!(alone.code, Some(0), "nobody waits for it: {alone:#?}");
}

fn an_agent_that_failed_is_not_checked(user: User) {
    let scene = Scene::new(user);
    let agents = [
        objective(Document::shell("maker", "exit 2"), "There", "touch \"$TOKA_ARTIFACTS/checked\""),
        awaiting("taker", "maker"),
    ];
    let json = scene.toka_run(&agents, &["--json"]);
    assert_eq!(json.code, Some(1), "{json:#?}");
    assert_eq!(checked(&json, "maker"), Vec::<Value>::new());
    assert_eq!(scene.artifact("maker", "checked"), "");
    assert!(json.place_of("agent_blocked", "taker").is_some(), "{json:#?}");
}

fn a_check_that_hangs_times_out(user: User) {
    let scene = Scene::new(user);
    let maker = Document::shell("maker", "true")
        .spec("stop: {grace_period: 1s}")
        .section("security: {resource_limits: {timeout: 1s}}");
    let agents =
        [objective(maker, "Quick", "trap '' TERM; sleep 600 & wait; sleep 600"), awaiting("taker", "maker")];
    let json = scene.toka_run(&agents, &["--json"]);
    assert_eq!(json.code, Some(1), "{json:#?}");
    let results = checked(&json, "maker");
    assert_eq!((results.len(), &results[0]["met"]), (1, &json!(false)), "{results:#?}");
    assert_eq!(results[0]["exit"]["cause"], "timeout", "{results:#?}");
    assert!(json.exit_of("maker")["code"] == 0 && json.place_of("agent_blocked", "taker").is_some());
    scene.assert_nothing_left();
}

fn a_check_is_bound_by_the_rules_of_its_agent(user: User) {
    let scene = Scene::new(user);
    scene.write(&scene.workspace().join("notes"), "of the workspace\n");
    scene.write(&scene.outside().join("notes"), "of somebody else\n");
    let reads = |name: &str| {
        let check = format!("cat {}", scene.workspace().join("notes").display());
        objective(Document::shell(name, "true"), "It reads", &check)
    };
    let outside = format!("cat {}", scene.outside().join("notes").display());
    let agents = [
        reads("blind"),
        reads("reader").section("security: {capabilities_required: [filesystem-read]}"),
        objective(Document::shell("stray", "true"), "It reads", &outside)
            .section("security: {capabilities_required: [filesystem-read]}"),
    ];
    let json = scene.toka_run(&agents, &["--json"]);
    assert_eq!(json.code, Some(0), "nobody waits for them: {json:#?}");
    for (agent, met) in [("blind", false), ("reader", true), ("stray", false)] {
        let results = checked(&json, agent);
        assert_eq!((results.len(), &results[0]["met"]), (1, &json!(met)), "{agent}: {results:#?}");
    }
    scene.assert_nothing_left();
}

fn a_stop_ends_the_checks_too(user: User) {
    let scene = Scene::new(user);
    let check = "touch \"$TOKA_ARTIFACTS/begun\"; sleep 600";
    let running = scene.start(&[objective(Document::shell("maker", "true"), "Done", check)], &[]);
    let artifacts = scene.state().join("projects").join(scene.name()).join("agents/maker/artifacts");
    until(Duration::from_secs(20), "the check to begin", || artifacts.join("begun").exists().then_some(()));
    running.signal(Signal::SIGINT);
    let json = running.finish();
    assert_eq!(json.code, Some(130), "{json:#?}");
    let results = checked(&json, "maker");
    assert_eq!(results[0]["exit"]["cause"], "stopped", "{results:#?}");
    scene.assert_nothing_left();
}

fn waiting_for_the_objectives_of_a_service_is_78(user: User) {
    let scene = Scene::new(user);
    let server = Document::shell("server", "sleep 600").spec("type: service");
    let agents = [objective(server, "Up", "true"), awaiting("taker", "server")];
    let refused = scene.toka_run(&agents, &[]);
    assert_eq!(refused.code, Some(78), "{refused:#?}");
    assert!(refused.stderr.contains("the checks of a service are not run yet"), "{refused:#?}");
    assert_eq!(scene.artifact("taker", "ran"), "", "nothing starts");
}
