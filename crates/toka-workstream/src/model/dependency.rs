//! What an agent waits for.

use serde::Serialize;
use toka_core::{AgentName, Origin};

/// One edge to another agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// The agent that is waited for.
    pub on: AgentName,
    /// Whether it gates or only orders.
    pub need: Need,
    /// Why, for people.
    pub reason: String,
    /// What must have happened; `None` in the file is filled from the kind of the dependency when that is in
    /// the same set: completed successfully for a task, ready or started for a service.
    pub condition: Condition,
    /// What becomes of the dependent when the dependency is skipped.
    pub if_skipped: IfSkipped,
    /// Where it stands in the file.
    pub origin: Origin,
}

/// What becomes of an agent whose dependency is skipped, because there is nothing that it would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IfSkipped {
    /// It is blocked: what it requires was not done.
    #[default]
    Block,
    /// It is skipped as well.
    Skip,
    /// It starts as if the condition were met.
    Start,
}

/// Whether a dependency gates or only orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// The dependent never starts unless the condition is met.
    Required,
    /// The dependent starts after it, whatever became of it.
    Optional,
}

/// What must have happened to a dependency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Its process runs.
    ProcessStarted,
    /// It said, or its probe found, that it is ready.
    Ready,
    /// It ended, whatever the outcome.
    Completed,
    /// It ended well.
    CompletedSuccessfully,
    /// The checks of its objectives passed.
    ObjectiveMet,
    /// It wrote a line that contains this text.
    LogLine(String),
}
