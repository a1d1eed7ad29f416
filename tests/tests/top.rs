//! `toka top` on a terminal of its own: what it shows, what its keys do, and how it leaves the terminal.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toka_api::client::Client;
use toka_core::Name;
use toka_tests::{Document, Reading, Scene, User, as_both_users, processes_with, toka_binary, until};

as_both_users!(
    agents_are_seen_and_controlled_by_keys,
    other_commands_get_the_terminal_and_give_it_back,
    a_signal_leaves_the_terminal_as_it_was,
    a_signal_ends_it_though_its_terminal_stands_still,
    projects_come_and_go_and_a_dead_daemon_is_told,
    without_a_terminal_it_is_a_list,
);

const DEADLINE: Duration = Duration::from_secs(30);

/// A `toka top` on a terminal of its own.
struct Top(toka_tests::OnTerminal);

/// What a terminal shows, of what is written to it: as much of ECMA-48 as `toka top` uses.
#[derive(Default)]
struct Screen {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// A sequence that has begun.
    sequence: Option<String>,
    /// Every sequence that was complete.
    heard: Vec<String>,
}

impl Screen {
    fn write(&mut self, text: &str) {
        for c in text.chars() {
            match (self.sequence.take(), c) {
                (None, '\u{1b}') => self.sequence = Some(String::new()),
                (None, c) if c.is_control() => {}
                (None, c) => self.put(c),
                (Some(begun), c) => {
                    let is_last = !begun.is_empty() && c.is_ascii_alphabetic();
                    let sequence = begun + &c.to_string();
                    if is_last {
                        self.obey(&sequence);
                    } else {
                        self.sequence = Some(sequence);
                    }
                }
            }
        }
    }

    fn put(&mut self, c: char) {
        if self.rows.len() <= self.row {
            self.rows.resize(self.row + 1, Vec::new());
        }
        let row = &mut self.rows[self.row];
        if row.len() <= self.column {
            row.resize(self.column + 1, ' ');
        }
        row[self.column] = c;
        self.column += 1;
    }

    fn obey(&mut self, sequence: &str) {
        if let Some(place) = sequence.strip_prefix('[').and_then(|rest| rest.strip_suffix('H')) {
            let mut numbers = place.split(';').map(|number| number.parse().unwrap_or(1_usize));
            self.row = numbers.next().unwrap_or(1) - 1;
            self.column = numbers.next().unwrap_or(1) - 1;
        }
        // Another screen begins empty, as far as this cares.
        if matches!(sequence, "[2J" | "[?1049h" | "[?1049l") {
            self.rows.clear();
        }
        self.heard.push(sequence.to_owned());
    }

    fn text(&self) -> String {
        self.rows.iter().map(|row| row.iter().collect::<String>() + "\n").collect()
    }
}

impl Top {
    fn start(scene: &Scene) -> Self {
        let words = [toka_binary().into(), "top".into(), "--state-dir".into(), scene.state().into()];
        Self(toka_tests::OnTerminal::start(scene, &words, Reading::Going))
    }

    /// What all that was written has drawn.
    fn drawn(&self) -> Screen {
        let mut screen = Screen::default();
        screen.write(&String::from_utf8_lossy(&self.0.written()));
        screen
    }

    fn screen(&self) -> String {
        self.drawn().text()
    }

    /// Waits until the text is on the screen.
    fn wait_for(&self, text: &str) {
        self.wait_for_one_of(&[text]);
    }

    fn wait_for_one_of(&self, texts: &[&str]) {
        let begun = Instant::now();
        until(DEADLINE * 2, "the screen", || {
            let screen = self.screen();
            assert!(begun.elapsed() < DEADLINE, "none of {texts:?} on the screen:\n{screen}");
            texts.iter().any(|text| screen.contains(text)).then_some(())
        });
    }

    fn has_heard(&self, sequence: &str) -> bool {
        self.drawn().heard.iter().any(|heard| heard == sequence)
    }

    fn press(&mut self, keys: &str) {
        self.0.press(keys);
    }

