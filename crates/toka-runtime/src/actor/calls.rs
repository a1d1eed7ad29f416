//! What the agent says in calls: progress, metrics, and the work of its tasks.

use std::sync::Arc;
use std::time::Duration;

use toka_core::event::Usage;
use toka_core::rpc::{
    Call, MAX_TEXT, Metrics, RpcError, TaskEnd, TaskEnded, TaskEnter, TaskNext, TaskSpec, TaskStep,
};
use toka_core::{AgentState, ByteSize, EventKind, Exit, Progress};
use toka_keeper::KeeperError;
use tokio::time::{Instant, sleep};

use super::{Actor, DoorReach, Groups, RunningTask, Succeeds};
use crate::door::{Answer, Message, Peer};
use crate::exit_reason::out_of_memory;
use crate::work::Commands;
use crate::{Attempt, Processes, Profile, Sent, Work};

/// How long the agent's owner waits for the end of what a task left behind. What takes longer hangs in a device, and is
/// seen to at the agent's end.
const EMPTIED_WITHIN: Duration = Duration::from_millis(500);
/// The longest wait for a step: whoever asks looks at its own clock in between.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Between two looks whether it has ended.
const EMPTYING_LOOK: Duration = Duration::from_millis(2);

impl<P: Processes> Actor<P> {
    pub(super) async fn on_message(&mut self, message: Message) {
        match message {
            Message::Notices { peer, notices, passed } => {
                if self.believes(peer) {
                    self.on_notices(notices).await;
                }
                drop(passed);
            }
            Message::Call { peer, call, answer } if self.is_usurped(peer, &call) => {
                let why = "only the process that works through the tasks says how they end";
                let _ = answer.send(Err(refused(why)));
            }
            Message::Call { peer, call: Call::TaskNext(next), answer } if self.believes(peer) => {
                match self.next_step(next) {
                    // The peer may have gone; then nobody waits for the answer.
                    Ok(step) => drop(tokio::spawn(async move {
                        let _ = answer.send(Ok(Answer::Step(Box::new(step.await))));
                    })),
                    Err(refusal) => drop(answer.send(Err(refusal))),
                }
            }
            Message::Call { peer, call, answer } => {
                let outcome = if self.believes(peer) {
                    self.on_call(call).await
                } else {
                    Err(refused("the caller has exited and cannot be told from others"))
                };
                // The peer may have gone; then nobody waits for the answer.
                let _ = answer.send(outcome);
            }
        }
    }

    fn believes(&self, peer: Peer) -> bool {
        matches!(peer, Peer::Member { .. }) || self.reach == DoorReach::AgentOnly
    }

    /// Whether a call is one that nobody but the runner makes, and another process of the agent makes it: what is thought outside of the sandbox
    /// comes to its end there, and no command that a model has run has a say in that.
    ///
    /// The runner is the first that asks for the tasks: before they are known, no model has run anything. In a life that another daemon began it
    /// is the main process, or a child of the one that is first in the agent's process namespace.
    fn is_usurped(&mut self, peer: Peer, call: &Call) -> bool {
        let Peer::Member { pid } = peer else { return false };
        let index = match call {
            Call::TasksGet => {
                self.runner.get_or_insert(pid);
                return false;
            }
            Call::TaskEnter(TaskEnter { index, .. })
            | Call::TaskEnd(TaskEnd { index, .. })
            | Call::TaskNext(TaskNext { index, .. }) => *index,
            _ => return false,
        };
        if by_model(&self.profile, index).is_none() {
            return false;
        }
        let is_first = || pid == self.first_pid || parent_of(pid) == Some(self.first_pid);
        let runner = self.runner.or_else(|| is_first().then_some(pid));
        self.runner = runner;
        runner != Some(pid)
    }

    async fn on_call(&mut self, call: Call) -> Result<Answer, RpcError> {
        match call {
            Call::Progress(progress) => {
                self.on_progress(progress);
                Ok(Answer::Done)
            }
            Call::Metrics(metrics) => {
                self.note_progress();
                let now = Instant::now();
                let metrics = self.metrics.offer(metrics, now);
                self.tell_progress((None, metrics));
                Ok(Answer::Done)
            }
            Call::Ready => {
                self.on_ready().await;
                Ok(Answer::Done)
            }
            Call::TasksGet => Ok(Answer::Tasks(self.profile.tasks.clone())),
            Call::TaskEnter(enter) => self.enter_task(enter).await,
            Call::TaskEnd(end) => self.end_task(end).await,
            // Answered when there is something to do (`on_message`).
            Call::TaskNext(_) => Ok(Answer::Done),
        }
    }

