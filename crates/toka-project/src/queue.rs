//! Agents whose turn has come by the plan, and for which the host has no room: each waits in the row of the gate, and what it
//! waits for is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toka_core::{AgentName, AgentState, EventKind, PressureLimits};
use toka_runtime::{Admission, Entry};
use toka_sandbox::cgroup::PressureFiles;
use tokio::task::{AbortHandle, JoinSet};

use crate::Project;
use crate::journal::Journal;

/// Those that wait.
#[derive(Debug)]
pub(crate) struct Queue {
    gate: Admission,
    waiting: BTreeMap<AgentName, AbortHandle>,
    turns: JoinSet<AgentName>,
    /// Those whose turn has come since the last decision.
    called: BTreeSet<AgentName>,
}

impl Queue {
    /// Nobody waits yet. Limits that this kernel gives no figures for are told.
    pub(crate) fn new(limits: PressureLimits, journal: &Journal) -> Self {
        let files = PressureFiles::probe(Path::new("/"));
        if files.is_empty() && limits.is_declared() {
            let message =
                "this kernel tells nothing of pressure: no start waits for it (`toka doctor` says more)";
            drop(journal.record(None, EventKind::Warning { message: message.to_owned() }));
        }
        let gate = Admission::new(files, limits);
        Self { gate, waiting: BTreeMap::new(), turns: JoinSet::new(), called: BTreeSet::new() }
    }

    /// The gate that lives after the first go through as well.
    pub(crate) fn gate(&self) -> Admission {
        self.gate.clone()
    }

    pub(crate) fn set_limits(&self, limits: PressureLimits) {
        self.gate.set_limits(limits);
    }

    /// Whether the agent waits for room.
    pub(crate) fn holds(&self, agent: &AgentName) -> bool {
        self.waiting.contains_key(agent)
    }

    /// The agent need not wait any longer.
    pub(crate) fn call(&mut self, agent: &AgentName) {
        if let Some(turn) = self.waiting.remove(agent) {
            turn.abort();
            self.called.insert(agent.clone());
        }
    }

    /// Until the turn of one has come.
    pub(crate) async fn turn(&mut self) -> AgentName {
        loop {
            match self.turns.join_next().await {
                Some(Ok(agent)) => return agent,
                // It was called, or waits no more.
                Some(Err(_)) => {}
                None => return std::future::pending().await,
            }
        }
    }
}

impl Project {
    /// Whether an agent whose turn has come by the plan starts now.
    pub(crate) fn has_room(&mut self, agent: &AgentName) -> bool {
        if self.queue.called.remove(agent) {
            return true;
        }
        if self.queue.holds(agent) {
            return false;
        }
        let Entry::Wait { hold, mut turn } = self.queue.gate.enter() else { return true };
        let name = agent.clone();
        let wait = self.queue.turns.spawn(async move {
            turn.come().await;
            name
        });
        self.queue.waiting.insert(agent.clone(), wait);
        drop(self.journal.record(Some(agent.clone()), EventKind::AgentWaiting { hold }));
        false
    }

    /// Forgets those that wait no more because they were stopped or blocked, and turns that nobody took.
    pub(crate) fn review_queue(&mut self) {
        let Self { queue, state, plan, .. } = self;
        queue.called.clear();
        queue.waiting.retain(|agent, turn| {
            let waits = state.state_of(plan, agent) == Some(&AgentState::Pending);
            if !waits {
                turn.abort();
            }
            waits
        });
    }
}
