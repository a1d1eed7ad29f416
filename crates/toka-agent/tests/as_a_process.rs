//! The runner as the process that it is: a signal from outside reaches the task, and the exit status tells it.
//!
//! Without libtest, because this program starts itself once more as the runner.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde_json::{Value, json};
use toka_core::rpc::{Call, parse_call, reply_line};

const AS_RUNNER: &str = "AS_RUNNER";

const TESTS: [(&str, fn()); 3] = [
    ("a_stop_signal_reaches_the_task", a_stop_signal_reaches_the_task),
    ("the_end_of_the_tasks", the_end_of_the_tasks),
    ("without_a_door", without_a_door),
];

fn main() -> ExitCode {
    if env::var_os(AS_RUNNER).is_some() {
        return toka_agent::runner::main();
    }
    // cargo-nextest asks for a list of tests, and runs each by its name.
    let asked = |word: &str| env::args().any(|argument| argument == word);
    let wanted =
        |name: &str| env::args().skip(1).all(|argument| argument.starts_with('-') || argument == name);
    for (name, test) in TESTS.into_iter().filter(|(name, _)| wanted(name) && !asked("--ignored")) {
        if asked("--list") {
            println!("{name}: test");
        } else {
            test();
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

fn runner(socket: &str) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .env(AS_RUNNER, "1")
        .env("TOKA_SOCKET", socket)
        .stderr(Stdio::piped())
        .spawn()
        .expect("a runner")
}

/// Answers until the runner leaves; returns the exits that it told.
fn serve(listener: &UnixListener, tasks: &Value) -> Vec<Value> {
    let (stream, _) = listener.accept().expect("a runner");
    let mut answers = stream.try_clone().expect("a second handle");
    let mut ends = Vec::new();
    for line in BufReader::new(stream).lines() {
        let incoming = parse_call(line.expect("a line").as_bytes()).expect("a correct call");
        let answer = match incoming.call {
            Call::TasksGet => json!({"tasks": tasks}),
            Call::TaskEnd(end) => {
                ends.push(serde_json::to_value(end.exit).expect("JSON"));
                json!({})
            }
            _ => json!({}),
        };
        if let Some(id) = incoming.id {
            answers.write_all(reply_line(&id, &Ok(answer)).as_bytes()).expect("an answer");
        }
    }
    ends
}

fn a_stop_signal_reaches_the_task() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (socket, fifo, asked) = (path("agent"), path("fifo"), path("asked"));
    let listener = UnixListener::bind(&socket).expect("a socket");
    nix::unistd::mkfifo(fifo.as_str(), Mode::S_IRWXU).expect("a fifo");
    let run = format!("trap 'echo asked > {asked}; exit 0' TERM; : > {fifo}; while :; do sleep 0.01; done");
    let tasks = json!([{"index": 0, "description": "Wait", "run": run}]);
    let child = runner(&socket);
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    let ends = thread::scope(|scope| {
        let daemon = scope.spawn(|| serve(&listener, &tasks));
        fs::read(&fifo).expect("the task is behind its trap");
        kill(pid, Signal::SIGTERM).expect("a running runner");
        daemon.join().expect("a daemon that does not panic")
    });
    let output = child.wait_with_output().expect("an exit status");
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    assert_eq!(ends, [json!({"cause": "stopped", "by": "SIGTERM"})]);
    assert_eq!(fs::read_to_string(asked).expect("what the trap wrote"), "asked\n");
}

fn the_end_of_the_tasks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("agent").display().to_string();
    let listener = UnixListener::bind(&socket).expect("a socket");
    let child = runner(&socket);
    // The task's own mask is empty: the runner's blocked signals are not inherited.
    let run = "grep -q '^SigBlk:.0*$' /proc/self/status";
    let ends = serve(&listener, &json!([{"index": 0, "description": "Look at the mask", "run": run}]));
    let output = child.wait_with_output().expect("an exit status");
    assert_eq!(ends, [json!({"cause": "code", "code": 0})]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

fn without_a_door() {
    let output = runner("").wait_with_output().expect("an exit status");
    assert_eq!(output.status.code(), Some(69));
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(stderr.contains("TOKA_SOCKET is not set"), "{stderr}");
}
