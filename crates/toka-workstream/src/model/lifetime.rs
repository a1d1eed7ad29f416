//! What starts an agent, which of its ends are good, and what its end means for the run.

use serde::Serialize;

/// What starts an agent for the first time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Its turn in the plan.
    #[default]
    Plan,
    /// The clock, by `spec.schedule`.
    Clock,
    /// A person, with `toka start` (`spec.start: manual`).
    Manual,
}

/// `spec.on_end`: what the end of the agent means for the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct OnEnd {
    /// Of one that did what it was for.
    pub success: AfterEnd,
    /// Of any other end that nobody asked for.
    pub failure: AfterEnd,
}

/// What the end of an agent means for the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterEnd {
    /// Nothing.
    #[default]
    Continue,
    /// The run is over: all its agents are stopped.
    StopRun,
}
