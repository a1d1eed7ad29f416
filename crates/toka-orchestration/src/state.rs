//! What has happened in a run so far, kept such that the next decision is cheap: per agent a count of the gates that
//! are still closed, and the few sets that decisions are made of. One happening costs as much as the agent has
//! neighbours, whatever the size of the plan.

mod clock;

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use toka_core::event::Awaits;
use toka_core::state::{Happening, IllegalStep};
use toka_core::{AgentName, AgentState, END_OF_RUN, EventKind, Exit, Priority, Unmet};
use toka_workstream::plan::{Gate, Node};
use toka_workstream::{AfterEnd, AgentKind, Condition, IfSkipped, Need, Plan, Start};

/// Something that an agent did and that is no state of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The checks of its objectives passed, all of them.
    ObjectivesMet,
    /// It wrote a line that contains this text, one of [`Plan::watched_lines`].
    LogLine(String),
}

/// Why the state did not change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// The plan has no such agent.
    #[error("no agent {0} in the plan")]
    UnknownAgent(AgentName),
    /// The agent cannot take that step.
    #[error("illegal step of agent {agent}")]
    IllegalStep {
        /// The agent.
        agent: AgentName,
        /// The step.
        source: Box<IllegalStep>,
    },
}

/// What ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// The end of all its purposes: its tasks, the services that no task waits for, and the times of its schedules.
    UntilDone,
    /// The end of its last task that has no schedule; everything else is stopped then. One without such a task goes on until
    /// every agent has ended.
    UntilTasksEnd,
    /// Somebody who stops it.
    UntilStopped,
}

/// The state of all agents of one plan. Positions are those of the plan; a state is of use only with the plan that
/// it was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunState {
    lifetime: Lifetime,
    agents: Vec<AgentRun>,
    /// Pending, all gates open, and not waiting for the clock.
    ready: BTreeSet<(Priority, usize)>,
    /// Pending, and a gate cannot open any more; with the agent that began it, and what was required of that.
    doomed: BTreeMap<usize, (usize, Box<Unmet>)>,
    pending: BTreeSet<usize>,
    /// Alive and not stopping, and nothing that depends on it is alive.
    stoppable: BTreeSet<usize>,
    /// Pending, and there is nothing that they would do; with the reason.
    idle: BTreeMap<usize, String>,
    running: usize,
    unfinished: usize,
    /// How many of those whose end the run waits for have not ended.
    unfinished_purposes: usize,
    has_purposes: bool,
    /// The clock starts them again and again.
    timed: BTreeSet<usize>,
    stopped_by: Option<String>,
    /// The agent whose end is that of the run, if it was one.
    stopped_at_end_of: Option<AgentName>,
    /// Whether some that have ended are about to begin anew.
    held: bool,
    /// Whether what happens has happened before: what an end means for the run was decided then.
    replaying: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct AgentRun {
    state: AgentState,
    seen: Seen,
    open: Vec<bool>,
    closed: usize,
    alive_dependents: usize,
}

/// What was ever true of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    /// Its time has come, where the clock starts it.
    called: bool,
    /// It has gone through its gates in a life that its daemon cut off, and need not again.
    passed: bool,
    started: bool,
    ready: bool,
    objectives_met: bool,
    restarted: bool,
    /// The objectives whose checks passed, by their places in the agent's list.
    checks_passed: BTreeSet<usize>,
    lines: BTreeSet<String>,
}

impl RunState {
    /// Nothing has happened yet.
    pub fn new(plan: &Plan, lifetime: Lifetime) -> Self {
        Self::with(plan, lifetime, vec![(AgentState::Pending, Seen::default()); plan.nodes().len()])
    }

    /// The same run with another plan: agents that `keeps` names are as they are, all others begin anew. A stop that was
    /// asked for still is.
    #[must_use]
    pub fn with_plan(&self, old: &Plan, new: &Plan, keeps: impl Fn(&AgentName) -> bool) -> Self {
        let known = |name: &AgentName| {
            let kept = old.position(name).filter(|_| keeps(name)).map(|at| &self.agents[at]);
            kept.map_or((AgentState::Pending, Seen::default()), |agent| {
                (agent.state.clone(), agent.seen.clone())
            })
        };
        let agents = new.nodes().iter().map(|node| known(&node.agent)).collect();
        Self {
            stopped_by: self.stopped_by.clone(),
            stopped_at_end_of: self.stopped_at_end_of.clone(),
            ..Self::with(new, self.lifetime, agents)
        }
    }

