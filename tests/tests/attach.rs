//! Agents on terminals of their own, and people who attach to them.

use std::ffi::OsString;
use std::io::Write as _;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toka_tests::{
    Detached, Document, OnTerminal, Reading, Scene, User, as_both_users, socket, toka_binary, until,
};

as_both_users!(
    an_agent_has_a_terminal_of_its_own,
    no_agent_types_into_its_terminal,
    keys_and_sizes_reach_the_agent_and_its_end_is_the_end,
    people_come_and_go,
    an_agent_that_is_just_begun_is_waited_for,
    who_only_looks_types_nothing,
    what_has_no_terminal_cannot_be_attached_to,
    a_signal_leaves_the_terminal_as_it_was,
    a_daemon_that_is_killed_is_told_and_the_next_one_goes_on,
    a_terminal_that_takes_nothing_holds_up_nobody,
    nonsense_is_answered_and_the_daemon_goes_on,
    a_run_in_the_foreground_can_be_attached_to,
);

/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(40);

/// Answers each line that is typed; `end` ends it, and a change of size is told.
const PARROT: &str = "stty -echo; trap 'echo changed $(stty size)' WINCH; echo up; while :; do \
    read line || continue; case $line in end) exit 7;; size) echo is $(stty size);; *) echo got $line;; esac; done";

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    until(SOON, what, || is_so().then_some(()));
}

fn attach(scene: &Scene, words: &[&str], reading: Reading) -> OnTerminal {
    let mut line: Vec<OsString> = vec![toka_binary().into(), "attach".into()];
    line.extend(words.iter().map(OsString::from));
    line.extend(["--project".into(), scene.name().into(), "--state-dir".into(), scene.state().into()]);
    OnTerminal::start(scene, &line, reading)
}

fn screen(terminal: &OnTerminal) -> String {
    String::from_utf8_lossy(&terminal.written()).into_owned()
}

