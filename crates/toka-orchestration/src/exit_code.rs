//! What the outcome of all agents means for the command that ran them.

use toka_core::{AgentState, Exit, ExitCode};
use toka_workstream::{AgentKind, Plan};

use crate::RunState;

/// Success, failure, or nothing but timeouts, when a run has finished by itself.
///
/// A service that was stopped did what it was for. A blocked agent is the consequence of a failure that is counted
/// anyway; where it is not (the dependency ended well, but never was ready), it is a failure of its own.
pub fn exit_code(plan: &Plan, state: &RunState) -> ExitCode {
    let states = || plan.nodes().iter().zip(state.states());
    let exits = states().filter_map(|(node, state)| match (node.kind, state) {
        (AgentKind::Service, AgentState::Ended { exit: Exit::Stopped { .. } }) => None,
        (_, AgentState::Ended { exit } | AgentState::Quarantined { exit, .. }) => Some(exit),
        _ => None,
    });
    // One that ends well again and again and was given up has failed as well.
    let is_lost =
        |state: &AgentState| matches!(state, AgentState::Blocked { .. } | AgentState::Quarantined { .. });
    match ExitCode::of_exits(exits) {
        ExitCode::Success if states().any(|(_, state)| is_lost(state)) => ExitCode::AgentFailed,
        code => code,
    }
}
