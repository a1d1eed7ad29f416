//! What is said over the control socket, besides [`Command`](toka_core::Command), [`Declaration`](crate::Declaration) and
//! events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use toka_core::{AgentName, AgentStatus, ProjectName, Resources, RunStatus};

use toka_workstream::describe::Described;

use crate::project::Overview;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonView {
    /// Toka's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// What it is.
    pub role: RoleName,
    /// The projects that run in it.
    pub projects: Vec<ProjectName>,
}

/// What answers at a control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// `toka run`, for one project.
    Foreground,
    /// `toka serve`.
    Service,
}

/// A project and all of its agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectView {
    /// What never changes.
    #[serde(flatten)]
    pub overview: Overview,
    /// When the run began, in milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// The number of the last event that is in here.
    pub seq: u64,
    /// Its agents, in the order of the plan.
    pub agents: Vec<AgentStatus>,
    /// Why nothing can be done with its agents at this moment: its keeper does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl ProjectView {
    pub(super) fn of(overview: &Overview, status: &RunStatus) -> Self {
        Self {
            overview: overview.clone(),
            started_ms: status.started_ms,
            seq: status.seq,
            agents: status.agents().to_vec(),
            trouble: None,
        }
    }

    pub(super) fn troubled_by(self, trouble: Option<String>) -> Self {
        Self { trouble, ..self }
    }

    /// The same as a status, which the events after [`Self::seq`] move on.
    pub fn into_status(self) -> (Overview, RunStatus) {
        let status = RunStatus::taken_over(self.overview.run, self.started_ms, self.seq, self.agents);
        (self.overview, status)
    }
}

/// An agent with what it uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its project.
    pub project: ProjectName,
    /// What is known of it.
    #[serde(flatten)]
    pub status: AgentStatus,
    /// What it holds and uses at this moment; absent when it has no process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What it declares, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declared: Vec<Described>,
}

/// What agents use at this moment; one that has no process is not in it.
pub type ResourcesView = BTreeMap<AgentName, Resources>;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For people.
    pub error: String,
    /// What would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The exit status of a command that failed so.
    pub exit_code: u8,
    /// What it consists of: diagnostics and problems, as `toka validate --json` and `toka run --json` print them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Value>,
    /// The same as text with carets, for a terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendered: Option<String>,
}
