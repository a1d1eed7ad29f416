//! Gathers from the events of a run what its summary tells.

use std::collections::HashMap;

use toka_core::event::Usage;
use toka_core::{AgentName, AgentState, Enforcement, Event, EventKind, Exit};

/// What is known of an agent so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) end: Option<AgentState>,
    pub(crate) duration_ms: u64,
    pub(crate) usage: Usage,
    pub(crate) enforcement: Enforcement,
}

/// The outcomes of all agents, and which of them have not come to their end.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    agents: HashMap<AgentName, Outcome>,
    open: usize,
}

impl Outcomes {
    pub(crate) fn new(agents: impl Iterator<Item = AgentName>) -> Self {
        let agents: HashMap<_, _> = agents.map(|agent| (agent, Outcome::default())).collect();
        Self { open: agents.len(), agents }
    }

    /// Takes an event. Whether it was the last of its agent.
    pub(crate) fn observe(&mut self, event: &Event) -> bool {
        let Some(outcome) = event.agent.as_ref().and_then(|agent| self.agents.get_mut(agent)) else {
            return false;
        };
        let end = match &event.kind {
            EventKind::AgentStarted { enforcement, .. } => {
                outcome.enforcement = enforcement.clone();
                return false;
            }
            EventKind::AgentEnded { exit, duration_ms, usage } => {
                outcome.duration_ms = *duration_ms;
                outcome.usage = *usage;
                AgentState::Ended { exit: exit.clone() }
            }
            EventKind::AgentQuarantined { exit, duration_ms, usage, restarts } => {
                outcome.duration_ms = *duration_ms;
                outcome.usage = *usage;
                AgentState::Quarantined { exit: exit.clone(), restarts: *restarts }
            }
            EventKind::AgentBlocked { by } => AgentState::Blocked { by: by.clone() },
            _ => return false,
        };
        let first = outcome.end.replace(end).is_none();
        self.open -= usize::from(first);
        first
    }

    /// Whether every agent has come to its end.
    pub(crate) fn all_ended(&self) -> bool {
        self.open == 0
    }

    /// What became of an agent.
    pub(crate) fn of(&self, agent: &AgentName) -> Outcome {
        let mut outcome = self.agents.get(agent).cloned().unwrap_or_default();
        outcome.end.get_or_insert(AgentState::Ended { exit: Exit::Unknown });
        outcome
    }
}
