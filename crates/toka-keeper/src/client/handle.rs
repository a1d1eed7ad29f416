//! The handle: what a daemon can ask of its keeper.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use toka_core::event::Usage;
use toka_core::{Enforcement, Resources};
use toka_sandbox::GroupLimits;
use toka_sandbox::namespace::Family;
use tokio::sync::{mpsc, oneshot, watch};

use super::error::{KeeperError, SpawnError, refusal};
use super::traffic::{Answer, Shared, Waiting};
use crate::packet::{MAX_DESCRIPTORS, Packet};
use crate::protocol::{Body, Call, Entry, LISTENER, Launch, NOTIFICATION, Orphan, ProcessId, Request};

/// A process that runs.
#[derive(Debug)]
pub struct Started {
    /// The pid of its main process.
    pub pid: i32,
    /// The read end of its output, non-blocking; of a process on a terminal, the terminal's master.
    pub stdout: OwnedFd,
    /// The read end of its errors, non-blocking; at its end when the process is on a terminal.
    pub stderr: OwnedFd,
    /// The read end of the pipe at its [`Launch::notification_fd`], non-blocking.
    pub notification: Option<OwnedFd>,
    /// The sockets that listen at [`toka_sandbox::SandboxPlan::listen`] and, in their order, at [`toka_sandbox::SandboxPlan::hosts`],
    /// non-blocking.
    pub listeners: Vec<OwnedFd>,
    /// What confines it.
    pub enforcement: Enforcement,
}

/// A handle on the keeper. When the last one is dropped, a keeper that ends with its daemon stops every agent and ends;
/// one that listens for the next goes on.
#[derive(Debug, Clone)]
pub struct Keeper {
    pub(super) shared: Arc<Shared>,
    /// Numbers of what was asked.
    pub(super) outgoing: mpsc::UnboundedSender<u64>,
    /// Fails when the connection is over.
    pub(super) closed: watch::Receiver<()>,
}