    /// Waits for the end and checks that the terminal is as it was.
    fn finish(mut self) -> Option<i32> {
        let status = self.0.wait();
        // What was written last may not have been read yet.
        for sequence in ["[?1049l", "[?25h"] {
            until(DEADLINE, sequence, || self.has_heard(sequence).then_some(()));
        }
        status.code()
    }
}

fn service(name: &str) -> Document {
    Document::shell(name, "echo \"$0 is up\"; printf '\\033[2Jnot\\033[31mcleared\\n'; exec sleep 1000")
        .spec("type: service")
        .spec("readiness_probe: {log_line: is up}")
}

/// Attaching, a shell beside the agent, what is declared, what happened, a signal: all from the same screen.
fn other_commands_get_the_terminal_and_give_it_back(user: User) {
    let scene = Scene::new(user);
    let script = "trap 'echo signalled' HUP; while :; do read line && echo said $line; done";
    let agent = Document::bare("talks")
        .spec(&format!("process: {{shell: {script:?}, tty: true}}"))
        .spec("type: service");
    let detached = scene.detach(&[agent]);
    until(DEADLINE, "it runs", || (detached.state("talks") == "running").then_some(()));
    let mut top = Top::start(&scene);
    top.wait_for(&format!(" {}/talks ", scene.name()));
    top.press("v");
    top.wait_for("events of");
    top.wait_for("started (pid");
    top.press("i");
    top.wait_for("restart    after a failure");
    top.press("qa");
    top.wait_for("ctrl-p,ctrl-q leaves it");
    top.press("hello\r");
    top.wait_for("said hello");
    // Nobody tells it meanwhile that the terminal gets smaller.
    top.0.resize(90, 20);
    top.press("\u{10}\u{11}");
    top.wait_for("q quit");
    top.press("e");
    // What is typed before the shell asks is a key of `toka top`.
    top.wait_for_one_of(&["# ", "$ "]);
    top.press("echo $((40 + 2))$((0))\r");
    top.wait_for("420");
    top.press("exit\r");
    top.wait_for("q quit");
    top.press("x\r");
    top.wait_for("SIGHUP to");
    until(DEADLINE, "the signal to come", || {
        detached.try_toka(&["logs", "talks"]).stdout.contains("signalled").then_some(())
    });
    top.press("q");
    assert_eq!(top.finish(), Some(0));
}

fn agents_are_seen_and_controlled_by_keys(user: User) {
    let scene = Scene::new(user);
    let detached = scene.detach(&[service("api"), service("db")]);
    detached.toka(&["wait", "--for", "ready", "api", "db"]);
    let mut top = Top::start(&scene);
    // The first agent is chosen, and so are its last lines, in which nothing controls the terminal.
    top.wait_for("\\x1b[2Jnotcleared");
    // The question names the agent; any other key than y changes nothing.
    top.press("s");
    top.wait_for(&format!("stop {}/api?", scene.name()));
    top.press("n");
    top.press("p");
    top.wait_for_one_of(&["/api  ", "/api:"]);
    let paused = top.screen().contains("/api  paused");
    // An ordinary user without groups of its own has nothing to freeze with.
    if paused {
        assert_eq!(detached.state("api"), "paused");
        top.press("r");
        until(DEADLINE, "it goes on", || (detached.state("api") == "running").then_some(()));
    } else {
        assert_eq!(user, User::Ordinary, "{}", top.screen());
    }
    top.press("/db\rKy");
    until(DEADLINE, "it is killed", || (detached.state("db") == "ended").then_some(()));
    assert_eq!(detached.state("api"), "running", "nobody else is");
    top.press("\u{1b}q");
    assert_eq!(top.finish(), Some(0));
    assert_eq!(detached.state("api"), "running", "agents go on");
}

fn a_signal_leaves_the_terminal_as_it_was(user: User) {
    let scene = Scene::new(user);
    let _detached = scene.detach(&[service("api")]);
    let top = Top::start(&scene);
    top.wait_for("api");
    kill(pid_of_top(&scene), Signal::SIGTERM).expect("our own process");
    assert_eq!(top.finish(), Some(143));
}

