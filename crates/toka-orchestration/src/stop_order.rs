//! The order in which a whole plan is stopped.

use toka_core::AgentName;
use toka_workstream::Plan;

/// The waves of the plan in reverse: those of one list may be stopped together, once all before it are gone.
pub fn stop_order(plan: &Plan) -> Vec<Vec<AgentName>> {
    let mut waves: Vec<Vec<AgentName>> =
        plan.waves().map(|wave| wave.iter().map(|node| node.agent.clone()).collect()).collect();
    waves.reverse();
    waves
}
