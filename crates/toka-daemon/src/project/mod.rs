//! A project while it runs: its agents, its journal, its keeper, and the one task that owns all of them.
//!
//! [`Project::open`] makes everything that a run needs, or says why it cannot be; [`Project::drive`] then lives until the
//! run is over. Whatever can wake it is an event of the journal, an [`Order`](handle::Order), which comes through the
//! [`ProjectHandle`] that others hold, or the clock. It reads the events of its own journal, so that nothing is acted upon that is not
//! durable.

mod admit;
mod adopt;
mod anew;
mod apply;
mod assemble;
mod batch;
mod command;
mod cut;
mod dependents;
mod differences;
mod doors;
mod drive;
mod exec;
mod facts;
mod handle;
mod keeping;
mod legacy;
mod member;
mod open;
mod outcome;
mod queue;
mod recall;
mod reports;
mod schedule;
mod timetable;
mod unattended;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use toka_api::declaration::Declaration;
use toka_api::wire::Changes;
use toka_core::event::Awaits;
use toka_core::{AgentName, RunStatus};
use toka_keeper::Keeper;
use toka_logs::LogRetention;
use toka_orchestration::{Limits, RunState};
use toka_prepare::lock::ProjectLock;
use toka_prepare::sweeper::Sweeper;
use toka_runtime::Runtime;
use toka_workstream::Plan;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::Span;

use crate::journal::Journal;

pub use adopt::AdoptOptions;
pub use apply::ApplyError;
pub use command::CommandError;
pub(crate) use exec::{Begun, ExecError, ExecRequest, exit_of};
pub(crate) use facts::KEEPER_ANSWER;
pub use facts::{Facts, Figures};
pub use handle::{Earnest, Gone, ProjectHandle};
pub use legacy::unfinished;
pub use open::{Opened, obstacle};
pub use unattended::{being_ended, end_unattended, kill_groups_of, left_behind};

use admit::Ground;
use batch::Batch;
use doors::Doors;
pub(crate) use doors::OWNER;
use handle::Order;
use member::{Ids, Member};
use open::RunFolder;
use queue::Queue;
use reports::Desk;
use schedule::Clock;

/// A project that runs.
pub struct Project {
    ground: Ground,
    declaration: Arc<Declaration>,
    plan: Plan,
    limits: Limits,
    /// What was decided: it is ahead of the journal by what is under way.
    state: RunState,
    /// What the journal says.
    status: Arc<RunStatus>,
    members: HashMap<AgentName, Member>,
    /// What becomes of the run when its agents have ended.
    parting: Parting,
    /// Groups of agents that are stopped together, and what follows.
    batches: Vec<Batch>,
    /// Agents that were stopped with the daemon before, should go on, and could not yet.
    cut_off: BTreeMap<AgentName, Awaits>,
    /// How often agents have begun anew without the journal knowing yet.
    untold: BTreeMap<AgentName, u32>,
    /// Agents whose next life waits, because something that they require to be ready is not.
    held_back: BTreeSet<AgentName>,
    /// Agents that were quarantined while that was so, and begin anew when it is not.
    recovering: BTreeSet<AgentName>,
    /// Changes that are made, and whose answers wait for the journal.
    unanswered: VecDeque<(oneshot::Sender<Result<Changes, ApplyError>>, Changes)>,
    /// Whether the journal has that the end of an agent ends the run.
    told_ending: bool,
    /// When the clock starts agents.
    clock: Clock,
    /// Agents that wait for room on the host.
    queue: Queue,
    /// Reports of agents that declare where to.
    reports: Desk,
    /// Agents whose start has to wait for the sweeper.
    swept: BTreeSet<AgentName>,
    writes: JoinSet<()>,
    sweeper: Sweeper,
    ids: Ids,
    runtime: Runtime<Keeper>,
    log_retention: LogRetention,
    keeper: Keeper,
    journal: Arc<Journal>,
    events: mpsc::UnboundedReceiver<toka_core::Event>,
    /// The number of the last event that is in the status.
    moved: watch::Sender<u64>,
    orders: mpsc::UnboundedReceiver<Order>,
    /// Everything that happens in the run is in it.
    span: Span,
    // Dropped in this order: what is in the folder goes before it, and the lock last.
    doors: Doors,
    run_folder: RunFolder,
    lock: ProjectLock,
}

/// What becomes of a run when its agents have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parting {
    /// It has ended.
    ForGood,
    /// The next daemon goes on with it.
    UntilTheNextDaemon,
}

/// The wall clock in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
