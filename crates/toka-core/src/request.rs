//! What people ask of an agent, and whether it is done: accepted, ignored because it is so already, or denied with a
//! reason. One pure function, so that every transport answers alike.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::AgentState;

/// A request to one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Run it.
    Start,
    /// Freeze it.
    Pause,
    /// Thaw it.
    Resume,
    /// End it, gracefully first.
    Stop,
    /// End it and run it again.
    Restart,
    /// End it at once.
    Kill,
}

impl Request {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Kill => "kill",
        }
    }

    /// Every request.
    pub const ALL: [Self; 6] =
        [Self::Start, Self::Pause, Self::Resume, Self::Stop, Self::Restart, Self::Kill];
}

/// Why a request is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenyReason {
    /// It has no process.
    #[error("the agent is not running")]
    NotRunning,
    /// It is on its way out.
    #[error("the agent is stopping")]
    Stopping,
    /// It is in no control group that could be frozen.
    #[error("this host has no control group to freeze the agent in")]
    NoFreezer,
    /// Nothing is started any more.
    #[error("the run is ending")]
    Ending,
    /// It has not come up yet.
    #[error("the agent is still starting")]
    Starting,
    /// The kernel refused; an event (`request_failed`) says why.
    #[error("it could not be frozen, and `toka events` says why")]
    NotFrozen,
    /// Its process ended before it was done.
    #[error("its process ended before")]
    EndedBefore,
    /// Another declaration was applied meanwhile, which has it no more.
    #[error("the agent was removed meanwhile")]
    Removed,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// It will be done.
    Accept,
    /// It is so already.
    Ignore,
    /// It will not be done.
    Deny {
        /// Why.
        reason: DenyReason,
    },
}

impl Decision {
    /// A denial.
    pub const fn deny(reason: DenyReason) -> Self {
        Self::Deny { reason }
    }
}

/// Decides on `request` for an agent in `state`.
pub fn decide(state: &AgentState, request: Request) -> Decision {
    use AgentState as S;
    use Decision::{Accept, Ignore};
    const fn deny(reason: DenyReason) -> Decision {
        Decision::deny(reason)
    }
    match (state, request) {
        (
            S::Pending | S::Blocked { .. } | S::Ended { .. } | S::Backoff { .. } | S::Quarantined { .. },
            Request::Start | Request::Restart,
        ) => Accept,
        (S::Starting | S::Running { .. } | S::Paused { .. }, Request::Start) => Ignore,
        // It comes back when it is gone.
        (S::Stopping { .. }, Request::Start | Request::Restart) => Accept,
        (S::Stopping { .. }, Request::Pause | Request::Resume) => deny(DenyReason::Stopping),
        (S::Running { .. }, Request::Pause) | (S::Paused { .. }, Request::Resume) => Accept,
        (S::Paused { .. }, Request::Pause) | (S::Running { .. }, Request::Resume) => Ignore,
        (S::Starting, Request::Pause | Request::Resume) => deny(DenyReason::Starting),
        (
            S::Pending | S::Blocked { .. } | S::Ended { .. } | S::Backoff { .. } | S::Quarantined { .. },
            Request::Pause | Request::Resume,
        ) => deny(DenyReason::NotRunning),
        (
            S::Pending | S::Starting | S::Running { .. } | S::Paused { .. } | S::Backoff { .. },
            Request::Stop | Request::Kill,
        ) => Accept,
        (S::Starting | S::Running { .. } | S::Paused { .. }, Request::Restart) => Accept,
        (S::Stopping { .. }, Request::Kill) => Accept,
        // One that a clock stops could come back; one that somebody stops does not.
        (S::Stopping { .. }, Request::Stop) if !state.is_asked_to_stop() => Accept,
        (S::Stopping { .. }, Request::Stop) => Ignore,
        (S::Blocked { .. } | S::Ended { .. } | S::Quarantined { .. }, Request::Stop | Request::Kill) => {
            Ignore
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Exit, Name};

    fn every_state() -> Vec<AgentState> {
        let exit = Exit::Code { code: 0 };
        vec![
            AgentState::Pending,
            AgentState::Blocked { by: Name::new("dep").expect("a label"), why: None },
            AgentState::Starting,
            AgentState::Running { pid: 1, ready: false },
            AgentState::Paused { pid: 1, ready: true },
            AgentState::Stopping { exit: exit.clone() },
            AgentState::Ended { exit: exit.clone() },
            AgentState::Stopping { exit: Exit::Unknown },
            AgentState::Backoff { restarts: 1 },
            AgentState::Quarantined { exit, restarts: 5 },
        ]
    }

    #[test]
    fn a_kill_is_never_denied() {
        for state in every_state() {
            assert!(!matches!(decide(&state, Request::Kill), Decision::Deny { .. }), "{state:?}");
            assert!(!matches!(decide(&state, Request::Stop), Decision::Deny { .. }), "{state:?}");
        }
    }

    #[test]
    fn what_is_accepted_of_the_dead_is_only_a_start() {
        for state in every_state().into_iter().filter(AgentState::is_final) {
            for request in Request::ALL {
                if decide(&state, request) == Decision::Accept {
                    assert!(matches!(request, Request::Start | Request::Restart), "{state:?} {request:?}");
                }
            }
        }
    }

    #[test]
    fn pause_and_resume_are_idempotent() {
        let paused = AgentState::Paused { pid: 1, ready: false };
        let running = AgentState::Running { pid: 1, ready: false };
        assert_eq!(decide(&paused, Request::Pause), Decision::Ignore);
        assert_eq!(decide(&running, Request::Resume), Decision::Ignore);
    }
}
