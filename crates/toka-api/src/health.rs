//! How well a daemon is, and what runs in it: what `/v1/health` answers.

use serde::{Deserialize, Serialize};
use toka_core::{HealthReport, ProjectName, Verdict, escape};

use crate::host::HostFigures;
use crate::wire::DaemonView;

/// Most characters of a reason.
const LONGEST: usize = 300;

/// How well a daemon is, and everything that runs in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthView {
    /// The worst of all verdicts.
    pub verdict: Verdict,
    /// When it was judged, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The daemon itself.
    pub daemon: DaemonHealth,
    /// The host that it runs on; none when the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostFigures>,
    /// Its projects, by name.
    pub projects: Vec<ProjectHealth>,
}

/// How well a daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonHealth {
    /// Unhealthy when a check fails.
    pub verdict: Verdict,
    /// What it is.
    #[serde(flatten)]
    pub view: DaemonView,
    /// What it needs to do its work.
    pub checks: Vec<Check>,
    /// Files that it has open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<OpenFiles>,
}

/// How well the agents of a project are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectHealth {
    /// The project.
    pub project: ProjectName,
    /// The worst of its agents' verdicts.
    pub verdict: Verdict,
    /// When the run began, in milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// Its agents, in the order of the plan.
    pub agents: Vec<HealthReport>,
}

/// Something that the daemon needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name: `disk`, `journal/PROJECT`, …
    pub name: String,
    /// How it is.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How something is that the daemon needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Well.
    Ok {
        /// The figure behind it, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// Not well.
    Failed {
        /// Why, on one line.
        why: String,
    },
}

impl Check {
    /// One that is well.
    pub fn ok(name: impl Into<String>, detail: Option<String>) -> Self {
        Self { name: name.into(), outcome: Outcome::Ok { detail } }
    }

    /// One that is not.
    pub fn failed(name: impl Into<String>, why: impl AsRef<str>) -> Self {
        let why = escape::for_terminal(why.as_ref().as_bytes(), LONGEST);
        Self { name: name.into(), outcome: Outcome::Failed { why } }
    }

    /// Whether it is well.
    pub fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Ok { .. })
    }
}

/// Files that the daemon has open, and how many it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFiles {
    /// How many it has.
    pub open: u64,
    /// How many it may (RLIMIT_NOFILE).
    pub limit: u64,
}
