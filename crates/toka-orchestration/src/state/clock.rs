//! Agents that the clock or a person starts. When that happens is not known here: until then, such an agent waits whatever
//! its gates do, and while further times of the clock are to come, the run does not end by itself.

use toka_core::{AgentName, AgentState};
use toka_workstream::plan::Gate;
use toka_workstream::{Need, Plan, Start};

use super::{AgentRun, ApplyError, RunState, Seen, opens, position};

impl RunState {
    /// The time of an agent that waits for the clock has come, or somebody starts it: from now on it waits for its gates only.
    /// What does not wait for that is as before.
    ///
    /// # Errors
    /// When the plan has no such agent.
    pub fn call(&mut self, plan: &Plan, agent: &AgentName) -> Result<(), ApplyError> {
        let at = position(plan, agent)?;
        if self.waits_to_be_called(plan, agent) {
            let was_purpose = self.is_purpose(plan, at);
            self.agents[at].seen.called = true;
            self.unfinished_purposes += usize::from(self.is_purpose(plan, at) && !was_purpose);
            self.look_at_gates(plan, at);
            let lost = plan.nodes()[at].gates.iter().find(|gate| self.is_lost(gate));
            if let Some(gate) = lost.filter(|_| self.ending().is_none() && !self.held) {
                self.doom_dependents(plan, gate.position);
            }
        }
        Ok(())
    }

    /// The clock starts an agent no more: the run may end without it.
    pub fn forgo_clock(&mut self, plan: &Plan, agent: &AgentName) {
        plan.position(agent).map(|at| self.timed.remove(&at));
    }

    /// Whether an agent has not started yet because the clock or a person is to do that.
    pub fn waits_to_be_called(&self, plan: &Plan, agent: &AgentName) -> bool {
        let waits = |at: usize| self.agents[at].waits_to_be_called(plan.nodes()[at].start);
        plan.position(agent).is_some_and(waits)
    }

    /// Because of whom an agent could not start now: one that it requires, and that has come to its end without meeting what is
    /// required of it.
    pub fn lacks_required(&self, plan: &Plan, agent: &AgentName) -> Option<AgentName> {
        let at = plan.position(agent)?;
        plan.nodes()[at].gates.iter().find(|gate| self.is_lost(gate)).map(|gate| gate.on.clone())
    }

    fn is_lost(&self, gate: &Gate) -> bool {
        let on = &self.agents[gate.position];
        gate.need == Need::Required && on.state.is_final() && !opens(gate, &on.state, &on.seen)
    }
}

impl AgentRun {
    pub(super) fn waits_to_be_called(&self, start: Start) -> bool {
        start != Start::Plan && self.state == AgentState::Pending && !self.seen.called
    }
}

impl Seen {
    /// Nothing, of one that does not wait to be called.
    pub(super) fn anew() -> Self {
        Self { called: true, ..Self::default() }
    }

    /// All that is known of an agent that goes on after its daemon had cut it off: it asks nobody, as one that comes back by
    /// itself.
    pub(super) fn going_on(&self) -> Self {
        Self { called: true, passed: true, restarted: true, ..self.clone() }
    }
}
