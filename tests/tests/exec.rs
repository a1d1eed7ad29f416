//! Commands that people run beside agents, in their sandboxes.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toka_tests::{
    Detached, Document, OnTerminal, Reading, Scene, User, as_both_users, processes_with, socket, until,
};

as_both_users!(
    streams_and_statuses_are_the_commands_own,
    a_command_is_confined_as_the_agent_is,
    a_megabyte_comes_and_goes_intact,
    input_is_only_passed_on_when_it_is_asked_for,
    a_command_has_a_terminal_where_there_is_one,
    a_command_ends_with_whoever_asked_for_it,
    a_reader_that_goes_ends_the_command_and_not_the_daemon,
    a_command_ends_with_its_agent,
    an_interrupt_is_the_commands,
    what_does_not_run_cannot_be_joined,
    who_ran_what_is_on_record,
    nonsense_is_refused_and_the_daemon_goes_on,
);

/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(40);

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    until(SOON, what, || is_so().then_some(()));
}

const SECURITY: &str = "security: {capabilities_required: [filesystem-read, \"filesystem-write:out\"], \
    filesystem: {write: [out]}}";

fn host(scene: &Scene) -> Detached<'_> {
    let agent = Document::shell("host", "exec sleep 1000").spec("type: service").section(SECURITY);
    let detached = scene.detach(&[agent]);
    eventually("it runs", || detached.state("host") == "running");
    detached
}

