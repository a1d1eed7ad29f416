//! The owner of one agent: the only task that changes its state.
//!
//! Everything that can wake it is one of [`Wake`]. Requests and the keeper's word come first; the agent's own
//! messages are read only while it runs, through a bounded channel, so that an agent that shouts makes nobody but
//! itself wait.
//!
//! A stop is the stop signal, then the grace period, then the kill of the whole tree, and it has ended only when the
//! keeper says that nothing is left ([`KeeperEvent::Gone`]).

mod adopt;
mod calls;
mod channels;
mod comeback;
mod disk;
mod ending;
mod hooks;
mod life;
mod notices;
mod probes;
mod readiness;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use toka_core::restart::Lives;
use toka_core::rpc::Metrics;
use toka_core::state::Happening;
use toka_core::{AgentState, Decision, EventKind, Exit, Progress, Request, RestartPolicy};
use toka_keeper::{KeeperEvent, Status};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::admission::Turn;
use crate::beside::Besides;
use crate::coalesce::Coalescer;
use crate::countdown::Countdown;
use crate::disk::{Measured, Surveyor};
use crate::door::{Door, Message};
use crate::order::{Order, Restarts};
use crate::port::Served;
use crate::probe::ProbeNote;
use crate::walls::Walls;
use crate::{
    Adjustment, Admission, Adopted, Command, Durable, EventSink, Processes, Profile, Terminal, Work,
};
use hooks::{Occasion, StartOutcome};
use notices::Remark;
use probes::Probing;
use readiness::Readiness;
use toka_logs::Note;
use watchdog::Watching;

/// Everything that can wake an actor.
enum Wake {
    Order(Box<Order>),
    Abandoned,
    Spawned(Box<StartOutcome>),
    Hooks(Box<(Occasion, Result<(), String>)>),
    Output(Box<Note>),
    Door(Box<Message>),
    Probe(Box<ProbeNote>),
    Deadline,
    Turn,
    Measured(Measured),
}

/// What is known of a running task.
struct RunningTask {
    attempt: u32,
    leaf: Option<String>,
    since: Instant,
    /// Who works on it, where it has no command.
    work: Option<Box<dyn Work>>,
}

/// Whether it has gone on with a life that another began: an agent may then say again what that one had heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Succeeds {
    Nobody,
    Another,
}

/// Whether the door can be reached by nobody but the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DoorReach {
    AgentOnly,
    SameUser,
}

/// Whether the agent's processes are in control groups. Where they are not, its process ids are those of a namespace of
/// its own, and tell us nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Groups {
    Made,
    Absent,
}

/// The pump of a running agent.
struct Pumping {
    gone: oneshot::Sender<()>,
    task: JoinHandle<u64>,
}

