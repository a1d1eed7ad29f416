//! What the daemon and the keeper say to each other. Additions keep old messages readable: a keeper outlives the daemon
//! that started it, and meets newer ones.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toka_core::event::Usage;
use toka_core::{Enforcement, Resources};
use toka_sandbox::{PrepareError, Program, SandboxPlan, StepError};

/// The version of these messages.
pub const VERSION: u32 = 1;

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
    /// Start a process. Answered when exec has happened or failed.
    Spawn(Box<Launch>),
    /// Send a signal to the main process.
    Signal { id: ProcessId, signal: i32 },
    /// Kill all its processes.
    Kill { id: ProcessId },
    /// Freeze all its processes.
    Freeze { id: ProcessId },
    /// Thaw them.
    Thaw { id: ProcessId },
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
    /// Keep the descriptors that come with this, under a name, until the process is gone.
    Hold { id: ProcessId, name: String },
    /// What there is.
    List,
    /// The descriptors of one process: output, errors, then those held, in the order of the names.
    HandBack { id: ProcessId },
}

/// The answer to a [`Call`], or news when `call` is absent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) call: Option<u64>,
    pub(crate) body: Body,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Body {
    /// First message of a keeper.
    Hello { version: u32 },
    /// It runs; the read ends of its output and error pipes come with this, and of the pipe that it notifies through, if it
    /// has one.
    Started { pid: i32, enforcement: Enforcement },
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
    /// Answer to `HandBack`; the descriptors come with this.
    HandBack { names: Vec<String> },
    /// News: the main process has ended.
    Exited { id: ProcessId, status: Status },
    /// News: something that a person should know, before `Gone`.
    Notice { id: ProcessId, text: String },
    /// News: its group is empty and removed.
    Gone { id: ProcessId, usage: Usage },
}

/// One process that the keeper holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub id: ProcessId,
    /// The pid of its main process.
    pub pid: i32,
    /// Project and agent.
    pub project: String,
    /// The agent.
    pub agent: String,
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
}