    /// Counts everything from the agents' states, which are in the order of the plan.
    fn with(plan: &Plan, lifetime: Lifetime, agents: Vec<(AgentState, Seen)>) -> Self {
        let purposes = |wanted: fn(&AgentState) -> bool| {
            let all = plan.nodes().iter().zip(&agents);
            all.filter(|(node, (state, seen))| is_purpose(lifetime, node, seen) && wanted(state)).count()
        };
        let mut run = Self {
            lifetime,
            ready: BTreeSet::new(),
            doomed: BTreeMap::new(),
            pending: BTreeSet::new(),
            idle: BTreeMap::new(),
            stoppable: BTreeSet::new(),
            running: 0,
            unfinished: agents.iter().filter(|(state, _)| !state.is_final()).count(),
            unfinished_purposes: purposes(|state| !state.is_final()),
            has_purposes: purposes(|_| true) > 0,
            timed: (0..agents.len()).filter(|at| plan.nodes()[*at].start == Start::Clock).collect(),
            stopped_by: None,
            stopped_at_end_of: None,
            held: false,
            replaying: false,
            agents: agents.into_iter().map(|(state, seen)| AgentRun::new(state, seen)).collect(),
        };
        for (at, node) in plan.nodes().iter().enumerate() {
            run.look_at_gates(plan, at);
            let AgentRun { state, seen, .. } = &run.agents[at];
            run.running += usize::from(counts(node.kind, state, seen));
            if state.is_alive() {
                node.gates.iter().for_each(|gate| run.agents[gate.position].alive_dependents += 1);
            }
        }
        for at in 0..run.agents.len() {
            run.review_stoppable(at);
            if run.agents[at].state.is_final() && run.ending().is_none() {
                run.doom_dependents(plan, at);
            }
        }
        run
    }

    /// Finds which gates of an agent are open, from nothing but the states of those that it waits for; if it waits, it is
    /// put among those that do.
    fn look_at_gates(&mut self, plan: &Plan, at: usize) {
        let node = &plan.nodes()[at];
        let is_open = |gate: &Gate| {
            let on = &self.agents[gate.position];
            opens(gate, &on.state, &on.seen)
        };
        let has_passed = self.agents[at].seen.passed;
        let open: Vec<bool> = node.gates.iter().map(|gate| has_passed || is_open(gate)).collect();
        let agent = &mut self.agents[at];
        agent.closed = open.iter().filter(|open| !**open).count();
        agent.open = open;
        if agent.state == AgentState::Pending {
            self.pending.insert(at);
            if let Some(reason) = &node.skip {
                self.idle.insert(at, reason.clone());
            } else if agent.closed == 0 && !agent.waits_to_be_called(node.start) {
                self.ready.insert((node.priority, at));
            }
        }
    }

