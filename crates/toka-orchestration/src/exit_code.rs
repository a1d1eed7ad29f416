//! What the outcome of all agents means for the command that ran them.

use toka_core::{AgentState, Exit, ExitCode};
use toka_workstream::plan::Node;
use toka_workstream::{AgentKind, Plan, Start};

use crate::RunState;

/// Success, failure, or nothing but timeouts, when a run has finished by itself.
///
/// A service that was stopped did what it was for, as did one that the clock starts, and whatever was stopped because the
/// declaration says that the end of another is that of the run. A blocked agent is the consequence of a failure that is
/// counted anyway; where it is not (the dependency ended well, but never was ready), it is a failure of its own.
pub fn exit_code(plan: &Plan, state: &RunState) -> ExitCode {
    let states = || plan.nodes().iter().zip(state.states());
    let is_declared = state.stopped_at_end_of().is_some();
    let was_to_stop = |node: &Node, exit: &Exit| {
        let lasts = node.kind == AgentKind::Service || node.start != Start::Plan || node.follows;
        exit.is_asked_for() && (lasts || (is_declared && exit.asked_by() == state.ending()))
    };
    let exits = states().filter_map(|(node, state)| match state {
        AgentState::Ended { exit } if was_to_stop(node, exit) => None,
        AgentState::Ended { exit } | AgentState::Quarantined { exit, .. } => Some(exit),
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
