//! `toka doctor` on hosts as they are: where the walls stand every proof holds, where they do not it says so, and nothing of
//! it is left, however it ends.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use toka_tests::{
    Document, Finished, Need, Scene, User, as_both_users, cgroups_of, require, toka_binary, until,
};

as_both_users!(
    every_wall_holds,
    a_look_tries_nothing,
    what_runs_in_the_foreground_is_no_leftover,
    a_killed_doctor_leaves_nothing,
);

fn words(scene: &Scene, options: &[&str]) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![toka_binary().into(), "doctor".into()];
    words.extend(["--state-dir".into(), scene.state().into()]);
    words.extend(options.iter().map(OsString::from));
    words
}

fn doctor(scene: &Scene, options: &[&str]) -> Finished {
    scene.run(&words(scene, options))
}

fn report(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:#?}"))
}

/// The word at `key` of the check with this id.
fn of<'r>(report: &'r Value, id: &str, key: &str) -> &'r str {
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no check {id}"));
    check[key].as_str().expect("a word")
}

/// Sections of what was tried.
const PROOFS: [&str; 8] = ["works", "files", "network", "processes", "kernel", "rights", "limits", "life"];

/// Ids and verdicts of everything that was tried.
fn proofs(report: &Value) -> Vec<(&str, &str)> {
    let checks = report["checks"].as_array().expect("checks").iter();
    let tried = checks.filter(|check| PROOFS.iter().any(|section| check["section"] == *section));
    tried
        .map(|check| (check["id"].as_str().expect("a word"), check["verdict"].as_str().expect("a word")))
        .collect()
}

/// Folders of a doctor of this scene.
fn folders(scene: &Scene) -> Vec<PathBuf> {
    let prefix = format!("toka-{}-", scene.name());
    let below = std::fs::read_dir("/var/tmp").expect("it is there").flatten().map(|entry| entry.path());
    let of_doctors = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&prefix) && name.contains("-doctor-")
    };
    below.filter(of_doctors).collect()
}

fn assert_nothing_left(scene: &Scene) {
    scene.assert_nothing_left();
    let folders = folders(scene);
    assert!(folders.is_empty(), "{folders:?}");
    let state: Vec<_> = scene.state().read_dir().expect("it is there").collect();
    assert!(state.is_empty(), "a look makes no state: {state:?}");
}

