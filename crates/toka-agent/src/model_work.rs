//! A task on which the daemon has a model work. The model is asked outside of the sandbox; the runner does in the sandbox what
//! the model wants done with files, and tells what came of it:
//!
//! ```text
//! task/enter ─▶ task/next ─▶ wait | call: a file tool ─▶ task/next with its outcome ─▶ … ─▶ end ─▶ task/end
//! ```
//!
//! The daemon is asked, and never asks: so the next daemon goes on where the last one was killed.

use std::io::{self, Write};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use toka_core::rpc::{Call, TaskDo, TaskEnd, TaskEnded, TaskEnter, TaskNext, TaskSpec, TaskStep};
use toka_core::{Exit, FileOutcome, Progress};

use crate::client::{ClientError, Done};
use crate::runner::{Runner, RunnerError};
use crate::stopwatch::Stopwatch;
use crate::wake::Wake;

/// How long the runner waits for a step before it looks at the clock again: less than what the stopwatch takes for a pause.
const WAITS: Duration = Duration::from_secs(4);
/// How long the signal may take that follows on a refusal, when the agent is being ended.
const SIGNAL_WITHIN: Duration = Duration::from_secs(2);

/// How an attempt came to its end.
enum Outcome {
    Ended(Exit),
    Stopped(Signal),
}

impl Runner {
    /// One attempt at a task that a model works on.
    pub(crate) fn attempt_by_model(
        &mut self,
        task: &TaskSpec,
        attempt: u32,
    ) -> Result<(Exit, TaskEnded), RunnerError> {
        let started = Instant::now();
        let enter = TaskEnter { index: task.index, attempt, pid: None };
        let Done {} = self.client.ask(&Call::TaskEnter(enter)).map_err(|error| self.stopped_or(error))?;
        let outcome = self.serve_model(task, attempt)?;
        let exit = match &outcome {
            Outcome::Ended(exit) => exit.clone(),
            Outcome::Stopped(signal) => Exit::stopped(signal.as_str().to_owned()),
        };
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let end = TaskEnd { index: task.index, attempt, exit: exit.clone(), duration_ms };
        let ended = self.client.ask(&Call::TaskEnd(end));
        match outcome {
            // The daemon may have gone first.
            Outcome::Stopped(signal) => Err(RunnerError::Stopped(signal)),
            Outcome::Ended(_) => Ok((exit, ended?)),
        }
    }

    /// Does what the model wants done, until the daemon says that the attempt has ended, its time is over, or the agent is asked to stop.
    fn serve_model(&mut self, task: &TaskSpec, attempt: u32) -> Result<Outcome, RunnerError> {
        let limit = task.timeout_ms.map(Duration::from_millis);
        let mut watch = Stopwatch::start(Instant::now());
        let mut outcome = None;
        loop {
            if let Some(signal) = self.stop_signal() {
                return Ok(Outcome::Stopped(signal));
            }
            let spent = watch.look(Instant::now());
            let left = limit.map(|limit| limit.saturating_sub(spent));
            if let (Some(Duration::ZERO), Some(limit)) = (left, limit) {
                return Ok(Outcome::Ended(Exit::Timeout { limit }));
            }
            let step = match self.next_step(task, attempt, left, outcome.take()) {
                Ok(step) => step,
                Err(error) => {
                    return self.signal_soon().map(Outcome::Stopped).ok_or_else(|| error.into());
                }
            };
            self.tell_step(&step);
            match step.todo {
                TaskDo::Wait => {}
                TaskDo::Call(call) => {
                    let begun = Instant::now();
                    outcome = Some(self.hands.work(&call));
                    watch.add(begun.elapsed(), Instant::now());
                }
                // The signal that asks for it may still be on its way.
                TaskDo::End(exit @ Exit::Stopped { .. }) => {
                    return Ok(self.signal_soon().map_or(Outcome::Ended(exit), Outcome::Stopped));
                }
                TaskDo::End(exit) => return Ok(Outcome::Ended(exit)),
            }
        }
    }

    fn next_step(
        &mut self,
        task: &TaskSpec,
        attempt: u32,
        left: Option<Duration>,
        outcome: Option<FileOutcome>,
    ) -> Result<TaskStep, ClientError> {
        let wait_ms = u64::try_from(left.unwrap_or(WAITS).min(WAITS).as_millis()).unwrap_or(u64::MAX);
        self.client.ask(&Call::TaskNext(TaskNext { index: task.index, attempt, wait_ms, outcome }))
    }

    /// The signal that follows when the daemon ends the agent.
    fn signal_soon(&self) -> Option<Signal> {
        let deadline = Instant::now() + SIGNAL_WITHIN;
        loop {
            match self.wakes.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Wake::Stop(signal)) => return Some(signal),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Tells the log and the daemon how far the task is.
    fn tell_step(&mut self, step: &TaskStep) {
        let mut out = io::stdout().lock();
        for line in &step.lines {
            // Nobody is left to be told when stdout itself cannot be written.
            let _ = writeln!(out, "{line}");
        }
        if let Some(progress) = step.progress.clone() {
            let fraction = progress.fraction.map(|of_task| self.place.fraction(of_task));
            let _ = self.client.tell(&Call::Progress(Progress { fraction, ..progress }));
        }
    }
}
