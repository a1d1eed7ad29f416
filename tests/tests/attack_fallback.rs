//! Attacks where the kernel gives ordinary users no namespaces: what Landlock and the filter hold by themselves, and
//! that the report says what is missing.

use std::ffi::OsString;

use toka_tests::{Document, Need, Scene, allowed, answers_in, denied, require, words_of};

#[test]
fn landlock_and_the_filter_hold_alone_and_the_rest_is_reported() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = Scene::without_namespaces();
    let secret = scene.outside().join("secret.txt").display().to_string();
    let own = scene.workspace().join("out/own.txt").display().to_string();
    let readable = scene.workspace().join("readable.txt").display().to_string();
    let tries = [
        denied(["read", &secret]),
        denied(["append", &secret]),
        denied(["append", &readable]),
        denied(["list", &scene.home().display().to_string()]),
        denied(["connect-abstract", "toka-nobody"]),
        denied(["unshare", "user"]),
        denied(["tcp", "127.0.0.1:9"]),
        denied(["mount", &scene.workspace().join("out").display().to_string()]),
        denied(["signal-scan"]),
        denied(["new-privileges"]),
        denied(["io-uring"]),
        allowed(["read", &readable]),
        allowed(["append", &own]),
    ];
    let mut words = vec![scene.workspace().join("attack").into_os_string()];
    words.extend(words_of(&tries).into_iter().map(OsString::from));
    let finished = scene.exec(&words);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(finished.coverage("mounts"), "none", "it says what is missing: {finished:#?}");
    assert_eq!(
        (finished.coverage("landlock").as_str(), finished.coverage("seccomp").as_str()),
        ("full", "full")
    );
    for (attempt, answer) in tries.iter().zip(answers_in(&finished.stdout, &tries)) {
        assert!(attempt.is_met_by(&answer), "{attempt:?}: {answer:?}");
    }
    scene.assert_nothing_left();
}

/// There the terminals are the host's, and those of others with them; the rules keep them shut.
#[test]
fn an_agent_has_its_terminal_and_opens_no_other() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = Scene::without_namespaces();
    let other = nix::pty::openpty(None, None).expect("a terminal");
    let theirs = nix::unistd::ttyname(&other.slave).expect("a name");
    scene.user().own(&theirs);
    let theirs = theirs.display();
    let look = format!(
        "test -t 0 && stty size; echo direct > /dev/tty; (: > {theirs}) 2>&1; ls /dev/pts >/dev/null 2>&1 || echo shut"
    );
    let finished = scene.toka_run(&[Document::on_terminal("looker", &look)], &["--json"]);
    let log = scene.state().join("projects").join(scene.name()).join("agents/looker/log");
    let log = std::fs::read_to_string(log).unwrap_or_default();
    assert!(log.contains("24 80\r\ndirect\r\n"), "{log:?} {finished:#?}");
    assert!(log.contains("Permission denied") && log.contains("shut"), "{log:?}");
    scene.assert_nothing_left();
}

#[test]
fn strict_compatibility_refuses_a_host_without_namespaces() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = Scene::without_namespaces()
        .security("\n  capabilities_required: [filesystem-read]\n  compatibility: strict");
    let finished = scene.exec(&["true"]);
    assert_eq!(finished.code, Some(77), "{finished:#?}");
    assert!(finished.stderr.contains("mounts"), "it names what the host cannot enforce: {finished:#?}");
    scene.assert_nothing_left();
}

#[test]
fn a_run_is_refused_before_anything_starts() {
    if !require(&[Need::UserNamespaces]) {
        return;
    }
    let scene = Scene::without_namespaces();
    let agents = [
        Document::shell("fine", "echo ran > \"$TOKA_ARTIFACTS/ran\""),
        Document::shell("demanding", "true").section("security: {compatibility: strict}"),
    ];
    let finished = scene.toka_run(&agents, &[]);
    assert_eq!(finished.code, Some(77), "{finished:#?}");
    assert!(finished.stderr.contains("demanding.yaml:4"), "the line that demands it: {finished:#?}");
    assert!(finished.stderr.contains("this host cannot enforce mounts ("), "the layer: {finished:#?}");
    assert_eq!(scene.artifact("fine", "ran"), "", "nothing starts");
    scene.assert_nothing_left();
}
