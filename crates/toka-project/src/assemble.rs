//! A project is put together in one place, whether its run begins or is gone on with.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use jiff::Timestamp;
use toka_api::declaration::Declaration;
use toka_broker::Broker;
use toka_core::{AgentName, Event, RunStatus};
use toka_keeper::Keeper;
use toka_logs::LogRetention;
use toka_orchestration::{Lifetime, Limits, RunState};
use toka_prepare::lock::ProjectLock;
use toka_prepare::sweeper::Sweeper;
use toka_runtime::Runtime;
use toka_workstream::{Agent, Plan};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::Span;

use crate::admit::RunContext;
use crate::facts::with_plan;
use crate::handle::ProjectHandle;
use crate::journal::Journal;
use crate::member::{Ids, Member};
use crate::openings::Denials;
use crate::queue::Queue;
use crate::reports::Reports;
use crate::run_files::RunFolder;
use crate::schedule::Clock;
use crate::{Opened, Project, Shutdown, SocketDirs};

/// Starts that are prepared at one time. A few keep the disk busy; a thread for each of a thousand would cost more than it does.
const PREPARATIONS: usize = 8;

/// What a project is made of that differs from one to the next. What it says, [`Project`] says.
pub(crate) struct Parts {
    pub(crate) declaration: Declaration,
    pub(crate) plan: Plan,
    pub(crate) state: RunState,
    /// What is known of the run already; nothing of one that begins.
    pub(crate) status: RunStatus,
    pub(crate) members: HashMap<AgentName, Member>,
    pub(crate) queue: Queue,
    pub(crate) ids: Ids,
    pub(crate) runtime: Runtime<Keeper>,
    pub(crate) log_retention: LogRetention,
    pub(crate) keeper: Keeper,
    pub(crate) journal: Arc<Journal>,
    pub(crate) broker: Arc<Broker>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    pub(crate) doors: SocketDirs,
    pub(crate) run_folder: RunFolder,
    pub(crate) lock: ProjectLock,
    pub(crate) context: RunContext,
    pub(crate) span: Span,
}

impl Parts {
    /// The project, which knows when its agents were seen last by the clock that starts them.
    pub(crate) fn assemble(
        self,
        lifetime: Lifetime,
        agents: &[Agent],
        last_seen: &HashMap<AgentName, Timestamp>,
    ) -> Opened {
        let Self {
            declaration,
            plan,
            state,
            status,
            members,
            queue,
            ids,
            runtime,
            log_retention,
            keeper,
            ..
        } = self;
        let (moved, seq) = watch::channel(status.seq);
        let (handle, orders) = ProjectHandle::new(&self.context, &keeper, lifetime, seq);
        let mut project = Project {
            limits: Limits { max_concurrent: declaration.max_concurrent.and_then(NonZeroUsize::new) },
            declaration: Arc::new(declaration),
            status: Arc::new(with_plan(status, &plan)),
            plan,
            state,
            members,
            shutdown: Shutdown::Final,
            batches: Vec::new(),
            unanswered: VecDeque::new(),
            cut_off: BTreeMap::new(),
            untold: BTreeMap::new(),
            held_back: BTreeSet::new(),
            recovering: BTreeSet::new(),
            denials: Denials::default(),
            told_ending: false,
            clock: Clock::default(),
            queue,
            reports: Reports::default(),
            swept: BTreeSet::new(),
            writes: JoinSet::new(),
            preparations: Arc::new(Semaphore::new(PREPARATIONS)),
            sweeper: Sweeper::default(),
            ids,
            runtime,
            log_retention,
            keeper,
            journal: self.journal,
            broker_changes: self.broker.changes(),
            broker: self.broker,
            frozen: BTreeSet::new(),
            events: self.events,
            moved,
            orders,
            doors: self.doors,
            run_folder: self.run_folder,
            lock: self.lock,
            context: self.context,
            span: self.span,
        };
        project.recall_dependents();
        project.follow(agents, last_seen);
        Opened { project, handle }
    }
}
