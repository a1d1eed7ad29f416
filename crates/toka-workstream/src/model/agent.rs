//! An agent, and the set of agents that one command was given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
pub use toka_core::AgentKind;
use toka_core::{
    AgentName, AgentPattern, Confinement, Origin, Priority, SuccessStatus, ToolRules, Unmatched,
};

use super::{
    Dependency, Hooks, Logs, McpServer, ModelUse, Need, Objective, OnEnd, Probes, Process, Reporting,
    Restart, Schedule, Secret, Start, Stop, Task,
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

impl Set {
    /// The same with those agents alone that the patterns mean, and all that they require, at once or through each other.
    /// What they only come after is left out.
    ///
    /// # Errors
    /// With the first pattern that means no agent.
    pub fn only(mut self, patterns: &[AgentPattern]) -> Result<Self, Unmatched> {
        if patterns.is_empty() {
            return Ok(self);
        }
        let mut open = toka_core::select::select(patterns, self.agents.iter().map(|agent| &agent.name))?;
        let mut wanted = BTreeSet::new();
        while let Some(name) = open.pop() {
            if let Some(agent) = self.agent(&name).filter(|_| !wanted.contains(&name)) {
                let required =
                    agent.dependencies.iter().filter(|dependency| dependency.need == Need::Required);
                open.extend(required.map(|dependency| dependency.on.clone()));
            }
            wanted.insert(name);
        }
        self.agents.retain(|agent| wanted.contains(&agent.name));
        let is_left =
            |dependency: &Dependency| dependency.need == Need::Required || wanted.contains(&dependency.on);
        self.agents.iter_mut().for_each(|agent| agent.dependencies.retain(is_left));
        Ok(self)
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
    /// `spec.process`; absent when the built-in runner works through tasks that are commands.
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
    /// What starts it: its schedule, `spec.start`, or its turn.
    pub start: Start,
    /// `spec.on_end`: what its end means for the run.
    pub on_end: OnEnd,
    /// `spec.success_exit_codes`: ends that count as a success besides the exit code 0.
    pub success: Vec<SuccessStatus>,
    /// The groups of conditional tasks, where none is enabled and the agent has nothing else to do; else empty.
    pub idle_groups: Vec<String>,
    /// `spec.watchdog`: the longest time without a sign of life.
    pub watchdog: Option<Duration>,
    /// `spec.stop`.
    pub stop: Stop,
    /// `spec.hooks`.
    pub hooks: Hooks,
    /// `spec.model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelUse>,
    /// `spec.mcp`: servers of further tools for a model that works on its tasks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mcp: Vec<McpServer>,
    /// `spec.tools` and `spec.autonomy`.
    pub tools: ToolRules,
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
    /// Keys of known sections that Toka makes nothing of, in the order of the file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptKey>,
    /// Where each key of `spec` stands that is declared, by its name.
    pub spec_places: BTreeMap<String, Origin>,
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

    /// Why it is skipped instead of started, in words that end a sentence; `None` when it has something to do.
    pub fn nothing_to_do(&self) -> Option<String> {
        match self.idle_groups.as_slice() {
            [] => None,
            [group] => {
                Some(format!("its tasks are in the group {group}, which is not enabled (`--enable {group}`)"))
            }
            groups => Some(format!(
                "its tasks are in groups of which none is enabled (`--enable` {})",
                groups.join(", ")
            )),
        }
    }

    /// Whether Toka's runner works through the tasks; else they are information for the agent's process.
    pub fn is_run_by_task(&self) -> bool {
        self.process.as_ref().is_none_or(|process| process.command.is_none())
    }

    /// The tasks that nothing but a model can do: they have no command, and the agent has no process.
    pub fn needs_model(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(|task| self.process.is_none() && task.run.is_none())
    }
}

/// A key of a section that informs, and which Toka makes nothing of: the agent may.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeptKey {
    /// The section, as messages call it: `metadata`, `a task`, …
    pub section: String,
    /// The key.
    pub key: String,
    /// Its value, verbatim.
    pub value: Value,
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
