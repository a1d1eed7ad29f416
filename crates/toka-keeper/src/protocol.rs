//! What the daemon and the keeper say to each other. Additions keep old messages readable: a keeper outlives the daemon
//! that started it, and meets newer ones.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use toka_core::event::Usage;
use toka_core::{Enforcement, Name, PlantedOutcome, ProtectionOutcome, Resources, TerminalSize};
use toka_sandbox::guard::Guard;
use toka_sandbox::namespace::Family;
use toka_sandbox::{Bind, GroupLimits, PrepareError, Program, SandboxPlan, StepError};

/// The version of these messages.
pub const VERSION: u32 = 1;
/// The oldest version that this one can still speak.
pub const OLDEST: u32 = 1;

/// The word behind the name of the group with which a daemon starts a keeper when the first packet says what is known of the host
/// ([`toka_sandbox::HostFacts`]).
pub const HOST_IS_TOLD: &str = "--host-is-told";

/// Under which name the read end of the pipe is held that an agent notifies through.
pub const NOTIFICATION: &str = "notification";
/// Under which name the sockets are held at which its daemon listens in its network.
pub const LISTENER: &str = "listener";

/// One agent process, by a number that the daemon chose; unique within a keeper's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessId(pub u64);

/// What to start, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Its number.
    pub id: ProcessId,
    /// The program.
    pub program: Program,
    /// Its arguments; the first is the name it sees.
    pub argv: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// What confines it.
    pub plan: Arc<SandboxPlan>,
    /// The agent's process that it runs beside: within its limits and its network, and ended with it.
    #[serde(default)]
    pub beside: Option<ProcessId>,
    /// The number of a descriptor of its own on which it tells that it is ready, 3 to 1023.
    #[serde(default)]
    pub notification_fd: Option<u16>,
    /// The first size of the terminal that it runs on; without one it has pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// The signal that asks it to stop, for the case that the daemon is gone.
    pub stop_signal: i32,
    /// How long it may take then.
    pub grace: Duration,
}

/// A request with the number under which it is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) call: u64,
    pub(crate) request: Request,
}

/// What can be asked of the keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Start a process. Answered when exec has happened or failed. A descriptor that comes with this is what it reads;
    /// else there is nothing to read.
    Spawn(Box<Launch>),
    /// Send a signal to the main process.
    Signal { id: ProcessId, signal: i32 },
    /// Kill all its processes.
    Kill { id: ProcessId },
    /// Freeze all its processes.
    Freeze { id: ProcessId },
    /// Thaw them.
    Thaw { id: ProcessId },
    /// Put other limits of its control group in force.
    Limit { id: ProcessId, limits: GroupLimits },
    /// Make a leaf group and move a process of the agent into it, which is named as the agent names it: by its number in
    /// the agent's process namespace, if that has one of its own.
    MakeLeaf { id: ProcessId, leaf: String, pid: i32 },
    /// Remove a leaf group; answered with what it used.
    RemoveLeaf { id: ProcessId, leaf: String },
    /// What it has used so far.
    Usage { id: ProcessId },
    /// What it holds and uses at this moment.
    Resources { id: ProcessId },
    /// Whose group a process is in.
    Owner { pid: i32 },
    /// From now on another of the agent's processes is its main one, named as the agent names it.
    SetMain { id: ProcessId, pid: i32 },
    /// Keep the descriptors that come with this, in the place of those of the same name: until the process is settled,
    /// or until the keeper ends when no process is named.
    Hold {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<ProcessId>,
        name: String,
    },
    /// Close the descriptors that were held under a name.
    Release { id: Option<ProcessId>, name: String },
    /// Make a TCP socket in the network of its main process, which the daemon may not enter; it comes with the answer.
    Socket { id: ProcessId, family: Family },
    /// What there is.
    List,
    /// Descriptors, from the one with this number on, as many as one packet takes: of a process its output, errors, then
    /// those held; those of the keeper as a whole when no process is named.
    HandBack {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<ProcessId>,
        #[serde(default)]
        from: usize,
    },
    /// Become the keeper's daemon: the first word over its listening socket.
    Attach { version: u32, attach: Attach },
    /// Listen at this path for the next daemon, and do not end with this one.
    Listen { socket: OsString },
    /// Take over the agents that a keeper left which was killed, and kill what else is left of it.
    Adopt { orphans: Vec<Orphan> },
    /// The end of this process is on record: forget it.
    Settled { id: ProcessId },
    /// Stop every agent gracefully, then end.
    End,
}