fn every_wall_holds(user: User) {
    let scene = Scene::new(user);
    let finished = doctor(&scene, &["--json"]);
    let report = report(&finished);
    assert_eq!((finished.code, &report["exit_code"]), (Some(0), &Value::from(0)), "{finished:#?}");
    assert_eq!((&report["holes"], &report["faults"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    let proofs = proofs(&report);
    assert!(proofs.len() > 35, "{proofs:?}");
    let is_root = user == User::Root && require(&[Need::Cgroups]);
    // What takes groups is not there for an ordinary user to whom none were delegated.
    let of_groups = ["limits.memory", "limits.cpu", "life.freeze"];
    for (id, verdict) in &proofs {
        let expected: &[&str] = match is_root {
            true => &["ok", "unprovable"],
            false if of_groups.contains(id) => &["ok", "weaker", "missing"],
            false => &["ok", "unprovable"],
        };
        assert!(expected.contains(verdict), "{id} is {verdict}: {finished:#?}");
    }
    // These need nothing of the host, so that they are proved everywhere.
    for id in [
        "works.home",
        "files.read",
        "files.untouched",
        "files.secret",
        "network.socket",
        "rights.set_id",
        "life.stop",
    ] {
        assert_eq!(of(&report, id, "verdict"), "ok", "{finished:#?}");
    }
    assert_nothing_left(&scene);
}

fn a_look_tries_nothing(user: User) {
    let scene = Scene::new(user);
    let report = report(&doctor(&scene, &["--quick", "--json"]));
    assert_eq!(proofs(&report), []);
    assert!(!of(&report, "host.kernel", "found").is_empty());
    let page = doctor(&scene, &["--quick"]);
    assert!(page.stdout.contains("nothing was tried"), "{page:#?}");
    assert_nothing_left(&scene);
}

/// Between two lives the groups of its agents are empty, and its sockets are there all the time.
fn what_runs_in_the_foreground_is_no_leftover(user: User) {
    let scene = Scene::new(user);
    let again = Document::shell("again", "exit 1")
        .spec("restart: {policy: on-failure, max_restarts: unlimited, backoff: {initial: 1h, max: 1h}}");
    let mut run = scene.start(&[again], &[]);
    run.wait_for("agent_restarting", "again");
    let report = report(&doctor(&scene, &["--quick", "--json"]));
    assert_eq!(of(&report, "room.leftovers", "found"), "nothing", "{report:#}");
    let collected = scene.toka(&["gc", "--json"]);
    assert!(collected.stdout.contains("it runs"), "{collected:#?}");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.finish().code, Some(143));
    scene.assert_nothing_left();
}

/// Killed with signal 9 while its probes run: the keeper tidies up.
fn a_killed_doctor_leaves_nothing(user: User) {
    const PATIENCE: Duration = Duration::from_secs(20);
    let scene = Scene::new(user);
    let mut command = scene.bare_command(&words(&scene, &[]));
    let mut doctor = command.stdout(std::process::Stdio::null()).spawn().expect("it starts");
    until(PATIENCE, "a folder with sockets", || {
        folders(&scene).first().filter(|folder| folder.join("twin/socket").exists()).map(|_| ())
    });
    doctor.kill().expect("it is ours");
    let status = doctor.wait().expect("it is ours");
    assert!(!status.success(), "it was at work: {status}");
    until(PATIENCE, "everything to be gone", || {
        let gone = folders(&scene).is_empty()
            && cgroups_of(scene.name()).is_empty()
            && toka_tests::processes_with(scene.name()).is_empty();
        gone.then_some(())
    });
    assert_nothing_left(&scene);
}

#[test]
fn where_namespaces_are_refused_it_says_what_that_costs() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = Scene::without_namespaces();
    let finished = doctor(&scene, &["--json"]);
    let report = report(&finished);
    assert_eq!(finished.code, Some(0), "agents run there: {finished:#?}");
    // Neither a control group nor a process namespace ends what a probe leaves behind.
    for id in [
        "life.stop",
        "host.namespaces",
        "layer.mounts",
        "files.mode",
        "files.times",
        "network.socket",
        "processes.see",
    ] {
        assert_eq!(of(&report, id, "verdict"), "missing", "{id}: {finished:#?}");
        assert!(!of(&report, id, "means").is_empty() && !of(&report, id, "fix").is_empty(), "{id}");
    }
    assert!(of(&report, "host.namespaces", "fix").contains("max_user_namespaces"), "{finished:#?}");
    // A probe that could touch them did, and the files tell.
    assert_eq!(of(&report, "files.untouched", "verdict"), "weaker", "{finished:#?}");
    for id in [
        "files.read",
        "files.write",
        "network.abstract",
        "network.tcp",
        "processes.signal",
        "kernel.io_uring",
    ] {
        assert_eq!(of(&report, id, "verdict"), "ok", "the other walls hold: {finished:#?}");
    }
    let strictly = doctor(&scene, &["--strict"]);
    assert_eq!(strictly.code, Some(1), "{strictly:#?}");
    assert!(strictly.stdout.contains("layer.mounts"), "{strictly:#?}");
    assert_nothing_left(&scene);
}

#[test]
fn every_finding_has_its_chapter() {
    let text = std::fs::read_to_string(toka_tests::workspace_root().join("docs/troubleshooting.md"));
    let text = text.expect("the page");
    let scene = Scene::new(User::Ordinary);
    let report = report(&scene.run(&words(&scene, &["--json"])));
    for check in report["checks"].as_array().expect("checks") {
        let id = check["id"].as_str().expect("a word");
        assert!(text.contains(&format!("`{id}`")), "docs/troubleshooting.md says nothing of {id}");
    }
}
