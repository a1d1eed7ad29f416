//! `toka __agent`: works through the tasks of an agent that has no process of its own.
//!
//! ```text
//! tasks/get ─▶ for each task, in the daemon's order:
//!   child at its gate ─▶ task/enter (own control group) ─▶ gate opens ─▶ runs ─▶ ended | timeout | stop ─▶ task/end
//!        ▲                                                                              │ failed
//!        └──────────────────────────── back-off, while attempts are left ◀──────────────┘
//! ```
//!
//! A task that has no command is worked on by an agent program, if the agent has one (`worker`): the runner reads the events
//! that it writes, and makes of them progress, lines for the log, and how the task ended. Else a model works on it, which the daemon
//! asks, and the runner does what that wants done in the sandbox (`model_work`).
//!
//! The first task that fails for good ends the agent: the tasks after it were written in the belief that it succeeded.
//! A timeout asks the task's process group to end (SIGTERM), and kills it when the grace period is over. A request to
//! stop is passed on to the task that is running, which has as long for it as the daemon gives the agent.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use thiserror::Error;
use toka_core::error::with_causes;
use toka_core::escape::for_terminal;
use toka_core::rpc::{Call, TaskEnd, TaskEnded, TaskEnter, TaskList, TaskSpec};
use toka_core::units::format_duration;
use toka_core::{Exit, ExitCode, Progress};

use crate::attempt::{Attempt, Work};
use crate::client::{Client, ClientError, Done, Loss};
use crate::hands::Hands;
use crate::program_events::Said;
use crate::stopwatch::{Stopwatch, next_look};
use crate::wake::{self, Wake};
use crate::worker::Worker;

/// How long a task that ran out of time has to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// What may wait to be taken: a program that writes faster than that is taken waits itself.
const WAITING: usize = 64;

/// How long the output of a program that has ended is read on: what it has left behind may hold the pipe.
const DRAIN: Duration = Duration::from_secs(2);

/// Longest description in a message, in characters.
const SHOWN: usize = 100;