/// One agent's actor.
pub(crate) struct Actor<P> {
    profile: Profile,
    /// Until it is started for the last time.
    command: Result<Command, String>,
    processes: P,
    besides: Besides<P>,
    /// Boxed, as few agents have them, and there may be thousands of agents.
    probing: Option<Box<Probing>>,
    watching: Option<Box<Watching>>,
    surveyor: Surveyor,
    survey: Option<Box<disk::Survey>>,
    readiness: Readiness,
    /// What has been told of this life and is told only once.
    remarks: BTreeSet<Remark>,
    sink: Arc<dyn EventSink>,
    orders: mpsc::UnboundedReceiver<Box<Order>>,
    starts: Arc<Semaphore>,
    admission: Admission,
    /// Its place among those that wait for room on the host.
    turn: Option<Turn>,
    state: AgentState,
    /// When its first life began.
    born: Instant,
    /// When this life began.
    begun: Instant,
    lives: Lives,
    /// When the next life begins.
    comeback: Option<Instant>,
    restarts: Restarts,
    /// The next life is due, and held.
    is_due: bool,
    spawning: Option<JoinHandle<StartOutcome>>,
    /// Dropped, it ends the hooks before the start.
    call_off_start: Option<watch::Sender<bool>>,
    hooks: Option<hooks::Running>,
    /// What commands beside it have used, in microseconds of CPU.
    spent: Arc<AtomicU64>,
    early: Vec<KeeperEvent>,
    /// The walls of this life, for what it says of them when it fails.
    walls: Option<Box<Walls>>,
    /// The process with which this life began.
    first_pid: i32,
    /// How many kills for memory of this life were told.
    oom_kills: u64,
    status: Option<Status>,
    timeout: Countdown,
    grace: Option<Instant>,
    /// How long it had when it was killed, if it was.
    killed: Option<Duration>,
    door: Option<Door>,
    reach: DoorReach,
    groups: Groups,
    notes: Option<mpsc::UnboundedReceiver<Box<Note>>>,
    writer: Option<toka_logs::LogWriter>,
    pump: Option<Pumping>,
    /// While it runs on one.
    terminal: Option<Terminal>,
    /// Its port, while somebody serves it.
    served: Option<Served>,
    progress: Coalescer<Progress>,
    metrics: Coalescer<Metrics>,
    tasks: BTreeMap<usize, RunningTask>,
    /// The process that works through the tasks, once it has asked for them.
    runner: Option<i32>,
    /// How the last attempt at a task has failed, if it has.
    failed_task: Option<Box<Exit>>,
    leaves: u64,
    succeeds: Succeeds,
}

impl<P: Processes> Actor<P> {
    pub(crate) fn new(
        profile: Profile,
        command: Result<Command, String>,
        besides: Besides<P>,
        sink: Arc<dyn EventSink>,
        orders: mpsc::UnboundedReceiver<Box<Order>>,
        starts: Arc<Semaphore>,
        (admission, surveyor): (Admission, Surveyor),
    ) -> Self {
        Self {
            profile,
            command,
            processes: besides.processes.clone(),
            besides,
            probing: None,
            watching: None,
            surveyor,
            survey: None,
            readiness: Readiness::default(),
            remarks: BTreeSet::new(),
            sink,
            orders,
            starts,
            admission,
            turn: None,
            state: AgentState::Pending,
            born: Instant::now(),
            begun: Instant::now(),
            lives: Lives::default(),
            comeback: None,
            restarts: Restarts::Free,
            is_due: false,
            spawning: None,
            call_off_start: None,
            hooks: None,
            spent: Arc::default(),
            early: Vec::new(),
            walls: None,
            first_pid: 0,
            oom_kills: 0,
            status: None,
            timeout: Countdown::Never,
            grace: None,
            killed: None,
            door: None,
            reach: DoorReach::SameUser,
            groups: Groups::Made,
            notes: None,
            writer: None,
            pump: None,
            terminal: None,
            served: None,
            progress: Coalescer::default(),
            metrics: Coalescer::default(),
            tasks: BTreeMap::new(),
            runner: None,
            failed_task: None,
            leaves: 0,
            succeeds: Succeeds::Nobody,
        }
    }

