//! Why an agent waits for another, or waits no more: what of its dependency is not so.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AgentName, Origin};

/// A condition of a dependency that is not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmet {
    /// The dependency.
    pub on: AgentName,
    /// The condition, as the file says it: `ready`, `completed_successfully`, `log_line "…"`.
    pub condition: String,
    /// How things are, in one sentence without its end: `db is not ready`, `s succeeded without writing "up"`.
    pub text: String,
    /// The line that asks for it.
    pub origin: Origin,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.origin)
    }
}
