//! What to start, in the words of the runtime: everything is resolved, nothing is looked up any more.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toka_core::rpc::TaskList;
use toka_core::{AgentName, LogPolicy, Probes, Restart, SuccessStatus, TerminalSize};
use toka_keeper::{ProcessId, Program};
use toka_logs::LogPlace;
use toka_sandbox::{GroupLimits, SandboxPlan};

use crate::{DeclaredWalls, DiskLimit, ServesPort, WorksOnTasks};

/// One agent, ready to be started, again and again if its restart policy says so.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What is known of it as long as it lives.
    pub profile: Profile,
    /// What is executed: let go of when it is executed for the last time, since it is the largest part by far.
    pub command: Command,
}

/// What is executed, and within which bounds.
#[derive(Debug, Clone)]
pub struct Command {
    /// What is executed.
    pub program: Program,
    /// Its arguments, the program's name first.
    pub argv: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// What confines it.
    pub plan: Arc<SandboxPlan>,
    /// The first size of its terminal, if it gets one.
    pub terminal: Option<TerminalSize>,
}

/// What an agent's actor goes by.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Unique for the keeper.
    pub id: ProcessId,
    /// Its name in events.
    pub name: AgentName,
    /// How it is asked to end.
    pub stop: StopPolicy,
    /// When it is started again.
    pub restart: Restart,
    /// Ends that are a success besides the exit code 0.
    pub success: Vec<SuccessStatus>,
    /// What is asked of it while it runs.
    pub probes: Probes,
    /// Commands around its life.
    pub hooks: Hooks,
    /// How long it may show no sign of life.
    pub watchdog: Option<Duration>,
    /// Longest life, from the moment it runs; the time that it is paused does not count.
    pub timeout: Option<Duration>,
    /// The limits of its control group in force.
    pub limits: GroupLimits,
    /// How much storage it may hold.
    pub disk: Option<DiskLimit>,
    /// Where its output goes; the folder exists.
    pub log: LogPlace,
    /// The folder for its sockets; it exists, and their paths fit.
    pub door: PathBuf,
    /// Where its declaration says of walls what it says.
    pub declared: Arc<DeclaredWalls>,
    /// What `tasks/get` answers.
    pub tasks: TaskList,
    /// Texts that dependents wait for in its output.
    pub awaited_lines: Vec<String>,
    /// Who serves the port that its plan has ([`SandboxPlan::listen`]).
    pub port: Option<Arc<dyn ServesPort>>,
    /// Who works on tasks that have no command ([`TaskList::by_model`]).
    pub worker: Option<Arc<dyn WorksOnTasks>>,
}

/// What of a profile may become another while the agent runs.
#[derive(Debug, Clone)]
pub struct Adjustment {
    /// How it is asked to end. One that is asked already is asked no other way.
    pub stop: StopPolicy,
    /// When it is started again.
    pub restart: Restart,
    /// Ends that are a success besides the exit code 0.
    pub success: Vec<SuccessStatus>,
    /// What is kept of its output.
    pub logs: LogPolicy,
    /// Limits of its control group. That on memory is no smaller than before.
    pub limits: GroupLimits,
}

/// Commands around each life of an agent, each a program with its arguments, run one after the other in the agent's own
/// sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before its process; the first failure fails the start.
    pub pre_start: Vec<Vec<String>>,
    /// Beside its process, when that executes its program; the first failure ends the life as a start that failed.
    pub post_start: Vec<Vec<String>>,
    /// Beside its process, before the signal that asks it to stop and within the same grace period.
    pub pre_stop: Vec<Vec<String>>,
    /// When its process and all that it started are gone, however it ended, and after a start that failed; a failure is
    /// told.
    pub post_stop: Vec<Vec<String>>,
}

/// How an agent is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopPolicy {
    /// The signal that asks.
    pub signal: i32,
    /// Time from the signal to the kill.
    pub grace: Duration,
}