/// Why the runner cannot go on, though no task failed.
#[derive(Debug, Error)]
pub(crate) enum RunnerError {
    #[error("failed to work through the tasks")]
    Client(#[from] ClientError),
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
    #[error("failed to wait for the task's process")]
    Wait(#[source] io::Error),
    #[error("the task {description:?} has no command, and no program works on it")]
    NeedsModel { description: String },
    #[error("failed to write what the program looks for")]
    Files(#[source] io::Error),
    #[error("asked to stop")]
    Stopped(Signal),
}

/// Becomes the runner: connects to the door, runs the tasks, and says on stderr what failed.
///
/// 0 when every task succeeded, the status of the task that failed (128 + n for signal n, 124 when it timed out, 1 where there is no
/// other), 69 when the daemon cannot be reached, 78 when a task needs a model,
/// 128 + n when signal n asked it to stop (143 for SIGTERM).
pub fn main() -> std::process::ExitCode {
    let outcome = prepare().and_then(|runner| runner.run(&mut io::stderr().lock()));
    match outcome {
        Ok(code) => code.into(),
        Err(RunnerError::Stopped(signal)) => std::process::ExitCode::from(128 + signal as u8),
        Err(error) => {
            say(&mut io::stderr().lock(), &with_causes(&error));
            code_of(&error).into()
        }
    }
}

fn prepare() -> Result<Runner, RunnerError> {
    let (sender, wakes) = mpsc::sync_channel(WAITING);
    let stopped = Arc::default();
    wake::listen_for_signals(sender.clone(), Arc::clone(&stopped)).map_err(RunnerError::Signals)?;
    let client = Client::from_environment()?.on_loss(Loss::Bridged(stopped));
    Ok(Runner {
        client,
        sender,
        wakes,
        grace: GRACE,
        worker: None,
        by_model: false,
        hands: Hands::default(),
        place: Place::default(),
        drained: None,
    })
}

fn code_of(error: &RunnerError) -> ExitCode {
    match error {
        RunnerError::Client(_) => ExitCode::NoDaemon,
        RunnerError::NeedsModel { .. } => ExitCode::Unconfigured,
        RunnerError::Stopped(_) => ExitCode::Terminated,
        RunnerError::Signals(_) | RunnerError::Wait(_) | RunnerError::Files(_) => ExitCode::Internal,
    }
}

/// The runner of one agent.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) client: Client,
    sender: SyncSender<Wake>,
    pub(crate) wakes: Receiver<Wake>,
    grace: Duration,
    /// What works on tasks that have no command.
    worker: Option<Worker>,
    /// Whether the daemon has a model work on tasks that have no command.
    by_model: bool,
    /// What does for a model what that wants done.
    pub(crate) hands: Hands,
    pub(crate) place: Place,
    /// The program whose output is at its end.
    drained: Option<Pid>,
}

/// Where among the tasks it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    done: usize,
    total: usize,
}

impl Place {
    /// How much of all tasks is done when so much of this one is, 0.0 to 1.0.
    pub(crate) fn fraction(self, of_task: f64) -> f64 {
        if self.total == 0 { 1.0 } else { (self.done as f64 + of_task) / self.total as f64 }
    }
}

/// A task that failed for good.
#[derive(Debug, PartialEq)]
struct Failed {
    exit: Exit,
    attempts: u32,
    oom_kills: u64,
}

impl Runner {
    /// Runs every task; the exit status of the first that fails for good, or 0.
    fn run(mut self, err: &mut impl Write) -> Result<u8, RunnerError> {
        let list: TaskList = self.client.ask(&Call::TasksGet)?;
        // Before anything runs: half of the work is no success, and the rest would never be done.
        self.worker = list.program.map(Worker::new).transpose().map_err(RunnerError::Files)?;
        self.by_model = list.by_model;
        let lacks = |task: &&TaskSpec| task.run.is_none() && self.worker.is_none() && !list.by_model;
        if let Some(task) = list.tasks.iter().find(lacks) {
            return Err(RunnerError::NeedsModel {
                description: for_terminal(task.description.as_bytes(), SHOWN),
            });
        }
        let total = list.tasks.len();
        for (done, task) in list.tasks.iter().enumerate() {
            self.place = Place { done, total };
            self.progress(Some(task))?;
            if let Some(failed) = self.run_task(task, err)? {
                say(err, &failed.tell(done + 1, total, task));
                // A task that failed is no success, whatever its process ended with.
                return Ok(failed.exit.status().max(ExitCode::AgentFailed as u8));
            }
        }
        self.place = Place { done: total, total };
        self.progress(None)?;
        Ok(ExitCode::Success as u8)
    }

    fn progress(&mut self, task: Option<&TaskSpec>) -> Result<(), RunnerError> {
        let progress = Progress {
            fraction: Some(self.place.fraction(0.0)),
            // What a program or a model said last is said of no other task.
            status: (self.worker.is_some() || self.by_model).then(Box::default),
            task: task.map(|task| task.description.as_str().into()),
        };
        Ok(self.client.tell(&Call::Progress(progress))?)
    }

    /// Tries a task until it succeeds or no attempt is left.
    fn run_task(&mut self, task: &TaskSpec, err: &mut impl Write) -> Result<Option<Failed>, RunnerError> {
        let mut number = 1;
        loop {
            let (exit, ended) = self.attempt(task, number, err)?;
            if exit.is_success() {
                return Ok(None);
            }
            let failed = Failed { exit, attempts: number, oom_kills: ended.usage.oom_kills };
            let Some(wait) = task.retry.wait_after(number) else { return Ok(Some(failed)) };
            let shown = for_terminal(task.description.as_bytes(), SHOWN);
            let (cause, wait_text) = (failed.cause(), format_duration(wait));
            say(err, &format!("attempt {number} of {shown:?} failed: {cause}; trying again in {wait_text}"));
            self.rest(wait)?;
            number += 1;
        }
    }

