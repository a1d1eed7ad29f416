//! The tasks of an agent.

use std::time::Duration;

use serde::Serialize;
use toka_core::{Origin, Priority};

/// One entry of `tasks.default` or of an enabled group of `tasks.conditional`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Task {
    /// What is to be done, for people and models.
    pub description: String,
    /// Orders tasks that do not depend on each other.
    pub priority: Priority,
    /// The conditional group that it belongs to; `None` for `tasks.default`.
    pub group: Option<String>,
    /// A command for `/bin/sh -c`; without it the task needs a model.
    pub run: Option<String>,
    /// Whether a person says what is to be done, again and again (`spec.chat`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub talk: bool,
    /// Longest duration of one attempt.
    pub timeout: Option<Duration>,
    /// How often it is tried.
    pub retry: Retry,
    /// Indices, into [`super::Agent::tasks`], of the tasks that come before it; free of cycles.
    pub depends_on: Vec<usize>,
    /// `estimated_duration`, free text.
    pub estimated_duration: Option<String>,
    /// `tools_required`, free text.
    pub tools_required: Vec<String>,
    /// Where the task stands in the file.
    pub origin: Origin,
}

/// How often a task is tried, and how long to wait in between.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Retry {
    /// Attempts in all, at least one.
    pub max_attempts: u32,
    /// Wait before the second attempt.
    pub initial: Duration,
    /// Longest wait.
    pub max: Duration,
    /// Growth of the wait from one attempt to the next, at least 1.
    pub multiplier: f64,
}

impl Retry {
    /// Attempts when `retry` is given without a number.
    pub const DEFAULT_ATTEMPTS: u32 = 3;

    /// A single attempt: what a task without `retry` gets.
    pub const ONCE: Self = Self {
        max_attempts: 1,
        initial: Duration::from_secs(1),
        max: Duration::from_secs(60),
        multiplier: 2.0,
    };
}

impl Default for Retry {
    fn default() -> Self {
        Self::ONCE
    }
}
