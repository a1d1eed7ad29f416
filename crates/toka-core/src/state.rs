//! The states of an agent and the steps between them.
//!
//! ```text
//! pending ─▶ starting ─▶ running ⇄ paused
//!    │        ▲  │          │         │
//!    ▼        │  ▼          ▼         ▼
//! blocked     │ ended ◀── stopping ◀──┘
//!             │             │
//!          backoff ◀────────┴──▶ quarantined
//! ```
//!
//! Whatever ends by itself may go to `backoff` or `quarantined` instead; what somebody stopped never does. `blocked`,
//! `ended` and `quarantined` are final: only a person or a schedule gets an agent out of them, back to `pending`. A state
//! owns its data; [`AgentState::on`] is the only way from one to the next, and an illegal step is an error, never a guess.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{AgentName, EventKind, Exit, Unmet};

/// Where an agent is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(tag = "state", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum AgentState {
    /// Waiting for its turn.
    Pending,
    /// Will never start, because this dependency did not succeed.
    Blocked {
        /// The dependency that began it.
        by: AgentName,
        /// What was required of it, and how it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Box<Unmet>>,
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
    /// Gone, and will be started again after a wait.
    Backoff {
        /// Which restart that will be, from 1.
        restarts: u32,
    },
    /// Gone, and was restarted too often.
    Quarantined {
        /// How it ended last.
        exit: Exit,
        /// How often it was restarted.
        restarts: u32,
    },
}

