//! What kind of an agent it is, which decides when a run is over.

use serde::{Deserialize, Serialize};

/// Whether an agent is done at some point, or there until it is stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// Runs to its end.
    #[default]
    Task,
    /// Runs until it is stopped.
    Service,
}

impl AgentKind {
    /// The word that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Service => "service",
        }
    }
}
