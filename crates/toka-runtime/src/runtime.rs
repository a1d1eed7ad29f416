//! The runtime: agents by their process ids, and the way from the keeper's events to the actor that owns the agent.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use toka_core::{AgentName, Decision, Exit, Request, Unmet};
use toka_keeper::{KeeperEvent, ProcessId, SpawnError};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::Instrument as _;

use crate::actor::Actor;
use crate::beside::{Besides, Numbers, Routes, lock};
use crate::disk::Surveyor;
use crate::kernel_records::KernelRecords;
use crate::order::{Order, Restarts};
use crate::turns::timed;
use crate::{
    Adjustment, Admission, Adopted, Command, EventSink, Execution, Launch, Processes, Profile, Terminal,
};

/// Starts that the keeper has before it at one time. It makes one after the other: with a few it never waits for us,
/// and with no more of them the first of a thousand agents is heard of before the last is started.
const STARTS: usize = 8;

/// Makes actors and brings them what the keeper says.
#[derive(Clone)]
pub struct Runtime<P> {
    processes: P,
    sink: Arc<dyn EventSink>,
    routes: Routes,
    numbers: Numbers,
    starts: Arc<Semaphore>,
    admission: Admission,
    surveyor: Surveyor,
}

impl<P: Processes> Runtime<P> {
    /// Begins to listen to `events`; must be called within a tokio runtime.
    pub fn new(processes: P, events: mpsc::UnboundedReceiver<KeeperEvent>, sink: Arc<dyn EventSink>) -> Self {
        // What the kernel says is heard from the first agent on.
        KernelRecords::of_this_process();
        let routes = Routes::default();
        tokio::spawn(route(events, Arc::clone(&routes), |_| {}));
        let (numbers, starts) = (Numbers::default(), Arc::new(Semaphore::new(STARTS)));
        Self {
            processes,
            sink,
            routes,
            numbers,
            starts,
            admission: Admission::default(),
            surveyor: Surveyor::default(),
        }
    }

    /// One whose keeper outlives it, and may have agents that an earlier owner began. Nothing that the keeper says is heard
    /// before [`Runtime::listen`], so that all of them have their owners by then. `used` is the highest number of a process
    /// that the keeper knows.
    pub fn outlived(processes: P, sink: Arc<dyn EventSink>, used: ProcessId) -> Self {
        KernelRecords::of_this_process();
        let (numbers, starts) = (Numbers::after(used), Arc::new(Semaphore::new(STARTS)));
        let admission = Admission::default();
        Self {
            processes,
            sink,
            routes: Routes::default(),
            numbers,
            starts,
            admission,
            surveyor: Surveyor::default(),
        }
    }

    /// Begins to listen to the keeper, and keeps a handle on it as long as it speaks. Must be called within a tokio runtime.
    pub fn listen(&self, events: mpsc::UnboundedReceiver<KeeperEvent>) {
        let processes = self.processes.clone();
        tokio::spawn(route(events, Arc::clone(&self.routes), move |id| processes.settle(id)));
    }

    /// The same runtime, for actors whose events go to `sink` instead.
    #[must_use]
    pub fn reporting_to(&self, sink: Arc<dyn EventSink>) -> Self {
        Self { sink, ..self.clone() }
    }