fn sees(terminal: &OnTerminal, text: &str) {
    let deadline = std::time::Instant::now() + SOON;
    while !screen(terminal).contains(text) {
        assert!(std::time::Instant::now() < deadline, "{text:?} is not in {:?}", screen(terminal));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn parrot(scene: &Scene) -> Detached<'_> {
    let detached = scene.detach(&[Document::on_terminal("parrot", PARROT)]);
    eventually("it runs", || log_of(scene, "parrot").contains("up"));
    detached
}

fn log_of(scene: &Scene, agent: &str) -> String {
    let log = scene.state().join("projects").join(scene.name()).join("agents").join(agent).join("log");
    std::fs::read_to_string(log).unwrap_or_default()
}

fn an_agent_has_a_terminal_of_its_own(user: User) {
    let scene = Scene::new(user);
    let look = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo three; echo direct > /dev/tty; \
        echo error >&2; echo $TERM; cat /proc/self/stat | cut -d' ' -f6,8 | \
        { read session group; test \"$session\" != 0 && test \"$group\" != -1 && echo controlled; }";
    let finished = scene.toka_run(&[Document::on_terminal("looker", look)], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let log = log_of(&scene, "looker");
    for line in ["/dev/pts/0", "24 80", "three", "direct", "error", "xterm-256color", "controlled"] {
        assert!(log.contains(&format!("{line}\r\n")), "{line}: {log:?}");
    }
    let shown = scene.toka(&["logs", "--project", scene.name(), "looker"]).stdout;
    assert!(shown.contains("direct\r\n"), "a file gets what was written: {shown:?}");
    scene.assert_nothing_left();
}

/// A terminal belongs to who runs on it, who can open it by its name.
#[test]
fn a_user_of_its_own_has_a_terminal_of_its_own() {
    let Some(user) = User::root() else { return };
    let scene = Scene::new(user);
    let look = "echo named > $(tty); echo direct > /dev/tty; stat -c %u $(tty); id -u";
    let agent =
        Document::bare("own").spec(&format!("process: {{shell: {look:?}, tty: true, user: dynamic}}"));
    let finished = scene.toka_run(&[agent], &["--json"]);
    assert_eq!(finished.code, Some(0), "{finished:#?} {}", log_of(&scene, "own"));
    let log = log_of(&scene, "own");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[..2], ["named", "direct"], "{log:?}");
    assert!(lines[2] == lines[3] && lines[2] != "0", "{log:?}");
}

fn no_agent_types_into_its_terminal(user: User) {
    let scene = Scene::new(user);
    let attacker = Document::bare("attacker")
        .spec("process: {command: [./attack, stdin-inject, +, tty-inject], tty: true}")
        .section("security: {capabilities_required: [filesystem-read], filesystem: {execute: [attack]}}");
    let finished = scene.toka_run(&[attacker], &["--json"]);
    let log = log_of(&scene, "attacker");
    // The filter says EPERM; newer kernels alone would say EIO.
    for line in ["stdin-inject denied EPERM", "tty-inject denied EPERM"] {
        assert!(log.contains(line), "{line}: {log:?} {finished:#?}");
    }
}

fn keys_and_sizes_reach_the_agent_and_its_end_is_the_end(user: User) {
    let scene = Scene::new(user);
    let detached = parrot(&scene);
    let mut client = attach(&scene, &["parrot"], Reading::Going);
    sees(&client, "changed 30 100");
    client.press("hello\r");
    sees(&client, "got hello\r\n");
    client.resize(120, 40);
    sees(&client, "changed 40 120");
    client.press("size\r");
    sees(&client, "is 40 120");
    client.press("end\r");
    assert_eq!(client.wait().code(), Some(7), "{}", screen(&client));
    sees(&client, "parrot has ended: exit code 7");
    assert!(log_of(&scene, "parrot").contains("got hello\r\n"), "the log has it as well");
    let late = detached.try_toka(&["inspect", "parrot"]);
    assert!(late.stdout.contains("ended"), "{late:#?}");
    let mut again = attach(&scene, &["parrot"], Reading::Going);
    assert_eq!(again.wait().code(), Some(1), "{}", screen(&again));
    sees(&again, "parrot does not run: it has ended: exit code 7");
}

fn an_agent_that_is_just_begun_is_waited_for(user: User) {
    let scene = Scene::new(user);
    let _detached = scene.detach(&[Document::on_terminal("parrot", PARROT)]);
    let mut client = attach(&scene, &["parrot"], Reading::Going);
    client.press("early\r");
    sees(&client, "got early");
    client.press("\x10\x11");
    assert_eq!(client.wait().code(), Some(0), "{}", screen(&client));
}

fn people_come_and_go(user: User) {
    let scene = Scene::new(user);
    let detached = parrot(&scene);
    let mut first = attach(&scene, &["parrot"], Reading::Going);
    sees(&first, "changed 30 100");
    let mut second = attach(&scene, &["parrot", "--detach-keys", "ctrl-a,d"], Reading::Going);
    // The size is the same; it draws anew all the same, for everybody.
    sees(&second, "changed 30 100");
    second.press("ctrl-p is \x10, one\r");
    sees(&first, "got ctrl-p is \x10, one");
    sees(&second, "got ctrl-p is \x10, one");
    first.press("half\x10\x11");
    assert_eq!(first.wait().code(), Some(0), "{}", screen(&first));
    sees(&first, "which goes on; `toka attach");
    second.press("way\r");
    sees(&second, "got halfway");
    second.press("\x01d");
    assert_eq!(second.wait().code(), Some(0), "{}", screen(&second));
    assert_eq!(detached.state("parrot"), "running");
    assert!(!log_of(&scene, "parrot").contains('\x11'), "the keys are not for the agent");
}

fn who_only_looks_types_nothing(user: User) {
    let scene = Scene::new(user);
    let detached = parrot(&scene);
    let mut looker = attach(&scene, &["parrot", "--no-stdin"], Reading::Going);
    sees(&looker, "changed 30 100");
    looker.press("unheard\r");
    let mut typist = attach(&scene, &["parrot"], Reading::Going);
    sees(&typist, "changed 30 100");
    typist.press("heard\r");
    sees(&looker, "got heard");
    assert!(!screen(&typist).contains("unheard"), "{}", screen(&typist));
    looker.press("\x03");
    assert_eq!(looker.wait().code(), Some(130), "{}", screen(&looker));
    detached.toka(&["stop", "parrot"]);
    assert_eq!(typist.wait().code(), Some(143), "{}", screen(&typist));
    sees(&typist, "stopped by operator");
}

fn what_has_no_terminal_cannot_be_attached_to(user: User) {
    let scene = Scene::new(user);
    let piped = Document::shell("piped", "exec sleep 1000").spec("type: service");
    let detached = scene.detach(&[piped, Document::on_terminal("parrot", PARROT)]);
    eventually("it runs", || detached.state("piped") == "running");
    let mut refused = attach(&scene, &["piped"], Reading::Going);
    assert_eq!(refused.wait().code(), Some(2), "{}", screen(&refused));
    sees(&refused, "no terminal to attach to");
    sees(&refused, "toka logs -f piped");
    let elsewhere = detached.try_toka(&["attach", "parrot"]);
    assert_eq!(elsewhere.code, Some(2), "{elsewhere:#?}");
    assert!(elsewhere.stderr.contains("stdout is no terminal"), "{elsewhere:#?}");
    assert_eq!(elsewhere.stdout, "", "nothing raw reaches a file");
    let mut unknown = attach(&scene, &["nobody"], Reading::Going);
    assert_eq!(unknown.wait().code(), Some(2), "{}", screen(&unknown));
    let mut wrong = attach(&scene, &["parrot", "--detach-keys", "ctrl-é"], Reading::Going);
    assert_eq!(wrong.wait().code(), Some(2), "{}", screen(&wrong));
}

fn a_signal_leaves_the_terminal_as_it_was(user: User) {
    let scene = Scene::new(user);
    let drawing = "printf '\\033[?1049h\\033[?25l'; echo up; exec sleep 1000";
    let detached = scene.detach(&[Document::on_terminal("painter", drawing)]);
    eventually("it runs", || log_of(&scene, "painter").contains("up"));
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut client = attach(&scene, &["painter"], Reading::Going);
        sees(&client, "attached to");
        eventually("it takes the terminal", || client.is_raw());
        kill(client.in_front(), signal).expect("it runs");
        assert_eq!(client.wait().code(), Some(143), "{}", screen(&client));
        sees(&client, "\x1b[?25h");
    }
    assert_eq!(detached.state("painter"), "running");
}

fn daemon_pid(scene: &Scene) -> i32 {
    let socket = scene.state().join("run/daemon.sock");
    let stream = std::os::unix::net::UnixStream::connect(socket).expect("a daemon");
    nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).expect("a peer").pid()
}

