//! What the plan needs to know of an agent: little, so that a plan can be made without a file.

use toka_core::{AgentName, NetworkAccess, Origin, Priority, Probe, ProbeCheck};

use crate::{Agent, AgentKind, Dependency, OnEnd, Start};

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
    /// What of the network it reaches.
    pub network: NetworkAccess,
    /// Whether it is ready when it answers on a port.
    pub serves_a_port: bool,
    /// What its end means for the run.
    pub on_end: OnEnd,
    /// Why it is skipped instead of started, if there is nothing that it would do.
    pub skip: Option<String>,
    /// Where its name is declared.
    pub origin: Origin,
}

fn asks_a_port(probe: &Probe) -> bool {
    matches!(probe.check, ProbeCheck::HttpGet(_) | ProbeCheck::TcpSocket(_))
}

impl From<&Agent> for Member {
    fn from(agent: &Agent) -> Self {
        Self {
            name: agent.name.clone(),
            title: agent.title.clone(),
            kind: agent.kind,
            start: agent.start,
            priority: agent.priority,
            dependencies: agent.dependencies.clone(),
            checks: agent.objectives.iter().filter(|objective| objective.check.is_some()).count(),
            network: agent.confinement.network.value.clone(),
            serves_a_port: [&agent.probes.startup, &agent.probes.readiness]
                .into_iter()
                .flatten()
                .any(asks_a_port),
            on_end: agent.on_end,
            skip: agent.nothing_to_do(),
            origin: agent.origin.clone(),
        }
    }
}