/// What to do about another daemon that the keeper has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attach {
    /// Leave it there, and fail.
    IfFree,
    /// Take its place: it is told so and disconnected.
    Replace,
}

/// An agent's process whose keeper was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphan {
    /// Its number.
    pub id: ProcessId,
    /// Its project, which its control group is named after.
    pub project: Name,
    /// Its agent.
    pub agent: Name,
    /// The pid of its main process.
    pub pid: i32,
    /// When that began, in clock ticks after boot: pid and this together name one process ([`crate::process::start_time`]).
    pub start_time: u64,
    /// When it was started, in milliseconds since 1970.
    #[serde(default)]
    pub started_ms: u64,
    /// Whether it shares its network with others of the project.
    #[serde(default)]
    pub shares_network: bool,
    /// The process that it runs beside.
    #[serde(default)]
    pub beside: Option<ProcessId>,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// How long it may take then.
    pub grace: Duration,
    /// Paths that must not be there when it has ended ([`toka_sandbox::guard`]).
    #[serde(default)]
    pub guards: Vec<Guard>,
    /// Its mounts that lie within others ([`toka_sandbox::renewal`]).
    #[serde(default)]
    pub inner_binds: Vec<Bind>,
    /// What confines it.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// How its main process ended, if that was told before its keeper was killed.
    #[serde(default)]
    pub status: Option<Status>,
    /// The number of the descriptor on which it tells that it is ready.
    #[serde(default)]
    pub notification_fd: Option<u16>,
    /// How many kills for memory the former keeper reported of it.
    #[serde(default)]
    pub oom_kills: u64,
}

impl Orphan {
    /// What a list tells of a process, as something to take over; `None` when nothing of it is left to be found.
    pub fn of(entry: &Entry) -> Option<Self> {
        let status = match entry.state {
            State::Starting | State::Running | State::Frozen => None,
            State::Exited { status } => Some(status),
            State::Gone { .. } | State::NotStarted(_) => return None,
        };
        Some(Self {
            id: entry.id,
            project: Name::new(&entry.project).ok()?,
            agent: Name::new(&entry.agent).ok()?,
            pid: entry.pid,
            start_time: entry.start_time.unwrap_or(0),
            started_ms: entry.started_ms,
            beside: entry.beside,
            stop_signal: entry.stop_signal,
            grace: entry.grace,
            guards: entry.guards.clone(),
            inner_binds: entry.inner_binds.clone(),
            shares_network: entry.shares_network,
            enforcement: entry.enforcement.clone(),
            status,
            notification_fd: entry.notification_fd,
            oom_kills: entry.oom_kills,
        })
    }
}

/// The time, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