/// Something that happened to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The orchestrator gave it its turn.
    StartRequested,
    /// A dependency will never succeed.
    DependencyFailed(AgentName, Option<Box<Unmet>>),
    /// The keeper started it.
    Started {
        /// Process id on the host.
        pid: i32,
    },
    /// The keeper could not start it.
    StartFailed(Exit),
    /// It said that it is ready.
    BecameReady,
    /// It is not ready any more.
    LostReadiness,
    /// Another of its processes is its main one from now on.
    MainProcess {
        /// Process id on the host.
        pid: i32,
    },
    /// Its tree is frozen.
    Frozen,
    /// Its tree runs again.
    Thawed,
    /// It was told to stop, and will have ended so.
    StopRequested(Exit),
    /// Its life begins anew: it waits for its turn again.
    Requeued,
    /// The last of its processes is gone.
    Gone(Exit),
    /// The last of its processes is gone, or it could not be started, and it will be started again.
    Restarting {
        /// Which restart that will be, from 1.
        restarts: u32,
    },
    /// The same, and it was restarted too often.
    GivenUp {
        /// How it ended.
        exit: Exit,
        /// How often it was restarted.
        restarts: u32,
    },
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
            (Self::Pending | Self::Backoff { .. }, H::StartRequested) => Self::Starting,
            (Self::Pending, H::DependencyFailed(by, why)) => {
                Self::Blocked { by: by.clone(), why: why.clone() }
            }
            (Self::Pending, H::StopRequested(exit) | H::StartFailed(exit)) => {
                Self::Ended { exit: exit.clone().before_start() }
            }
            (Self::Backoff { .. }, H::StopRequested(exit) | H::Gone(exit)) => {
                Self::Ended { exit: exit.clone() }
            }
            (Self::Starting, H::Started { pid }) => Self::Running { pid: *pid, ready: false },
            (Self::Starting, H::StartFailed(exit)) => Self::Ended { exit: exit.clone() },
            (Self::Starting | Self::Running { .. } | Self::Paused { .. }, H::StopRequested(exit)) => {
                Self::Stopping { exit: exit.clone() }
            }
            // What a person says comes before what a clock says.
            (Self::Stopping { exit: before }, H::StopRequested(exit)) if !before.is_asked_for() => {
                Self::Stopping { exit: exit.clone() }
            }
            (state, H::Requeued) if state.is_final() => Self::Pending,
            (_, H::Restarting { restarts }) if self.may_come_back() => Self::Backoff { restarts: *restarts },
            // Its supervisor had given it up before it heard of a stop, and says no more.
            (state, H::GivenUp { exit, restarts })
                if state.may_come_back() || matches!(state, Self::Stopping { .. }) =>
            {
                Self::Quarantined { exit: exit.clone(), restarts: *restarts }
            }
            (Self::Running { pid, .. }, H::BecameReady) => Self::Running { pid: *pid, ready: true },
            // Said before the freeze took hold, heard after it.
            (Self::Paused { pid, .. }, H::BecameReady) => Self::Paused { pid: *pid, ready: true },
            (Self::Running { pid, .. }, H::LostReadiness) => Self::Running { pid: *pid, ready: false },
            (Self::Paused { pid, .. }, H::LostReadiness) => Self::Paused { pid: *pid, ready: false },
            (Self::Running { ready, .. }, H::MainProcess { pid }) => {
                Self::Running { pid: *pid, ready: *ready }
            }
            (Self::Paused { ready, .. }, H::MainProcess { pid }) => Self::Paused { pid: *pid, ready: *ready },
            (Self::Running { pid, ready }, H::Frozen) => Self::Paused { pid: *pid, ready: *ready },
            (Self::Paused { pid, ready }, H::Thawed) => Self::Running { pid: *pid, ready: *ready },
            (Self::Running { .. } | Self::Paused { .. }, H::Gone(exit)) => Self::Ended { exit: exit.clone() },
            // The end tells more than the request did: whether it had to be killed.
            (Self::Stopping { exit }, H::Gone(end))
                if end.is_asked_for() && exit.asked_by() == end.asked_by() =>
            {
                Self::Ended { exit: end.clone() }
            }
            (Self::Stopping { exit }, H::Gone(_) | H::StartFailed(_)) => Self::Ended { exit: exit.clone() },
            (
                Self::Stopping { exit },
                H::Started { .. }
                | H::BecameReady
                | H::LostReadiness
                | H::MainProcess { .. }
                | H::Frozen
                | H::Thawed,
            ) => Self::Stopping { exit: exit.clone() },
            _ => return Err(IllegalStep { state: self.clone(), happening }),
        };
        Ok(next)
    }

    /// The step that an event of the journal stands for in this state; none when it tells nothing new, so that a journal
    /// can be read again from any point.
    pub fn happening(&self, event: &EventKind) -> Option<Happening> {
        match (event, self) {
            (EventKind::AgentRequeued { .. }, state) if state.is_final() => Some(Happening::Requeued),
            (EventKind::AgentStarting, Self::Pending | Self::Backoff { .. }) => {
                Some(Happening::StartRequested)
            }
            (EventKind::AgentStarted { pid, .. }, Self::Starting | Self::Stopping { .. }) => {
                Some(Happening::Started { pid: *pid })
            }
            (EventKind::AgentReady, Self::Running { .. } | Self::Paused { .. }) => {
                Some(Happening::BecameReady)
            }
            (EventKind::AgentNotReady { .. }, Self::Running { .. } | Self::Paused { .. }) => {
                Some(Happening::LostReadiness)
            }
            (EventKind::AgentMainProcess { pid }, Self::Running { .. } | Self::Paused { .. }) => {
                Some(Happening::MainProcess { pid: *pid })
            }
            (EventKind::AgentRestarting { restarts, .. }, state) if !state.is_asked_to_stop() => {
                Some(Happening::Restarting { restarts: *restarts })
            }
            (EventKind::AgentQuarantined { exit, restarts, .. }, _) => {
                Some(Happening::GivenUp { exit: exit.clone(), restarts: *restarts })
            }
            (EventKind::AgentPaused { .. }, Self::Running { .. }) => Some(Happening::Frozen),
            (EventKind::AgentResumed, Self::Paused { .. }) => Some(Happening::Thawed),
            (EventKind::AgentStopping { exit }, Self::Stopping { exit: before })
                if before.is_asked_for() || !exit.is_asked_for() =>
            {
                None
            }
            (EventKind::AgentStopping { exit }, _) => Some(Happening::StopRequested(exit.clone())),
            (EventKind::AgentEnded { .. }, Self::Ended { .. }) => None,
            (EventKind::AgentEnded { exit, .. }, Self::Pending | Self::Starting) => {
                Some(Happening::StartFailed(exit.clone()))
            }
            (EventKind::AgentEnded { exit, .. }, _) => Some(Happening::Gone(exit.clone())),
            (EventKind::AgentBlocked { by, why }, Self::Pending) => {
                Some(Happening::DependencyFailed(by.clone(), why.clone()))
            }
            _ => None,
        }
    }

    /// Whether nothing happens to it any more by itself.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Blocked { .. } | Self::Ended { .. } | Self::Quarantined { .. })
    }

    /// Whether it has processes, or will have them without anybody's doing.
    pub fn is_alive(&self) -> bool {
        matches!(
            self,
            Self::Starting
                | Self::Running { .. }
                | Self::Paused { .. }
                | Self::Stopping { .. }
                | Self::Backoff { .. }
        )
    }

    /// Whether it can be ready for dependents, and is.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Running { ready: true, .. } | Self::Paused { ready: true, .. })
    }

    /// Whether somebody asked it to stop, so that its end is its end.
    pub fn is_asked_to_stop(&self) -> bool {
        matches!(self, Self::Stopping { exit } if exit.is_asked_for())
    }

    /// Whether its end may lead to another life.
    fn may_come_back(&self) -> bool {
        match self {
            Self::Starting | Self::Running { .. } | Self::Paused { .. } => true,
            Self::Stopping { exit } => !exit.is_asked_for(),
            _ => false,
        }
    }

    /// The name of the state, as JSON has it under `state`.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// The word for people: of one that has ended, it says how; of one that runs, whether it is ready.
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
            Self::Ended { exit: Exit::NotStarted { .. } } => "not started",
            Self::Ended { exit: Exit::Skipped { .. } } => "skipped",
            Self::Ended { .. } => "failed",
            Self::Backoff { .. } => "backoff",
            Self::Quarantined { .. } => "quarantined",
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
            Just(Exit::stopped("test")),
            Just(Exit::Watchdog { limit: std::time::Duration::from_secs(1) }),
            Just(Exit::Unknown)
        ];
        prop_oneof![
            Just(Happening::StartRequested),
            Just(Happening::DependencyFailed(Name::new("dep").expect("a label"), None)),
            (1..9).prop_map(|pid| Happening::Started { pid }),
            exit.clone().prop_map(Happening::StartFailed),
            Just(Happening::BecameReady),
            Just(Happening::LostReadiness),
            (1..9).prop_map(|pid| Happening::MainProcess { pid }),
            (1..9u32).prop_map(|restarts| Happening::Restarting { restarts }),
            Just(Happening::GivenUp { exit: Exit::Unknown, restarts: 3 }),
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
                        match &next {
                            AgentState::Stopping { exit } if !stop.as_ref().is_some_and(Exit::is_asked_for) => {
                                stop = Some(exit.clone());
                            }
                            AgentState::Backoff { .. } => {
                                prop_assert!(!stop.as_ref().is_some_and(Exit::is_asked_for), "{before:?}");
                                stop = None;
                            }
                            _ => {}
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

    /// Both happened at once: the stop was asked for, and the supervisor had given the agent up before it heard of that. It
    /// tells no other end.
    #[test]
    fn one_that_was_given_up_while_it_was_asked_to_stop_has_come_to_its_end() {
        let stopping = AgentState::Stopping { exit: Exit::stopped("operator") };
        let given_up = EventKind::AgentQuarantined {
            exit: Exit::Code { code: 1 },
            duration_ms: 1,
            usage: crate::event::Usage::default(),
            restarts: 0,
        };
        let happening = stopping.happening(&given_up).expect("it tells something");
        let next = stopping.on(happening).expect("a legal step");
        assert_eq!(next, AgentState::Quarantined { exit: Exit::Code { code: 1 }, restarts: 0 });
    }

    #[test]
    fn a_life() {
        let life = [
            (Happening::StartRequested, "starting"),
            (Happening::Started { pid: 7 }, "running"),
            (Happening::BecameReady, "ready"),
            (Happening::Frozen, "paused"),
            (Happening::Thawed, "ready"),
            (Happening::StopRequested(Exit::stopped("operator")), "stopping"),
            (Happening::Gone(Exit::Signal { signal: 15, core: false }), "stopped"),
        ];
        let mut state = AgentState::Pending;
        for (step, expected) in life {
            state = state.on(step).expect("a legal step");
            assert_eq!(state.as_str(), expected);
        }
    }
}
