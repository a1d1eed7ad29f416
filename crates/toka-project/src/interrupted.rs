//! Agents that are cut off: what is left of them when their daemon is ended by a signal, and how the next one goes on with
//! them, as after a crash of the machine.

use std::collections::{BTreeMap, BTreeSet};

use toka_core::event::{Awaits, Return};
use toka_core::{AgentName, AgentState, EventKind, Exit, Urgency};
use toka_prepare::RunError;

use crate::batch::{Batch, Then};
use crate::error::CommandError;
use crate::member::lack;
use crate::replay::Begun;
use crate::{Project, Shutdown};

/// Who asks for what a daemon does because of the one before.
pub(crate) const RECOVERY: &str = "recovery";

impl Project {
    /// The daemon ends, and the run does not, unless that was asked for before.
    pub(crate) fn interrupt(&mut self, urgency: Urgency, by: &str) {
        if self.state.ending().is_none() {
            self.shutdown = Shutdown::Resumable;
            drop(self.journal.record(None, EventKind::RunInterrupted { by: by.to_owned() }));
            self.undo_changes();
        }
        self.stop_all(urgency, by);
    }

    /// What was stopped for a change that does not come any more goes on as it was; whoever waits for the change hears that
    /// the run is over.
    fn undo_changes(&mut self) {
        for Batch { agents, by, then, is_recovered } in std::mem::take(&mut self.batches) {
            let Then::Change(change) = then else {
                self.batches.push(Batch { agents, by, then, is_recovered });
                continue;
            };
            for (agent, awaits) in change.undone {
                self.batches.push(Batch {
                    agents: BTreeSet::from([agent]),
                    by: by.clone(),
                    then: Then::GoOn(awaits),
                    is_recovered: false,
                });
            }
        }
    }

    /// An agent that was to begin anew ends with the daemon, as one that waited for its turn; the next daemon goes on with it,
    /// unless the run is to end for good.
    pub(crate) fn leave(&mut self, agent: &AgentName, by: &str, awaits: Awaits) {
        let ending = self.state.ending().map(str::to_owned);
        if let (Shutdown::Resumable, Some(ending)) = (self.shutdown, ending) {
            self.end_before_it_begins(agent, by, awaits, Exit::stopped(ending));
        }
    }

    /// These go on as soon as they are gone.
    pub(crate) fn go_on_with(&mut self, agents: BTreeMap<AgentName, Awaits>) {
        if self.state.ending().is_some() {
            return;
        }
        let batch = |(agent, awaits)| Batch {
            agents: BTreeSet::from([agent]),
            by: RECOVERY.to_owned(),
            then: Then::GoOn(awaits),
            is_recovered: false,
        };
        self.batches.extend(agents.into_iter().map(batch));
    }

    /// Does what the daemon before had begun and not finished: agents that it stopped so that they begin anew do that, what it stopped for
    /// a change that did not come goes on as it was, and what it was asked to stop is stopped.
    pub(crate) fn finish_begun(&mut self, begun: Vec<Begun>) {
        if self.state.ending().is_some() {
            return;
        }
        for Begun { mut agents, by, then } in begun {
            agents.retain(|agent| self.plan.position(agent).is_some());
            let then = match then {
                Return::Nothing => Then::Nothing,
                Return::WhenStopped => Then::BeginAnew,
                Return::AtItsEnd => Then::BeginAnewAtItsEnd,
                Return::Unchanged { awaits } => {
                    self.go_on_unchanged(agents, awaits, &by);
                    continue;
                }
            };
            if !agents.is_empty() {
                self.batches.push(Batch { agents, by, then, is_recovered: true });
            }
        }
    }

    fn go_on_unchanged(&mut self, agents: BTreeSet<AgentName>, awaits: Awaits, by: &str) {
        for agent in agents {
            let was_stopped = match self.state.state_of(&self.plan, &agent) {
                // One that ended by itself meanwhile has done what it was to do.
                Some(AgentState::Ended { exit } | AgentState::Stopping { exit }) => {
                    exit.asked_by() == Some(by)
                }
                _ => false,
            };
            if was_stopped {
                let (agents, then) = (BTreeSet::from([agent]), Then::GoOn(awaits));
                self.batches.push(Batch { agents, by: by.to_owned(), then, is_recovered: true });
            } else {
                self.tell_what_follows(&agent, by, None, &BTreeSet::new());
            }
        }
    }

    /// Lets agents that are gone wait for what they await, and for nothing else.
    pub(crate) async fn go_on(&mut self, agents: BTreeMap<AgentName, Awaits>) {
        if self.state.ending().is_some() {
            return agents.iter().for_each(|(agent, awaits)| self.leave(agent, RECOVERY, *awaits));
        }
        if agents.is_empty() || self.revive(&agents).await.is_ok() {
            return;
        }
        // What speaks against one speaks not against the others.
        for (agent, awaits) in agents {
            if let Err(why) = self.revive(&BTreeMap::from([(agent.clone(), awaits)])).await {
                self.stay_cut_off(agent, awaits, &why);
            }
        }
    }

    /// All of them go on, or none and why.
    async fn revive(&mut self, agents: &BTreeMap<AgentName, Awaits>) -> Result<(), String> {
        let mut members = agents.keys().filter_map(|agent| self.members.get(agent));
        let grounds = members.try_for_each(|member| member.grounds.check());
        grounds.map_err(|why| format!("{why}; `toka apply` tries again"))?;
        self.respawn(&agents.keys().cloned().collect()).await.map_err(|error| match error {
            CommandError::Refused(RunError::Refused(problems)) => lack(&problems),
            error => format!("{error}; `toka apply` tries again"),
        })?;
        agents.iter().for_each(|(agent, awaits)| self.requeue(agent, RECOVERY, *awaits));
        Ok(())
    }

    /// It cannot go on now. By the journal it still is to: the next daemon tries again, as does whoever applies or starts it.
    pub(crate) fn stay_cut_off(&mut self, agent: AgentName, awaits: Awaits, why: &str) {
        if let Some(member) = self.members.get_mut(&agent) {
            member.cut_off(Some(why));
        }
        let message = format!("Toka stopped it and cannot start it again: {why}");
        drop(self.journal.record(Some(agent.clone()), EventKind::Warning { message }));
        self.cut_off.insert(agent, awaits);
    }

    /// Tries again with those of `agents` that could not go on.
    pub(crate) fn go_on_again(&mut self, agents: &[AgentName]) {
        let is_meant = |agent: &AgentName, _: &mut Awaits| agents.contains(agent);
        let again = self.cut_off.extract_if(.., is_meant).collect();
        self.go_on_with(again);
    }

    /// Somebody says that these are to stay stopped.
    pub(crate) fn give_up_cut_off(&mut self, agents: &[AgentName], by: &str) {
        for agent in agents {
            if let Some(awaits) = self.cut_off.remove(agent) {
                self.end_before_it_begins(agent, by, awaits, Exit::stopped(by.to_owned()));
                self.members.entry(agent.clone()).and_modify(|member| member.cut_off(None));
            }
        }
    }
}
