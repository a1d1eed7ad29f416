//! What has happened in a run so far, kept such that the next decision is cheap: per agent a count of the gates that
//! are still closed, and the few sets that decisions are made of. One happening costs as much as the agent has
//! neighbours, whatever the size of the plan.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use toka_core::state::{Happening, IllegalStep};
use toka_core::{AgentName, AgentState, EventKind, Exit, Priority};
use toka_workstream::plan::Gate;
use toka_workstream::{AgentKind, Condition, Need, Plan};

/// Who ends a run whose tasks all have ended.
pub const END_OF_RUN: &str = "end of run";

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

/// The state of all agents of one plan. Positions are those of the plan; a state is of use only with the plan that
/// it was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunState {
    agents: Vec<AgentRun>,
    /// Pending, all gates open.
    ready: BTreeSet<(Priority, usize)>,
    /// Pending, and a gate cannot open any more; with the agent that began it.
    doomed: BTreeMap<usize, usize>,
    pending: BTreeSet<usize>,
    /// Alive and not stopping, and nothing that depends on it is alive.
    stoppable: BTreeSet<usize>,
    running: usize,
    unfinished: usize,
    unfinished_tasks: usize,
    has_tasks: bool,
    stopped_by: Option<String>,
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
    pub fn new(plan: &Plan) -> Self {
        let agents: Vec<AgentRun> = plan.nodes().iter().map(|node| AgentRun::new(node.gates.len())).collect();
        let tasks = plan.nodes().iter().filter(|node| node.kind == AgentKind::Task).count();
        let free = plan.nodes().iter().enumerate().filter(|(_, node)| node.gates.is_empty());
        Self {
            ready: free.map(|(at, node)| (node.priority, at)).collect(),
            doomed: BTreeMap::new(),
            pending: (0..agents.len()).collect(),
            stoppable: BTreeSet::new(),
            running: 0,
            unfinished: agents.len(),
            unfinished_tasks: tasks,
            has_tasks: tasks > 0,
            stopped_by: None,
            agents,
        }
    }

    /// Takes a step of an agent.
    ///
    /// # Errors
    /// When the plan has no such agent, or the agent cannot take the step; nothing has changed then.
    pub fn apply(&mut self, plan: &Plan, agent: &AgentName, happening: Happening) -> Result<(), ApplyError> {
        let at = position(plan, agent)?;
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
        let at = position(plan, agent)?;
        if let EventKind::ObjectiveChecked { index, met: true, .. } = event {
            let passed = &mut self.agents[at].seen.checks_passed;
            passed.insert(*index);
            let is_all = passed.len() == plan.nodes()[at].checks;
            return if is_all { self.learn(plan, agent, Fact::ObjectivesMet) } else { Ok(()) };
        }
        match happening(&self.agents[at].state, event) {
            Some(happening) => self.apply(plan, agent, happening),
            None => Ok(()),
        }
    }

    /// Ends the run: nothing starts any more, and everything is stopped. The first one who asks is remembered.
    pub fn request_stop(&mut self, by: &str) {
        self.stopped_by.get_or_insert_with(|| by.to_owned());
    }

    /// The state of an agent, if the plan has it.
    pub fn state_of(&self, plan: &Plan, agent: &AgentName) -> Option<&AgentState> {
        plan.position(agent).map(|at| &self.agents[at].state)
    }

    /// The states of all agents, in the order of the plan.
    pub fn states(&self) -> impl Iterator<Item = &AgentState> {
        self.agents.iter().map(|agent| &agent.state)
    }

    /// Whether every agent has come to its end.
    pub fn is_finished(&self) -> bool {
        self.unfinished == 0
    }

    /// How many count for [`Limits::max_concurrent`](crate::Limits::max_concurrent).
    pub fn running(&self) -> usize {
        self.running
    }

    /// Who ends the run, when somebody does.
    pub fn ending(&self) -> Option<&str> {
        let all_done = self.has_tasks && self.unfinished_tasks == 0;
        self.stopped_by.as_deref().or(all_done.then_some(END_OF_RUN))
    }

    /// Those that may start, the most urgent first.
    pub(crate) fn ready(&self) -> impl Iterator<Item = usize> {
        self.ready.iter().map(|(_, at)| *at)
    }

    /// Those that never will start, with the one that began it.
    pub(crate) fn doomed(&self) -> impl Iterator<Item = (usize, usize)> {
        self.doomed.iter().map(|(at, by)| (*at, *by))
    }

    /// Those that have not started, and will not when the run ends.
    pub(crate) fn cancellable(&self) -> impl Iterator<Item = usize> {
        self.pending.iter().copied().filter(|at| !self.doomed.contains_key(at))
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
            self.ready.remove(&(node.priority, at));
        }
        if was_alive != is_alive {
            self.tell_dependencies(plan, at);
        }
        self.review_stoppable(at);
        // Before the end is counted: what the last task leaves behind is blocked by it, not cancelled.
        self.review(plan, at);
        self.unfinished -= usize::from(ended);
        self.unfinished_tasks -= usize::from(ended && node.kind == AgentKind::Task);
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
                    let is_free = waiting.closed == 0 && waiting.state == AgentState::Pending;
                    if is_free && !self.doomed.contains_key(&id.node) {
                        self.ready.insert((plan.nodes()[id.node].priority, id.node));
                    }
                }
                (true, false) if waiting.state == AgentState::Pending => {
                    waiting.open[id.gate] = false;
                    waiting.closed += 1;
                    self.ready.remove(&(plan.nodes()[id.node].priority, id.node));
                }
                _ => {}
            }
        }
        // When the run ends, what has not started is cancelled, whatever it waited for.
        if self.agents[at].state.is_final() && self.ending().is_none() {
            self.doom_dependents(plan, at);
        }
    }

    /// Gives up whatever requires the agent, at once or through others.
    fn doom_dependents(&mut self, plan: &Plan, ended: usize) {
        let by = match &self.agents[ended].state {
            AgentState::Blocked { by } => plan.position(by).unwrap_or(ended),
            _ => ended,
        };
        let mut lost = vec![ended];
        while let Some(at) = lost.pop() {
            for id in plan.dependents(at) {
                let waiting = &self.agents[id.node];
                let is_shut = plan.gate(*id).need == Need::Required && !waiting.open[id.gate];
                if is_shut && waiting.state == AgentState::Pending && !self.doomed.contains_key(&id.node) {
                    self.doomed.insert(id.node, by);
                    lost.push(id.node);
                }
            }
        }
    }
}

