//! What to do now, given all that has happened.

use std::num::NonZeroUsize;

use toka_core::{AgentName, Unmet};
use toka_workstream::Plan;

use crate::RunState;

/// How much may run at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most tasks that are alive, and services that are starting, at one time; `None`: as many as there are.
    pub max_concurrent: Option<NonZeroUsize>,
}

/// Something to do. Each is done by applying a [`Happening`](toka_core::state::Happening) to the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start it (`StartRequested`).
    Start(AgentName),
    /// It will never start (`DependencyFailed`).
    Block {
        /// The agent.
        agent: AgentName,
        /// The agent that began it: it ended, or was denied, without meeting what is required of it.
        by: AgentName,
        /// What was required of that, and how it is.
        why: Box<Unmet>,
    },
    /// It is not started, because there is nothing that it would do (`StartFailed` with
    /// [`Exit::Skipped`](toka_core::Exit::Skipped)).
    Skip {
        /// The agent.
        agent: AgentName,
        /// Why, in words that end a sentence.
        reason: String,
    },
    /// It has not started, and the run ends (`StopRequested` with [`Exit::Stopped`](toka_core::Exit::Stopped)).
    Cancel {
        /// The agent.
        agent: AgentName,
        /// Who ends the run.
        by: String,
    },
    /// Stop it: the run ends, and nothing that depends on it is alive (`StopRequested`).
    Stop {
        /// The agent.
        agent: AgentName,
        /// Who ends the run.
        by: String,
    },
    /// Every agent has come to its end; nothing will ever be left to do.
    Finish,
}

/// Everything to do now, in this order: skips, blocks, then starts (or cancellations and stops when the run ends), then
/// the finish. The cost is that of the answer, not of the plan.
pub fn next_actions(plan: &Plan, state: &RunState, limits: &Limits) -> Vec<Action> {
    let name = |position: usize| plan.nodes()[position].agent.clone();
    let skips = state.idle().map(|(at, reason)| Action::Skip { agent: name(at), reason: reason.clone() });
    let blocks =
        state.doomed().map(|(at, by, why)| Action::Block { agent: name(at), by: name(by), why: why.clone() });
    let mut actions: Vec<Action> = skips.chain(blocks).collect();
    match state.ending() {
        None => actions.extend(startable(state, limits).map(|position| Action::Start(name(position)))),
        Some(by) => {
            let by = || by.to_owned();
            actions.extend(state.cancellable().map(|at| Action::Cancel { agent: name(at), by: by() }));
            actions.extend(state.stoppable().map(|at| Action::Stop { agent: name(at), by: by() }));
        }
    }
    if state.is_finished() {
        actions.push(Action::Finish);
    }
    actions
}

fn startable<'a>(state: &'a RunState, limits: &Limits) -> impl Iterator<Item = usize> + use<'a> {
    let most = limits.max_concurrent.map_or(usize::MAX, NonZeroUsize::get);
    state.ready().take(most.saturating_sub(state.running()))
}
