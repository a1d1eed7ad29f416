//! Sessions: what a model and an agent's tools did together. Their names, the states of one, and the steps between those.
//!
//! ```text
//! idle ─▶ planning ─▶ thinking ─▶ tool_calling ─▶ observing ─▶ compiling ─▶ idle
//!            ▲  ▲        ▲  │          │              │            ▲
//!            │  │        └──┼──────────┼──────────────┤            │
//!            │  └───────────┼──────────┼──────────────┘            │
//!            │              └──────────┼───────────────────────────┘
//!          paused ◀────────────────────┘   (an approval; planning and thinking pause as well)
//! ```
//!
//! Every state but `idle` goes back to `idle` when a turn ends before its time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{AgentName, Name};

/// Which session of which agent: `agent:<id>:<mode>:<n>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionKey {
    /// The agent.
    pub agent: AgentName,
    /// What it is for.
    pub mode: SessionMode,
    /// From 1, in the order in which they began.
    pub number: u64,
}

/// What a session is for.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SessionMode {
    /// The tasks of a declaration.
    Task,
    /// A person talks to the agent.
    Chat,
}

/// A text that is no key of a session.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no key of a session: they look like agent:NAME:task:1")]
pub struct NoSessionKey(pub String);

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "agent:{}:{}:{}", self.agent, self.mode, self.number)
    }
}

impl FromStr for SessionKey {
    type Err = NoSessionKey;

    fn from_str(text: &str) -> Result<Self, NoSessionKey> {
        let read = || {
            let mut parts = text.split(':');
            let (word, agent, mode, number) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            // One text for each key: no sign, no zeros before the number.
            let is_plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
            if word != "agent" || parts.next().is_some() || !is_plain {
                return None;
            }
            let (agent, mode) = (Name::new(agent).ok()?, mode.parse().ok()?);
            Some(Self { agent, mode, number: number.parse().ok()? })
        };
        read().ok_or_else(|| NoSessionKey(text.to_owned()))
    }
}

impl TryFrom<String> for SessionKey {
    type Error = NoSessionKey;

    fn try_from(text: String) -> Result<Self, NoSessionKey> {
        text.parse()
    }
}

impl From<SessionKey> for String {
    fn from(key: SessionKey) -> Self {
        key.to_string()
    }
}

/// Where a session is in its turn.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, strum::Display, strum::EnumIter, Serialize, Deserialize,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum SessionState {
    /// Nothing is asked of it.
    #[default]
    Idle,
    /// It has got its work, and the next request is built.
    Planning,
    /// A model is asked.
    Thinking,
    /// Tools are called.
    ToolCalling,
    /// What the tools gave back is taken in.
    Observing,
    /// The model has no further wish: its answer, and whether the work is done, is put together.
    Compiling,
    /// It waits for a person.
    Paused,
}

/// A step that no session may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a session that is {from} cannot become {to}")]
pub struct IllegalStep {
    /// Where it is.
    pub from: SessionState,
    /// Where it was to go.
    pub to: SessionState,
}

impl SessionState {
    /// Steps to `to`.
    ///
    /// # Errors
    /// When no step leads there.
    pub fn step(self, to: Self) -> Result<Self, IllegalStep> {
        use SessionState::{Compiling, Idle, Observing, Paused, Planning, Thinking, ToolCalling};
        let is_legal = match (self, to) {
            (Idle, Planning)
            | (Planning, Thinking | ToolCalling | Paused)
            | (Thinking, ToolCalling | Compiling | Paused)
            | (ToolCalling, Observing | Paused)
            | (Observing, Thinking | Planning | Compiling)
            | (Compiling, Planning)
            | (Paused, Planning) => true,
            (from, Idle) => from != Idle,
            _ => false,
        };
        if is_legal { Ok(to) } else { Err(IllegalStep { from: self, to }) }
    }
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    /// What is to be done.
    pub description: String,
    /// Which tools it takes, in the words of whoever planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_types: Vec<String>,
    /// How far it is.
    #[serde(default)]
    pub status: StepStatus,
}

/// How far a step of a plan is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum StepStatus {
    /// Not begun.
    #[default]
    Pending,
    /// Under way.
    InProgress,
    /// Done.
    Completed,
    /// Not done, and not to be tried again.
    Failed,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use strum::IntoEnumIterator as _;

    use super::*;

    #[test]
    fn a_key_has_one_text() {
        let text = "agent:builder:task:12";
        let key: SessionKey = text.parse().expect("a key");
        assert_eq!((key.to_string().as_str(), key.mode, key.number), (text, SessionMode::Task, 12));
        for text in [
            "",
            "agent:builder:task",
            "agent:builder:task:0",
            "agent:builder:task:01",
            "agent:builder:task:+1",
            "agent:../x:task:1",
            "agent:builder:night:1",
            "agent:builder:task:1:2",
            "job:builder:task:1",
        ] {
            assert_eq!(text.parse::<SessionKey>(), Err(NoSessionKey(text.to_owned())));
        }
    }

    /// Whatever steps are tried: the machine is in a state that the picture has, a wrong step changes nothing, and `idle` is always reached.
    #[test]
    fn the_steps_are_those_of_the_picture() {
        use SessionState::{Compiling, Idle, Observing, Paused, Planning, Thinking, ToolCalling};
        let turn = [Planning, Thinking, ToolCalling, Observing, Compiling, Idle];
        assert_eq!(turn.into_iter().try_fold(Idle, SessionState::step), Ok(Idle));
        let gate = [
            Planning,
            Thinking,
            ToolCalling,
            Paused,
            Planning,
            ToolCalling,
            Observing,
            Thinking,
            Compiling,
            Idle,
        ];
        assert_eq!(gate.into_iter().try_fold(Idle, SessionState::step), Ok(Idle));
        for (from, to) in [
            (Idle, Thinking),
            (Idle, Idle),
            (Thinking, Observing),
            (Paused, ToolCalling),
            (Observing, ToolCalling),
        ] {
            assert_eq!(from.step(to), Err(IllegalStep { from, to }));
        }
        for from in SessionState::iter().filter(|from| *from != Idle) {
            assert_eq!(from.step(Idle), Ok(Idle));
        }
        let mut reached = BTreeSet::from([format!("{Idle}")]);
        let mut open = vec![Idle];
        while let Some(from) = open.pop() {
            for to in SessionState::iter().filter(|to| from.step(*to).is_ok()) {
                if reached.insert(to.to_string()) {
                    open.push(to);
                }
            }
        }
        assert_eq!(reached.len(), SessionState::iter().count(), "every state is reached");
    }

    #[test]
    fn words() {
        assert_eq!(serde_json::to_value(SessionState::ToolCalling).expect("JSON"), "TOOL_CALLING");
        assert_eq!(StepStatus::InProgress.to_string(), "in_progress");
    }
}
