//! The audit: what was done is told in one envelope, by type, session, user and time, and whatever somebody does to the record is found.

mod models_support;
mod survive_support;

use std::process::Command;

use models_support::{asks, asks_within, output, scene, scripted};
use serde_json::Value;
use survive_support::{eventually, kill_daemon, serve_again};
use toka_tests::{Scene, User, as_both_users, until};

as_both_users!(
    acts_are_told_in_one_envelope,
    a_record_that_somebody_changed_is_found,
    the_chain_goes_on_after_a_killed_daemon,
);

fn audit(scene: &Scene, words: &[&str]) -> Vec<Value> {
    let told = scene.toka(&[&["audit", "--json", "--project", scene.name()], words].concat());
    assert_eq!(told.code, Some(0), "{told:#?}");
    told.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn verify(scene: &Scene, words: &[&str]) -> (Option<i32>, Value) {
    let told = scene.toka(&[&["audit", "--verify", "--json", "--project", scene.name()], words].concat());
    (told.code, serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:#?}")))
}

fn acts_are_told_in_one_envelope(user: User) {
    let scene = scene(user);
    let python = "print(ask()); ask(key='wrong')";
    let budget = "security: {capabilities_required: [filesystem-read], budget: {calls: 1}}";
    let finished = scene.toka_run(&[scripted(asks_within("asker", python, budget))], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let all = audit(&scene, &[]);
    let types: Vec<&str> = all.iter().filter_map(|act| act["type"].as_str()).collect();
    for expected in [
        "run.started",
        "agent.started",
        "model.selected",
        "cost.tracked",
        "model.refused",
        "agent.ended",
        "run.ended",
    ] {
        assert!(types.contains(&expected), "{expected} in {types:?}");
    }
    for act in &all {
        for key in ["type", "sessionId", "timestamp", "userId", "status", "context"] {
            assert!(act.get(key).is_some(), "{key} in {act}");
        }
    }
    let [selected] = &audit(&scene, &["--type", "model.selected"])[..] else { panic!("{all:#?}") };
    assert_eq!(
        (&selected["status"], &selected["context"]["model"]),
        (&"pending".into(), &"script/scripted".into())
    );
    let [tracked] = &audit(&scene, &["--type", "cost"])[..] else { panic!("{all:#?}") };
    assert_eq!((&tracked["status"], &tracked["context"]["tokens"]["output"]), (&"success".into(), &3.into()));
    assert_eq!(tracked["context"]["call"], selected["context"]["call"]);
    let session = tracked["sessionId"].as_str().expect("a session");
    assert!(session.starts_with("agent:asker:"), "{session}");
    assert_eq!(
        audit(&scene, &["--session", session]).iter().filter(|act| act["sessionId"] != session).count(),
        0
    );
    assert_eq!(audit(&scene, &["--session", "agent:nobody:0"]), Vec::<Value>::new());
    let owner = tracked["userId"].as_str().expect("a user");
    assert_eq!(audit(&scene, &["--user", owner]).len(), all.len());
    assert_eq!(audit(&scene, &["--user", "4294967294"]), Vec::<Value>::new());
    assert_eq!(audit(&scene, &["--since", "2100-01-01T00:00:00Z"]), Vec::<Value>::new());
    assert_eq!(audit(&scene, &["--since", "1h", "--type", "model,cost"]).len(), 3);
    let text = scene.toka(&["audit", "--project", scene.name()]);
    assert_eq!(
        text.stdout.lines().filter(|line| line.trim_start().starts_with("seq  time ")).count(),
        1,
        "{text:#?}"
    );
    let slip = scene.toka(&["audit", "--type", "modle", "--project", scene.name()]);
    assert_eq!(slip.code, Some(2), "{slip:#?}");
    assert!(slip.stderr.contains("no act has this type; there are run.started, "), "{slip:#?}");
    assert!(text.stdout.contains("model.refused") && !text.stdout.contains('\u{1b}'), "{text:#?}");
    let nobody = scene.toka(&["audit", "--project", "nobody"]);
    assert_eq!(nobody.code, Some(2), "{nobody:#?}");
    scene.assert_nothing_left();
}

/// Does something to the journal of the scene, which nobody writes at the moment.
fn tamper(scene: &Scene, sql: &str) {
    let journal = scene.state().join("projects").join(scene.name()).join("journal.db");
    let python =
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.executescript(sys.argv[2]); db.commit()";
    let done = Command::new("/usr/bin/python3")
        .args(["-c", python])
        .arg(&journal)
        .arg(sql)
        .status()
        .expect("python");
    assert!(done.success(), "{sql}");
}

fn a_record_that_somebody_changed_is_found(user: User) {
    let scene = scene(user);
    let run = || {
        let finished = scene.toka_run(&[scripted(asks("asker", "print(ask())"))], &["--json"]);
        assert_eq!(finished.code, Some(0), "{finished:#?}");
    };
    run();
    let (code, whole) = verify(&scene, &[]);
    assert_eq!((code, &whole["ok"], &whole["without_hash"]), (Some(0), &true.into(), &0.into()), "{whole}");
    let head = whole["head"].as_str().expect("a head").to_owned();
    run();
    assert_eq!(verify(&scene, &["--head", &head]).0, Some(0), "what is added changes nothing of before");

    tamper(
        &scene,
        "UPDATE events SET body = replace(body, '\"output\":3', '\"output\":2') WHERE type = 'model_answered'",
    );
    let (code, found) = verify(&scene, &[]);
    assert_eq!((code, &found["ok"]), (Some(1), &false.into()));
    let broken = found["broken"].as_array().expect("a list");
    assert_eq!(broken.len(), 2, "each run has one: {found}");
    assert!(
        broken[0]["message"].as_str().is_some_and(|words| words.ends_with("is not as it was written")),
        "{found}"
    );
    let text = scene.toka(&["audit", "--verify", "--project", scene.name()]);
    assert!(text.code == Some(1) && text.stdout.contains("is not as it was written"), "{text:#?}");

    tamper(&scene, "DELETE FROM events WHERE type = 'model_answered'");
    let (_, found) = verify(&scene, &[]);
    assert!(
        found["broken"].as_array().is_some_and(|all| all.iter().all(|one| one["what"] == "missing")),
        "{found}"
    );
    // The end of the file is found by who has kept a head.
    tamper(&scene, "DELETE FROM events WHERE seq > 3");
    assert_eq!(verify(&scene, &[]).0, Some(0));
    let (code, found) = verify(&scene, &["--head", &head]);
    assert_eq!((code, &found["broken"][0]["what"]), (Some(1), &"not_head".into()), "{found}");
    assert_eq!(
        scene.toka(&["audit", "--verify", "--head", "nonsense", "--project", scene.name()]).code,
        Some(2)
    );
}

fn the_chain_goes_on_after_a_killed_daemon(user: User) {
    let scene = scene(user);
    let python = "import time
while True:
    try:
        print(ask(), flush=True)
    except Exception as error:
        pass
    time.sleep(0.01)";
    let _detached = scene.detach(&[scripted(asks("asker", python).spec("type: service"))]);
    let answers = || output(&scene, "asker").lines().count();
    for _ in 0..3 {
        let before = answers();
        eventually("it asks", || answers() > before + 3);
        kill_daemon(&scene);
        serve_again(&scene);
    }
    let before = answers();
    until(std::time::Duration::from_secs(40), "it asks", || (answers() > before + 3).then_some(()));
    let (code, found) = verify(&scene, &[]);
    assert_eq!((code, &found["ok"]), (Some(0), &true.into()), "while it is written: {found}");
}