    /// What must begin anew so that `agents` can: those of them that have come to their end, and all that these require
    /// and that has ended without meeting what is required of it, in the order of the plan. Each does with
    /// [`Happening::Requeued`].
    ///
    /// # Errors
    /// When the plan has no such agent.
    pub fn to_requeue<'a>(
        &self,
        plan: &Plan,
        agents: impl IntoIterator<Item = &'a AgentName>,
    ) -> Result<Vec<AgentName>, ApplyError> {
        let mut todo =
            agents.into_iter().map(|agent| position(plan, agent)).collect::<Result<Vec<_>, _>>()?;
        let mut anew = BTreeSet::new();
        while let Some(at) = todo.pop() {
            if !self.agents[at].state.is_final() || !anew.insert(at) {
                continue;
            }
            let unmet = |gate: &&Gate| {
                let on = &self.agents[gate.position];
                gate.need == Need::Required && !opens(gate, &on.state, &on.seen)
            };
            todo.extend(plan.nodes()[at].gates.iter().filter(unmet).map(|gate| gate.position));
        }
        Ok(anew.into_iter().map(|at| plan.nodes()[at].agent.clone()).collect())
    }

    /// Those of `agents` that may be asked to stop now, because no other of them that depends on them is alive.
    pub fn stoppable_among<'a>(
        &'a self,
        plan: &'a Plan,
        agents: &'a BTreeSet<AgentName>,
    ) -> impl Iterator<Item = &'a AgentName> {
        agents.iter().filter(move |agent| {
            plan.position(agent).is_some_and(|at| {
                let state = &self.agents[at].state;
                let is_needed = plan.dependents(at).iter().any(|id| {
                    self.agents[id.node].state.is_alive() && agents.contains(&plan.nodes()[id.node].agent)
                });
                !state.is_final() && !state.is_asked_to_stop() && !is_needed
            })
        })
    }

    /// Lets an agent that has come to its end wait for its turn again. One that has not is as before.
    ///
    /// # Errors
    /// When the plan has no such agent.
    pub fn requeue(&mut self, plan: &Plan, agent: &AgentName, awaits: Awaits) -> Result<(), ApplyError> {
        let at = position(plan, agent)?;
        let seen = match awaits {
            Awaits::Dependencies => Seen::anew(),
            Awaits::Clock => Seen::default(),
            Awaits::Room => self.agents[at].seen.going_on(),
        };
        if self.agents[at].state.is_final() {
            self.begin_anew(plan, at, seen);
        } else if awaits != Awaits::Clock {
            self.call(plan, agent)?;
        }
        Ok(())
    }

    fn begin_anew(&mut self, plan: &Plan, at: usize, seen: Seen) {
        let alive_dependents = self.agents[at].alive_dependents;
        self.agents[at] = AgentRun { alive_dependents, ..AgentRun::new(AgentState::Pending, seen) };
        self.unfinished += 1;
        self.unfinished_purposes += usize::from(self.is_purpose(plan, at));
        self.look_at_gates(plan, at);
        self.review(plan, at);
    }

    /// Takes a step of an agent.
    ///
    /// # Errors
    /// When the plan has no such agent, or the agent cannot take the step; nothing has changed then.
    pub fn apply(&mut self, plan: &Plan, agent: &AgentName, happening: Happening) -> Result<(), ApplyError> {
        let at = position(plan, agent)?;
        if happening == Happening::Requeued {
            return self.requeue(plan, agent, Awaits::Dependencies);
        }
        let next = self.agents[at]
            .state
            .on(happening)
            .map_err(|step| ApplyError::IllegalStep { agent: agent.clone(), source: Box::new(step) })?;
        self.enter(plan, at, next);
        Ok(())
    }

    /// Takes note of something that an agent did.
    ///
    /// # Errors
    /// When the plan has no such agent.
    pub fn learn(&mut self, plan: &Plan, agent: &AgentName, fact: Fact) -> Result<(), ApplyError> {
        let at = position(plan, agent)?;
        let seen = &mut self.agents[at].seen;
        match fact {
            Fact::ObjectivesMet => seen.objectives_met = true,
            Fact::LogLine(text) => {
                seen.lines.insert(text);
            }
        }
        self.review(plan, at);
        Ok(())
    }

    /// Takes an event of an agent as the journal has it. What is so already, and what changes nothing here (progress,
    /// metrics), is ignored, so that a journal can be read again from any point.
    ///
    /// # Errors
    /// As [`RunState::apply`].
    pub fn observe(&mut self, plan: &Plan, agent: &AgentName, event: &EventKind) -> Result<(), ApplyError> {
        if let EventKind::LogLineSeen { text } = event {
            return self.learn(plan, agent, Fact::LogLine(text.clone()));
        }
        if let EventKind::ScheduleFired { .. } = event {
            return self.call(plan, agent);
        }
        if let EventKind::AgentRequeued { awaits, .. } = event {
            return self.requeue(plan, agent, *awaits);
        }
        let at = position(plan, agent)?;
        if let EventKind::ObjectiveChecked { index, met: true, .. } = event {
            let passed = &mut self.agents[at].seen.checks_passed;
            passed.insert(*index);
            let is_all = passed.len() == plan.nodes()[at].checks;
            return if is_all { self.learn(plan, agent, Fact::ObjectivesMet) } else { Ok(()) };
        }
        match self.agents[at].state.happening(event) {
            Some(happening) => self.apply(plan, agent, happening),
            None => Ok(()),
        }
    }

    /// Ends the run: nothing starts any more, and everything is stopped. The first one who asks is remembered.
    pub fn request_stop(&mut self, by: &str) {
        self.stopped_by.get_or_insert_with(|| by.to_owned());
    }

    /// Whether the run waits for the end of an agent.
    fn is_purpose(&self, plan: &Plan, at: usize) -> bool {
        is_purpose(self.lifetime, &plan.nodes()[at], &self.agents[at].seen)
    }

    /// The run ends because of the end of an agent, if that is declared so.
    fn heed_end(&mut self, plan: &Plan, at: usize) {
        let (node, state) = (&plan.nodes()[at], &self.agents[at].state);
        if self.replaying || self.ending().is_some() {
            return;
        }
        let then = match state {
            // One that is to begin anew has not ended; that is looked at again when it is known.
            _ if node.ends_run && state.is_final() => {
                if self.held {
                    AfterEnd::Continue
                } else {
                    AfterEnd::StopRun
                }
            }
            AgentState::Ended { exit } if exit.is_success() => node.on_end.success,
            AgentState::Ended { exit } if !exit.is_failure() => return,
            AgentState::Ended { .. } | AgentState::Quarantined { .. } | AgentState::Blocked { .. } => {
                node.on_end.failure
            }
            _ => return,
        };
        if then == AfterEnd::StopRun {
            self.end_with(&node.agent);
        }
    }

    /// The end of an agent is that of the run.
    pub fn end_with(&mut self, agent: &AgentName) {
        if self.ending().is_none() {
            self.stopped_by = Some(format!("the end of {agent}"));
            self.stopped_at_end_of = Some(agent.clone());
        }
    }

    /// Begins or ends to be told what has happened before.
    pub fn replay(&mut self, replaying: bool) {
        self.replaying = replaying;
    }

    /// The agent whose end ended the run, because its declaration says so.
    pub fn stopped_at_end_of(&self) -> Option<&AgentName> {
        self.stopped_at_end_of.as_ref()
    }

    /// Some that end now will begin anew: until [`RunState::release`], nobody is given up because of them, and the end of
    /// the last task is not that of the run.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// What has ended now has ended.
    pub fn release(&mut self, plan: &Plan) {
        if std::mem::take(&mut self.held) && self.ending().is_none() {
            for at in 0..self.agents.len() {
                if self.agents[at].state.is_final() {
                    self.doom_dependents(plan, at);
                }
                if plan.nodes()[at].ends_run {
                    self.heed_end(plan, at);
                }
            }
        }
    }

    /// The state of an agent, if the plan has it.
    pub fn state_of(&self, plan: &Plan, agent: &AgentName) -> Option<&AgentState> {
        plan.position(agent).map(|at| &self.agents[at].state)
    }

    /// The states of all agents, in the order of the plan.
    pub fn states(&self) -> impl Iterator<Item = &AgentState> {
        self.agents.iter().map(|agent| &agent.state)
    }

    /// Whether every agent has come to its end, and the clock starts none of them again.
    pub fn is_finished(&self) -> bool {
        self.unfinished == 0 && (self.timed.is_empty() || self.ending().is_some())
    }

    /// Whether it is over when every agent has come to its end, without anybody who says so.
    pub fn ends_by_itself(&self) -> bool {
        self.lifetime != Lifetime::UntilStopped
    }

    /// How many count for [`Limits::max_concurrent`](crate::Limits::max_concurrent).
    pub fn running(&self) -> usize {
        self.running
    }

    /// Who ends the run, when somebody does.
    pub fn ending(&self) -> Option<&str> {
        let is_done = match self.lifetime {
            Lifetime::UntilDone => self.timed.is_empty(),
            Lifetime::UntilTasksEnd => self.has_purposes,
            Lifetime::UntilStopped => false,
        };
        let all_done = is_done && self.unfinished_purposes == 0 && !self.held;
        self.stopped_by.as_deref().or(all_done.then_some(END_OF_RUN))
    }

    /// Those that may start, the most urgent first.
    pub(crate) fn ready(&self) -> impl Iterator<Item = usize> {
        self.ready.iter().map(|(_, at)| *at)
    }

    /// Those that never will start, with the one that began it.
    pub(crate) fn doomed(&self) -> impl Iterator<Item = (usize, usize, &Box<Unmet>)> {
        self.doomed.iter().map(|(at, (by, why))| (*at, *by, why))
    }

    /// Those that there is no need to start, with the reason.
    pub(crate) fn idle(&self) -> impl Iterator<Item = (usize, &String)> {
        self.idle.iter().map(|(at, reason)| (*at, reason))
    }

    /// What an agent waits for that has not started, or would wait for if its next life were due: the first of its
    /// conditions, in the order of its file, that is not met. None when it waits for the clock or a person, or for nothing
    /// but its turn.
    pub fn waits_for(&self, plan: &Plan, agent: &AgentName) -> Option<Unmet> {
        let at = plan.position(agent)?;
        let (node, run) = (&plan.nodes()[at], &self.agents[at]);
        let shut = match run.state {
            AgentState::Pending if !run.waits_to_be_called(node.start) => {
                node.gates.iter().zip(&run.open).find(|(_, open)| !**open)?.0
            }
            AgentState::Backoff { .. } => self.lost_level(node)?,
            _ => return None,
        };
        Some(unmet(plan, shut, &self.agents[shut.position]))
    }

    /// Whether the next life of an agent may begin: what it requires to be ready is. Other conditions were met once and stay
    /// so.
    pub fn may_restart(&self, plan: &Plan, agent: &AgentName) -> bool {
        plan.position(agent).is_none_or(|at| self.lost_level(&plan.nodes()[at]).is_none())
    }

    /// What an agent requires to be ready and is not, whatever the agent does.
    pub fn lacks_ready(&self, plan: &Plan, agent: &AgentName) -> Option<Unmet> {
        let gate = self.lost_level(&plan.nodes()[plan.position(agent)?])?;
        Some(unmet(plan, gate, &self.agents[gate.position]))
    }

    fn lost_level<'p>(&self, node: &'p Node) -> Option<&'p Gate> {
        node.gates.iter().find(|gate| {
            let on = &self.agents[gate.position];
            let is_level = gate.need == Need::Required && gate.condition == Condition::Ready;
            is_level && !opens(gate, &on.state, &on.seen)
        })
    }

    /// Those that have not started, and will not when the run ends.
    pub(crate) fn cancellable(&self) -> impl Iterator<Item = usize> {
        self.pending.iter().copied().filter(|at| !self.doomed.contains_key(at) && !self.idle.contains_key(at))
    }

    /// Those that nobody alive depends on, the last of the plan first.
    pub(crate) fn stoppable(&self) -> impl Iterator<Item = usize> {
        self.stoppable.iter().rev().copied()
    }

    fn enter(&mut self, plan: &Plan, at: usize, next: AgentState) {
        let node = &plan.nodes()[at];
        let agent = &mut self.agents[at];
        let before = std::mem::replace(&mut agent.state, next);
        let now = &agent.state;
        if let AgentState::Running { ready, .. } | AgentState::Paused { ready, .. } = now {
            agent.seen.started = true;
            agent.seen.ready |= ready;
        }
        let (was_alive, is_alive) = (before.is_alive(), now.is_alive());
        let ended = now.is_final() && !before.is_final();
        let counted = counts(node.kind, &before, &agent.seen);
        agent.seen.restarted |= matches!(now, AgentState::Backoff { .. });
        self.running += usize::from(counts(node.kind, now, &agent.seen));
        self.running -= usize::from(counted);
        if *now != AgentState::Pending {
            self.pending.remove(&at);
            self.doomed.remove(&at);
            self.idle.remove(&at);
            self.ready.remove(&(node.priority, at));
        }
        if was_alive != is_alive {
            self.tell_dependencies(plan, at);
        }
        self.review_stoppable(at);
        // Before the end is counted: what the last task leaves behind is blocked by it, not cancelled.
        self.review(plan, at);
        self.unfinished -= usize::from(ended);
        self.unfinished_purposes -= usize::from(ended && self.is_purpose(plan, at));
        if ended {
            self.heed_end(plan, at);
        }
    }

    /// Counts the agent, just started or just gone, for what it depends on.
    fn tell_dependencies(&mut self, plan: &Plan, at: usize) {
        let is_alive = self.agents[at].state.is_alive();
        for gate in &plan.nodes()[at].gates {
            let count = &mut self.agents[gate.position].alive_dependents;
            *count = if is_alive { *count + 1 } else { *count - 1 };
            self.review_stoppable(gate.position);
        }
    }

    fn review_stoppable(&mut self, at: usize) {
        let agent = &self.agents[at];
        if agent.state.is_alive() && !agent.state.is_asked_to_stop() && agent.alive_dependents == 0 {
            self.stoppable.insert(at);
        } else {
            self.stoppable.remove(&at);
        }
    }

    /// Opens the gates that wait for the agent and now may, shuts those whose reason is gone before anybody went
    /// through, and gives up those that never will open.
    fn review(&mut self, plan: &Plan, at: usize) {
        for id in plan.dependents(at) {
            let AgentRun { state, seen, .. } = &self.agents[at];
            let opens = opens(plan.gate(*id), state, seen);
            let waiting = &mut self.agents[id.node];
            match (waiting.open[id.gate], opens) {
                (false, true) => {
                    waiting.open[id.gate] = true;
                    waiting.closed -= 1;
                    let is_free = waiting.closed == 0
                        && waiting.state == AgentState::Pending
                        && !waiting.waits_to_be_called(plan.nodes()[id.node].start);
                    let is_given_up = self.doomed.contains_key(&id.node) || self.idle.contains_key(&id.node);
                    if is_free && !is_given_up {
                        self.ready.insert((plan.nodes()[id.node].priority, id.node));
                    }
                }
                (true, false) if waiting.state == AgentState::Pending && !waiting.seen.passed => {
                    waiting.open[id.gate] = false;
                    waiting.closed += 1;
                    self.ready.remove(&(plan.nodes()[id.node].priority, id.node));
                }
                _ => {}
            }
        }
        // When the run ends, what has not started is cancelled, whatever it waited for.
        if self.agents[at].state.is_final() && self.ending().is_none() && !self.held {
            self.doom_dependents(plan, at);
        }
    }

    /// Gives up whatever requires the agent, at once or through others.
    fn doom_dependents(&mut self, plan: &Plan, ended: usize) {
        let (by, known) = match &self.agents[ended].state {
            AgentState::Blocked { by, why } => (plan.position(by).unwrap_or(ended), why.clone()),
            _ => (ended, None),
        };
        let mut lost = vec![(ended, known)];
        while let Some((at, known)) = lost.pop() {
            for id in plan.dependents(at) {
                let waiting = &self.agents[id.node];
                let gate = plan.gate(*id);
                let is_shut = gate.need == Need::Required && !waiting.open[id.gate];
                // Until its time comes, what has failed may have been mended.
                let waits = waiting.state == AgentState::Pending
                    && !waiting.waits_to_be_called(plan.nodes()[id.node].start)
                    && !self.idle.contains_key(&id.node);
                let state = &self.agents[at].state;
                if is_shut && waits && is_skipped(state) && gate.if_skipped == IfSkipped::Skip {
                    self.ready.remove(&(plan.nodes()[id.node].priority, id.node));
                    self.idle.insert(id.node, format!("{} was skipped", gate.on));
                } else if is_shut && waits && !self.doomed.contains_key(&id.node) {
                    // Who depends on what is given up is told what began it.
                    let why = known.clone().unwrap_or_else(|| Box::new(unmet(plan, gate, &self.agents[at])));
                    self.doomed.insert(id.node, (by, why.clone()));
                    lost.push((id.node, Some(why)));
                }
            }
        }
    }
}

