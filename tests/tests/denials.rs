//! Agents that end at a wall of their sandbox and ask a person to open it: a yes opens that path and begins them anew, whatever happens to the daemon
//! meanwhile; without a yes nothing is opened.

mod survive_support;

use serde_json::Value;
use survive_support::{eventually, kill_daemon, serve_again, told};
use toka_tests::{Document, Scene, User, as_both_users};

as_both_users!(
    a_yes_opens_the_path_and_begins_the_agent_anew,
    a_no_leaves_the_agent_as_it_has_ended,
    a_stop_is_a_no,
    nobody_is_waited_for_where_nobody_is_asked,
    an_answer_counts_after_the_daemon_was_killed,
    what_a_policy_denies_no_yes_opens,
    a_run_that_ends_asks_nobody,
    keys_of_the_user_are_never_asked_about,
    what_is_opened_is_where_links_lead,
    what_was_opened_is_for_one_declaration,
);

/// Reads a file outside of the workspace, which nobody has granted.
fn reader(scene: &Scene, name: &str) -> Document {
    let line = format!("cat {}/secret.txt", scene.outside().display());
    Document::shell(name, &line).section("security: {filesystem: {ask: true}}")
}

fn approvals(scene: &Scene) -> Vec<Value> {
    let listed = scene.toka(&["approvals", "--json", "--project", scene.name()]);
    serde_json::from_str(&listed.stdout).unwrap_or_default()
}

fn asks(scene: &Scene) -> Value {
    eventually("somebody asks", || !approvals(scene).is_empty());
    approvals(scene).remove(0)
}

fn answer(scene: &Scene, word: &str) {
    let answered = scene.toka(&["approvals", word, "--project", scene.name()]);
    assert_eq!(answered.code, Some(0), "{answered:#?}");
}

fn log(scene: &Scene, agent: &str) -> String {
    let log = scene.state().join("projects").join(scene.name()).join("agents").join(agent).join("log");
    std::fs::read_to_string(log).unwrap_or_default()
}

fn a_yes_opens_the_path_and_begins_the_agent_anew(user: User) {
    let scene = Scene::new(user);
    let keep = Document::service("keep", "sleep 600");
    let next = Document::shell("next", "echo it goes on").after(&["reader"]);
    let detached = scene.detach(&[keep, reader(&scene, "reader"), next]);
    let open = asks(&scene);
    let path = scene.outside().join("secret.txt").display().to_string();
    assert_eq!((&open["kind"], &open["opening"]["key"]), (&"denial".into(), &"read".into()), "{open}");
    assert_eq!(open["opening"]["path"], path.as_str(), "{open}");
    assert_eq!((detached.state("reader").as_str(), detached.state("next").as_str()), ("ended", "pending"));
    let shown = scene.toka(&["approvals", "show", "--project", scene.name()]);
    let flat = shown.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(&format!("security: {{filesystem: {{read: [{path}]}}}}")), "{shown:#?}");
    answer(&scene, "approve");
    eventually("the one after it has ended", || detached.state("next") == "ended");
    assert_eq!(log(&scene, "reader").lines().last(), Some("secret"));
    assert_eq!(log(&scene, "next"), "it goes on\n");
    let answered = told(&detached, "approval_answered");
    assert_eq!((answered.len(), &answered[0]["answer"]), (1, &"approved".into()), "{answered:?}");
    assert!(approvals(&scene).is_empty());
    // It is open until the run ends, and no longer.
    let again = detached.try_toka(&["start", "reader"]);
    assert_eq!(again.code, Some(0), "{again:#?}");
    eventually("it has read it again", || log(&scene, "reader").matches("\nsecret").count() == 2);
}

fn a_no_leaves_the_agent_as_it_has_ended(user: User) {
    let scene = Scene::new(user);
    let keep = Document::service("keep", "sleep 600");
    let next = Document::shell("next", "true").after(&["reader"]);
    let detached = scene.detach(&[keep, reader(&scene, "reader"), next]);
    asks(&scene);
    answer(&scene, "deny");
    eventually("nobody waits for it", || detached.state("next") == "blocked");
    assert_eq!(detached.inspect("reader")["exit"]["code"], 1, "{}", detached.inspect("reader"));
    assert!(!log(&scene, "reader").contains("secret\n"));
}

fn a_stop_is_a_no(user: User) {
    let scene = Scene::new(user);
    let keep = Document::service("keep", "sleep 600");
    let next = Document::shell("next", "true").after(&["reader"]);
    let detached = scene.detach(&[keep, reader(&scene, "reader"), next]);
    asks(&scene);
    detached.try_toka(&["stop", "reader"]);
    eventually("nobody waits for it", || detached.state("next") == "blocked");
    assert!(approvals(&scene).is_empty(), "nothing is asked any more");
    let answered = told(&detached, "approval_answered");
    assert_eq!((answered.len(), &answered[0]["answer"]), (1, &"denied".into()), "{answered:#?}");
}

