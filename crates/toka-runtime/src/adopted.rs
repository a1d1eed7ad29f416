//! The life of an agent that an earlier owner began, as its next owner finds it: from the journal what was known of it, and
//! from the keeper what there is.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::Duration;

use toka_core::probe::ProbeKind;
use toka_core::restart::Lives;
use toka_core::{AgentState, Enforcement};
use toka_keeper::Started;

use crate::Restarts;

/// What a new owner goes on with.
#[derive(Debug)]
pub struct Adopted {
    /// The state that the journal tells.
    pub state: AgentState,
    /// Its process, if the keeper has one of it.
    pub process: Option<AdoptedProcess>,
    /// How long ago its first life began.
    pub age: Duration,
    /// How long ago this life began.
    pub life: Duration,
    /// How long this life has run, without the times in which it was paused: what counts for its timeout.
    pub ran: Duration,
    /// Its earlier lives.
    pub lives: Lives,
    /// When its next life begins, while it waits for that.
    pub next_life: Option<Duration>,
    /// Whether that life may begin when it is due.
    pub restarts: Restarts,
    /// The tasks that it is at.
    pub tasks: Vec<AdoptedTask>,
    /// How many tasks it has begun in this life.
    pub begun: u64,
    /// What it has said once in this life, and will not say again.
    pub said: Said,
    /// How many kills for memory of this life were reported.
    pub oom_kills: u64,
}

/// Signs that an agent gives once, as its journal tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The probes that have succeeded.
    pub probes: BTreeSet<ProbeKind>,
    /// The awaited texts that it has written.
    pub lines: BTreeSet<String>,
}

/// A task that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdoptedTask {
    /// Its place in the agent's list, from 0.
    pub index: usize,
    /// Which try, from 1.
    pub attempt: u32,
    /// How many tasks this life had begun with it: names its control group.
    pub number: u64,
    /// How long ago it began.
    pub age: Duration,
}

/// A process that the keeper has of an agent.
#[derive(Debug)]
pub struct AdoptedProcess {
    /// The pid of its main process.
    pub pid: i32,
    /// What confines it.
    pub enforcement: Enforcement,
    /// The read ends of its output and errors; `None` when they were lost with an earlier keeper.
    pub pipes: Option<[OwnedFd; 2]>,
    /// The read end of the pipe through which it tells that it is ready, if it has one.
    pub notification: Option<OwnedFd>,
    /// The sockets that listen in its network for its daemon, if there are any.
    pub listeners: Vec<OwnedFd>,
    /// Whether it is kept from running.
    pub is_frozen: bool,
}

impl From<Started> for AdoptedProcess {
    fn from(started: Started) -> Self {
        let Started { pid, stdout, stderr, notification, listeners, enforcement } = started;
        let pipes = Some([stdout, stderr]);
        Self { pid, enforcement, pipes, notification, listeners, is_frozen: false }
    }
}