impl AgentRun {
    fn new(state: AgentState, seen: Seen) -> Self {
        Self { state, seen, open: Vec::new(), closed: 0, alive_dependents: 0 }
    }
}

fn position(plan: &Plan, agent: &AgentName) -> Result<usize, ApplyError> {
    plan.position(agent).ok_or_else(|| ApplyError::UnknownAgent(agent.clone()))
}

fn is_skipped(state: &AgentState) -> bool {
    matches!(state, AgentState::Ended { exit } if exit.is_skipped())
}

/// Whether the run waits for the end of an agent. One that is started by hand counts from then on.
fn is_purpose(lifetime: Lifetime, node: &Node, seen: &Seen) -> bool {
    let is_begun = node.start != Start::Manual || seen.called;
    match (lifetime, node.kind) {
        (Lifetime::UntilTasksEnd, AgentKind::Task) => is_begun && node.start != Start::Clock && !node.follows,
        (Lifetime::UntilTasksEnd, AgentKind::Service) => false,
        (_, AgentKind::Task) => is_begun,
        (_, AgentKind::Service) => is_begun && !node.serves,
    }
}

/// What of a gate is not so, given the dependency.
fn unmet(plan: &Plan, gate: &Gate, dependency: &AgentRun) -> Unmet {
    let (on, AgentRun { state, seen, .. }) = (&gate.on, dependency);
    let start = plan.nodes()[gate.position].start;
    let text = match state {
        AgentState::Ended { exit: exit @ (Exit::Skipped { .. } | Exit::NotStarted { .. }) } => {
            format!("{on} was {exit}")
        }
        AgentState::Pending if start == Start::Manual => {
            format!("{on} has not started; `toka start {on}` starts it")
        }
        AgentState::Blocked { why: Some(why), .. } => format!("{on} is blocked: {}", why.text),
        AgentState::Blocked { by, why: None } => format!("{on} is blocked by {by}"),
        AgentState::Ended { exit } | AgentState::Quarantined { exit, .. } => match &gate.condition {
            Condition::ProcessStarted | Condition::Completed => format!("{on} never ran: {exit}"),
            Condition::Ready if seen.ready => format!("{on} has ended: {exit}"),
            Condition::Ready if exit.is_success() => format!("{on} succeeded without being ready"),
            Condition::Ready => format!("{on} ended without being ready: {exit}"),
            Condition::CompletedSuccessfully => format!("{on} did not succeed: {exit}"),
            Condition::ObjectiveMet if exit.is_success() => format!("the objectives of {on} are not met"),
            Condition::ObjectiveMet => format!("the objectives of {on} are not met: {exit}"),
            Condition::LogLine(line) if exit.is_success() => {
                format!("{on} succeeded without writing {line:?}")
            }
            Condition::LogLine(line) => format!("{on} ended without writing {line:?}: {exit}"),
        },
        _ => match &gate.condition {
            Condition::ProcessStarted => format!("{on} has not started"),
            Condition::Ready => format!("{on} is not ready"),
            Condition::Completed | Condition::CompletedSuccessfully => format!("{on} has not ended"),
            Condition::ObjectiveMet => format!("the objectives of {on} are not met yet"),
            Condition::LogLine(line) => format!("{on} has not written {line:?}"),
        },
    };
    let condition = gate.condition.to_string();
    Unmet { on: on.clone(), condition, text, origin: gate.origin.clone() }
}