/// In a run without a person it fails at once, as without `ask`.
fn nobody_is_waited_for_where_nobody_is_asked(user: User) {
    let scene = Scene::new(user);
    let policy = scene.folder().join("policy.yaml");
    scene.write(&policy, "approvals: {expire: 0s}\n");
    let policy = policy.display().to_string();
    let finished = scene.toka_run(&[reader(&scene, "reader")], &["--json", "--policy", &policy]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert_eq!(finished.all("approval_asked", "reader").len(), 1);
    scene.assert_nothing_left();
}

fn an_answer_counts_after_the_daemon_was_killed(user: User) {
    let scene = Scene::new(user);
    let keep = Document::service("keep", "sleep 600");
    let detached = scene.detach(&[keep, reader(&scene, "reader")]);
    asks(&scene);
    kill_daemon(&scene);
    serve_again(&scene);
    assert_eq!(asks(&scene)["kind"], "denial");
    answer(&scene, "approve");
    eventually("it has read it", || log(&scene, "reader").contains("secret\n"));
    // What was opened is known to the next one, too.
    kill_daemon(&scene);
    serve_again(&scene);
    eventually("it has ended", || detached.state("reader") == "ended");
    assert_eq!(detached.try_toka(&["start", "reader"]).code, Some(0));
    eventually("it has read it again", || log(&scene, "reader").matches("secret\n").count() == 2);
    assert_eq!(told(&detached, "approval_asked").len(), 1);
}

fn what_a_policy_denies_no_yes_opens(user: User) {
    let scene = Scene::new(user);
    let policy = scene.folder().join("policy.yaml");
    scene.write(&policy, "deny: [filesystem-outside]\n");
    let keep = Document::service("keep", "sleep 600");
    let detached = scene.adopt();
    let policy = policy.display().to_string();
    let begun = scene.toka_run(&[keep, reader(&scene, "reader")], &["--detach", "--policy", &policy]);
    assert_eq!(begun.code, Some(0), "{begun:#?}");
    asks(&scene);
    answer(&scene, "approve");
    eventually("it is refused", || detached.inspect("reader")["exit"]["cause"] == "start_failed");
    let why = detached.inspect("reader")["exit"]["reason"].to_string();
    assert!(why.contains("denied by the policy"), "{why}");
    // It can be started again, and asks again.
    let again = detached.try_toka(&["start", "reader"]);
    assert_eq!(again.code, Some(0), "{again:#?}");
    assert_eq!(asks(&scene)["kind"], "denial");
    assert!(!log(&scene, "reader").contains("secret\n"));
}

fn a_run_that_ends_asks_nobody(user: User) {
    let scene = Scene::new(user);
    let mut running = scene.start(&[reader(&scene, "reader")], &[]);
    running.wait_for("approval_asked", "reader");
    running.signal(nix::sys::signal::Signal::SIGINT);
    let finished = running.finish();
    assert_eq!(finished.code, Some(130), "{finished:#?}");
    let answered = finished.all("approval_answered", "reader");
    assert_eq!(answered[0]["answer"], "withdrawn", "{finished:#?}");
    scene.assert_nothing_left();
}

fn keys_of_the_user_are_never_asked_about(user: User) {
    let scene = Scene::new(user);
    let key = scene.home().join(".ssh/id_ed25519");
    let state = scene.state().join("projects");
    for path in [key, state, scene.home()] {
        let line = format!("cat {0}; ls {0}; touch {0}/new", path.display());
        let agent = Document::shell("curious", &line).section("security: {filesystem: {ask: true}}");
        let finished = scene.toka_run(&[agent], &["--json"]);
        assert_eq!(finished.code, Some(1), "{finished:#?}");
        assert!(finished.all("approval_asked", "curious").is_empty(), "{}: {finished:#?}", path.display());
    }
    scene.assert_nothing_left();
}

fn what_is_opened_is_where_links_lead(user: User) {
    let scene = Scene::new(user);
    let link = scene.folder().join("link");
    std::os::unix::fs::symlink(scene.outside(), &link).expect("room");
    let keep = Document::service("keep", "sleep 600");
    let line = format!("cat {}/secret.txt || cat {}/secret.txt", link.display(), scene.outside().display());
    let reader = Document::shell("reader", &line).section("security: {filesystem: {ask: true}}");
    let _detached = scene.detach(&[keep, reader]);
    let real = scene.outside().join("secret.txt").display().to_string();
    assert_eq!(asks(&scene)["opening"]["path"], real.as_str());
    answer(&scene, "approve");
    eventually("it has read it", || log(&scene, "reader").contains("secret\n"));
}

fn what_was_opened_is_for_one_declaration(user: User) {
    let scene = Scene::new(user);
    let keep = || Document::service("keep", "sleep 600");
    let detached = scene.detach(&[keep(), reader(&scene, "reader")]);
    asks(&scene);
    answer(&scene, "approve");
    eventually("it has read it", || log(&scene, "reader").contains("secret\n"));
    let line = format!("cat {}/secret.txt; true", scene.outside().display());
    let applied = scene.apply(&[keep(), Document::shell("reader", &line)], &[]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    assert_eq!(detached.try_toka(&["start", "reader"]).code, Some(0));
    eventually("it has ended again", || {
        told(&detached, "agent_ended").iter().filter(|it| it["agent"] == "reader").count() >= 3
    });
    assert_eq!(log(&scene, "reader").matches("secret\n").count(), 1, "{}", log(&scene, "reader"));
}
