//! An agent, and the set of agents that one command was given.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
pub use toka_core::AgentKind;
use toka_core::{AgentName, Confinement, Origin, Priority};

use super::{
    Dependency, Hooks, Logs, Objective, Probes, Process, Reporting, Restart, Schedule, Secret, Stop, Task,
};

/// Every agent of the files that one command was given, in the order of the files.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Set {
    /// The agents; their names are unique.
    pub agents: Vec<Agent>,
    /// The files that were read, as they were named.
    pub files: Vec<PathBuf>,
}

impl Set {
    /// The agent of that name.
    pub fn agent(&self, name: &AgentName) -> Option<&Agent> {
        self.agents.iter().find(|agent| &agent.name == name)
    }
}

/// Which of several agents that one document declares (`spec.replicas`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replica {
    /// The name that the document gives; others depend on all of them by it.
    pub of: AgentName,
    /// Which, from 1.
    pub number: u32,
    /// How many there are.
    pub count: u32,
}

/// One agent: one YAML document, or one of its replicas.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agent {
    /// `metadata.name`, with the number of the replica if there are any.
    pub name: AgentName,
    /// Which replica it is, where `spec.replicas` is declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<Replica>,
    /// `metadata.version`, free text; `v0` when absent.
    pub version: String,
    /// `metadata.workstream`; the file's stem when absent.
    pub workstream: String,
    /// The rest of `metadata`.
    pub metadata: Metadata,
    /// `spec.name`; the agent's name when absent.
    pub title: String,
    /// `spec.domain`; `general` when absent.
    pub domain: String,
    /// `spec.description`.
    pub description: Option<String>,
    /// `spec.priority`.
    pub priority: Priority,
    /// `spec.type`, or what follows from the restart policy and the probes.
    pub kind: AgentKind,
    /// `spec.process`; absent when the built-in runner works through the tasks.
    pub process: Option<Process>,
    /// `tasks.default` and the enabled groups of `tasks.conditional`, in the order of the file.
    pub tasks: Vec<Task>,
    /// `dependencies`.
    pub dependencies: Vec<Dependency>,
    /// `spec.secrets`.
    pub secrets: Vec<Secret>,
    /// `spec.restart`.
    pub restart: Restart,
    /// `spec.startup_probe`, `spec.readiness_probe`, `spec.liveness_probe`.
    pub probes: Probes,
    /// `spec.schedule`: when it is started by the clock.
    pub schedule: Option<Schedule>,
    /// `spec.watchdog`: the longest time without a sign of life.
    pub watchdog: Option<Duration>,
    /// `spec.stop`.
    pub stop: Stop,
    /// `spec.hooks`.
    pub hooks: Hooks,
    /// `objectives`.
    pub objectives: Vec<Objective>,
    /// `capabilities.primary`: what the agent is good at, free text.
    pub capabilities_primary: Vec<String>,
    /// `capabilities.secondary`.
    pub capabilities_secondary: Vec<String>,
    /// `reporting`.
    pub reporting: Reporting,
    /// `logs`.
    pub logs: Logs,
    /// `security`, ready for the sandbox; its timeout is filled in for tasks.
    pub confinement: Confinement,
    /// Top-level sections that Toka does not know, verbatim.
    pub extras: Map<String, Value>,
    /// Where `metadata.name` stands.
    pub origin: Origin,
    /// The file it came from, as it was named.
    pub file: PathBuf,
}

impl Agent {
    /// The name in its file: all replicas of an agent have one, and what a person trusts is recorded under it.
    pub fn declared_name(&self) -> &AgentName {
        self.replica.as_ref().map_or(&self.name, |replica| &replica.of)
    }

    /// The tasks that nothing but a model can do: they have no command, and the agent has no process.
    pub fn needs_model(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(|task| self.process.is_none() && task.run.is_none())
    }
}

/// The parts of `metadata` that describe rather than identify.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// `metadata.schema_version`.
    pub schema_version: Option<String>,
    /// `metadata.created`, free text.
    pub created: Option<String>,
    /// `metadata.modified`, free text.
    pub modified: Option<String>,
    /// `metadata.branch`: the git branch that the work is meant for.
    pub branch: Option<String>,
    /// `metadata.checksum` as written.
    pub checksum: Option<String>,
}
