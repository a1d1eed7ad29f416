//! How an agent is stopped, and what runs around its life.

use std::time::Duration;

use serde::Serialize;
use toka_core::Origin;

/// `spec.stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stop {
    /// Number of the signal that asks for the end.
    pub signal: i32,
    /// Time until the kill.
    pub grace_period: Duration,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: 15, grace_period: Duration::from_secs(10) }
    }
}

/// `spec.hooks`: commands in the agent's own sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hooks {
    /// Before the process; a failure fails the start.
    pub pre_start: Vec<Hook>,
    /// After the process was started.
    pub post_start: Vec<Hook>,
    /// Before the stop signal.
    pub pre_stop: Vec<Hook>,
    /// After the agent is gone.
    pub post_stop: Vec<Hook>,
}

/// One command of a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// A program and its arguments; at least one.
    pub argv: Vec<String>,
    /// Where it stands in the file.
    pub origin: Origin,
}