/// As after ctrl-s, with nobody who presses ctrl-q.
fn a_signal_ends_it_though_its_terminal_stands_still(user: User) {
    let scene = Scene::new(user);
    let _detached = scene.detach(&[service("api")]);
    let mut top = Top::start(&scene);
    top.wait_for("api");
    top.0.stand_still();
    // It draws, and is held up.
    top.0.press("?");
    kill(pid_of_top(&scene), Signal::SIGTERM).expect("our own process");
    assert_eq!(top.0.wait().code(), Some(143));
}

/// Its process, below the one that made its session.
fn pid_of_top(scene: &Scene) -> Pid {
    let is_top = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.first().is_some_and(|program| program.ends_with(b"/toka")) && words.get(1) == Some(&&b"top"[..])
    };
    let found = || processes_with(scene.name()).into_iter().find(is_top);
    Pid::from_raw(until(DEADLINE, "it runs", found))
}

fn projects_come_and_go_and_a_dead_daemon_is_told(user: User) {
    let scene = Scene::new(user);
    let mut top = Top::start(&scene);
    top.wait_for("Nothing runs.");
    let mut first = scene.start(&[service("alpha"), Document::shell("job", "exec sleep 1000")], &[]);
    first.wait_for("agent_started", "alpha");
    top.wait_for("alpha");
    first.signal(Signal::SIGINT);
    first.finish();
    top.wait_for("has ended");
    let mut second = scene.start(&[service("beta-one"), Document::shell("job", "exec sleep 1000")], &[]);
    second.wait_for("agent_started", "beta-one");
    top.wait_for("beta-one");
    second.signal(Signal::SIGKILL);
    top.wait_for_one_of(&["does not answer", "the run was killed", "Nothing runs."]);
    drop(second);
    top.wait_for("Nothing runs.");
    // What the dead one left is tidied up first.
    let third = [service("gamma")];
    until(DEADLINE, "a daemon", || (scene.toka_run(&third, &["--detach"]).code == Some(0)).then_some(()));
    let _detached = scene.adopt();
    top.wait_for("gamma");
    top.press("q");
    assert_eq!(top.finish(), Some(0));
}

/// As root alone, since the test itself asks: a daemon does not know who asks when it may not look at that process.
#[test]
fn resources_are_told_of_those_who_are_named() {
    let Some(user) = User::root() else { return };
    let scene = Scene::new(user);
    let detached = scene.detach(&[service("api"), service("db"), Document::shell("job", "true")]);
    detached.toka(&["wait", "--for", "ready", "api", "db"]);
    detached.toka(&["wait", "job"]);
    let client = Client::new(scene.state().join("run/daemon.sock"));
    let name = |text: &str| Name::new(text).expect("a label");
    let told = |named: &[&str]| -> Vec<String> {
        let named: Vec<Name> = named.iter().map(|agent| name(agent)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let view = runtime.block_on(client.resources(&name(scene.name()), &named)).expect("an answer");
        view.into_keys().map(|agent| agent.to_string()).collect()
    };
    assert_eq!(told(&["db", "job", "nobody"]), ["db"], "those that are there and have a process");
    assert_eq!(told(&[]), ["api", "db"]);
}

fn without_a_terminal_it_is_a_list(user: User) {
    let scene = Scene::new(user);
    let none = scene.toka(&["top"]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(0), "nothing runs\n"), "{none:#?}");
    let detached = scene.detach(&[service("api")]);
    detached.toka(&["wait", "--for", "ready", "api"]);
    let listed = detached.toka(&["top"]);
    assert!(listed.stdout.contains(&format!("{}/api", scene.name())), "{listed:#?}");
    assert!(listed.stderr.contains("toka ps"), "{listed:#?}");
    assert!(!listed.stdout.contains('\u{1b}'), "{listed:#?}");
}
