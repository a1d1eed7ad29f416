//! What can be asked of a project while it runs, over whatever transport: one enum, so that the terminal, the control
//! socket and a signal all ask for the same things and get the same answers.

use serde::{Deserialize, Serialize};

use crate::request::{Decision, DenyReason, Request};
use crate::{AgentName, AgentState, Unmet};

/// Something to be done about agents of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// A request to agents; to all of them when none is named.
    Request {
        /// What.
        request: Request,
        /// Whom.
        #[serde(default)]
        agents: Vec<AgentName>,
    },
    /// A signal to the main process of agents; to all of them when none is named.
    Signal {
        /// Its number, 1 to 31 (signal(7)).
        signal: i32,
        /// Whom.
        #[serde(default)]
        agents: Vec<AgentName>,
    },
    /// The end of the run: every agent is stopped, those first that others do not need.
    Down {
        /// How much time they get.
        #[serde(default)]
        urgency: Urgency,
    },
}

/// How much time agents get to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// The stop signal, and the grace period that each declares.
    #[default]
    Graceful,
    /// None.
    Kill,
}

impl Command {
    /// Whether it changes nothing more when it is asked for once again. A start may begin another life by then.
    pub fn is_idempotent(&self) -> bool {
        match self {
            Self::Request { request, .. } => {
                matches!(request, Request::Pause | Request::Resume | Request::Stop | Request::Kill)
            }
            Self::Down { .. } => true,
            Self::Signal { .. } => false,
        }
    }

    /// The agents that it names; empty for all of them.
    pub fn agents(&self) -> &[AgentName] {
        match self {
            Self::Request { agents, .. } | Self::Signal { agents, .. } => agents,
            Self::Down { .. } => &[],
        }
    }
}

/// What became of a command for one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The agent.
    pub agent: AgentName,
    /// Whether it is done.
    #[serde(flatten)]
    pub decision: Decision,
}

/// What became of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// For each agent that it is about, in the order in which it was asked.
    pub agents: Vec<Answer>,
}

/// What became of a command for one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The agent.
    pub agent: AgentName,
    /// What was decided.
    #[serde(flatten)]
    pub decision: Decision,
    /// Where it is now.
    #[serde(flatten)]
    pub state: AgentState,
    /// What it waits for before it begins, as far as that is another agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Box<Unmet>>,
    /// When the clock starts it next, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due_ms: Option<i64>,
}

/// What became of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// For each agent.
    pub agents: Vec<Done>,
    /// Whether it has come to its end for all of them.
    pub finished: bool,
}

/// Whether a command has come to its end for an agent that is in `state` now. A command that is over for every agent is
/// done.
pub fn is_done(command: &Command, state: &AgentState) -> bool {
    match command {
        Command::Signal { .. } => true,
        Command::Down { .. } => state.is_final(),
        Command::Request { request, .. } => match request {
            Request::Start | Request::Restart => {
                matches!(state, AgentState::Running { .. } | AgentState::Paused { .. }) || state.is_final()
            }
            Request::Pause => matches!(state, AgentState::Paused { .. }) || state.is_final(),
            Request::Resume => !matches!(state, AgentState::Paused { .. }),
            Request::Stop | Request::Kill => state.is_final(),
        },
    }
}

/// Decides on a signal to an agent in `state`.
pub fn decide_signal(state: &AgentState) -> Decision {
    match state {
        AgentState::Running { .. } | AgentState::Paused { .. } | AgentState::Stopping { .. } => {
            Decision::Accept
        }
        AgentState::Starting => Decision::deny(DenyReason::Starting),
        _ => Decision::deny(DenyReason::NotRunning),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Exit, Name};

    #[test]
    fn commands_are_read_as_programs_write_them() {
        let name = Name::new("api").expect("a label");
        for (text, command) in [
            (
                r#"{"command":"request","request":"pause","agents":["api"]}"#,
                Command::Request { request: Request::Pause, agents: vec![name.clone()] },
            ),
            (r#"{"command":"signal","signal":10}"#, Command::Signal { signal: 10, agents: Vec::new() }),
            (r#"{"command":"down"}"#, Command::Down { urgency: Urgency::Graceful }),
        ] {
            assert_eq!(serde_json::from_str::<Command>(text).expect("a command"), command);
        }
        let answer = Answer { agent: name, decision: Decision::deny(DenyReason::NotRunning) };
        let text = serde_json::to_string(&answer).expect("it can be written");
        assert_eq!(text, r#"{"agent":"api","decision":"deny","reason":"not_running"}"#);
    }

    #[test]
    fn a_command_is_done_when_what_it_asks_for_is_so_or_cannot_be_any_more() {
        let ended = AgentState::Ended { exit: Exit::Unknown };
        let running = AgentState::Running { pid: 7, ready: false };
        let paused = AgentState::Paused { pid: 7, ready: false };
        let of = |request| Command::Request { request, agents: Vec::new() };
        for (request, done, not_done) in [
            (Request::Start, vec![&running, &ended], vec![&AgentState::Pending, &AgentState::Starting]),
            (Request::Pause, vec![&paused, &ended], vec![&running]),
            (Request::Resume, vec![&running, &ended], vec![&paused]),
            (Request::Stop, vec![&ended], vec![&running, &paused]),
        ] {
            done.iter().for_each(|state| assert!(is_done(&of(request), state), "{request:?} {state:?}"));
            not_done.iter().for_each(|state| assert!(!is_done(&of(request), state), "{request:?} {state:?}"));
        }
    }
}