/// Whether an agent counts for the limit of what runs at once. A service that comes back by itself asks nobody.
fn counts(kind: AgentKind, state: &AgentState, seen: &Seen) -> bool {
    match kind {
        AgentKind::Task => state.is_alive(),
        AgentKind::Service => matches!(state, AgentState::Starting) && !seen.restarted,
    }
}

/// Whether a gate opens, given the state of the dependency and all that was ever seen of it.
fn opens(gate: &Gate, state: &AgentState, seen: &Seen) -> bool {
    let is_met = match (&gate.condition, state) {
        (Condition::ProcessStarted, _) => seen.started,
        // What was ready once and then did what it was for has not become unready.
        (Condition::Ready, AgentState::Ended { exit }) => seen.ready && exit.is_success(),
        (Condition::Ready, state) => state.is_ready(),
        (Condition::Completed, AgentState::Ended { .. }) => seen.started,
        (Condition::CompletedSuccessfully, AgentState::Ended { exit }) => exit.is_success(),
        (Condition::Completed | Condition::CompletedSuccessfully, _) => false,
        (Condition::ObjectiveMet, _) => seen.objectives_met,
        (Condition::LogLine(text), _) => seen.lines.contains(text),
    };
    let is_waived = gate.if_skipped == IfSkipped::Start && is_skipped(state);
    is_met || is_waived || (gate.need == Need::Optional && state.is_final())
}
