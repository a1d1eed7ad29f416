//! What `toka run` would do with the plan as it is: start it, or refuse before anything has started.

use toka_core::capability::Refusal;
use toka_core::{AgentName, Capability, ExitCode, Origin};

use super::facts::AgentFacts;

/// Why nothing would start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// A task needs a model.
    Model { agent: AgentName, task: String, origin: Origin },
    /// The policy refuses a capability.
    Refused { agent: AgentName, refusal: Refusal, origin: Origin },
}

/// What a run would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// In the order of the plan; none when it would start.
    pub(super) obstacles: Vec<Obstacle>,
}

impl Verdict {
    pub(super) fn of(agents: &[AgentFacts]) -> Self {
        Self { obstacles: agents.iter().flat_map(obstacles).collect() }
    }

    /// What a run would end with before anything started. A missing configuration counts before a refusal.
    pub(super) fn exit_code(&self) -> ExitCode {
        let is_model = |obstacle: &Obstacle| matches!(obstacle, Obstacle::Model { .. });
        match self.obstacles.as_slice() {
            [] => ExitCode::Success,
            some if some.iter().any(is_model) => ExitCode::Unconfigured,
            _ => ExitCode::Denied,
        }
    }

    /// What would have to be granted.
    pub(super) fn grants(&self) -> Vec<&Capability> {
        let mut grants: Vec<&Capability> = self
            .obstacles
            .iter()
            .filter_map(|obstacle| match obstacle {
                Obstacle::Refused { refusal: Refusal::NotGranted(capability), .. } => Some(capability),
                _ => None,
            })
            .collect();
        grants.sort_unstable();
        grants.dedup();
        grants
    }
}

impl Obstacle {
    /// In one sentence.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Model { agent, task, .. } => format!("{agent}: the task {task:?} needs a model"),
            Self::Refused { agent, refusal, .. } => format!("{agent}: {refusal}"),
        }
    }

    /// The place in a file.
    pub(super) fn origin(&self) -> &Origin {
        match self {
            Self::Model { origin, .. } | Self::Refused { origin, .. } => origin,
        }
    }
}

fn obstacles(facts: &AgentFacts) -> Vec<Obstacle> {
    let agent = &facts.agent.name;
    let models = facts.agent.needs_model().map(|task| Obstacle::Model {
        agent: agent.clone(),
        task: task.description.clone(),
        origin: task.origin.clone(),
    });
    let refused = facts.demands.refused.iter().map(|(demand, refusal)| Obstacle::Refused {
        agent: agent.clone(),
        refusal: refusal.clone(),
        origin: demand.origin.clone(),
    });
    models.chain(refused).collect()
}