    /// The same runtime, whose actors go through this gate before a life that nobody asked for.
    #[must_use]
    pub fn admitting(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// Makes the actor of an agent, which waits to be started. It is known to the keeper's events from now on, so
    /// that nothing can happen to the agent before its owner knows it.
    pub fn add(&self, launch: Launch) -> AgentHandle {
        let Launch { profile, command } = launch;
        self.employ(profile, Ok(command), None)
    }

    /// Makes the actor of an agent whose life another has begun. Without a command it goes on, and cannot be started again,
    /// for the reason that stands in its place, until it is given one ([`AgentHandle::equip`]).
    pub fn adopt(&self, profile: Profile, command: Result<Command, String>, adopted: Adopted) -> AgentHandle {
        self.employ(profile, command, Some(Box::new(adopted)))
    }

    fn employ(
        &self,
        profile: Profile,
        command: Result<Command, String>,
        adopted: Option<Box<Adopted>>,
    ) -> AgentHandle {
        let (orders, mailbox) = mpsc::unbounded_channel();
        let (name, id) = (profile.name.clone(), profile.id);
        lock(&self.routes).insert(id, orders.clone());
        let mut actor = Actor::new(
            profile,
            command,
            self.besides(),
            Arc::clone(&self.sink),
            mailbox,
            Arc::clone(&self.starts),
            (self.admission.clone(), self.surveyor.clone()),
        );
        let (routes, spent) = (Arc::clone(&self.routes), actor.spent());
        let life = tracing::info_span!("agent", %name);
        let task = async move {
            actor.run(adopted).await;
            lock(&routes).remove(&id);
        };
        tokio::spawn(timed(task).instrument(life));
        AgentHandle { name, id, orders, spent }
    }

    /// Runs a command beside an agent that runs: within its limits and its network, and ended with it. It reads `input`.
    ///
    /// # Errors
    /// When it does not run, or the agent does not.
    pub async fn execute(
        &self,
        agent: &AgentHandle,
        command: Command,
        input: Option<OwnedFd>,
    ) -> Result<Execution<P>, SpawnError> {
        Execution::start(&self.besides(), agent.id, command, input, Arc::clone(&agent.spent)).await
    }

    /// Ends a command that an earlier owner began so: whoever read what it writes is gone. How it ended, also when that was
    /// before, is heard after [`Runtime::listen`], which must come later.
    pub fn end_left(&self, command: ProcessId) -> Execution<P> {
        Execution::end_left(&self.besides(), command)
    }

    fn besides(&self) -> Besides<P> {
        let (routes, numbers) = (Arc::clone(&self.routes), self.numbers.clone());
        Besides { processes: self.processes.clone(), routes, numbers }
    }
}

/// Brings each event to the actor that it is about. Of those that nobody asks about any more, `forget` is told.
async fn route(
    mut events: mpsc::UnboundedReceiver<KeeperEvent>,
    routes: Routes,
    forget: impl Fn(ProcessId) + Send,
) {
    while let Some(event) = events.recv().await {
        let routes = lock(&routes);
        // An actor that has ended does not listen any more, and need not.
        match &event {
            KeeperEvent::Exited { id, .. }
            | KeeperEvent::Notice { id, .. }
            | KeeperEvent::OomKilled { id, .. }
            | KeeperEvent::Uncovered { id, .. }
            | KeeperEvent::Planted { id, .. }
            | KeeperEvent::Gone { id, .. } => match (routes.get(id), &event) {
                (Some(orders), _) => drop(orders.send(Box::new(Order::Keeper(event)))),
                (None, KeeperEvent::Gone { id, .. }) => forget(*id),
                (None, _) => {}
            },
            // Another daemon goes on with the agents; ours have nobody to tell.
            KeeperEvent::Replaced => {}
            KeeperEvent::Succeeded { .. } | KeeperEvent::Closed => {
                for orders in routes.values() {
                    let _ = orders.send(Box::new(Order::Keeper(event.clone())));
                }
            }
        }
    }
}

/// One agent, as others hold it.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    name: AgentName,
    id: ProcessId,
    orders: mpsc::UnboundedSender<Box<Order>>,
    /// What commands beside it use: in its groups it looks like its own.
    spent: Arc<AtomicU64>,
}

impl AgentHandle {
    /// Its name.
    pub fn name(&self) -> &AgentName {
        &self.name
    }

    /// Asks something of it; `by` says who, for the record. The answer comes when the request was decided on, which
    /// is before it was done. An agent that has ended ignores everything.
    ///
    /// [`Request::Restart`], and [`Request::Start`] of an agent that has ended, need a new [`Runtime::add`].
    pub async fn ask(&self, request: Request, by: &str) -> Decision {
        let (answer, answered) = oneshot::channel();
        let _ = self.orders.send(Box::new(Order::Ask { request, by: by.to_owned(), answer }));
        answered.await.unwrap_or(Decision::Ignore)
    }

    /// Asks without waiting for the answer.
    pub fn tell(&self, request: Request, by: &str) {
        let (answer, _) = oneshot::channel();
        let _ = self.orders.send(Box::new(Order::Ask { request, by: by.to_owned(), answer }));
    }

    /// Ends it, gracefully first, for a reason that is no request of anybody's.
    pub fn end(&self, exit: Exit) {
        let _ = self.orders.send(Box::new(Order::End { exit }));
    }

    /// The terminal that it runs on at the moment, if it does.
    pub async fn terminal(&self) -> Option<Terminal> {
        let (answer, answered) = oneshot::channel();
        let _ = self.orders.send(Box::new(Order::Terminal { answer }));
        answered.await.ok().flatten()
    }

    /// Says what of its profile is another from now on; the life that it has goes on.
    pub fn adjust(&self, adjustment: Adjustment) {
        let _ = self.orders.send(Box::new(Order::Adjust { adjustment: Box::new(adjustment) }));
    }

    /// Says whether a life that its restart policy wants begins when it is due, or waits.
    pub fn hold_restarts(&self, restarts: Restarts) {
        let _ = self.orders.send(Box::new(Order::HoldRestarts { restarts }));
    }

    /// It will never start: the dependency `by` did not succeed.
    pub fn block(&self, by: AgentName, why: Option<Box<Unmet>>) {
        let _ = self.orders.send(Box::new(Order::Block { by, why }));
    }

    /// It cannot be started, because what it needs could not be prepared.
    pub fn refuse(&self, exit: Exit) {
        let _ = self.orders.send(Box::new(Order::Refuse { exit }));
    }

    /// Says how it is started from now on; the life that it has goes on.
    pub fn equip(&self, command: Command) {
        let _ = self.orders.send(Box::new(Order::Equip { command: Box::new(command) }));
    }
}
