//! What is over and not yet on record: one entry per process, until its daemon has settled it.
//!
//! Without a daemon nothing is started, so there are never more entries than there were processes when it went: each is its
//! status, its figures, a notice per guards path, and the read ends of its pipes with what nobody has read yet.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use toka_sandbox::PrepareError;
use toka_sandbox::guard::Planted;

use super::child::Child;
use super::held::Held;
use crate::protocol::{Body, Entry, Launch, ProcessId, StartError, State};

/// One process that is over.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) entry: Entry,
    notices: Vec<String>,
    planted: Vec<Planted>,
    pub(super) pipes: Option<[OwnedFd; 2]>,
    pub(super) held: Held,
}

/// All of them.
pub(super) type Past = BTreeMap<ProcessId, Over>;

impl Over {
    /// A process whose group is empty.
    pub(super) fn ended(id: ProcessId, mut child: Child) -> Self {
        let mut entry = child.entry(id);
        if let State::Exited { status } = entry.state {
            entry.state = State::Gone { status, usage: child.usage };
        }
        Self { entry, notices: child.notices, planted: child.planted, pipes: child.pipes, held: child.held }
    }

    /// A process that was never forked.
    pub(super) fn unprepared(launch: &Launch, error: PrepareError) -> Self {
        let entry = Entry {
            id: launch.id,
            pid: 0,
            project: launch.plan.project.to_string(),
            agent: launch.plan.agent.to_string(),
            start_time: None,
            started_ms: crate::protocol::now_ms(),
            state: State::NotStarted(StartError::Prepare(error)),
            enforcement: toka_core::Enforcement::default(),
            beside: launch.beside,
            held: Vec::new(),
            stop_signal: launch.stop_signal,
            grace: launch.grace,
            guards: Vec::new(),
            inner_binds: Vec::new(),
            shares_network: false,
            notification_fd: launch.notification_fd,
            oom_kills: 0,
        };
        Self { entry, notices: Vec::new(), planted: Vec::new(), pipes: None, held: Held::default() }
    }

    /// What there is to know about it.
    pub(super) fn entry(&self) -> Entry {
        Entry { held: self.held.names(), ..self.entry.clone() }
    }

    /// The last news about it.
    pub(super) fn last_words(&self) -> Vec<Body> {
        let id = self.entry.id;
        let State::Gone { usage, .. } = self.entry.state else { return Vec::new() };
        let notices = self.notices.iter().cloned().map(|text| Body::Notice { id, text });
        let planted = self.planted.iter().cloned();
        let planted = planted.map(|(path, outcome)| Body::Planted { id, path, outcome });
        notices.chain(planted).chain([Body::Gone { id, usage }]).collect()
    }

    /// All news about it, for a daemon that may have heard none.
    pub(super) fn news(&self) -> Vec<Body> {
        match self.entry.state {
            State::Gone { status, .. } => {
                let exited = Body::Exited { id: self.entry.id, status };
                std::iter::once(exited).chain(self.last_words()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether it ever executed its program.
    pub(super) fn was_started(&self) -> bool {
        matches!(self.entry.state, State::Gone { .. })
    }
}