fn a_daemon_that_is_killed_is_told_and_the_next_one_goes_on(user: User) {
    let scene = Scene::new(user);
    let detached = parrot(&scene);
    let mut client = attach(&scene, &["parrot"], Reading::Going);
    sees(&client, "changed 30 100");
    kill(Pid::from_raw(daemon_pid(&scene)), Signal::SIGKILL).expect("it runs");
    assert_eq!(client.wait().code(), Some(69), "{}", screen(&client));
    sees(&client, "the connection to the daemon");
    sees(&client, "toka serve --detach");
    let served = scene.toka(&["serve", "--detach"]);
    assert_eq!(served.code, Some(0), "{served:#?}");
    let mut again = attach(&scene, &["parrot"], Reading::Going);
    sees(&again, "changed 30 100");
    again.press("still there\r");
    sees(&again, "got still there");
    again.press("\x10\x11");
    assert_eq!(again.wait().code(), Some(0), "{}", screen(&again));
    assert!(log_of(&scene, "parrot").contains("got still there"), "the log goes on");
    assert_eq!(detached.state("parrot"), "running");
}

/// More than all that lies between an agent and a terminal can hold.
fn a_terminal_that_takes_nothing_holds_up_nobody(user: User) {
    let scene = Scene::new(user);
    let talker = "read go; head -c 20000000 /dev/zero | tr '\\0' x; echo; : > \"$TOKA_ARTIFACTS/over\"; exec sleep 1000";
    let detached = scene.detach(&[Document::on_terminal("talker", talker)]);
    eventually("it runs", || detached.state("talker") == "running");
    let mut client = attach(&scene, &["talker"], Reading::Held);
    eventually("it takes the terminal", || client.is_raw());
    client.press("go\r");
    let over = scene.state().join("projects").join(scene.name()).join("agents/talker/artifacts/over");
    eventually("the agent is through", || over.exists());
    client.read_on();
    assert_eq!(client.wait().code(), Some(1));
    sees(&client, "does not keep up");
    let mut again = attach(&scene, &["talker"], Reading::Going);
    sees(&again, "attached to");
    eventually("it takes the terminal", || again.is_raw());
    again.press("\x10\x11");
    assert_eq!(again.wait().code(), Some(0), "{}", screen(&again));
}