    /// One attempt, from the gate to the daemon's last word on it.
    fn attempt(
        &mut self,
        task: &TaskSpec,
        number: u32,
        err: &mut impl Write,
    ) -> Result<(Exit, TaskEnded), RunnerError> {
        if let Some(signal) = self.stop_signal() {
            return Err(RunnerError::Stopped(signal));
        }
        if task.run.is_none() && self.worker.is_none() {
            return self.attempt_by_model(task, number);
        }
        let started = Instant::now();
        let mut attempt = match self.start(task, number) {
            Ok(attempt) => attempt,
            Err(error) => return Ok((Exit::StartFailed { reason: error.to_string() }, TaskEnded::default())),
        };
        let enter = TaskEnter { index: task.index, attempt: number, pid: Some(attempt.pid().as_raw()) };
        let Done {} = self.client.ask(&Call::TaskEnter(enter)).map_err(|error| self.stopped_or(error))?;
        wake::listen_for_end(attempt.pid(), self.sender.clone()).map_err(RunnerError::Wait)?;
        if let (Some(worker), Some(output)) = (&self.worker, attempt.output()) {
            worker.listen(attempt.pid(), output, self.sender.clone()).map_err(RunnerError::Wait)?;
        }
        // A child that was killed at its gate has closed the pipe; its exit status says why.
        let _ = attempt.open_gate();
        let pid = attempt.pid();
        let mut cut_short = self.supervise(&attempt, task.timeout_ms.map(Duration::from_millis), err);
        if let CutShort::No = cut_short {
            tell_left(err, &attempt.left_running(), &task.description);
        }
        let status = attempt.reap().map_err(RunnerError::Wait)?;
        if task.run.is_none() {
            self.drain(pid, &mut cut_short, err);
        }
        let exit = self.verdict(task, exit_of(status, &cut_short));
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let end = TaskEnd { index: task.index, attempt: number, exit: exit.clone(), duration_ms };
        let ended = self.client.ask(&Call::TaskEnd(end));
        match cut_short {
            // The daemon may have gone first.
            CutShort::Stop(signal) => Err(RunnerError::Stopped(signal)),
            _ => Ok((exit, ended?)),
        }
    }

    /// Why there is no answer: the agent was asked to stop while there was no daemon, or the error.
    pub(crate) fn stopped_or(&self, error: ClientError) -> RunnerError {
        self.stop_signal().map_or_else(|| error.into(), RunnerError::Stopped)
    }

    /// The signal that asks the agent to stop, if one has come. What else has come, of what has ended already, is passed over.
    pub(crate) fn stop_signal(&self) -> Option<Signal> {
        self.wakes.try_iter().take(WAITING).find_map(|wake| match wake {
            Wake::Stop(signal) => Some(signal),
            _ => None,
        })
    }

    /// Starts one attempt, at its gate.
    fn start(&mut self, task: &TaskSpec, number: u32) -> io::Result<Attempt> {
        match (&task.run, &mut self.worker) {
            (None, Some(worker)) => {
                let place = (self.place.done + 1, self.place.total);
                Attempt::start(Work::Program(&worker.begin(place, task, number)))
            }
            (run, _) => Attempt::start(Work::Shell(run.as_deref().unwrap_or_default())),
        }
    }

    fn verdict(&mut self, task: &TaskSpec, exit: Exit) -> Exit {
        match &mut self.worker {
            Some(worker) if task.run.is_none() => worker.verdict(exit),
            _ => exit,
        }
    }

    /// Tells the log and the daemon what a program says. What cannot be told to the daemon is in the log.
    fn hear(&mut self, said: Said, err: &mut impl Write) {
        let Some(worker) = &mut self.worker else { return };
        let is_trouble = matches!(said, Said::Trouble(_));
        let (line, progress) = worker.hear(said);
        let fraction = self.place.fraction(worker.fraction());
        match line {
            Some(line) if is_trouble => say(err, &line),
            // Nobody is left to be told when stdout itself cannot be written.
            Some(line) => drop(writeln!(io::stdout(), "{line}")),
            None => {}
        }
        if let Some(progress) = progress {
            let progress = Progress { fraction: Some(fraction), ..progress };
            let _ = self.client.tell(&Call::Progress(progress));
        }
    }

    /// Reads the rest of what a program that has ended has written.
    fn drain(&mut self, pid: Pid, cut_short: &mut CutShort, err: &mut impl Write) {
        let deadline = Instant::now() + DRAIN;
        while self.drained != Some(pid) {
            let left = deadline.saturating_duration_since(Instant::now());
            // What waits already is given without a wait, without end.
            if left.is_zero() {
                return;
            }
            match self.wakes.recv_timeout(left) {
                Ok(Wake::Said(of, said)) if of == pid => self.hear(said, err),
                Ok(Wake::Stop(signal)) => *cut_short = CutShort::Stop(signal),
                Ok(Wake::Drained(of)) => self.drained = Some(of),
                Ok(Wake::Ended(_) | Wake::Said(..)) => {}
                Err(_) => return,
            }
        }
    }

