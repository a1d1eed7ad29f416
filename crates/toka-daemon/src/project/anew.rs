//! The life of an agent begins anew: from what was declared, with all that admission asks for, as if it had never been; but
//! for what it left in this run.

use std::collections::BTreeSet;

use toka_core::event::Usage;
use toka_core::state::Happening;
use toka_core::{AgentName, AgentState, EventKind, Exit};
use toka_workstream::Set;

use super::Project;
use super::admit::{AdmittedAgents, set_up};
use super::command::CommandError;
use super::member::{Employer, employ_all};
use crate::workplace::Remains;

impl Project {
    /// Puts agents that have come to their end among those that wait for their turn, with all that they need and that
    /// has failed.
    ///
    /// # Errors
    /// When any of them cannot be started any more; then none is.
    pub(super) async fn begin_anew(
        &mut self,
        agents: &BTreeSet<AgentName>,
        by: &str,
    ) -> Result<(), CommandError> {
        let anew: BTreeSet<AgentName> =
            self.state.to_requeue(&self.plan, agents).map_err(CommandError::State)?.into_iter().collect();
        if anew.is_empty() {
            return Ok(());
        }
        let parsed = self.declaration.parse().map_err(|_| CommandError::Undeclared)?;
        let set = (&parsed.set, &self.plan);
        let admitted = self.ground.admit(set, |name| anew.contains(name), &mut self.doors);
        let admitted = admitted.map_err(CommandError::Refused)?;
        let admitted = set_up(admitted, Remains::OfThisRun)
            .await
            .map_err(|error| CommandError::Refused(crate::RunError::Folder(error)))?;
        self.employ(&parsed.set, admitted);
        for agent in &anew {
            let requeued = EventKind::AgentRequeued { by: by.to_owned() };
            drop(self.journal.record(Some(agent.clone()), requeued));
            self.step(agent, Happening::Requeued);
        }
        Ok(())
    }

    /// What somebody asked to begin anew cannot: that is its end, as if its start had failed.
    pub(super) fn fail_to_begin(&mut self, agent: &AgentName, by: &str, reason: &str) {
        let exit = Exit::StartFailed { reason: reason.to_owned() };
        let requeued = EventKind::AgentRequeued { by: by.to_owned() };
        let ended = EventKind::AgentEnded { exit: exit.clone(), duration_ms: 0, usage: Usage::default() };
        for event in [requeued, ended] {
            drop(self.journal.record(Some(agent.clone()), event));
        }
        if self.state.state_of(&self.plan, agent).is_some_and(AgentState::is_final) {
            self.step(agent, Happening::Requeued);
            self.step(agent, Happening::StartFailed(exit));
        }
    }

    /// Makes actors of agents whose folders are there. What the sweeper still has to do for former ones comes first.
    pub(super) fn employ(&mut self, set: &Set, admitted: AdmittedAgents) {
        let employer = Employer {
            plan: &self.plan,
            folders: &self.ground.folders,
            journal: &self.journal,
            runtime: &self.runtime,
            archivist: &self.archivist,
            run: self.ground.run,
            ids: &mut self.ids,
        };
        for (name, member) in employ_all(employer, set, admitted) {
            self.swept.insert(name.clone());
            self.members.insert(name, member);
        }
    }
}
