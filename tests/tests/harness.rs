//! The tests' own tools, tried where nothing confines: an attack that cannot succeed anywhere proves nothing, and a
//! look for traces that finds none of what is there neither.

use toka_tests::{Answer, Scene, User, allowed, denied, processes_with};

#[test]
fn the_attacker_tells_what_the_kernel_answered() {
    let Some(user) = User::ordinary() else { return };
    let scene = Scene::new(user);
    let answers = scene.attack_unconfined(&[
        allowed(["read", "/etc/passwd"]),
        denied(["read", "/toka-no-such-file"]),
        denied(["no-such-attack"]),
        allowed(["serve-unix", &scene.workspace().join("out/s").display().to_string()]),
    ]);
    assert_eq!(answers[0], Answer::Allowed(String::new()));
    assert_eq!(answers[1], Answer::Denied("ENOENT".to_owned()));
    assert_eq!(answers[2], Answer::Missing);
    assert_eq!(answers[3], Answer::Allowed(String::new()));
}

#[test]
fn bombs_go_off_where_nothing_limits_them() {
    let Some(user) = User::root() else { return };
    let scene = Scene::new(user);
    let long = scene.workspace().join("out/long").display().to_string();
    let answers = scene.attack_unconfined(&[
        allowed(["fork-bomb", "50"]),
        allowed(["memory-bomb", "64"]),
        allowed(["file-bomb", &long, "16"]),
        allowed(["descriptor-bomb", "100"]),
        allowed(["burn", "200", "1"]),
    ]);
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Allowed(_))), "{answers:?}");
}

#[test]
fn a_process_is_found_by_its_command_line() {
    let Some(user) = User::ordinary() else { return };
    let scene = Scene::new(user);
    let marker = format!("marker-{}", scene.name());
    let mut child = scene.command(&["sh", "-c", "read line", &marker]);
    let mut child = child.stdin(std::process::Stdio::piped()).spawn().expect("a shell starts");
    toka_tests::until(std::time::Duration::from_secs(10), "the process to be seen", || {
        (!processes_with(&marker).is_empty()).then_some(())
    });
    drop(child.stdin.take());
    child.wait().expect("our own child");
    assert!(processes_with(&marker).is_empty());
}
