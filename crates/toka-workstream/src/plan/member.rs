//! What the plan needs to know of an agent: little, so that a plan can be made without a file.

use toka_core::{AgentName, Origin, Priority};

use crate::{Agent, AgentKind, Dependency};

/// What starts an agent for the first time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// Its turn in the plan.
    #[default]
    Plan,
    /// The clock, by its schedule.
    Clock,
}

/// An agent that is to be arranged.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its name, unique among the members.
    pub name: AgentName,
    /// Its title, free text.
    pub title: String,
    /// Whether it ends by itself.
    pub kind: AgentKind,
    /// What starts it.
    pub start: Start,
    /// Its priority.
    pub priority: Priority,
    /// What it depends on, in the order of the file.
    pub dependencies: Vec<Dependency>,
    /// How many of its objectives have a check that can be executed.
    pub checks: usize,
    /// Where its name is declared.
    pub origin: Origin,
}

impl From<&Agent> for Member {
    fn from(agent: &Agent) -> Self {
        Self {
            name: agent.name.clone(),
            title: agent.title.clone(),
            // What the clock starts is there until it is stopped.
            kind: if agent.schedule.is_some() { AgentKind::Service } else { agent.kind },
            start: if agent.schedule.is_some() { Start::Clock } else { Start::Plan },
            priority: agent.priority,
            dependencies: agent.dependencies.clone(),
            checks: agent.objectives.iter().filter(|objective| objective.check.is_some()).count(),
            origin: agent.origin.clone(),
        }
    }
}