impl AgentRun {
    fn new(gates: usize) -> Self {
        Self {
            state: AgentState::Pending,
            seen: Seen::default(),
            open: vec![false; gates],
            closed: gates,
            alive_dependents: 0,
        }
    }
}

fn position(plan: &Plan, agent: &AgentName) -> Result<usize, ApplyError> {
    plan.position(agent).ok_or_else(|| ApplyError::UnknownAgent(agent.clone()))
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
    is_met || (gate.need == Need::Optional && state.is_final())
}

/// The step that an event of the journal stands for in this state; none when it tells nothing new.
fn happening(state: &AgentState, event: &EventKind) -> Option<Happening> {
    match (event, state) {
        (EventKind::AgentStarting, AgentState::Pending | AgentState::Backoff { .. }) => {
            Some(Happening::StartRequested)
        }
        (EventKind::AgentStarted { pid, .. }, AgentState::Starting | AgentState::Stopping { .. }) => {
            Some(Happening::Started { pid: *pid })
        }
        (EventKind::AgentReady, AgentState::Running { .. } | AgentState::Paused { .. }) => {
            Some(Happening::BecameReady)
        }
        (EventKind::AgentNotReady { .. }, AgentState::Running { .. } | AgentState::Paused { .. }) => {
            Some(Happening::LostReadiness)
        }
        (EventKind::AgentMainProcess { pid }, AgentState::Running { .. } | AgentState::Paused { .. }) => {
            Some(Happening::MainProcess { pid: *pid })
        }
        (EventKind::AgentRestarting { restarts, .. }, state) if !state.is_asked_to_stop() => {
            Some(Happening::Restarting { restarts: *restarts })
        }
        (EventKind::AgentQuarantined { exit, restarts, .. }, state) if !state.is_asked_to_stop() => {
            Some(Happening::GivenUp { exit: exit.clone(), restarts: *restarts })
        }
        (EventKind::AgentPaused, AgentState::Running { .. }) => Some(Happening::Frozen),
        (EventKind::AgentResumed, AgentState::Paused { .. }) => Some(Happening::Thawed),
        (EventKind::AgentStopping { exit }, AgentState::Stopping { exit: before })
            if before.is_asked_for() || !exit.is_asked_for() =>
        {
            None
        }
        (EventKind::AgentStopping { exit }, _) => Some(Happening::StopRequested(exit.clone())),
        (EventKind::AgentEnded { .. }, AgentState::Ended { .. }) => None,
        (EventKind::AgentEnded { exit, .. }, state) => Some(end(state, exit)),
        (EventKind::AgentBlocked { by }, AgentState::Pending) => {
            Some(Happening::DependencyFailed(by.clone()))
        }
        _ => None,
    }
}

fn end(state: &AgentState, exit: &Exit) -> Happening {
    match state {
        AgentState::Pending | AgentState::Starting => Happening::StartFailed(exit.clone()),
        _ => Happening::Gone(exit.clone()),
    }
}