    /// Where is counted what commands beside it use.
    pub(crate) fn spent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.spent)
    }

    /// Lives until the agent's end, or until nobody could start it any more; goes on with the life that it is given, if any.
    pub(crate) async fn run(&mut self, adopted: Option<Box<Adopted>>) {
        if let Some(adopted) = adopted {
            Box::pin(self.adopt(*adopted)).await;
        }
        while !self.state.is_final() {
            let wake = self.wake().await;
            if matches!(wake, Wake::Abandoned) {
                return;
            }
            // Boxed, so that an actor that waits, as most do, has no room for all that it may have to do.
            Box::pin(self.on_wake(wake)).await;
        }
    }

    async fn on_wake(&mut self, wake: Wake) {
        match wake {
            Wake::Order(order) => self.on_order(*order).await,
            Wake::Spawned(outcome) => self.on_spawned(*outcome).await,
            Wake::Hooks(outcome) => Box::pin(self.on_hooks(*outcome)).await,
            Wake::Output(note) => self.on_output(*note).await,
            Wake::Door(message) => Box::pin(self.on_message(*message)).await,
            Wake::Probe(note) => Box::pin(self.on_probe(*note)).await,
            Wake::Deadline => Box::pin(self.on_deadline()).await,
            Wake::Turn => self.start().await,
            Wake::Measured(measured) => Box::pin(self.on_measured(measured)).await,
            Wake::Abandoned => {}
        }
    }

    async fn wake(&mut self) -> Wake {
        let deadline = self.deadline();
        let listening = self.spawning.is_none();
        tokio::select! {
            biased;
            order = self.orders.recv() => order.map_or(Wake::Abandoned, Wake::Order),
            outcome = spawned(&mut self.spawning) => Wake::Spawned(Box::new(outcome)),
            outcome = hooks::finished(&mut self.hooks) => Wake::Hooks(Box::new(outcome)),
            note = noted(&mut self.notes) => Wake::Output(note),
            () = at(deadline) => Wake::Deadline,
            measured = disk::measured(&mut self.survey) => Wake::Measured(measured),
            () = comeback::turn(&mut self.turn) => Wake::Turn,
            note = probes::noted(&mut self.probing) => Wake::Probe(Box::new(note)),
            message = knocked(&mut self.door), if listening => Wake::Door(message),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let watchdog = self.watching.as_ref().and_then(|watching| watching.due());
        [
            self.timeout.deadline(),
            self.grace,
            self.comeback,
            watchdog,
            self.survey.as_ref().and_then(|survey| survey.due()),
            self.progress.due(),
            self.metrics.due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn emit(&self, kind: EventKind) -> Durable {
        self.sink.emit(&self.profile.name, kind)
    }

    /// Tells that something could not be done that was accepted before, by whoever decides about all agents.
    fn tell_failed(&self, request: Request, reason: String) {
        // Nothing of the agent's follows from it.
        drop(self.emit(EventKind::RequestFailed { request, reason }));
    }

    fn warn(&self, message: String) {
        // Nothing follows from a warning: nobody has to wait for it.
        drop(self.emit(EventKind::Warning { message }));
    }

    /// Takes a step of the state machine. One that the diagram does not have is a bug of ours, not the agent's: it
    /// is logged, and the state stays.
    fn step(&mut self, happening: Happening) -> bool {
        match self.state.on(happening) {
            Ok(next) => {
                self.state = next;
                true
            }
            Err(error) => {
                tracing::error!(agent = %self.profile.name, %error, "step refused");
                false
            }
        }
    }

    async fn on_order(&mut self, order: Order) {
        match order {
            Order::Ask { request, by, answer } => {
                let decision = self.decide(request);
                // Whoever only told does not listen.
                let _ = answer.send(decision);
                match decision {
                    Decision::Accept => self.accept(request, by).await,
                    Decision::Deny { reason } => self.tell_failed(request, reason.to_string()),
                    Decision::Ignore => {}
                }
            }
            Order::End { exit }
                if self.state.is_alive() && !matches!(self.state, AgentState::Stopping { .. }) =>
            {
                self.stop(exit).await;
            }
            Order::Block { by, why } if self.state == AgentState::Pending => {
                self.emit(EventKind::AgentBlocked { by: by.clone(), why: why.clone() }).await;
                self.step(Happening::DependencyFailed(by, why));
            }
            Order::Refuse { exit } if self.state == AgentState::Pending => self.finish(exit).await,
            Order::End { .. } | Order::Block { .. } | Order::Refuse { .. } => {}
            Order::Equip { command } => self.command = Ok(*command),
            Order::Adjust { adjustment } => self.adjust(*adjustment).await,
            Order::HoldRestarts { restarts } => self.hold_restarts(restarts).await,
            Order::Terminal { answer } => drop(answer.send(self.terminal.clone())),
            Order::Keeper(event) => self.on_keeper(event).await,
        }
    }

    async fn adjust(&mut self, adjustment: Adjustment) {
        let Adjustment { stop, restart, success, logs, limits } = adjustment;
        self.profile.log.set_policy(logs);
        (self.profile.stop, self.profile.restart, self.profile.success) = (stop, restart, success);
        if std::mem::replace(&mut self.profile.limits, limits) == limits {
            return;
        }
        if let Ok(command) = &mut self.command {
            Arc::make_mut(&mut command.plan).group = limits;
        }
        if self.has_process()
            && self.groups == Groups::Made
            && let Err(error) = self.processes.limit(self.profile.id, limits).await
        {
            self.warn(format!("the new limits of {} are not all in force: {error}", self.profile.name));
        }
    }

    fn decide(&self, request: Request) -> Decision {
        match request {
            // Its main process has ended by itself; what is asked for is about to be so, unless it would come back.
            Request::Stop if self.status.is_some() && !self.may_come_back() => Decision::Ignore,
            Request::Pause if self.status.is_some() => Decision::Ignore,
            request => toka_core::request::decide(&self.state, request),
        }
    }

    async fn accept(&mut self, request: Request, by: String) {
        match request {
            Request::Start => self.start().await,
            Request::Restart if !self.has_process() => self.start().await,
            Request::Pause => self.pause(by).await,
            Request::Resume => self.resume().await,
            Request::Stop => self.stop(Exit::stopped(by)).await,
            // What comes after the end is up to whoever asked: a new actor.
            Request::Restart => self.stop(Exit::stopped(format!("{by} (restart)"))).await,
            Request::Kill => self.kill(by).await,
        }
    }

    fn may_come_back(&self) -> bool {
        self.profile.restart.policy != RestartPolicy::No && !self.state.is_asked_to_stop()
    }

    /// Whether it has a process, or is about to get one.
    fn has_process(&self) -> bool {
        self.state.is_alive() && !matches!(self.state, AgentState::Backoff { .. })
    }

    fn warn_of_log(&self, what: &str) {
        let what = what.replace("{log}", &self.profile.log.path().display().to_string());
        self.warn(format!("the output of {} {what}", self.profile.name));
    }

    async fn on_output(&mut self, note: Note) {
        match note {
            Note::LineSeen(text) => {
                if let Some(probing) = &self.probing {
                    probing.prober.on_log_line(&text);
                }
                self.emit(EventKind::LogLineSeen { text }).await;
            }
            Note::Removed { bytes } => {
                let gone = match bytes {
                    0 => "it is still there under another name, and nothing is lost".to_owned(),
                    bytes => format!("{bytes} bytes of it are gone"),
                };
                self.warn_of_log(&format!(
                    "went to {{log}}, which somebody removed, replaced or emptied: {gone}, and a new log is begun"
                ));
            }
            Note::Losing => self.warn_of_log("cannot be written to {log}; it is thrown away until it can"),
            Note::Waiting => self.warn_of_log("cannot be written to {log}; the agent waits until it can"),
            Note::Flowing => self.warn_of_log("can be written to {log} again; the agent goes on"),
        }
    }
}

async fn spawned(spawning: &mut Option<JoinHandle<StartOutcome>>) -> StartOutcome {
    match spawning {
        Some(task) => match task.await {
            Ok(outcome) => {
                *spawning = None;
                outcome
            }
            // It cannot be cancelled, and it cannot panic without the panic having been told.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn noted(notes: &mut Option<mpsc::UnboundedReceiver<Box<Note>>>) -> Box<Note> {
    if let Some(receiver) = notes {
        if let Some(note) = receiver.recv().await {
            return note;
        }
        *notes = None;
    }
    std::future::pending().await
}

async fn knocked(door: &mut Option<Door>) -> Box<Message> {
    if let Some(open) = door {
        if let Some(message) = open.next().await {
            return message;
        }
        *door = None;
    }
    std::future::pending().await
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        // The runtime's timer counts in milliseconds, and would let up to two of them go by for what is due already.
        Some(deadline) if deadline <= Instant::now() => {}
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod notice_tests;
#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod tests;
