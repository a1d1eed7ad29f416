//! An actor takes over a life that another began. Nothing is told that the journal knows already: to whoever reads it, the
//! agent has just gone on.

use toka_core::event::Usage;
use toka_core::{AgentState, Coverage, EventKind, Exit, Layer};
use tokio::time::Instant;

use super::calls::{by_model, leaf_name};
use super::{Actor, DoorReach, Groups, RunningTask, Succeeds};
use crate::countdown::Countdown;
use crate::{Adopted, AdoptedProcess, AdoptedTask, Processes, Said};

/// A task that an earlier owner let in.
fn under_way(task: AdoptedTask, now: Instant) -> RunningTask {
    let since = now.checked_sub(task.age).unwrap_or(now);
    RunningTask { attempt: task.attempt, leaf: Some(leaf_name(task.number)), since, work: None }
}

impl<P: Processes> Actor<P> {
    /// Goes on with a life.
    pub(super) async fn adopt(&mut self, adopted: Adopted) {
        let Adopted {
            state, process, age, life, ran, lives, next_life, tasks, begun, said, restarts, ..
        } = adopted;
        self.oom_kills = adopted.oom_kills;
        let now = Instant::now();
        (self.leaves, self.succeeds) = (begun, Succeeds::Another);
        self.tasks = tasks.into_iter().map(|task| (task.index, under_way(task, now))).collect();
        for (index, task) in &mut self.tasks {
            if by_model(&self.profile, *index).is_some() {
                task.leaf = None;
            }
        }
        self.born = now.checked_sub(age).unwrap_or(now);
        self.begun = now.checked_sub(life).unwrap_or(now);
        (self.lives, self.restarts) = (lives, restarts);
        match (&state, process) {
            (AgentState::Backoff { .. }, _) => {
                self.state = state;
                self.comeback = next_life.and_then(|wait| now.checked_add(wait)).or(Some(now));
            }
            // The keeper never heard of it, or could not start it and nobody was told: it is tried again.
            (AgentState::Starting, None) => {
                self.state = AgentState::Pending;
                self.start().await;
            }
            (AgentState::Starting, Some(process)) => {
                self.state = state;
                self.begin_life_with(process).await;
            }
            (
                AgentState::Running { .. } | AgentState::Paused { .. } | AgentState::Stopping { .. },
                process,
            ) => {
                self.state = state;
                match process {
                    Some(process) => self.go_on_with(process, ran, &said).await,
                    None => self.lost().await,
                }
            }
            _ => self.state = state,
        }
    }

    /// It was started and nobody was told.
    async fn begin_life_with(&mut self, process: AdoptedProcess) {
        if let Err(reason) = self.open() {
            self.warn(format!("{}: {reason}", self.profile.name));
        }
        let enforcement = process.enforcement.clone();
        let pid = process.pid;
        self.take(process).await;
        self.step(toka_core::state::Happening::Started { pid });
        self.oom_kills = 0;
        self.emit(EventKind::AgentStarted { pid, enforcement }).await;
        self.timeout = Countdown::start(self.profile.timeout, Instant::now());
    }

    async fn go_on_with(&mut self, process: AdoptedProcess, ran: std::time::Duration, said: &Said) {
        if let Err(reason) = self.open() {
            self.warn(format!("{}: {reason}", self.profile.name));
        }
        let is_frozen = process.is_frozen;
        self.take(process).await;
        self.probing.iter().for_each(|probing| probing.prober.recall(said));
        let left = self.profile.timeout.map(|timeout| timeout.saturating_sub(ran));
        self.timeout = Countdown::start(left, Instant::now());
        match (&self.state, is_frozen) {
            (AgentState::Paused { .. }, _) => {
                let now = Instant::now();
                self.timeout = self.timeout.hold(now);
                self.probing.iter().for_each(|probing| probing.prober.pause());
                self.watching.iter_mut().for_each(|watching| watching.hold(now));
                self.pause_survey();
                if !is_frozen {
                    self.freeze_again().await;
                }
            }
            // It was frozen, or asked to stop, and that was not told before its owner died.
            (AgentState::Running { .. }, true) => {
                let _ = self.processes.thaw(self.profile.id).await;
            }
            (AgentState::Stopping { .. }, _) => {
                (self.timeout, self.probing, self.watching) = (Countdown::Never, None, None);
                self.survey = None;
                if is_frozen {
                    let _ = self.processes.thaw(self.profile.id).await;
                }
                self.signal_stop().await;
            }
            _ => {}
        }
    }

    async fn freeze_again(&mut self) {
        if let Err(error) = self.processes.freeze(self.profile.id).await {
            self.warn(format!("{} could not be paused again: {error}", self.profile.name));
        }
    }

    /// Reads what it says from now on, and asks and watches it as from the beginning of a life.
    async fn take(&mut self, process: AdoptedProcess) {
        let AdoptedProcess { pid, enforcement, pipes, notification, listeners, .. } = process;
        self.first_pid = pid;
        self.serve(pid, listeners);
        if enforcement.coverage(Layer::Mounts) == Coverage::Full {
            self.reach = DoorReach::AgentOnly;
        }
        if enforcement.coverage(Layer::Cgroup) == Coverage::None {
            self.groups = Groups::Absent;
            self.tasks.values_mut().for_each(|task| task.leaf = None);
        }
        match pipes {
            Some(pipes) if self.writer.is_some() => {
                if let Err(error) = self.pump(pipes) {
                    self.warn(format!("the output of {} cannot be read: {error}", self.profile.name));
                }
            }
            _ => self.warn(format!("what {} writes is lost from here on", self.profile.name)),
        }
        self.probe(pid, &enforcement, notification);
        self.watch();
        self.survey();
    }

    /// The journal says that it runs, and nobody has it.
    async fn lost(&mut self) {
        self.warn(format!("{} is gone, and with it its exit status", self.profile.name));
        match self.state.clone() {
            AgentState::Stopping { exit } => self.end(exit, Usage::default()).await,
            _ => self.end(Exit::Unknown, Usage::default()).await,
        }
    }
}