fn exec_command(scene: &Scene, options: &[&str], command: &[&str]) -> Command {
    let mut command = scene.exec_beside("host", options, command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn exec(scene: &Scene, options: &[&str], command: &[&str]) -> Output {
    exec_command(scene, options, command).output().expect("it starts")
}

/// As with `toka exec … | head`, and as when somebody kills it.
fn a_reader_that_goes_ends_the_command_and_not_the_daemon(user: User) {
    let scene = Scene::new(user);
    let detached = host(&scene);
    for round in 0..12 {
        let mut client = exec_command(&scene, &[], &["yes"]).spawn().expect("it starts");
        let mut first = [0; 2];
        client.stdout.as_mut().expect("piped").read_exact(&mut first).expect("a line");
        assert_eq!(&first, b"y\n");
        if round % 2 == 0 {
            drop(client.stdout.take());
        } else {
            client.kill().expect("our own child");
        }
        until(SOON, "its end", || client.try_wait().expect("our own child"));
    }
    let ended = || detached.toka(&["events", "--json", "--kind", "exec_ended"]).events().len();
    eventually("all ends are on record", || ended() == 12);
    let log = std::fs::read_to_string(scene.state().join("daemon.log")).unwrap_or_default();
    assert!(!log.contains("panicked"), "{log}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits for the end of our own child.
fn wait(mut child: Child) -> (Option<i32>, String) {
    let status = until(SOON, "its end", || child.try_wait().expect("our own child"));
    let mut stdout = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("text");
    (status.code(), stdout)
}

fn streams_and_statuses_are_the_commands_own(user: User) {
    let scene = Scene::new(user);
    let _host = host(&scene);
    let done =
        exec(&scene, &[], &["sh", "-c", "echo out; echo err >&2; test -t 1 || echo pipe; cat; exit 3"]);
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    assert_eq!((text(&done.stdout), text(&done.stderr)), ("out\npipe\n".into(), "err\n".into()));
    for (command, status) in [
        (&["true"][..], 0),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["no-such-program"], 127),
        (&["./no-such-program"], 127),
        (&["./readable.txt"], 126),
        (&["./docs"], 126),
    ] {
        let done = exec(&scene, &[], command);
        assert_eq!(done.status.code(), Some(status), "{command:?}: {done:?}");
        assert_eq!(done.stderr.is_empty(), !(126..=127).contains(&status), "{command:?}: {done:?}");
    }
}

fn a_command_is_confined_as_the_agent_is(user: User) {
    let scene = Scene::new(user);
    let _host = host(&scene);
    let secret = scene.outside().join("secret.txt");
    let denied = exec(&scene, &[], &["cat", &secret.display().to_string()]);
    assert_ne!(denied.status.code(), Some(0), "{denied:?}");
    assert_eq!(text(&denied.stdout), "");
    let read = exec(&scene, &[], &["cat", "readable.txt"]);
    assert_eq!((read.status.code(), text(&read.stdout)), (Some(0), "workspace\n".into()), "{read:?}");
    let written = exec(&scene, &[], &["sh", "-c", "echo new > out/new && ! echo x > readable.txt"]);
    assert_eq!(written.status.code(), Some(0), "{written:?}");
    assert_eq!(std::fs::read_to_string(scene.workspace().join("out/new")).expect("written"), "new\n");
    let own = exec(
        &scene,
        &[],
        &[
            "sh",
            "-c",
            "echo $TOKA_AGENT; grep -c . /proc/self/status >/dev/null; \
        sed -n 's/^NoNewPrivs:\t//p; s/^CapEff:\t//p; s/^Seccomp:\t//p' /proc/self/status",
        ],
    );
    assert_eq!(text(&own.stdout), "host\n0000000000000000\n1\n2\n", "{own:?}");
    // The attacker is no program of this agent's, though the daemon could execute it.
    let attack = exec(&scene, &[], &["./attack", "tty-inject"]);
    assert_eq!(attack.status.code(), Some(126), "{attack:?}");
}

fn a_megabyte_comes_and_goes_intact(user: User) {
    let scene = Scene::new(user);
    let _host = host(&scene);
    let sent: Vec<u8> = (0..1_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut child = exec_command(&scene, &["-i"], &["cat"]).stdin(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let feeding = std::thread::spawn({
        let sent = sent.clone();
        move || stdin.write_all(&sent).expect("it is taken")
    });
    let mut got = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut got).expect("bytes");
    feeding.join().expect("no panic");
    assert_eq!(child.wait().expect("our own child").code(), Some(0));
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
}

fn input_is_only_passed_on_when_it_is_asked_for(user: User) {
    let scene = Scene::new(user);
    let _host = host(&scene);
    let fed = |options: &[&str]| {
        let mut command = exec_command(&scene, options, &["cat"]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
        // Nobody may be there to read it.
        let _ = child.stdin.take().expect("piped").write_all(b"fed\n");
        wait(child)
    };
    assert_eq!(fed(&["-i"]), (Some(0), "fed\n".into()));
    assert_eq!(fed(&[]), (Some(0), String::new()));
    // On a terminal what is typed is shown, and its end is a key.
    assert_eq!(fed(&["-t", "-i"]), (Some(0), "fed\r\nfed\r\n".into()));
    // Who does not read to the end holds up nobody.
    let mut command = exec_command(&scene, &["-i"], &["head", "-c", "3"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"abcdef").expect("it is taken");
    assert_eq!(wait(child), (Some(0), "abc".into()));
}

fn screen(terminal: &OnTerminal) -> String {
    text(&terminal.written())
}

fn sees(terminal: &OnTerminal, wanted: &str) {
    until(SOON, wanted, || screen(terminal).contains(wanted).then_some(()));
}

fn a_command_has_a_terminal_where_there_is_one(user: User) {
    let scene = Scene::new(user);
    let _host = host(&scene);
    let script = "tty; stty size; echo $TERM; read line; echo got $line; stty size; read end; exit 5";
    let mut client =
        OnTerminal::start(&scene, &scene.words_of_exec("host", &[], &["sh", "-c", script]), Reading::Going);
    sees(&client, "/dev/pts/0\r\n30 100\r\nxterm-256color\r\n");
    client.resize(90, 20);
    // It may come before the size does: the second line is typed when the first was answered.
    client.press("hello\r");
    sees(&client, "got hello");
    client.press("\r");
    assert_eq!(client.wait().code(), Some(5), "{}", screen(&client));
    let mut stopped =
        OnTerminal::start(&scene, &scene.words_of_exec("host", &[], &["sleep", "1000"]), Reading::Going);
    eventually("it takes the terminal", || stopped.is_raw());
    stopped.press("\x03");
    assert_eq!(stopped.wait().code(), Some(130), "{}", screen(&stopped));
    let mut piped = OnTerminal::start(
        &scene,
        &scene.words_of_exec("host", &["-T"], &["sh", "-c", "test -t 1 || echo none"]),
        Reading::Going,
    );
    assert_eq!(piped.wait().code(), Some(0));
    sees(&piped, "none");
}

/// Starts a command that sleeps for a time by which it is found.
fn sleeping(scene: &Scene, time: &str) -> (Child, String) {
    let marked = format!("{time}.{}", scene.name().replace(|c: char| !c.is_ascii_digit(), ""));
    let child = exec_command(scene, &[], &["sleep", &marked]).spawn().expect("it starts");
    eventually("it sleeps", || sleepers(&marked) > 0);
    (child, marked)
}

/// Processes that sleep so long, other than the client that asked for it.
fn sleepers(time: &str) -> usize {
    let is_sleep = |pid: &String| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == format!("sleep\0{time}\0").into_bytes()
    };
    let entries = std::fs::read_dir("/proc").expect("proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(is_sleep).count()
}

fn a_command_ends_with_whoever_asked_for_it(user: User) {
    let scene = Scene::new(user);
    let detached = host(&scene);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let (mut child, time) = sleeping(&scene, "1001");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it runs");
        child.wait().expect("our own child");
        eventually("the command is gone", || sleepers(&time) == 0);
    }
    // Also when nobody takes what is sent, so that the connection is not read.
    let time = "1003.5";
    let mut command = exec_command(&scene, &["-i"], &["sleep", time]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let feeding = std::thread::spawn(move || drop(stdin.write_all(&vec![0; 30_000_000])));
    eventually("it sleeps", || sleepers(time) > 0);
    child.kill().expect("it runs");
    child.wait().expect("our own child");
    feeding.join().expect("no panic");
    eventually("the command is gone", || sleepers(time) == 0);
    assert_eq!(detached.state("host"), "running");
}

fn a_command_ends_with_its_agent(user: User) {
    let scene = Scene::new(user);
    let detached = host(&scene);
    let (child, time) = sleeping(&scene, "1002");
    detached.toka(&["stop", "host"]);
    assert_eq!(wait(child).0, Some(137));
    assert_eq!(sleepers(&time), 0);
    // Also when the agent falls: and nobody takes the command for something that the agent left running.
    detached.toka(&["start", "host"]);
    let (child, time) = sleeping(&scene, "1003");
    let pid =
        detached.inspect("host")["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
    assert_eq!(wait(child).0, Some(137));
    assert_eq!(sleepers(&time), 0);
    let warnings = detached.toka(&["events", "--kind", "warning"]).stdout;
    assert!(!warnings.contains("it left"), "{warnings}");
}

fn an_interrupt_is_the_commands(user: User) {
    let scene = Scene::new(user);
    let _host = host(&scene);
    let script = "trap 'echo heard; exit 9' INT; echo ready; while :; do sleep 0.02; done";
    let mut child = exec_command(&scene, &[], &["sh", "-c", script]).spawn().expect("it starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut line = [0; 6];
    stdout.read_exact(&mut line).expect("a line");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("it runs");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    assert_eq!((rest.as_str(), child.wait().expect("our own child").code()), ("heard\n", Some(9)));
}

fn what_does_not_run_cannot_be_joined(user: User) {
    let scene = Scene::new(user);
    let detached = host(&scene);
    detached.toka(&["stop", "host"]);
    let refused = exec(&scene, &[], &["true"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let told = text(&refused.stderr);
    assert!(told.contains("host does not run: it has ended") && told.contains("toka start host"), "{told}");
    let mut other = scene.words_of_exec("host", &[], &["true"]);
    let at = other.iter().position(|word| word == "host").expect("the agent");
    other[at] = "nobody".into();
    let nobody = scene.run(&other);
    assert_eq!(nobody.code, Some(2), "{nobody:#?}");
    assert!(nobody.stderr.contains("no agent nobody"), "{nobody:#?}");
    let nothing = scene.toka(&["exec", "host"]);
    assert_eq!(nothing.code, Some(2), "{nothing:#?}");
}

fn who_ran_what_is_on_record(user: User) {
    let scene = Scene::new(user).env("SECRET_OF_MINE", "hidden");
    let detached = host(&scene);
    assert_eq!(exec(&scene, &[], &["sh", "-c", "exit 4"]).status.code(), Some(4));
    let told = || detached.toka(&["events", "--json", "--kind", "exec_started,exec_ended"]);
    eventually("both are told", || told().events().len() == 2);
    let finished = told();
    let events = finished.events();
    assert_eq!(events[0]["argv"], serde_json::json!(["sh", "-c", "exit 4"]), "{events:#?}");
    assert_eq!((&events[0]["by"], &events[0]["agent"]), (&"operator".into(), &"host".into()));
    assert_eq!(events[0]["uid"], user.uid());
    assert_eq!(events[0]["exec"], events[1]["exec"]);
    assert_eq!(events[1]["exit"]["code"], 4);
    assert!(!finished.stdout.contains("hidden"), "no environment");
    let shown = detached.toka(&["events"]).stdout;
    assert!(shown.contains("sh -c exit 4") && shown.contains("exit code 4"), "{shown}");
}

fn nonsense_is_refused_and_the_daemon_goes_on(user: User) {
    let scene = Scene::new(user);
    let detached = host(&scene);
    let path = scene.state().join("run/daemon.sock");
    let line = format!("/v1/projects/{}/agents/host/exec", scene.name());
    let said = |messages: &[Vec<u8>]| -> Vec<String> {
        let (head, mut stream) = socket::websocket(&path, &line);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.write_all(&messages.concat()).expect("it is taken");
        let texts = socket::messages(&mut stream).into_iter().filter(|(kind, _)| *kind == 1);
        texts.map(|(_, content)| text(&content)).collect()
    };
    for (start, code, why) in [
        (socket::message(1, b"nonsense"), 2, "no message of this protocol"),
        (socket::message(2, b"\0x"), 2, "the first message is a start"),
        (socket::message(1, br#"{"type": "start", "argv": []}"#), 2, "no command to run"),
        (socket::message(1, br#"{"type": "start", "argv": ["a\u0000b"]}"#), 2, "NUL"),
        (
            socket::message(
                1,
                br#"{"type":"start","argv":["true"],"terminal":{"columns":1,"rows":1},"term":"../x"}"#,
            ),
            2,
            "no name of a terminal",
        ),
        (socket::message(1, br#"{"type": "start", "argv": ["no-such-program"]}"#), 127, "no-such-program"),
    ] {
        let [refused] = said(&[start])[..].to_vec().try_into().expect("one word");
        let refused: serde_json::Value = serde_json::from_str(&refused).expect("JSON");
        assert_eq!((&refused["type"], &refused["exit_code"]), (&"refused".into(), &code.into()), "{refused}");
        assert!(refused["error"].as_str().is_some_and(|error| error.contains(why)), "{refused}");
    }
    let start = socket::message(1, br#"{"type": "start", "argv": ["sleep", "1004.25"]}"#);
    for nonsense in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        socket::message(2, &[9]),
        socket::message(2, &[1, 2]),
        start.clone(),
    ] {
        let answer = said(&[start.clone(), nonsense]);
        assert_eq!(answer[0], r#"{"type":"started"}"#);
        assert!(answer[1].starts_with(r#"{"type":"end","end":"nonsense""#), "{answer:?}");
    }
    // It runs as long as the caller is there.
    let (_, mut stream) = socket::websocket(&path, &line);
    stream.write_all(&start).expect("it is taken");
    eventually("it runs", || sleepers("1004.25") == 1);
    drop(stream);
    eventually("the commands are gone", || sleepers("1004.25") == 0);
    assert_eq!(detached.state("host"), "running");
    assert!(!processes_with(scene.name()).is_empty());
}
