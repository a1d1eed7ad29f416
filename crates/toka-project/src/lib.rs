//! One run of one project: from a declaration and its plan to supervised agents, and to the journal of what became of them.
//!
//! A [`Project`] is one run of one [`toka_api::declaration::Declaration`]. [`Project::open`] finds everything that would keep any agent from
//! running ([`toka_prepare::Problem`]), takes the project's lock, and makes what the run needs; [`Project::adopt`] goes on with the run of a
//! daemon that is gone. [`Project::drive`] then does what [`toka_orchestration::next_actions`] says until the run is over. Whatever can wake
//! it is an event of the journal, an order (`order.rs`), which comes through the [`ProjectHandle`] that others hold, or the clock. It
//! reads the events of its own journal, so that nothing is acted upon that is not durable.
//!
//! ```text
//!  begin     open, adopt ─▶ takeover, replay ─▶ assemble
//!  live      drive ─▶ admit, member, requeue, queue, dependents, schedule + timetable, wall_timer
//!  asked     handle ─▶ command, approvals, batch, apply + differences, exec, steer, facts, outcome
//!  end       interrupted, unattended
//!  told      journal/, reports + reporting/, objective_checks, history
//! ```

mod admit;
mod adopt;
mod apply;
mod approvals;
mod assemble;
mod batch;
mod change;
mod command;
mod denials;
mod dependents;
mod differences;
mod drive;
mod error;
mod exec;
mod facts;
mod handle;
pub mod history;
mod interrupted;
mod journal;
mod keeper;
pub mod logs;
mod member;
mod models;
mod objective_checks;
mod open;
mod open_calls;
mod openings;
mod options;
mod order;
mod outcome;
mod queue;
mod replay;
mod reporting;
mod reports;
mod requeue;
mod run_files;
mod schedule;
mod socket_dirs;
mod steer;
mod stray_groups;
mod summary;
mod takeover;
mod timetable;
mod unattended;
mod wall_timer;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use toka_api::declaration::Declaration;
use toka_api::wire::Changes;
use toka_broker::Broker;
use toka_core::event::Awaits;
use toka_core::{AgentName, RunStatus};
use toka_keeper::Keeper;
use toka_logs::LogRetention;
use toka_orchestration::{Limits, RunState};
use toka_prepare::lock::ProjectLock;
use toka_prepare::sweeper::Sweeper;
use toka_runtime::Runtime;
use toka_workstream::Plan;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::Span;

pub use adopt::AdoptOptions;
pub use error::{ApplyError, CommandError, ExecError, SteerError};
pub use exec::{Begun, ExecRequest, exit_of};
pub use facts::{Facts, Figures, KEEPER_ANSWER};
pub use handle::ProjectHandle;
pub use journal::{BACKLOG, Journal, Stamp};
pub use models::close_ports;
pub use open::{Opened, obstacle};
pub use options::RunOptions;
pub use order::{ApplyMode, RunOver};
pub use run_files::is_unfinished;
pub use socket_dirs::OWNER;
pub use steer::Steering;
pub use summary::RunSummary;
pub use takeover::unfinished;
pub use toka_broker::NotAnswered;
pub use toka_orchestration::Lifetime;
pub use unattended::{being_ended, end_unattended, kill_groups_of, left_behind};

use admit::RunContext;
use batch::Batch;
use handle::Orders;
use member::{Ids, Member};
use queue::Queue;
use reports::Reports;
use run_files::RunFolder;
use schedule::Clock;
use socket_dirs::SocketDirs;

/// A project that runs.
pub struct Project {
    context: RunContext,
    declaration: Arc<Declaration>,
    plan: Plan,
    limits: Limits,
    /// What was decided: it is ahead of the journal by what is under way.
    state: RunState,
    /// What the journal says.
    status: Arc<RunStatus>,
    members: HashMap<AgentName, Member>,
    /// What becomes of the run when its agents have ended.
    shutdown: Shutdown,
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
    /// Those between the end at a wall of their sandbox and the next life.
    denials: openings::Denials,
    /// Changes that are made, and whose answers wait for the journal.
    unanswered: VecDeque<(oneshot::Sender<Result<Changes, ApplyError>>, Changes)>,
    /// Whether the journal has that the end of an agent ends the run.
    told_ending: bool,
    /// When the clock starts agents.
    clock: Clock,
    /// Agents that wait for room on the host.
    queue: Queue,
    /// Reports of agents that declare where to.
    reports: Reports,
    /// Agents whose start has to wait for the sweeper.
    swept: BTreeSet<AgentName>,
    writes: JoinSet<()>,
    /// Turns to prepare a start, each in a thread of its own.
    preparations: Arc<Semaphore>,
    sweeper: Sweeper,
    ids: Ids,
    runtime: Runtime<Keeper>,
    log_retention: LogRetention,
    keeper: Keeper,
    journal: Arc<Journal>,
    /// Who decides what agents may use.
    broker: Arc<Broker>,
    /// Agents that were frozen because they wait for a person.
    frozen: BTreeSet<AgentName>,
    /// Moves when there is something else to wait for.
    broker_changes: watch::Receiver<()>,
    events: mpsc::UnboundedReceiver<toka_core::Event>,
    /// The number of the last event that is in the status.
    moved: watch::Sender<u64>,
    orders: Orders,
    /// Everything that happens in the run is in it.
    span: Span,
    // Dropped in this order: what is in the folder goes before it, and the lock last.
    doors: SocketDirs,
    run_folder: RunFolder,
    lock: ProjectLock,
}

/// What becomes of a run when its agents have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    /// It has ended.
    Final,
    /// The next daemon goes on with it.
    Resumable,
}

/// The wall clock in milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
