//! A project is put together in one place, whether its run begins or is gone on with.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use jiff::Timestamp;
use toka_api::declaration::Declaration;
use toka_core::{AgentName, Event, RunStatus};
use toka_keeper::Keeper;
use toka_logs::LogRetention;
use toka_orchestration::{Lifetime, Limits, RunState};
use toka_prepare::lock::ProjectLock;
use toka_prepare::sweeper::Sweeper;
use toka_runtime::Runtime;
use toka_workstream::{Agent, Plan};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::Span;

use super::admit::Ground;
use super::handle::ProjectHandle;
use super::member::{Ids, Member};
use super::open::{RunFolder, describe};
use super::queue::Queue;
use super::reports::Desk;
use super::schedule::Clock;
use super::{Doors, Opened, Parting, Project};
use crate::journal::Journal;

/// What a project is made of that differs from one to the next. What it says, [`Project`] says.
pub(super) struct Parts {
    pub(super) declaration: Declaration,
    pub(super) plan: Plan,
    pub(super) state: RunState,
    /// What is known of the run already; nothing of one that begins.
    pub(super) status: RunStatus,
    pub(super) members: HashMap<AgentName, Member>,
    pub(super) queue: Queue,
    pub(super) ids: Ids,
    pub(super) runtime: Runtime<Keeper>,
    pub(super) log_retention: LogRetention,
    pub(super) keeper: Keeper,
    pub(super) journal: Arc<Journal>,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) doors: Doors,
    pub(super) run_folder: RunFolder,
    pub(super) lock: ProjectLock,
    pub(super) ground: Ground,
    pub(super) span: Span,
}

impl Parts {
    /// The project, which knows when its agents were seen last by the clock that starts them.
    pub(super) fn assemble(
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
        let (handle, orders) = ProjectHandle::new(&self.ground, &keeper, lifetime, seq);
        let mut project = Project {
            limits: Limits { max_concurrent: declaration.max_concurrent.and_then(NonZeroUsize::new) },
            declaration: Arc::new(declaration),
            status: Arc::new(describe(status, &plan)),
            plan,
            state,
            members,
            parting: Parting::ForGood,
            batches: Vec::new(),
            unanswered: VecDeque::new(),
            cut_off: BTreeMap::new(),
            untold: BTreeMap::new(),
            held_back: BTreeSet::new(),
            recovering: BTreeSet::new(),
            told_ending: false,
            clock: Clock::default(),
            queue,
            reports: Desk::default(),
            swept: BTreeSet::new(),
            writes: JoinSet::new(),
            sweeper: Sweeper::default(),
            ids,
            runtime,
            log_retention,
            keeper,
            journal: self.journal,
            events: self.events,
            moved,
            orders,
            doors: self.doors,
            run_folder: self.run_folder,
            lock: self.lock,
            ground: self.ground,
            span: self.span,
        };
        project.recall_dependents();
        project.follow(agents, last_seen);
        Opened { project, handle }
    }
}
