//! How long a confined service is gone that was killed: from SIGKILL to its process until the event that its next life
//! runs. Beside it a loop that kills, reaps and spawns a bare process and does nothing else.
//!
//! `cargo bench -p toka-tests --bench restart [-- ROUNDS]`. Rounds alternate; ratios are of medians.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use toka_tests::measure::{Samples, Table, rounds, scratch};
use toka_tests::toka_binary;

const ROUNDS: usize = 300;
/// Every life counts as a stable one, so that each restart is immediate.
const WORKSTREAM: &str = "metadata: {name: service}\n\
    spec:\n  process: {command: [sleep, '1000']}\n  type: service\n  \
    restart: {policy: always, max_restarts: 1000000, backoff: {reset_after: 1ms}}\n";

fn main() {
    let rounds = rounds(ROUNDS);
    let temp = scratch();
    let file = temp.path().join("service.yaml");
    fs::write(&file, WORKSTREAM).expect("a workstream");
    let workspace = temp.path().join("workspace");
    fs::create_dir_all(&workspace).expect("a folder");
    let mut command = Command::new(toka_binary());
    command.arg("run").arg(&file).arg("--json").arg("--workdir").arg(&workspace);
    command.arg("--state-dir").arg(temp.path().join("state"));
    let mut service = Service::start(command);
    let (mut bare, mut toka) = (Samples::default(), Samples::default());
    let mut sleeper = spawn();
    for _ in 0..rounds {
        sleeper = bare.time(|| {
            sleeper.kill().and_then(|()| sleeper.wait()).expect("our own child");
            spawn()
        });
        toka.time(|| service.kill_and_wait());
    }
    sleeper.kill().and_then(|()| sleeper.wait()).expect("our own child");
    service.end();
    let mut table = Table::new(format!("A service that is killed, {rounds} rounds in turn"));
    table.row("bare: kill, reap, spawn", &bare, "ms", Some(&bare), "");
    table.row("toka run: until the next life runs", &toka, "ms", Some(&bare), "≤ 2.9 ms");
    table.print();
}

fn spawn() -> Child {
    Command::new("sleep").arg("1000").spawn().expect("sleep")
}

/// A run with one service.
struct Service {
    run: Child,
    events: BufReader<ChildStdout>,
    pid: Pid,
}

impl Service {
    fn start(mut command: Command) -> Self {
        let mut run = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("toka starts");
        let events = BufReader::new(run.stdout.take().expect("it is piped"));
        let mut service = Self { run, events, pid: Pid::from_raw(0) };
        service.wait_for_a_life();
        service
    }

    fn kill_and_wait(&mut self) {
        let begun = Instant::now();
        kill(self.pid, Signal::SIGKILL).expect("it runs");
        self.wait_for_a_life();
        assert!(begun.elapsed().as_secs() < 10, "a restart is immediate");
    }

    fn wait_for_a_life(&mut self) {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.events.read_line(&mut line).expect("events are text") > 0, "the run goes on");
            if line.contains("\"type\":\"agent_started\"") {
                let event: Value = serde_json::from_str(&line).expect("an event");
                let pid = event["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
                self.pid = Pid::from_raw(pid.expect("a pid"));
                return;
            }
        }
    }

    fn end(mut self) {
        let run = Pid::from_raw(i32::try_from(self.run.id()).expect("a pid"));
        kill(run, Signal::SIGTERM).expect("it runs");
        std::io::copy(&mut self.events, &mut std::io::sink()).expect("the rest is read");
        self.run.wait().expect("our own child");
    }
}
