//! A `toka run` that goes on while the test looks at it, signals it, or kills it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::Finished;

/// The longest that a test waits for an event or an end.
const DEADLINE: Duration = Duration::from_secs(60);

/// A run in the foreground with `--json`. Killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.expect("the run starts");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    /// Reads events until one of this type about this agent comes.
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn wait_for(&mut self, kind: &str, agent: &str) -> Value {
        self.wait_until(&format!("{kind} of {agent}"), |event| {
            event["type"] == kind && event["agent"] == agent
        })
    }

    /// Reads events until one is as `wanted`, if none was before.
    ///
    /// # Panics
    /// When none is in time.
    pub fn wait_until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        let parse = |line: &String| serde_json::from_str::<Value>(line).unwrap_or(Value::Null);
        if let Some(event) = self.seen.iter().map(parse).find(&wanted) {
            return event;
        }
        loop {
            let left = DEADLINE.saturating_sub(begun.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let event = parse(&line);
                    self.seen.push(line);
                    if wanted(&event) {
                        return event;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("waited in vain for {what}; saw {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    let mut stderr = String::new();
                    let _ = self.child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut stderr));
                    panic!("the run ended before {what}; saw {:#?}\n{stderr}", self.seen);
                }
            }
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn finish(mut self) -> Finished {
        let mut stderr = self.child.stderr.take().expect("it is piped");
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let status =
            crate::until(DEADLINE, "the run to end", || self.child.try_wait().expect("our own child"));
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            self.seen.push(line);
        }
        let stderr = errors.join().expect("a thread that only reads");
        Finished { code: status.code(), stdout: self.seen.join("\n"), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