    pub(super) fn on_progress(&mut self, progress: Progress) {
        self.note_progress();
        let progress = self.progress.offer(progress, Instant::now());
        self.tell_progress((progress, None));
    }

    pub(super) fn progress_due(&mut self, now: Instant) -> (Option<Progress>, Option<Metrics>) {
        (self.progress.take_due(now), self.metrics.take_due(now))
    }

    pub(super) fn tell_progress(&self, (progress, metrics): (Option<Progress>, Option<Metrics>)) {
        // Nothing follows from these: nobody waits until they are durable.
        if let Some(progress) = progress {
            drop(self.emit(EventKind::Progress(progress)));
        }
        if let Some(Metrics { values }) = metrics {
            drop(self.emit(EventKind::Metrics { values }));
        }
    }

    async fn enter_task(&mut self, enter: TaskEnter) -> Result<Answer, RpcError> {
        let TaskEnter { index, attempt, pid } = enter;
        let Some(task) = self.profile.tasks.tasks.iter().find(|task| task.index == index) else {
            return Err(refused(format!("there is no task {index}")));
        };
        if let Some(task) = self.tasks.get(&index) {
            if self.succeeds == Succeeds::Another && task.attempt == attempt {
                // It was let in, and the answer was lost with who gave it.
                return Ok(Answer::Done);
            }
            return Err(refused(format!("task {index} is under way already")));
        }
        let description = task.description.clone();
        let leaf = match self.groups {
            Groups::Made => self.make_leaf(index, pid).await?,
            Groups::Absent => None,
        };
        // What it said before belongs to what was before.
        let before = self.progress.flush();
        self.tell_progress((before, None));
        let work = self.work_on(index, attempt, false);
        self.tasks.insert(index, RunningTask { attempt, leaf, since: Instant::now(), work });
        self.emit(EventKind::TaskStarted { index, description, attempt }).await;
        Ok(Answer::Done)
    }

    /// Gives the task's process, which must be the agent's, a control group of its own.
    async fn make_leaf(&mut self, index: usize, pid: Option<i32>) -> Result<Option<String>, RpcError> {
        self.leaves += 1;
        // One that a model works on has none: each of its commands gets one.
        let Some(pid) = pid else { return Ok(None) };
        let leaf = leaf_name(self.leaves);
        match self.processes.make_leaf(self.profile.id, &leaf, pid).await {
            Ok(()) => Ok(Some(leaf)),
            // Only the keeper knows which one is meant: the number may be of a namespace of the agent's own.
            Err(KeeperError::Stranger) => Err(refused(format!("process {pid} is not this agent's"))),
            // The agent's own limits hold all the same; only the task's figures are missing.
            Err(error) => {
                tracing::warn!(agent = %self.profile.name, index, %error, "no control group for a task");
                Ok(None)
            }
        }
    }

    /// Ends what a task left behind, and takes its figures: they are there when its group is empty, which the kernel needs
    /// a moment for after the kill.
    async fn end_leaf(&self, index: usize, leaf: &str) -> Usage {
        let deadline = Instant::now() + EMPTIED_WITHIN;
        loop {
            match self.processes.remove_leaf(self.profile.id, leaf).await {
                Ok(usage) => return usage,
                Err(error) if Instant::now() >= deadline => {
                    tracing::warn!(agent = %self.profile.name, index, %error, "no figures of a task");
                    return Usage::default();
                }
                Err(_) => sleep(EMPTYING_LOOK).await,
            }
        }
    }

    async fn end_task(&mut self, end: TaskEnd) -> Result<Answer, RpcError> {
        let TaskEnd { index, attempt, exit, duration_ms } = end;
        let task = match self.tasks.remove(&index) {
            Some(task) if task.attempt == attempt => task,
            Some(task) => {
                self.tasks.insert(index, task);
                return Err(refused(format!("task {index} is not at attempt {attempt}")));
            }
            // Its end is on record, and the answer was lost with who gave it.
            None if self.succeeds == Succeeds::Another => {
                return Ok(Answer::TaskEnded(TaskEnded { usage: Usage::default() }));
            }
            None => return Err(refused(format!("task {index} is not under way"))),
        };
        let usage = match &task.leaf {
            Some(leaf) => self.end_leaf(index, leaf).await,
            None => Usage::default(),
        };
        let exit = match (task.work, by_model(&self.profile, index)) {
            (Some(work), _) => {
                let exit = by_verdict(exit, work.verdict());
                work.end(&exit);
                exit
            }
            // Its work was ended before.
            (None, Some(_)) => by_verdict(exit, None),
            (None, None) => exit,
        };
        let exit = out_of_memory(shortened(exit), &usage, ByteSize(self.profile.limits.memory));
        self.failed_task = (!exit.is_success()).then(|| Box::new(exit.clone()));
        self.emit(EventKind::TaskEnded { index, exit, duration_ms, usage }).await;
        Ok(Answer::TaskEnded(TaskEnded { usage }))
    }
}

