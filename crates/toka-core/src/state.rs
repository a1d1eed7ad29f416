//! The states of an agent and the steps between them.
//!
//! ```text
//! pending ─▶ starting ─▶ running ⇄ paused
//!    │           │          │         │
//!    ▼           ▼          ▼         ▼
//! blocked     ended ◀── stopping ◀────┘
//! ```
//!
//! `blocked` and `ended` are final for a task. A state owns its data; [`AgentState::on`] is the only way from one to the
//! next, and an illegal step is an error, never a guess.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{AgentName, Exit};

/// Where an agent is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AgentState {
    /// Waiting for its turn.
    Pending,
    /// Will never start, because this dependency did not succeed.
    Blocked {
        /// The dependency.
        by: AgentName,
    },
    /// The keeper was asked to start it.
    Starting,
    /// Its process runs.
    Running {
        /// Process id on the host.
        pid: i32,
        /// Whether it said that it is ready.
        ready: bool,
    },
    /// Its process tree is frozen.
    Paused {
        /// Process id on the host.
        pid: i32,
        /// Whether it was ready before.
        ready: bool,
    },
    /// It was asked to stop, and is not gone yet.
    Stopping {
        /// Why it will have ended.
        exit: Exit,
    },
    /// Gone, with everything it started.
    Ended {
        /// How.
        exit: Exit,
    },
}

/// Something that happened to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The orchestrator gave it its turn.
    StartRequested,
    /// A dependency will never succeed.
    DependencyFailed(AgentName),
    /// The keeper started it.
    Started {
        /// Process id on the host.
        pid: i32,
    },
    /// The keeper could not start it.
    StartFailed(Exit),
    /// It said that it is ready.
    BecameReady,
    /// Its tree is frozen.
    Frozen,
    /// Its tree runs again.
    Thawed,
    /// It was told to stop, and will have ended so.
    StopRequested(Exit),
    /// The last of its processes is gone.
    Gone(Exit),
}

/// A step that the diagram does not have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("an agent that is {state:?} cannot take {happening:?}")]
pub struct IllegalStep {
    /// The state it was in.
    pub state: AgentState,
    /// What is said to have happened.
    pub happening: Happening,
}

impl AgentState {
    /// The state after `happening`.
    ///
    /// # Errors
    /// When the diagram has no such step; the state is then unchanged.
    pub fn on(&self, happening: Happening) -> Result<Self, IllegalStep> {
        use Happening as H;
        let next = match (self, &happening) {
            (Self::Pending, H::StartRequested) => Self::Starting,
            (Self::Pending, H::DependencyFailed(by)) => Self::Blocked { by: by.clone() },
            (Self::Pending, H::StopRequested(exit) | H::StartFailed(exit)) => {
                Self::Ended { exit: exit.clone() }
            }
            (Self::Starting, H::Started { pid }) => Self::Running { pid: *pid, ready: false },
            (Self::Starting, H::StartFailed(exit)) => Self::Ended { exit: exit.clone() },
            (Self::Starting | Self::Running { .. } | Self::Paused { .. }, H::StopRequested(exit)) => {
                Self::Stopping { exit: exit.clone() }
            }
            (Self::Running { pid, .. }, H::BecameReady) => Self::Running { pid: *pid, ready: true },
            // Said before the freeze took hold, heard after it.
            (Self::Paused { pid, .. }, H::BecameReady) => Self::Paused { pid: *pid, ready: true },
            (Self::Running { pid, ready }, H::Frozen) => Self::Paused { pid: *pid, ready: *ready },
            (Self::Paused { pid, ready }, H::Thawed) => Self::Running { pid: *pid, ready: *ready },
            (Self::Running { .. } | Self::Paused { .. }, H::Gone(exit)) => Self::Ended { exit: exit.clone() },
            (Self::Stopping { exit }, H::Gone(_) | H::StartFailed(_)) => Self::Ended { exit: exit.clone() },
            (Self::Stopping { exit }, H::Started { .. } | H::BecameReady | H::Frozen | H::Thawed) => {
                Self::Stopping { exit: exit.clone() }
            }
            _ => return Err(IllegalStep { state: self.clone(), happening }),
        };
        Ok(next)
    }

    /// Whether nothing can happen to it any more.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Blocked { .. } | Self::Ended { .. })
    }

    /// Whether it has processes, or may have them.
    pub fn is_alive(&self) -> bool {
        matches!(self, Self::Starting | Self::Running { .. } | Self::Paused { .. } | Self::Stopping { .. })
    }

    /// The word that people and programs see.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Blocked { .. } => "blocked",
            Self::Starting => "starting",
            Self::Running { ready: true, .. } => "ready",
            Self::Running { ready: false, .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Stopping { .. } => "stopping",
            Self::Ended { exit } if exit.is_success() => "succeeded",
            Self::Ended { exit: Exit::Stopped { .. } } => "stopped",
            Self::Ended { .. } => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn happening() -> impl Strategy<Value = Happening> {
        let exit = prop_oneof![
            (0..3).prop_map(|code| Exit::Code { code }),
            Just(Exit::Stopped { by: "test".into() }),
            Just(Exit::Unknown)
        ];
        prop_oneof![
            Just(Happening::StartRequested),
            Just(Happening::DependencyFailed(Name::new("dep").expect("a label"))),
            (1..9).prop_map(|pid| Happening::Started { pid }),
            exit.clone().prop_map(Happening::StartFailed),
            Just(Happening::BecameReady),
            Just(Happening::Frozen),
            Just(Happening::Thawed),
            exit.clone().prop_map(Happening::StopRequested),
            exit.prop_map(Happening::Gone),
        ]
    }

    use crate::Name;

    proptest! {
        #[test]
        fn the_end_is_final_and_a_stop_is_never_forgotten(steps in prop::collection::vec(happening(), 0..30)) {
            let mut state = AgentState::Pending;
            let mut stop: Option<Exit> = None;
            for step in steps {
                let before = state.clone();
                match before.on(step.clone()) {
                    Ok(next) => {
                        prop_assert!(!before.is_final(), "{before:?} took {step:?}");
                        if let (AgentState::Stopping { exit }, None) = (&next, &stop) {
                            stop = Some(exit.clone());
                        }
                        state = next;
                    }
                    Err(error) => prop_assert_eq!(error.state, before),
                }
                if let (Some(stop), AgentState::Ended { exit }) = (&stop, &state) {
                    prop_assert_eq!(stop, exit);
                }
            }
        }
    }

    #[test]
    fn a_life() {
        let life = [
            (Happening::StartRequested, "starting"),
            (Happening::Started { pid: 7 }, "running"),
            (Happening::BecameReady, "ready"),
            (Happening::Frozen, "paused"),
            (Happening::Thawed, "ready"),
            (Happening::StopRequested(Exit::Stopped { by: "operator".into() }), "stopping"),
            (Happening::Gone(Exit::Signal { signal: 15, core: false }), "stopped"),
        ];
        let mut state = AgentState::Pending;
        for (step, expected) in life {
            state = state.on(step).expect("a legal step");
            assert_eq!(state.as_str(), expected);
        }
    }
}
