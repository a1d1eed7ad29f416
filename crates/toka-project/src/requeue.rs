//! The life of an agent begins anew: from what was declared, with all that admission asks for, as if it had never been; but
//! for what it left in this run.

use std::collections::BTreeSet;
use std::sync::Arc;

use toka_core::event::{Awaits, Usage};
use toka_core::state::Happening;
use toka_core::{AgentName, AgentState, EventKind, Exit};
use toka_workstream::{Set, Start};

use crate::Project;
use crate::admit::{AdmittedAgents, Furnishings, set_up};
use crate::error::CommandError;
use crate::member::{MemberBuilder, spawn_all};

impl Project {
    /// Puts agents that have come to their end among those that wait for their turn, with all that they need and that
    /// has failed.
    ///
    /// # Errors
    /// When any of them cannot be started any more; then none is.
    pub(crate) async fn begin_anew(
        &mut self,
        agents: &BTreeSet<AgentName>,
        by: &str,
    ) -> Result<(), CommandError> {
        let agents = self.with_followers(agents);
        let anew: BTreeSet<AgentName> =
            self.state.to_requeue(&self.plan, &agents).map_err(CommandError::State)?.into_iter().collect();
        if anew.is_empty() {
            return Ok(());
        }
        self.respawn(&anew).await?;
        anew.iter().for_each(|agent| self.requeue(agent, by, Awaits::Dependencies));
        Ok(())
    }

    /// These agents, and the tasks that run again after each run of those that the clock starts.
    fn with_followers(&self, agents: &BTreeSet<AgentName>) -> BTreeSet<AgentName> {
        let timed = self.plan.nodes().iter().filter(|node| node.start == Start::Clock);
        let began = timed.map(|node| &node.agent).filter(|agent| agents.contains(*agent));
        let followers = began.flat_map(|agent| self.plan.followers(agent));
        agents.iter().cloned().chain(followers).collect()
    }

    /// Makes actors of agents as if they had never been, but for what they left.
    ///
    /// # Errors
    /// When any of them cannot be started any more; then there is none.
    pub(crate) async fn respawn(&mut self, agents: &BTreeSet<AgentName>) -> Result<(), CommandError> {
        let parsed = self.declaration.parse().map_err(|_| CommandError::Undeclared)?;
        let set = (parsed.set, self.plan.clone());
        let admitted = self.context.admit(set, |name| agents.contains(name), &mut self.doors).await;
        let (set, _, admitted) = admitted.map_err(CommandError::Refused)?;
        let former = self.furnishings(admitted.iter().map(|(name, _)| name));
        let (admitted, furnishings) = set_up(admitted, former)
            .await
            .map_err(|error| CommandError::Refused(toka_prepare::RunError::Folder(error)))?;
        self.spawn_members(&set, admitted, furnishings);
        Ok(())
    }

    /// The folders of those of these agents that the run has.
    pub(crate) fn furnishings<'n>(&self, names: impl Iterator<Item = &'n AgentName>) -> Furnishings {
        let known = |name: &AgentName| Some((name.clone(), Arc::clone(&self.members.get(name)?.furnishing)));
        names.filter_map(known).collect()
    }

    /// Puts an agent that has come to its end among those that wait for their turn.
    pub(crate) fn requeue(&mut self, agent: &AgentName, by: &str, awaits: Awaits) {
        self.tell_requeued(agent, by, awaits);
        if let Err(error) = self.state.requeue(&self.plan, agent, awaits) {
            tracing::error!(%agent, %error, "it begins anew, and is unknown");
        }
        self.cut_off.remove(agent);
        self.recovering.remove(agent);
        if awaits == Awaits::Clock {
            self.forgo_without_times(agent);
        }
    }

    /// Enters in the journal that an agent begins anew. Until that comes back from there, what is known of it is of the life
    /// before.
    pub(crate) fn tell_requeued(&mut self, agent: &AgentName, by: &str, awaits: Awaits) {
        let requeued = EventKind::AgentRequeued { by: by.to_owned(), awaits };
        drop(self.journal.record(Some(agent.clone()), requeued));
        *self.untold.entry(agent.clone()).or_default() += 1;
    }

    /// The journal has that an agent began anew.
    pub(crate) fn hear_requeued(&mut self, agent: &AgentName) {
        if let Some(count) = self.untold.get_mut(agent) {
            *count -= 1;
            if *count == 0 {
                self.untold.remove(agent);
            }
        }
    }

    /// What was to begin anew comes to an end before it does.
    pub(crate) fn end_before_it_begins(&mut self, agent: &AgentName, by: &str, awaits: Awaits, exit: Exit) {
        let exit = exit.before_start();
        self.tell_requeued(agent, by, awaits);
        let ended = EventKind::AgentEnded { exit: exit.clone(), duration_ms: 0, usage: Usage::default() };
        drop(self.journal.record(Some(agent.clone()), ended));
        if self.state.state_of(&self.plan, agent).is_some_and(AgentState::is_final) {
            self.step(agent, Happening::Requeued);
            self.step(agent, Happening::StartFailed(exit));
        }
    }

    /// Makes actors of agents whose folders are there. What the sweeper still has to do for former ones comes first.
    pub(crate) fn spawn_members(&mut self, set: &Set, admitted: AdmittedAgents, furnishings: Furnishings) {
        let builder = MemberBuilder {
            plan: &self.plan,
            folders: &self.context.folders,
            journal: &self.journal,
            runtime: &self.runtime,
            log_retention: &self.log_retention,
            run: self.context.run,
            models: &self.context.models,
            broker: &self.broker,
            left: Vec::new(),
            resume: self.declaration.resume.as_ref(),
            ids: &mut self.ids,
            furnishings,
        };
        for (name, member) in spawn_all(builder, set, admitted) {
            self.swept.insert(name.clone());
            self.members.insert(name, member);
        }
    }
}
