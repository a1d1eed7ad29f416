//! Agents that live on while what they require comes and goes: their next life waits for it, and one that was restarted too
//! often before or meanwhile begins anew when it is back.

use std::collections::BTreeSet;

use toka_core::{AgentName, AgentState, EventKind};
use toka_runtime::Restarts;

use crate::Project;
use crate::interrupted::RECOVERY;

impl Project {
    /// Takes note of an event of an agent for those that require it to be ready, and for itself.
    pub(crate) fn review_restarts(&mut self, agent: &AgentName, kind: &EventKind) {
        let Some(at) = self.plan.position(agent) else { return };
        if matches!(kind, EventKind::AgentRestarting { .. } | EventKind::AgentQuarantined { .. }) {
            if matches!(kind, EventKind::AgentQuarantined { .. }) && self.held_back.contains(agent) {
                self.recovering.insert(agent.clone());
            }
            self.tell_wait(agent);
        }
        let dependents: BTreeSet<usize> = self.plan.dependents(at).iter().map(|id| id.node).collect();
        for dependent in dependents {
            self.hold_or_free(&self.plan.nodes()[dependent].agent.clone());
        }
    }

    /// Finds out, of a run that another daemon began, whose next life waits, and who begins anew when what it waits for is back.
    pub(crate) fn recall_dependents(&mut self) {
        let lacks = |agent: &AgentName| !self.state.may_restart(&self.plan, agent);
        let names = self.plan.nodes().iter().map(|node| &node.agent);
        self.held_back = names.filter(|agent| lacks(agent)).cloned().collect();
        let waits = |agent: &&toka_core::AgentStatus| {
            matches!(agent.state, AgentState::Quarantined { .. }) && agent.waits.is_some()
        };
        self.recovering = self.status.agents().iter().filter(waits).map(|agent| agent.name.clone()).collect();
    }

    fn hold_or_free(&mut self, agent: &AgentName) {
        let may_restart = self.state.may_restart(&self.plan, agent);
        let changed =
            if may_restart { self.held_back.remove(agent) } else { self.held_back.insert(agent.clone()) };
        if !changed {
            return;
        }
        let restarts = if may_restart { Restarts::Free } else { Restarts::Held };
        self.with(agent, |member| member.handle.hold_restarts(restarts));
        // Whoever falls with what it requires often falls before a probe tells that of the other.
        if !may_restart && self.is_given_up(agent) {
            self.recovering.insert(agent.clone());
        }
        self.tell_wait(agent);
    }

    fn is_given_up(&self, agent: &AgentName) -> bool {
        let state = self.status.agent(agent).map(|status| &status.state);
        matches!(state, Some(AgentState::Quarantined { .. }))
    }

    /// Tells what the next life of an agent waits for, if one is to come and something holds it.
    fn tell_wait(&self, agent: &AgentName) {
        let state = self.status.agent(agent).map(|status| &status.state);
        let is_to_restart = matches!(state, Some(AgentState::Backoff { .. }));
        let begins_anew = is_to_restart || self.is_given_up(agent) && self.recovering.contains(agent);
        if !begins_anew {
            return;
        }
        if let Some(why) = self.state.lacks_ready(&self.plan, agent) {
            let awaits = EventKind::AgentAwaits { why: Box::new(why) };
            drop(self.journal.record(Some(agent.clone()), awaits));
        }
    }

    /// Begins those anew that were quarantined while something that they require was not ready, and now is.
    pub(crate) async fn begin_recovered(&mut self) {
        if self.state.ending().is_some() {
            return;
        }
        let back: Vec<AgentName> = self
            .recovering
            .iter()
            .filter(|agent| self.state.may_restart(&self.plan, agent))
            .cloned()
            .collect();
        for agent in back {
            self.recovering.remove(&agent);
            self.come_back(BTreeSet::from([agent]), RECOVERY).await;
        }
    }

    /// Records once that the end of an agent ends the run, where the journal does not tell that by the ends of all others.
    pub(crate) fn tell_ending(&mut self) {
        let Some(agent) = self.state.stopped_at_end_of() else { return };
        if self.state.ends_by_itself() || self.told_ending {
            return;
        }
        self.told_ending = true;
        if let Some(by) = self.state.ending() {
            let ending = EventKind::RunEnding { by: by.to_owned(), end_of: Some(agent.clone()) };
            drop(self.journal.record(None, ending));
        }
    }
}
