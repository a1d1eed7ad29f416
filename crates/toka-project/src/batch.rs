//! Agents that are stopped together, those first that others of them do not need, and what follows when all are gone.

use std::collections::{BTreeMap, BTreeSet};

use toka_core::event::{Awaits, Return};
use toka_core::{AgentName, EventKind, Exit, Request};
use toka_prepare::RunError;

use crate::Project;
use crate::change::Change;
use crate::error::CommandError;
use crate::member::lack;

/// Agents that are being stopped together.
pub(crate) struct Batch {
    pub(crate) agents: BTreeSet<AgentName>,
    /// Who asked for it.
    pub(crate) by: String,
    pub(crate) then: Then,
    /// Whether an earlier daemon had begun it.
    pub(crate) is_recovered: bool,
}

/// What follows when they are gone.
pub(crate) enum Then {
    /// Nothing.
    Nothing,
    /// They begin anew.
    BeginAnew,
    /// The same, and they end by themselves: nobody stops them.
    BeginAnewAtItsEnd,
    /// They go on after an end that the daemon before gave them; nobody stops them.
    GoOn(Awaits),
    /// The project becomes another.
    Change(Box<Change>),
}

impl Then {
    /// What the journal tells of an agent, so that the next daemon can do it if this one is killed; none for what it does by itself.
    fn of(&self, agent: &AgentName) -> Option<Return> {
        match self {
            Self::GoOn(_) => None,
            Self::Nothing => Some(Return::Nothing),
            Self::BeginAnew => Some(Return::WhenStopped),
            Self::BeginAnewAtItsEnd => Some(Return::AtItsEnd),
            Self::Change(change) => {
                change.undone.get(agent).map(|awaits| Return::Unchanged { awaits: *awaits })
            }
        }
    }
}

impl Project {
    /// Begins to stop agents together. What follows is in the journal before anything of it is done.
    pub(crate) fn begin_batch(&mut self, agents: BTreeSet<AgentName>, by: &str, then: Then) {
        // One that is stopped alone is asked to stop next, and the journal tells of that.
        let is_told = agents.len() > 1 || !matches!(then, Then::Nothing);
        for agent in agents.iter().filter(|_| is_told) {
            if let Some(then) = then.of(agent) {
                self.tell_what_follows(agent, by, Some(then), &agents);
            }
        }
        self.batches.push(Batch { agents, by: by.to_owned(), then, is_recovered: false });
    }

    pub(crate) fn tell_what_follows(
        &self,
        agent: &AgentName,
        by: &str,
        then: Option<Return>,
        together: &BTreeSet<AgentName>,
    ) {
        let together = together.iter().cloned().collect();
        let returns = EventKind::AgentReturns { by: by.to_owned(), then, together };
        drop(self.journal.record(Some(agent.clone()), returns));
    }

    /// Asks those to stop whose turn it is, and does what follows of each group that is gone.
    pub(crate) async fn advance_batches(&mut self) {
        let mut gone = Vec::new();
        for at in (0..self.batches.len()).rev() {
            if self.are_gone(&self.batches[at].agents) {
                gone.push(self.batches.remove(at));
            } else {
                self.stop_next(at);
            }
        }
        let mut going_on = BTreeMap::new();
        for Batch { agents, by, then, is_recovered } in gone.into_iter().rev() {
            match then {
                Then::Nothing => {}
                Then::BeginAnew | Then::BeginAnewAtItsEnd if is_recovered => {
                    self.finish_restart(agents, &by).await;
                }
                Then::BeginAnew | Then::BeginAnewAtItsEnd => self.come_back(agents, &by).await,
                Then::GoOn(awaits) => going_on.extend(agents.into_iter().map(|agent| (agent, awaits))),
                Then::Change(change) => self.change(*change, &by).await,
            }
        }
        self.go_on(going_on).await;
    }

    /// Nobody is given up, and the run does not end, because of agents that are about to begin anew.
    pub(crate) fn hold_while_some_come_back(&mut self) {
        let comes_back =
            |batch: &Batch| matches!(batch.then, Then::BeginAnew | Then::GoOn(_) | Then::Change(_));
        if self.awaits_openings() || self.batches.iter().any(comes_back) {
            self.state.hold();
        } else {
            self.state.release(&self.plan);
        }
    }

