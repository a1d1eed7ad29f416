//! `toka run` on a terminal: it draws there, hears what is typed, and leaves the terminal as it was.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use toka_tests::{Document, Scene, User, as_both_users, until};

as_both_users!(a_run_draws_and_tidies_up, an_interrupt_is_typed, output_of_agents_cannot_draw);

const DEADLINE: Duration = Duration::from_secs(30);

/// A run with a terminal of its own.
struct OnTerminal {
    child: Child,
    keyboard: File,
    terminal: OwnedFd,
    before: Termios,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    fn start(scene: &Scene, documents: &[Document], options: &[&str]) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a terminal");
        scene.user().own(&nix::unistd::ttyname(&pty.slave).expect("a terminal has a name"));
        let before = tcgetattr(&pty.slave).expect("a terminal");
        let mut words: Vec<std::ffi::OsString> = ["setsid", "--ctty", "--wait"].map(Into::into).to_vec();
        words.extend(scene.run_words(documents, options));
        let stream = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let mut command = scene.bare_command(&words);
        command.env("TERM", "xterm-256color").stdin(stream()).stdout(stream()).stderr(stream());
        let child = command.spawn().expect("the run starts");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let keyboard = File::from(pty.master);
        let mut master = keyboard.try_clone().expect("a descriptor");
        let seen = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = master.read(&mut buffer) {
                seen.lock().expect("nobody panics with it").extend_from_slice(&buffer[..count]);
            }
        });
        Self { child, keyboard, terminal: pty.slave, before, screen }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("nobody panics with it")).into_owned()
    }

    fn wait_for(&self, text: &str) {
        until(DEADLINE, text, || self.screen().contains(text).then_some(()));
    }

    /// Waits for the end and checks that the terminal is as it was.
    fn finish(mut self) -> (Option<i32>, String) {
        let status = until(DEADLINE, "the run to end", || self.child.try_wait().expect("our own child"));
        let after = tcgetattr(&self.terminal).expect("a terminal");
        assert_eq!(after.local_flags, self.before.local_flags, "echo and the like are as they were");
        assert!(after.local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON));
        assert_eq!(after.output_flags, self.before.output_flags);
        // What was written last may not have been read yet.
        self.wait_for("AGENT");
        let screen = self.screen();
        let last = |sequence: &str| screen.rfind(sequence);
        assert!(last("\u{1b}[?25l") <= last("\u{1b}[?25h"), "the cursor is shown again: {screen:?}");
        assert!(!screen.contains("\u{1b}[?1049h"), "what was on the terminal before stays there");
        (status.code(), screen)
    }
}

fn a_run_draws_and_tidies_up(user: User) {
    let scene = Scene::new(user);
    let run = OnTerminal::start(&scene, &[Document::shell("painter", "sleep 0.5")], &[]);
    let (code, screen) = run.finish();
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
    let mut run = OnTerminal::start(&scene, &[agent], &["--follow"]);
    run.wait_for("ready");
    run.keyboard.write_all(b"\x03").expect("a key");
    let (code, screen) = run.finish();
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
    let (code, screen) = OnTerminal::start(&scene, &[agent], &["--follow"]).finish();
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("gone"), "the text is shown: {screen:?}");
    assert!(!screen.contains("\u{1b}]0;owned") && !screen.contains("\u{1b}[2J"), "{screen:?}");
}