    /// Waits until the child has ended, and sees to it that it does when its time is over.
    fn supervise(&mut self, attempt: &Attempt, limit: Option<Duration>, err: &mut impl Write) -> CutShort {
        let mut cut_short = CutShort::No;
        let mut watch = Stopwatch::start(Instant::now());
        // What is to come next, and when: TERM after the limit, KILL after the grace period, nothing after a stop.
        let mut step = limit.map(|limit| (limit, Signal::SIGTERM));
        loop {
            let spent = watch.look(Instant::now());
            if let Some((due, signal)) = step.filter(|(due, _)| spent >= *due) {
                attempt.signal(signal);
                cut_short = CutShort::Timeout(limit.unwrap_or(due));
                step = (signal == Signal::SIGTERM).then_some((spent + self.grace, Signal::SIGKILL));
                continue;
            }
            match self.wakes.recv_timeout(next_look(spent, step.map(|(due, _)| due))) {
                Ok(Wake::Ended(pid)) if pid == attempt.pid() => return cut_short,
                Ok(Wake::Stop(signal)) => {
                    attempt.signal(signal);
                    (cut_short, step) = (CutShort::Stop(signal), None);
                }
                Ok(Wake::Said(of, said)) if of == attempt.pid() => self.hear(said, err),
                Ok(Wake::Drained(of)) => self.drained = Some(of),
                Ok(Wake::Ended(_) | Wake::Said(..)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the runner holds a sender itself"),
            }
        }
    }

    /// Waits before the next attempt, unless the agent is asked to stop.
    fn rest(&mut self, wait: Duration) -> Result<(), RunnerError> {
        let mut watch = Stopwatch::start(Instant::now());
        loop {
            let spent = watch.look(Instant::now());
            if spent >= wait {
                return Ok(());
            }
            if let Ok(Wake::Stop(signal)) = self.wakes.recv_timeout(next_look(spent, Some(wait))) {
                return Err(RunnerError::Stopped(signal));
            }
        }
    }
}

/// Why an attempt did not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CutShort {
    No,
    Timeout(Duration),
    Stop(Signal),
}

fn exit_of(status: ExitStatus, cut_short: &CutShort) -> Exit {
    match (cut_short, status.code(), status.signal()) {
        (CutShort::Timeout(limit), ..) => Exit::Timeout { limit: *limit },
        (CutShort::Stop(signal), ..) => Exit::stopped(signal.as_str().to_owned()),
        (CutShort::No, Some(code), _) => Exit::Code { code },
        (CutShort::No, None, Some(signal)) => Exit::Signal { signal, core: status.core_dumped() },
        (CutShort::No, None, None) => Exit::Unknown,
    }
}

impl Failed {
    fn cause(&self) -> String {
        let hint = match &self.exit {
            Exit::Code { code: 126 } => " (not executable, or not permitted)",
            Exit::Code { code: 127 } => " (command not found)",
            _ => "",
        };
        let oom = if self.oom_kills > 0 { ", after the kernel ran out of memory for it" } else { "" };
        format!("{}{hint}{oom}", self.exit)
    }

    fn tell(&self, place: usize, total: usize, task: &TaskSpec) -> String {
        let shown = for_terminal(task.description.as_bytes(), SHOWN);
        let attempts =
            if self.attempts > 1 { format!(" after {} attempts", self.attempts) } else { String::new() };
        let rest = match total - place {
            0 => String::new(),
            1 => "; the task after it was not run".to_owned(),
            rest => format!("; the {rest} tasks after it were not run"),
        };
        format!("task {place} of {total}, {shown:?}, failed{attempts}: {}{rest}", self.cause())
    }
}

/// Says in the log what a task leaves running.
fn tell_left(err: &mut impl Write, left: &[String], task: &str) {
    if let [first, rest @ ..] = left {
        let [first, task] = [first, task].map(|text| for_terminal(text.as_bytes(), SHOWN));
        let others = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        say(err, &format!("{task:?} left {first}{others} running in the background: killed with it"));
    }
}

fn say(err: &mut impl Write, message: &str) {
    // Nobody is left to be told when stderr itself cannot be written.
    let _ = writeln!(err, "toka: {message}");
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
