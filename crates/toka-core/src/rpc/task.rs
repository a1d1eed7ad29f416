//! Tasks as the runner inside the sandbox sees them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Usage;
use crate::{AgentProgram, Exit, FileCall, FileOutcome, Progress};

/// The answer to `tasks/get`: the tasks in the order in which they are to be run, each after those it depends on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskList {
    /// In the order to run.
    pub tasks: Vec<TaskSpec>,
    /// What works on tasks that have no command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<AgentProgram>,
    /// Whether the daemon has a model work on tasks that have no command: the runner does what that asks for in the sandbox.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_model: bool,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its place in the agent's list, from 0; its name in every other message.
    pub index: usize,
    /// What it is for.
    pub description: String,
    /// The command, for `/bin/sh -c`; a task without one needs an agent program, or a model.
    #[serde(default)]
    pub run: Option<String>,
    /// Whether it is what a person says, again and again, until the agent is stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub talk: bool,
    /// The longest that one attempt may take, in milliseconds; without it only the agent's own timeout counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What happens when it fails.
    #[serde(default)]
    pub retry: RetryRule,
    /// The tasks, by index, that must have succeeded before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<usize>,
}

/// How often a failed task is tried again, and how long to wait before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryRule {
    /// Attempts in all, the first included; at least 1.
    pub max_attempts: u32,
    /// Wait before the second attempt, in milliseconds.
    pub initial_ms: u64,
    /// The longest wait, in milliseconds.
    pub max_ms: u64,
    /// How much longer each wait is than the one before.
    pub multiplier: f64,
}

impl Default for RetryRule {
    fn default() -> Self {
        Self { max_attempts: 1, initial_ms: 1_000, max_ms: 60_000, multiplier: 2.0 }
    }
}

impl RetryRule {
    /// The wait after the failed attempt number `attempt` (from 1); `None` when it was the last.
    pub fn wait_after(&self, attempt: u32) -> Option<Duration> {
        if attempt >= self.max_attempts {
            return None;
        }
        let growth =
            self.multiplier.max(1.0).powi(i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX));
        let wait = (self.initial_ms as f64 * growth).min(self.max_ms as f64);
        Some(Duration::from_millis(if wait.is_finite() { wait as u64 } else { self.max_ms }))
    }
}

/// The params of `task/enter`: a child is about to run an attempt, and waits until the daemon has given it a control
/// group of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEnter {
    /// The task.
    pub index: usize,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The child's process id, as the runner sees it; none when a model works on the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
}

/// The params of `task/next`: the runner waits for what it is to do, and tells what it has done before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskNext {
    /// The task.
    pub index: usize,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How long it waits at most, in milliseconds.
    pub wait_ms: u64,
    /// What the last call gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<FileOutcome>,
}

/// The result of `task/next`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskStep {
    /// Lines for the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
    /// How far the task is: its fraction is of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What is to be done.
    #[serde(default, rename = "do")]
    pub todo: TaskDo,
}

/// What the runner is to do next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskDo {
    /// Nothing: it asks again.
    #[default]
    Wait,
    /// This call, whose outcome it tells when it asks again.
    Call(FileCall),
    /// Nothing more: the attempt has ended.
    End(Exit),
}

/// The params of `task/end`: an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEnd {
    /// The task.
    pub index: usize,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How it ended.
    pub exit: Exit,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// The result of `task/end`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEnded {
    /// What the attempt's control group used.
    #[serde(default)]
    pub usage: Usage,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let rule = RetryRule { max_attempts: 5, initial_ms: 1_000, max_ms: 3_000, multiplier: 2.0 };
        let waits: Vec<_> =
            (1..=5).map(|attempt| rule.wait_after(attempt).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [Some(1_000), Some(2_000), Some(3_000), Some(3_000), None]);
        assert_eq!(RetryRule::default().wait_after(1), None);
    }

    proptest! {
        #[test]
        fn no_rule_waits_longer_than_it_says(
            attempt in 1u32.., max_attempts: u32, initial_ms: u64, max_ms: u64, multiplier: f64,
        ) {
            let rule = RetryRule { max_attempts, initial_ms, max_ms, multiplier };
            if let Some(wait) = rule.wait_after(attempt) {
                prop_assert!(attempt < max_attempts);
                // Beyond 2⁵³ a float names only every second millisecond.
                prop_assert!(wait.as_millis() as f64 <= max_ms as f64);
            }
        }
    }
}