impl<P: Processes> Actor<P> {
    /// Whoever works on a task that has no command begins with an attempt, or goes on.
    fn work_on(&self, index: usize, number: u32, goes_on: bool) -> Option<Box<dyn Work>> {
        let (at, task) = by_model(&self.profile, index)?;
        let worker = self.profile.worker.as_ref()?;
        let commands = Commands {
            besides: self.besides.clone(),
            agent: self.profile.id,
            command: self.command.clone(),
            spent: Arc::clone(&self.spent),
        };
        Some(worker.begin(Attempt {
            agent: self.profile.name.clone(),
            task: task.clone(),
            place: (at + 1, self.profile.tasks.tasks.len()),
            number,
            pid: self.first_pid,
            goes_on,
            commands: Arc::new(commands),
            sink: Arc::clone(&self.sink),
        }))
    }

    /// What the runner is to do next for a task that has no command.
    fn next_step(&mut self, next: TaskNext) -> Result<Sent<TaskStep>, RpcError> {
        let TaskNext { index, attempt, wait_ms, outcome } = next;
        if matches!(self.state, AgentState::Stopping { .. }) {
            return Err(refused("the agent is being ended"));
        }
        let begun = match self.tasks.get_mut(&index) {
            Some(task) if task.attempt == attempt => task.work.take(),
            Some(_) => return Err(refused(format!("task {index} is not at attempt {attempt}"))),
            None => return Err(refused(format!("task {index} is not under way"))),
        };
        // Without one, another daemon began it.
        let work = begun.or_else(|| self.work_on(index, attempt, true));
        let nobody = || refused(format!("nobody works on task {index} but its own command"));
        let (work, task) = work.zip(self.tasks.get_mut(&index)).ok_or_else(nobody)?;
        Ok(task.work.insert(work).next(outcome, Duration::from_millis(wait_ms).min(LONGEST_WAIT)))
    }
}

/// The parent of a process (proc_pid_stat(5)).
fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may have parentheses itself; then come the state and the parent.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// A task on which somebody outside works, and its place in the list, from 0.
pub(super) fn by_model(profile: &Profile, index: usize) -> Option<(usize, &TaskSpec)> {
    let list = &profile.tasks;
    let found = list.tasks.iter().enumerate().find(|(_, task)| task.index == index)?;
    (list.by_model && found.1.run.is_none()).then_some(found)
}

/// The end of an attempt that was worked on outside: the runner only knows of its own clock and of the signal that it got.
fn by_verdict(told: Exit, verdict: Option<Exit>) -> Exit {
    match (told, verdict) {
        (told @ (Exit::Timeout { .. } | Exit::Stopped { .. }), _) => told,
        (_, Some(verdict)) => verdict,
        (_, None) => Exit::Undone { reason: "whoever works on it has not come to an end".to_owned() },
    }
}

/// The group of the task that was the `number`th of its life.
pub(super) fn leaf_name(number: u64) -> String {
    format!("call-{number}")
}

fn refused(text: impl Into<String>) -> RpcError {
    RpcError::new(RpcError::REFUSED, text)
}

/// The agent's word about an exit, with its texts cut to a length that a journal can bear.
fn shortened(exit: Exit) -> Exit {
    let cut = |mut text: String| {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text
    };
    match exit {
        Exit::Denied { reason } => Exit::Denied { reason: cut(reason) },
        Exit::StartFailed { reason } => Exit::StartFailed { reason: cut(reason) },
        Exit::Undone { reason } => Exit::Undone { reason: cut(reason) },
        Exit::Budget { reason } => Exit::Budget { reason: cut(reason) },
        Exit::Probe { probe, reason } => Exit::Probe { probe, reason: cut(reason) },
        Exit::NotStarted { by } => Exit::NotStarted { by: cut(by) },
        Exit::Skipped { reason } => Exit::Skipped { reason: cut(reason) },
        Exit::Stopped { by, .. } => Exit::stopped(cut(by)),
        exit => exit,
    }
}
