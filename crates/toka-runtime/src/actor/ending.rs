//! The end: everything that was still on its way is taken, and then the end is told.

use std::hash::{BuildHasher as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use toka_core::event::Usage;
use toka_core::restart::Verdict;
use toka_core::state::Happening;
use toka_core::{AgentState, ByteSize, EventKind, Exit, ExitCode};
use toka_logs::{Line, tail};
use tokio::time::Instant;

use super::Actor;
use super::hooks::Occasion;
use crate::countdown::Countdown;
use crate::exit_reason::{exit_reason, stopped};
use crate::kernel_records::{KernelRecords, Refusal};
use crate::walls::There;
use crate::{Processes, walls};

/// How long the last messages and the last output may take. Their senders are gone, so that all of it is in buffers.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the look for walls in them may take.
const LOOK: Duration = Duration::from_secs(1);
/// How long a record of the kernel takes at most, as a rule.
const AUDIT_LATENCY: Duration = Duration::from_millis(50);

/// The end of a runner is that of the task that failed, where its status says so and the task tells more.
fn of_task(exit: Exit, task: Option<Box<Exit>>) -> Exit {
    match (exit, task.map(|task| *task)) {
        (Exit::Code { code }, Some(task @ (Exit::Undone { .. } | Exit::Timeout { .. })))
            if code == i32::from(task.status().max(ExitCode::AgentFailed as u8)) =>
        {
            task
        }
        (exit, _) => exit,
    }
}

/// What is at a path, and where it leads.
fn look(path: &Path) -> Option<There> {
    let uid = path.symlink_metadata().ok()?.uid();
    Some(There { uid, real: path.canonicalize().unwrap_or_else(|_| path.to_owned()) })
}

/// What the kernel has refused the agent of this first process. Its audit tells that a moment later: it is waited for when nothing else is known.
fn of_kernel(pid: i32, waits: bool) -> Vec<Refusal> {
    let Some(records) = KernelRecords::of_this_process() else { return Vec::new() };
    if waits && records.has_spoken() {
        std::thread::sleep(AUDIT_LATENCY);
    }
    records.take_of(pid)
}

impl<P: Processes> Actor<P> {
    /// Nothing that it started is left.
    pub(super) async fn gone(&mut self, usage: Usage) {
        self.grace = None;
        self.served = None;
        self.hear_last_words().await;
        let exit = match &self.state {
            AgentState::Stopping { exit } => stopped(exit.clone(), self.status, self.killed),
            _ => self.bitten().unwrap_or_else(|| {
                let exit = exit_reason(self.status, &usage, ByteSize(self.profile.limits.memory));
                of_task(exit, self.failed_task.take()).accepting(&self.profile.success)
            }),
        };
        self.hooks = None;
        if !self.begin_hooks(Occasion::PostStop(exit.clone(), usage)) {
            self.end(exit, usage).await;
        }
    }

    /// It ends without ever having had a process. What a failed start leaves is cleared up as after a life; what the sandbox
    /// refuses would refuse the hooks as well.
    pub(super) async fn finish(&mut self, exit: Exit) {
        let exit = match &self.state {
            AgentState::Stopping { exit } => exit.clone(),
            AgentState::Pending => exit.before_start(),
            _ => exit,
        };
        if let Some(door) = self.door.take() {
            door.close();
        }
        let tried = matches!(self.state, AgentState::Starting | AgentState::Stopping { .. });
        let refused = matches!(exit, Exit::Denied { .. });
        let occasion = Occasion::PostStop(exit.clone(), Usage::default());
        if !tried || refused || !self.begin_hooks(occasion) {
            self.end(exit, Usage::default()).await;
        }
    }

    /// Looks in what one that failed wrote last for what its sandbox refused it.
    async fn tell_walls(&mut self, exit: &Exit) {
        let (Exit::Code { .. }, true, Some(walls)) = (exit, exit.is_failure(), self.walls.take()) else {
            return;
        };
        let path = self.profile.log.path().to_owned();
        // What a former life wrote says nothing about this one.
        let begun = SystemTime::now().checked_sub(self.begun.elapsed()).unwrap_or(UNIX_EPOCH);
        let begun_ms = begun.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let is_of_this_life = move |line: &Line| {
            line.time_ms.is_none_or(|time| u128::try_from(time).is_ok_and(|time| time >= begun_ms))
        };
        let pid = self.first_pid;
        let looked = tokio::task::spawn_blocking(move || {
            let lines = tail(&path, walls::LINES).unwrap_or_default();
            let lines = lines.iter().filter(|line| is_of_this_life(line));
            let texts: Vec<String> =
                lines.map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect();
            let words = walls::hint(texts.iter().map(String::as_str), &walls, look);
            let refusals = of_kernel(pid, words.is_none());
            match words {
                Some(hint) => (Some(hint), false),
                None => {
                    let mut refusals = refusals.iter().rev();
                    (refusals.find_map(|refusal| walls::refused(refusal, &walls, look)), true)
                }
            }
        });
        // A file system that does not answer holds up nobody's end.
        let Ok(Ok((hint, by_kernel))) = tokio::time::timeout(LOOK, looked).await else { return };
        if let Some(walls::Hint { wrote, why, origin, opening }) = hint {
            drop(self.emit(EventKind::AgentHint { wrote, by_kernel, why, origin, opening }));
        }
    }

    /// The end of a life.
    pub(super) async fn end(&mut self, exit: Exit, usage: Usage) {
        for (index, task) in std::mem::take(&mut self.tasks) {
            let duration_ms = millis(task.since.elapsed());
            task.work.into_iter().for_each(|work| work.end(&exit));
            drop(self.emit(EventKind::TaskEnded {
                index,
                exit: exit.clone(),
                duration_ms,
                usage: Usage::default(),
            }));
        }
        let last = (self.progress.flush(), self.metrics.flush());
        self.tell_progress(last);
        self.tell_walls(&exit).await;
        (self.grace, self.timeout) = (None, Countdown::Never);
        let terminal = self.terminal.take();
        let ended = exit.clone();
        (self.probing, self.watching, self.survey) = (None, None, None);
        match self.verdict(&exit) {
            Verdict::Final => self.end_for_good(exit, usage).await,
            Verdict::Again { after, restarts } => {
                let (duration_ms, delay_ms) = (millis(self.begun.elapsed()), millis(after));
                tracing::info!(exit = ?exit.to_string(), restarts, delay_ms, "restarting");
                let told = EventKind::AgentRestarting { exit, duration_ms, usage, restarts, delay_ms };
                let durable = self.emit(told);
                if !after.is_zero() {
                    durable.await;
                    self.settle();
                }
                // Else the next event, which is waited for, comes at once: the journal keeps the order, and makes both durable
                // in one go.
                self.step(Happening::Restarting { restarts });
                self.comeback = Instant::now().checked_add(after);
            }
            Verdict::GiveUp { restarts } => {
                let duration_ms = millis(self.born.elapsed());
                tracing::info!(exit = ?exit.to_string(), restarts, "quarantined");
                let told = EventKind::AgentQuarantined { exit: exit.clone(), duration_ms, usage, restarts };
                self.emit(told).await;
                self.settle();
                self.step(Happening::GivenUp { exit, restarts });
            }
        }
        if let Some(terminal) = terminal {
            terminal.end(ended);
        }
    }

    /// What is to become of it. One that was never started, and one that has waited for its next life, only ends when
    /// somebody says so.
    fn verdict(&mut self, exit: &Exit) -> Verdict {
        if matches!(self.state, AgentState::Pending | AgentState::Backoff { .. }) {
            return Verdict::Final;
        }
        let (lived, now) = (self.begun.elapsed(), self.born.elapsed());
        self.profile.restart.decide(&mut self.lives, exit, lived, now, draw())
    }

    async fn end_for_good(&mut self, exit: Exit, usage: Usage) {
        let duration_ms = if self.state == AgentState::Pending { 0 } else { millis(self.born.elapsed()) };
        tracing::info!(exit = ?exit.to_string(), duration_ms, "ended");
        self.emit(EventKind::AgentEnded { exit: exit.clone(), duration_ms, usage }).await;
        self.settle();
        let happening = match self.state {
            AgentState::Pending | AgentState::Starting => Happening::StartFailed(exit),
            _ => Happening::Gone(exit),
        };
        self.step(happening);
    }

    /// The end of its process, if it had one, is on record.
    pub(super) fn settle(&self) {
        self.processes.settle(self.profile.id);
    }

    async fn hear_last_words(&mut self) {
        if let Some(pump) = self.pump.take() {
            // The pump has ended by itself when both pipes have.
            let _ = pump.gone.send(());
            if let Ok(Ok(lost)) = tokio::time::timeout(LAST_WORDS, pump.task).await
                && lost > 0
            {
                self.warn(format!("{lost} bytes of the output of {} were lost", self.profile.name));
            }
        }
        if let Some(mut notes) = self.notes.take() {
            while let Ok(note) = notes.try_recv() {
                self.on_output(*note).await;
            }
        }
        if let Some(mut door) = self.door.take() {
            door.close();
            let drained = async {
                while let Some(message) = door.next().await {
                    self.on_message(*message).await;
                }
            };
            let _ = tokio::time::timeout(LAST_WORDS, drained).await;
        }
    }
}

/// A random number from 0 to 1, so that agents that fail together do not come back together.
fn draw() -> f64 {
    // Its keys are random; nothing is hashed.
    let number = std::collections::hash_map::RandomState::new().build_hasher().finish();
    number as f64 / u64::MAX as f64
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
