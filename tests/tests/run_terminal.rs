//! `toka run` on a terminal: it draws there, hears what is typed, and leaves the terminal as it was.

use std::time::Duration;

use toka_tests::{Document, OnTerminal, Reading, Scene, User, as_both_users, until};

as_both_users!(a_run_draws_and_tidies_up, an_interrupt_is_typed, output_of_agents_cannot_draw);

const DEADLINE: Duration = Duration::from_secs(30);

fn start(scene: &Scene, documents: &[Document], options: &[&str]) -> OnTerminal {
    OnTerminal::start(scene, &scene.run_words(documents, options), Reading::Going)
}

fn screen(run: &OnTerminal) -> String {
    String::from_utf8_lossy(&run.written()).into_owned()
}

fn wait_for(run: &OnTerminal, text: &str) {
    until(DEADLINE, text, || screen(run).contains(text).then_some(()));
}

fn finish(mut run: OnTerminal) -> (Option<i32>, String) {
    let status = run.wait();
    // What was written last may not have been read yet.
    wait_for(&run, "AGENT");
    let screen = screen(&run);
    let last = |sequence: &str| screen.rfind(sequence);
    assert!(last("\u{1b}[?25l") <= last("\u{1b}[?25h"), "the cursor is shown again: {screen:?}");
    assert!(!screen.contains("\u{1b}[?1049h"), "what was on the terminal before stays there");
    (status.code(), screen)
}

fn a_run_draws_and_tidies_up(user: User) {
    let scene = Scene::new(user);
    let run = start(&scene, &[Document::shell("painter", "sleep 0.5")], &[]);
    let (code, screen) = finish(run);
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("painter") && screen.contains("\u{1b}["), "it draws: {screen:?}");
    scene.assert_nothing_left();
}

fn an_interrupt_is_typed(user: User) {
    let scene = Scene::new(user);
    let agent = Document::shell(
        "sleeper",
        "trap 'echo end > \"$TOKA_ARTIFACTS/end\"; exit 0' TERM; echo ready; while :; do sleep 0.05; done",
    );
    let mut run = start(&scene, &[agent], &["--follow"]);
    wait_for(&run, "ready");
    run.press("\x03");
    let (code, screen) = finish(run);
    assert_eq!(code, Some(130), "{screen}");
    assert_eq!(
        scene.artifact("sleeper", "end"),
        "end\n",
        "the agent heard of it from Toka alone, in its own time"
    );
    scene.assert_nothing_left();
}

/// An agent that writes escapes to its output must not move the cursor, set a title or clear the screen of whoever
/// follows it.
fn output_of_agents_cannot_draw(user: User) {
    let scene = Scene::new(user);
    let agent = Document::shell("vandal", "printf '\\033]0;owned\\007\\033[2Jgone\\033[1;1H\\n'; sleep 0.2");
    let (code, screen) = finish(start(&scene, &[agent], &["--follow"]));
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("gone"), "the text is shown: {screen:?}");
    assert!(!screen.contains("\u{1b}]0;owned") && !screen.contains("\u{1b}[2J"), "{screen:?}");
}
