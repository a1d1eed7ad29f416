//! One attempt at a task: a child that waits at a gate, runs, and leaves nothing behind.
//!
//! The gate is its standard input. The child is a shell that reads one line from a pipe and then becomes the task's own
//! shell, with `/dev/null` as standard input; so the daemon can put it into a control group before a single instruction
//! of the task has run, no descriptor but 0–2 is inherited, and a child whose runner dies reads the end of the pipe and
//! goes away without having done anything.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigmaskHow, Signal, killpg};
use nix::unistd::Pid;

use crate::wake::stop_signals;

/// Waits at the gate, then becomes the task. `exec` keeps the process id, and the exit status is the task's own.
const GATE: &str = r#"IFS= read -r toka_gate && exec /bin/sh -c "$1" </dev/null"#;

/// The same, and becomes a program.
const GATE_OF_PROGRAM: &str = r#"IFS= read -r toka_gate && exec "$@" </dev/null"#;

/// What a task is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work<'a> {
    /// A line for `/bin/sh -c`, which writes to the log.
    Shell(&'a str),
    /// A program and its arguments; what it writes is read by the runner.
    Program(&'a [String]),
}

/// How long what a task leaves may take to end by itself: the last of a pipeline, for one.
const REST_ENDS_WITHIN: Duration = Duration::from_millis(5);

/// A child in a process group of its own. Dropped before [`Attempt::reap`], the group is killed.
#[derive(Debug)]
pub(crate) struct Attempt {
    child: Child,
    pid: Pid,
    reaped: Reaped,
}

#[derive(Debug, PartialEq, Eq)]
enum Reaped {
    No,
    Yes,
}

impl Attempt {
    /// Starts the child; it waits at the gate.
    pub(crate) fn start(work: Work<'_>) -> io::Result<Self> {
        // A child inherits the mask of the thread that makes it, and must be stoppable. A stop signal that arrives just
        // now ends the runner, and with it the child at its gate.
        let mask = stop_signals().thread_swap_mask(SigmaskHow::SIG_UNBLOCK)?;
        let mut shell = Command::new("/bin/sh");
        match work {
            Work::Shell(line) => shell.args(["-c", GATE, "sh", line]),
            Work::Program(argv) => {
                shell.args(["-c", GATE_OF_PROGRAM, "sh"]).args(argv).stdout(Stdio::piped())
            }
        };
        let child = shell.stdin(Stdio::piped()).process_group(0).spawn();
        mask.thread_set_mask()?;
        let child = child?;
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids are below 2²²"));
        Ok(Self { child, pid, reaped: Reaped::No })
    }

    /// Its process id, which is its group's too.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// What it writes, where the runner reads that.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Lets it run.
    pub(crate) fn open_gate(&mut self) -> io::Result<()> {
        let mut gate = self.child.stdin.take().expect("the gate is opened once");
        gate.write_all(b"\n")
    }

    /// Signals its group. That nobody is left to signal is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        match killpg(self.pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            // Programs of another user in the group (sudo and the like) are for the daemon to end.
            Err(_) => {}
        }
    }

    /// What its main process, which has ended, leaves running in its group, after a moment in which the rest may end too; the names
    /// of the processes.
    pub(crate) fn left_running(&self) -> Vec<String> {
        let deadline = Instant::now() + REST_ENDS_WITHIN;
        loop {
            let left = members_of(self.pid.as_raw());
            if left.is_empty() || Instant::now() >= deadline {
                return left;
            }
            std::thread::sleep(REST_ENDS_WITHIN / 5);
        }
    }

    /// Kills what is left of its group and takes its exit status.
    pub(crate) fn reap(mut self) -> io::Result<ExitStatus> {
        self.end()
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        // Before the reaping: as long as the leader is a zombie, nobody else can have its group's number.
        self.signal(Signal::SIGKILL);
        self.reaped = Reaped::Yes;
        self.child.wait()
    }
}

/// The processes of a process group that have not ended, by their names (proc_pid_stat(5)).
fn members_of(group: i32) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let name = |pid: u32| {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The name may have parentheses itself.
        let (head, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let (state, _parent, own) = (fields.next()?, fields.next()?, fields.next()?);
        let lives = own.parse() == Ok(group) && !["Z", "X"].contains(&state);
        lives.then(|| head.split_once('(').map_or(head, |(_, name)| name).to_owned())
    };
    pids.filter_map(name).collect()
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.reaped == Reaped::No {
            // Nobody is left who could do anything about an error.
            let _ = self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn the_task_runs_only_behind_the_gate() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("it's here");
        let command = format!("cat; echo \"$0 $# ${{toka_gate-none}}\" > \"{}\"; exit 7", file.display());
        let mut attempt = Attempt::start(Work::Shell(&command)).expect("a child");
        assert!(!file.exists(), "nothing has run yet");
        attempt.open_gate().expect("an open gate");
        let status = attempt.child.wait().expect("an exit status");
        attempt.reaped = Reaped::Yes;
        assert_eq!(status.code(), Some(7));
        assert_eq!(fs::read_to_string(file).expect("its output"), "/bin/sh 0 none\n");
    }

    #[test]
    fn a_child_whose_gate_never_opens_does_nothing() {
        let mut attempt = Attempt::start(Work::Shell("exit 0")).expect("a child");
        drop(attempt.child.stdin.take());
        let status = attempt.child.wait().expect("an exit status");
        attempt.reaped = Reaped::Yes;
        assert_ne!(status.code(), Some(0), "the task itself did not run");
    }

    #[test]
    fn what_is_left_of_the_group_is_killed() {
        let attempt = Attempt::start(Work::Shell("true")).expect("a child");
        let group = attempt.pid();
        let status = attempt.reap().expect("an exit status");
        assert_eq!(status.signal(), Some(9), "it was waiting at the gate");
        assert_eq!(killpg(group, None), Err(Errno::ESRCH));
    }
}