impl Keeper {
    /// Starts a process; returns when it executes its program, or with the step that failed.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn spawn(&self, launch: Launch) -> Result<Started, SpawnError> {
        self.spawn_with(launch, None).await
    }

    /// The same for one that reads: `input` becomes its standard input, unless it runs on a terminal.
    ///
    /// # Errors
    /// As [`Keeper::spawn`].
    pub async fn spawn_reading(&self, launch: Launch, input: OwnedFd) -> Result<Started, SpawnError> {
        self.spawn_with(launch, Some(input)).await
    }

    async fn spawn_with(&self, launch: Launch, input: Option<OwnedFd>) -> Result<Started, SpawnError> {
        let id = launch.id;
        let start = Box::new(future_orphan(&launch));
        let request = Request::Spawn(Box::new(launch));
        let prepare = |waiting: &mut Waiting| waiting.start = Some(start);
        let answer = self.call_for(request, input.into_iter().collect(), prepare).await;
        let (body, descriptors) = answer.map_err(SpawnError::Keeper)?;
        match body {
            Body::Started { pid, enforcement, names, .. } => {
                let got = descriptors.len();
                let mut pipes = descriptors.into_iter();
                let (Some(stdout), Some(stderr)) = (pipes.next(), pipes.next()) else {
                    // Nobody would read what it writes.
                    self.kill(id);
                    return Err(SpawnError::Keeper(KeeperError::Descriptors { got, sent: 2 }));
                };
                let mut held: Vec<(String, OwnedFd)> = names.into_iter().zip(pipes).collect();
                let mut take = |name: &str| {
                    let of_name = held.extract_if(.., |(held, _)| held == name);
                    of_name.map(|(_, descriptor)| descriptor).collect::<Vec<_>>()
                };
                let (notification, listeners) = (take(NOTIFICATION).pop(), take(LISTENER));
                Ok(Started { pid, stdout, stderr, notification, listeners, enforcement })
            }
            Body::NotPrepared(error) => Err(SpawnError::Prepare(error)),
            Body::NotStarted(error) => Err(SpawnError::Step(error)),
            other => Err(SpawnError::Keeper(refusal(other))),
        }
    }

    /// Sends a signal to the main process, if it still runs.
    pub fn signal(&self, id: ProcessId, signal: i32) {
        self.tell(Request::Signal { id, signal });
    }

    /// Kills all its processes.
    pub fn kill(&self, id: ProcessId) {
        self.tell(Request::Kill { id });
    }

    /// Freezes all its processes.
    ///
    /// # Errors
    /// When the host has nothing to freeze with.
    pub async fn freeze(&self, id: ProcessId) -> Result<(), KeeperError> {
        self.done(Request::Freeze { id }).await
    }

    /// Lets frozen processes run again.
    ///
    /// # Errors
    /// As [`Keeper::freeze`].
    pub async fn thaw(&self, id: ProcessId) -> Result<(), KeeperError> {
        self.done(Request::Thaw { id }).await
    }

    /// Puts other limits of an agent's control group in force while it runs.
    ///
    /// # Errors
    /// As [`Keeper::freeze`]; with a refusal, some of the limits may be in force.
    pub async fn limit(&self, id: ProcessId, limits: GroupLimits) -> Result<(), KeeperError> {
        self.done(Request::Limit { id, limits }).await
    }

    /// Makes the leaf group `leaf` of an agent and moves one of its processes into it, with all its threads. `pid` is the
    /// number that the agent has for it, in its own process namespace if it has one.
    ///
    /// # Errors
    /// [`KeeperError::Stranger`] when the process is not the agent's; others when the kernel refuses.
    pub async fn make_leaf(&self, id: ProcessId, leaf: &str, pid: i32) -> Result<(), KeeperError> {
        self.done(Request::MakeLeaf { id, leaf: leaf.to_owned(), pid }).await
    }

    /// A TCP socket in the network of the agent's main process, which this process may not enter itself.
    ///
    /// # Errors
    /// When the agent has no process, or the kernel refuses.
    pub async fn tcp_socket(&self, id: ProcessId, family: Family) -> Result<OwnedFd, KeeperError> {
        match self.call(Request::Socket { id, family }, Vec::new()).await? {
            (Body::Done, descriptors) => descriptors.into_iter().next().ok_or(KeeperError::Gone),
            (other, _) => Err(refusal(other)),
        }
    }

    /// Removes a leaf group with what is left in it; says what it used.
    ///
    /// # Errors
    /// When it still has processes.
    pub async fn remove_leaf(&self, id: ProcessId, leaf: &str) -> Result<Usage, KeeperError> {
        match self.call(Request::RemoveLeaf { id, leaf: leaf.to_owned() }, Vec::new()).await?.0 {
            Body::Usage(usage) => Ok(usage),
            other => Err(refusal(other)),
        }
    }

    /// Makes another process of the agent its main one: it gets the signals, and where the keeper becomes its parent, its
    /// end is the agent's. `pid` is the number that the agent has for it, as in [`Keeper::make_leaf`]; returns the host's.
    ///
    /// # Errors
    /// [`KeeperError::Stranger`] when the process is not the agent's.
    pub async fn set_main(&self, id: ProcessId, pid: i32) -> Result<i32, KeeperError> {
        let prepare = |waiting: &mut Waiting| waiting.main_of = Some(id);
        match self.call_for(Request::SetMain { id, pid }, Vec::new(), prepare).await?.0 {
            Body::Main { pid } => Ok(pid),
            other => Err(refusal(other)),
        }
    }

    /// What it and all that it started hold and use at this moment; `None` when it is gone.
    pub async fn resources(&self, id: ProcessId) -> Option<Resources> {
        match self.call(Request::Resources { id }, Vec::new()).await.ok()?.0 {
            Body::Resources(resources) => Some(resources),
            _ => None,
        }
    }

    /// What an agent has used so far.
    pub async fn usage(&self, id: ProcessId) -> Option<Usage> {
        match self.call(Request::Usage { id }, Vec::new()).await.ok()?.0 {
            Body::Usage(usage) => Some(usage),
            _ => None,
        }
    }

    /// Whether it answers at all.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn answers(&self) -> Result<(), KeeperError> {
        // Any call would do; this one reads one small file at most.
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        self.call(Request::Owner { pid: own }, Vec::new()).await.map(drop)
    }

    /// Whose group the kernel says that a process is in.
    pub async fn owner_of(&self, pid: i32) -> Option<ProcessId> {
        match self.call(Request::Owner { pid }, Vec::new()).await.ok()?.0 {
            Body::Owner(owner) => owner,
            _ => None,
        }
    }

    /// Gives descriptors to hold, in the place of those of the same name: until the process is settled (or gone, where the
    /// keeper ends with its daemon), or until the keeper ends when no process is named. At most 15 at a time.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn hold(
        &self,
        id: impl Into<Option<ProcessId>>,
        name: &str,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), KeeperError> {
        match self.call(Request::Hold { id: id.into(), name: name.to_owned() }, descriptors).await?.0 {
            Body::Done => Ok(()),
            other => Err(refusal(other)),
        }
    }

    /// Has descriptors closed that were held under a name.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn release(&self, id: impl Into<Option<ProcessId>>, name: &str) -> Result<(), KeeperError> {
        self.done(Request::Release { id: id.into(), name: name.to_owned() }).await
    }

    /// The processes that the keeper holds.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn list(&self) -> Result<Vec<Entry>, KeeperError> {
        entries(self.call(Request::List, Vec::new()).await?)
    }

    /// The same, before anything was started: what another must take over when the keeper is killed is this, and what
    /// becomes of it from here on.
    pub(super) async fn take_stock(&self) -> Result<Vec<Entry>, KeeperError> {
        entries(self.call_for(Request::List, Vec::new(), |waiting| waiting.is_stock = true).await?)
    }

    /// Descriptors, each with its name: of a process its output and error pipes (`stdout`, `stderr`), then those that were
    /// held; those of the keeper as a whole when no process is named. They are duplicates: it can be asked again. An
    /// adopted process has no pipes but those that were held for it.
    ///
    /// # Errors
    /// When there is no such process; [`KeeperError::Descriptors`] when there is no room for them, and nothing is kept.
    pub async fn hand_back(
        &self,
        id: impl Into<Option<ProcessId>>,
    ) -> Result<Vec<(String, OwnedFd)>, KeeperError> {
        let id = id.into();
        let mut all = Vec::new();
        loop {
            let request = Request::HandBack { id, from: all.len() };
            let (body, descriptors) = self.call(request, Vec::new()).await?;
            let Body::HandBack { names, pipes } = body else { return Err(refusal(body)) };
            let pipes = ["stdout", "stderr"].into_iter().take(pipes).map(str::to_owned);
            let names: Vec<String> = pipes.chain(names).collect();
            let (got, sent) = (descriptors.len(), names.len());
            if got < sent {
                return Err(KeeperError::Descriptors { got, sent });
            }
            all.extend(names.into_iter().zip(descriptors));
            if sent < MAX_DESCRIPTORS {
                return Ok(all);
            }
        }
    }

    /// Says that the end of a process is on record, so that the keeper forgets it and its number can be used again. Until
    /// then the next daemon hears of it again. Nothing is lost by saying it twice.
    ///
    /// # Errors
    /// When it is not over, or the keeper is gone.
    pub async fn settle(&self, id: ProcessId) -> Result<(), KeeperError> {
        self.done(Request::Settled { id }).await
    }

    /// [`Keeper::settle`] without waiting for the answer.
    pub fn settled(&self, id: ProcessId) {
        self.tell(Request::Settled { id });
    }

    /// The keeper's pid; `None` when it is gone, or has not said hello.
    pub fn pid(&self) -> Option<i32> {
        self.shared.hello().map(|hello| hello.pid).filter(|pid| *pid > 0)
    }

    /// Asks a keeper to stop every agent gracefully, and to end when all are gone and their ends settled. Returns at once:
    /// what happens is told by events, and the last of them is `Closed`.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn end(&self) -> Result<(), KeeperError> {
        self.shared.begin_end();
        self.done(Request::End).await
    }

    /// Leaves the keeper and, if it listens for the next daemon, its agents running. Returns when it knows that it is free.
    /// With other handles still there, waits for them.
    pub async fn detach(self) {
        self.left().await;
    }

    /// Lets the keeper end, and waits until it has: it stops what still runs, and removes its groups. What was not settled
    /// is not told any more.
    pub async fn shutdown(self) {
        self.shared.begin_end();
        self.tell(Request::End);
        let process = self.shared.take_process();
        self.left().await;
        if let Some(mut process) = process {
            // Waiting blocks a thread of the pool, not the runtime.
            let _ = tokio::task::spawn_blocking(move || process.wait()).await;
        }
    }

    async fn left(self) {
        let mut closed = self.closed.clone();
        drop(self);
        while closed.changed().await.is_ok() {}
    }

    pub(super) async fn done(&self, request: Request) -> Result<(), KeeperError> {
        match self.call(request, Vec::new()).await?.0 {
            Body::Done => Ok(()),
            other => Err(refusal(other)),
        }
    }

    pub(super) async fn call(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answer, KeeperError> {
        self.call_for(request, descriptors, |_| {}).await
    }

    async fn call_for(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
        prepare: impl FnOnce(&mut Waiting),
    ) -> Result<Answer, KeeperError> {
        let (answer, answered) = oneshot::channel();
        let prepare = |waiting: &mut Waiting| {
            waiting.answer = Some(answer);
            prepare(waiting);
        };
        self.send(request, descriptors, prepare)?;
        answered.await.map_err(|_| KeeperError::Gone)
    }

    fn tell(&self, request: Request) {
        // Nobody waits for the answer; what became of the process is told by events.
        let _ = self.send(request, Vec::new(), |_| {});
    }

    fn send(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
        prepare: impl FnOnce(&mut Waiting),
    ) -> Result<(), KeeperError> {
        let call = self.shared.next_call();
        let packet = Packet::new(&Call { call, request }, descriptors)
            .map_err(|error| KeeperError::Refused(error.to_string()))?;
        let mut waiting = Waiting::new(packet);
        prepare(&mut waiting);
        if !self.shared.await_answer(call, waiting) {
            return Err(KeeperError::Gone);
        }
        self.outgoing.send(call).map_err(|_| KeeperError::Gone)
    }
}

fn entries((answer, _): Answer) -> Result<Vec<Entry>, KeeperError> {
    match answer {
        Body::List(entries) => Ok(entries),
        other => Err(refusal(other)),
    }
}

/// What a start leaves behind if it succeeds; what is not known yet comes with the answer.
fn future_orphan(launch: &Launch) -> Orphan {
    Orphan {
        id: launch.id,
        project: launch.plan.project.clone(),
        agent: launch.plan.agent.clone(),
        pid: 0,
        start_time: 0,
        started_ms: crate::protocol::now_ms(),
        beside: launch.beside,
        stop_signal: launch.stop_signal,
        grace: launch.grace,
        guards: launch.plan.guards.clone(),
        inner_binds: toka_sandbox::renewal::exposed_binds(&launch.plan.binds),
        shares_network: launch.plan.network == toka_core::NetworkAccess::Project,
        enforcement: Enforcement::default(),
        status: None,
        notification_fd: launch.notification_fd,
        oom_kills: 0,
    }
}