    /// By the journal: what is acted upon then is durable.
    fn are_gone(&self, agents: &BTreeSet<AgentName>) -> bool {
        let is_gone = |agent| self.status.agent(agent).is_none_or(|status| status.state.is_final());
        agents.iter().all(is_gone)
    }

    fn stop_next(&mut self, at: usize) {
        let Batch { agents, by, then, .. } = &self.batches[at];
        if matches!(then, Then::BeginAnewAtItsEnd | Then::GoOn(_)) {
            return;
        }
        let exit = Exit::stopped(by.clone());
        let now: Vec<AgentName> = self.state.stoppable_among(&self.plan, agents).cloned().collect();
        let by = by.clone();
        for agent in now {
            self.ask_to_stop(&agent, exit.clone(), Request::Stop, &by);
        }
    }

    /// Takes agents out of the groups that are being stopped, so that nothing follows for them.
    pub(crate) fn leave_batches(&mut self, agents: &[AgentName], by: &str) {
        let mut left = Vec::new();
        for batch in &mut self.batches {
            match &mut batch.then {
                Then::Nothing => {}
                Then::BeginAnew | Then::BeginAnewAtItsEnd | Then::GoOn(_) => {
                    left.extend(batch.agents.extract_if(.., |agent| agents.contains(agent)));
                }
                Then::Change(change) => {
                    let named = batch.agents.iter().filter(|agent| agents.contains(agent));
                    for agent in named {
                        left.extend(change.undone.remove(agent).map(|_| agent.clone()));
                        change.stopped.insert(agent.clone(), by.to_owned());
                    }
                }
            }
        }
        left.iter().for_each(|agent| self.tell_what_follows(agent, by, None, &BTreeSet::new()));
        self.batches.retain(|batch| !batch.agents.is_empty() || matches!(batch.then, Then::Change(_)));
    }

    /// Whether an agent begins anew when it is gone, or when others are.
    pub(crate) fn comes_back(&self, agent: &AgentName) -> bool {
        let begins = |then: &Then| match then {
            Then::Nothing => false,
            Then::BeginAnew | Then::BeginAnewAtItsEnd | Then::GoOn(_) => true,
            Then::Change(change) => change.undone.contains_key(agent),
        };
        self.batches.iter().any(|batch| batch.agents.contains(agent) && begins(&batch.then))
    }

    /// Those that begin anew when they are gone, and those that have begun anew without the journal knowing yet.
    pub(crate) fn returning(&self) -> BTreeSet<AgentName> {
        let begins = |batch: &&Batch| matches!(batch.then, Then::BeginAnew | Then::BeginAnewAtItsEnd);
        let later = self.batches.iter().filter(begins).flat_map(|batch| batch.agents.iter().cloned());
        later.chain(self.untold.keys().cloned()).collect()
    }

    /// Begins agents anew for which an earlier daemon had begun that. What cannot begin now is cut off: `toka apply` tries again.
    async fn finish_restart(&mut self, agents: BTreeSet<AgentName>, by: &str) {
        if self.state.ending().is_some() {
            return self.come_back(agents, by).await;
        }
        if let Err(error) = self.begin_anew(&agents, by).await {
            let why = match error {
                CommandError::Refused(RunError::Refused(problems)) => lack(&problems),
                error => error.to_string(),
            };
            agents.into_iter().for_each(|agent| self.stay_cut_off(agent, Awaits::Dependencies, &why));
        }
    }

    /// Begins agents anew that are gone. When the run ends, what becomes of them is up to the next daemon.
    pub(crate) async fn come_back(&mut self, agents: BTreeSet<AgentName>, by: &str) {
        if self.state.ending().is_some() {
            return agents.iter().for_each(|agent| self.leave(agent, by, Awaits::Dependencies));
        }
        if let Err(error) = self.begin_anew(&agents, by).await {
            let exit = Exit::StartFailed { reason: error.to_string() };
            for agent in &agents {
                self.end_before_it_begins(agent, by, Awaits::Dependencies, exit.clone());
            }
        }
    }
}
