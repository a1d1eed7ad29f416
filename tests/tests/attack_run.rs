//! Attacks from inside an agent of a real run, on what only a run has: the doors, homes, credentials and artifacts of
//! another agent, the journal, the keeper and the daemon.

use std::path::PathBuf;

use toka_tests::{Answer, Document, Scene, Try, User, allowed, answers_in, as_both_users, denied, words_of};

as_both_users!(
    the_doors_of_another_agent_refuse,
    what_another_agent_keeps_is_closed,
    the_run_itself_is_out_of_reach,
    what_an_agent_says_is_taken_for_its_own,
);

const SANDBOX: &str = "security: {capabilities_required: [filesystem-read], filesystem: {execute: [attack]}}";

/// Something to attack: a service with a secret, a home and an open door, that ends when the spy has.
fn target() -> Document {
    let line = "echo kept > \"$HOME/kept\"; echo result > \"$TOKA_ARTIFACTS/result\"; echo ready; while :; do sleep 0.05; done";
    Document::shell("target", line).spec("type: service").spec("secrets: {token: {env: SOME_TOKEN}}")
}

/// Runs the attempts as an agent beside the target, once the target has its secrets in place.
fn spy(scene: &Scene, tries: &[Try]) -> Vec<Answer> {
    let mut words = vec!["./attack".to_owned()];
    words.extend(words_of(tries));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let spy = Document::command("spy", &words)
        .section(SANDBOX)
        .spec("secrets: {token: {env: SOME_TOKEN}}")
        .section(
            "dependencies: {optional: {target: {reason: it is attacked, condition: {log_line: ready}}}}",
        );
    let finished = scene.toka_run(&[target(), spy], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    scene.assert_nothing_left();
    answers_in(&std::fs::read_to_string(agent(scene, "spy").join("log")).expect("the log"), tries)
}

fn agent(scene: &Scene, name: &str) -> PathBuf {
    project(scene).join("agents").join(name)
}

fn project(scene: &Scene) -> PathBuf {
    scene.state().join("projects").join(scene.name())
}

fn runtime(scene: &Scene, name: &str) -> PathBuf {
    scene.state().join("run").join(scene.name()).join(name)
}

fn scene(user: User) -> Scene {
    Scene::new(user).env("SOME_TOKEN", "token").env("TOKA_TRUST", "all")
}

fn expect(tries: &[Try], answers: &[Answer]) {
    let wrong: Vec<String> = tries
        .iter()
        .zip(answers)
        .filter(|(attempt, answer)| !attempt.is_met_by(answer))
        .map(|(attempt, answer)| format!("{attempt:?}: {answer:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn the_doors_of_another_agent_refuse(user: User) {
    let scene = scene(user);
    let door =
        |name: &str, socket: &str| runtime(&scene, name).join("door").join(socket).display().to_string();
    let tries = [
        denied(["connect-unix", &door("target", "agent")]),
        denied(["send-unix", &door("target", "notify")]),
        denied(["list", &runtime(&scene, "target").display().to_string()]),
        denied(["list", &scene.state().join("run").display().to_string()]),
        // One's own door is at the same kind of place, so the paths are right.
        allowed(["connect-unix", &door("spy", "agent")]),
        allowed(["send-unix", &door("spy", "notify")]),
        denied(["unlink", &door("spy", "agent")]),
        denied(["create", &runtime(&scene, "spy").join("door/planted").display().to_string()]),
    ];
    expect(&tries, &spy(&scene, &tries));
}

fn what_another_agent_keeps_is_closed(user: User) {
    let scene = scene(user);
    let path = |path: PathBuf| path.display().to_string();
    let tries = [
        denied(["read", &path(runtime(&scene, "target").join("credentials/token"))]),
        denied(["read", &path(agent(&scene, "target").join("home/kept"))]),
        // It waits for the target, so the target's artifacts are its inputs: to read, and no more.
        allowed(["read", &path(agent(&scene, "target").join("artifacts/result"))]),
        denied(["append", &path(agent(&scene, "target").join("artifacts/result"))]),
        denied(["read", &path(agent(&scene, "target").join("log"))]),
        denied(["create", &path(agent(&scene, "target").join("tmp/planted"))]),
        denied(["read", &path(project(&scene).join("journal.db"))]),
        denied(["append", &path(project(&scene).join("journal.db"))]),
        denied(["append", &path(project(&scene).join("lock"))]),
        denied(["append", &path(agent(&scene, "spy").join("log"))]),
        denied(["list", &path(scene.state())]),
        allowed(["read", &path(runtime(&scene, "spy").join("credentials/token"))]),
        denied(["append", &path(runtime(&scene, "spy").join("credentials/token"))]),
        allowed(["create", &path(agent(&scene, "spy").join("home/mine"))]),
        allowed(["create", &path(agent(&scene, "spy").join("artifacts/mine"))]),
    ];
    expect(&tries, &spy(&scene, &tries));
    let kept =
        std::fs::read_to_string(agent(&scene, "target").join("home/kept")).expect("what the target kept");
    assert_eq!(kept, "kept\n", "there was something to read");
}

fn the_run_itself_is_out_of_reach(user: User) {
    let scene = scene(user);
    let tries = [
        denied(["signal-scan"]),
        denied(["proc-scan"]),
        denied(["inherited-descriptors"]),
        denied(["new-privileges"]),
        denied(["capabilities"]),
        denied(["leave-cgroup"]),
        denied(["open-write", &scene.folder().join("workstreams/spy.yaml").display().to_string()]),
    ];
    let tries: Vec<Try> =
        tries.into_iter().filter(|attempt| user == User::Root || attempt.name() != "proc-scan").collect();
    expect(&tries, &spy(&scene, &tries));
}

/// Who reports is decided by the door that it came through, never by what it says of itself.
fn what_an_agent_says_is_taken_for_its_own(user: User) {
    let scene = scene(user);
    let line = "TOKA_AGENT=target toka report progress 0.5 --status lies";
    let liar = Document::shell("liar", line)
        .section("dependencies: {optional: {target: {reason: it is blamed, condition: {log_line: ready}}}}");
    let finished = scene.toka_run(&[target(), liar], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let events = finished.events();
    let lies: Vec<_> = events.iter().filter(|event| event["status"] == "lies").collect();
    assert!(!lies.is_empty(), "{finished:#?}");
    assert!(lies.iter().all(|event| event["agent"] == "liar"), "{lies:#?}");
}