fn nonsense_is_answered_and_the_daemon_goes_on(user: User) {
    let scene = Scene::new(user);
    let detached = parrot(&scene);
    let path = scene.state().join("run/daemon.sock");
    let line = format!("/v1/projects/{}/agents/parrot/attach", scene.name());
    if user.uid() == nix::unistd::geteuid().as_raw() {
        let (status, body) = socket::get(&path, &line);
        assert_eq!(status, 426, "{body}");
        assert!(body.contains("Upgrade: websocket"), "{body}");
    }
    for (nonsense, why) in [
        (b"\x16\x03\x01\x02\x00".to_vec(), "invalid opcode"),
        (b"\x82\xff\0\0\0\0\xff\xff\xff\xff\0\0\0\0".to_vec(), "too long"),
        (b"\x82\x01\0".to_vec(), "unmasked"),
        (socket::message(2, &[]), "without a channel"),
        (socket::message(2, &[7, 1]), "no channel 7"),
        (socket::message(2, &[1, 1]), "no meaning here"),
        (socket::message(1, b"{\"type\":\"signal\",\"signal\":64}"), "no signal 64"),
        (socket::message(1, b"{\"type\":\"resize\"}"), "missing field"),
    ] {
        let (head, mut stream) = socket::websocket(&path, &line);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.write_all(&nonsense).expect("it is taken");
        let answer = socket::messages(&mut stream);
        let mut texts = answer.iter().filter(|(kind, _)| *kind == 1);
        let last =
            texts.next_back().map(|(_, text)| String::from_utf8_lossy(text).into_owned()).unwrap_or_default();
        assert!(last.starts_with("{\"type\":\"end\",\"end\":\"nonsense\""), "{why}: {answer:?}");
        assert!(last.contains(why), "{why}: {last}");
    }
    assert_eq!(detached.state("parrot"), "running");
}

fn a_run_in_the_foreground_can_be_attached_to(user: User) {
    let scene = Scene::new(user);
    let mut run = scene.start(&[Document::on_terminal("parrot", PARROT)], &[]);
    run.wait_for("agent_started", "parrot");
    let mut client = attach(&scene, &["parrot"], Reading::Going);
    sees(&client, "changed 30 100");
    client.press("end\r");
    assert_eq!(client.wait().code(), Some(7), "{}", screen(&client));
    assert_eq!(run.finish().code, Some(1));
    scene.assert_nothing_left();
}