/// The answer to a [`Call`], or news when `call` is absent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) call: Option<u64>,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Body {
    /// First message of a keeper: its version, the oldest that it can speak, its pid.
    Hello { version: u32, oldest: u32, pid: i32 },
    /// Answer to `Attach`: the keeper has a daemon, and this is its pid.
    Occupied { pid: i32 },
    /// It runs; the read ends of its output and error pipes come with this, and then those that are held under `names`: of the
    /// pipe that it notifies through, and the socket in its network at which its daemon listens. Of one that runs on a terminal, the
    /// terminal's master is in the place of the first, and the second is at its end.
    Started {
        pid: i32,
        enforcement: Enforcement,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start_time: Option<u64>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
    },
    /// It could not be prepared.
    NotPrepared(PrepareError),
    /// It could not be confined or executed.
    NotStarted(StepError),
    /// Done.
    Done,
    /// What was asked about does not exist, or the kernel refused.
    Failed { reason: String },
    /// Answer to `MakeLeaf`: the process is not the agent's.
    Stranger,
    /// Answer to `Usage` and `RemoveLeaf`.
    Usage(Usage),
    /// Answer to `Resources`.
    Resources(Resources),
    /// Answer to `Owner`.
    Owner(Option<ProcessId>),
    /// Answer to `SetMain`: the host's number of the process.
    Main { pid: i32 },
    /// Answer to `List`.
    List(Vec<Entry>),
    /// Answer to `HandBack`; the descriptors come with this: first so many pipes (output, errors), then those of the names.
    HandBack { names: Vec<String>, pipes: usize },
    /// News: the main process has ended.
    Exited { id: ProcessId, status: Status },
    /// News: something that a person should know, before `Gone`.
    Notice { id: ProcessId, text: String },
    /// News: the kernel has killed processes of it for memory, so many in all, and it lives on.
    OomKilled { id: ProcessId, kills: u64 },
    /// News: somebody has replaced or removed what it must not change, while it ran.
    Uncovered { id: ProcessId, path: PathBuf, outcome: ProtectionOutcome },
    /// News: it made what it must not make, before `Gone`.
    Planted { id: ProcessId, path: PathBuf, outcome: PlantedOutcome },
    /// News: its group is empty and removed.
    Gone { id: ProcessId, usage: Usage },
    /// News, and the last: another daemon has taken over.
    Replaced,
}

/// One process that the keeper holds, with all that a daemon needs to go on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub id: ProcessId,
    /// The pid of its main process; 0 when it was never forked.
    pub pid: i32,
    /// Project and agent.
    pub project: String,
    /// The agent.
    pub agent: String,
    /// When its main process began, in clock ticks after boot ([`crate::process::start_time`]); `None` when it has ended.
    #[serde(default)]
    pub start_time: Option<u64>,
    /// When it was asked for, in milliseconds since 1970.
    #[serde(default)]
    pub started_ms: u64,
    /// How far it is.
    #[serde(default)]
    pub state: State,
    /// What confines it.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// The process that it runs beside.
    #[serde(default)]
    pub beside: Option<ProcessId>,
    /// The names of the descriptors that are held for it, each once, in the order in which they came.
    #[serde(default)]
    pub held: Vec<String>,
    /// The signal that asks it to stop.
    #[serde(default)]
    pub stop_signal: i32,
    /// How long it may take then.
    #[serde(default)]
    pub grace: Duration,
    /// Paths that must not be there when it has ended.
    #[serde(default)]
    pub guards: Vec<Guard>,
    /// Its mounts that lie within others.
    #[serde(default)]
    pub inner_binds: Vec<Bind>,
    /// Whether it shares its network with others of the project.
    #[serde(default)]
    pub shares_network: bool,
    /// The number of the descriptor on which it tells that it is ready.
    #[serde(default)]
    pub notification_fd: Option<u16>,
    /// How many kills for memory the keeper has reported of it.
    #[serde(default)]
    pub oom_kills: u64,
}

/// How far a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Forked, and not yet executing its program.
    Starting,
    /// Executing its program.
    #[default]
    Running,
    /// The same, and kept from running.
    Frozen,
    /// Its main process has ended; what is left in its group is being killed.
    Exited {
        /// How it ended.
        status: Status,
    },
    /// Over, and waiting for [`crate::Keeper::settle`].
    Gone {
        /// How it ended.
        status: Status,
        /// What it used.
        usage: Usage,
    },
    /// It never executed its program. Waits for [`crate::Keeper::settle`] or another start under its number.
    NotStarted(StartError),
}

/// Why a program was not executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartError {
    /// The host cannot enforce what the plan demands, or its parts could not be opened.
    Prepare(PrepareError),
    /// A step in the child failed.
    Step(StepError),
}

/// How a main process ended (wait(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal {
        /// Which.
        signal: i32,
        /// Whether it dumped core.
        core: bool,
    },
    /// Nobody saw it: its keeper was killed before.
    Unknown,
}
