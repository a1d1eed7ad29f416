//! What an agent is to achieve.

use serde::Serialize;
use toka_core::{Origin, Priority};

use super::ProcessCommand;

/// One entry of `objectives`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Objective {
    /// What is to be achieved.
    pub description: String,
    /// What is left behind.
    pub deliverable: Option<String>,
    /// How a person sees that it is achieved.
    pub validation: Option<String>,
    /// How much it matters.
    pub priority: Priority,
    /// How the machine sees it: exit status 0 means that it is met.
    pub check: Option<ProcessCommand>,
    /// Where it stands in the file.
    pub origin: Origin,
}
