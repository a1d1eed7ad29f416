//! What a run looks like at this moment: a model that each event moves on. It reads no clock; the caller says when it
//! saw an event, so that a wall clock that jumps moves no figure on the screen.

use std::collections::HashMap;
use std::time::Duration;

use toka_core::event::Usage;
use toka_core::{AgentName, Enforcement, Event, EventKind, Exit, RunId, Unmet};

use super::text::safe;

/// All agents of a run. Times are since the display began.
#[derive(Debug, Default)]
pub(crate) struct RunView {
    /// The run, once an event told it.
    pub(crate) run: Option<RunId>,
    /// The project, once an event told it.
    pub(crate) project: Option<String>,
    /// When the run was seen to begin.
    pub(crate) started: Duration,
    /// What the command itself has to say at the moment.
    pub(crate) notice: Option<String>,
    agents: Vec<AgentView>,
    index: HashMap<AgentName, usize>,
}

/// One agent.
#[derive(Debug, Clone)]
pub(crate) struct AgentView {
    /// Its name.
    pub(crate) name: AgentName,
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// When it was seen to start.
    pub(crate) started: Option<Duration>,
    /// How far it is, 0.0 to 1.0.
    pub(crate) fraction: Option<f64>,
    /// What it says that it is doing; safe to show.
    pub(crate) status: Option<String>,
    /// The task it is at; safe to show.
    pub(crate) task: Option<String>,
    /// What confines it, once it runs.
    pub(crate) enforcement: Option<Enforcement>,
    /// How often it was restarted.
    pub(crate) restarts: u32,
}

/// Where an agent is in its life, as far as people see it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Phase {
    /// Waiting for its turn.
    Waiting,
    /// It will not start, because this dependency did not succeed.
    Blocked(AgentName, Option<Box<Unmet>>),
    /// The keeper is asked to start it.
    Starting,
    /// It runs.
    Running,
    /// It runs, and said that it is ready.
    Ready,
    /// It is frozen.
    Paused,
    /// It is asked to stop.
    Stopping,
    /// It is gone, and will be started again at this time.
    Backoff(Duration),
    /// It is gone.
    Ended(End),
    /// It is gone, and was restarted too often to be started again.
    Quarantined(End),
}

/// How an agent ended, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct End {
    /// The cause.
    pub(crate) exit: Exit,
    /// How long it lived.
    pub(crate) duration: Duration,
    /// What it used.
    pub(crate) usage: Usage,
    /// How often it was restarted.
    pub(crate) restarts: u32,
}

/// The kinds of outcome that people count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Outcome {
    /// Starting, running, ready, paused or stopping.
    Live,
    /// Not started yet.
    Waiting,
    /// Ended as it should.
    Succeeded,
    /// Ended otherwise.
    Failed,
    /// Stopped by somebody.
    Stopped,
    /// Never started.
    Blocked,
}

impl Outcome {
    /// All of them, in the order of the counts on the screen.
    pub(crate) const ALL: [Self; 6] =
        [Self::Live, Self::Waiting, Self::Succeeded, Self::Failed, Self::Blocked, Self::Stopped];

    /// The word for it in a list of counts.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Live => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Blocked => "blocked",
        }
    }
}

impl Phase {
    /// The word that people see.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Blocked(..) => "blocked",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Backoff(_) => "backoff",
            Self::Quarantined(_) => "quarantined",
            Self::Ended(_) => self.outcome().as_str(),
        }
    }

    /// What it counts as.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Waiting => Outcome::Waiting,
            Self::Blocked(..) => Outcome::Blocked,
            Self::Starting
            | Self::Running
            | Self::Ready
            | Self::Paused
            | Self::Stopping
            | Self::Backoff(_) => Outcome::Live,
            Self::Quarantined(_) => Outcome::Failed,
            Self::Ended(end) if end.exit.is_success() => Outcome::Succeeded,
            Self::Ended(End { exit: Exit::Stopped { .. }, .. }) => Outcome::Stopped,
            Self::Ended(_) => Outcome::Failed,
        }
    }

    /// How it ended, if it has for good.
    pub(crate) fn end(&self) -> Option<&End> {
        match self {
            Self::Ended(end) | Self::Quarantined(end) => Some(end),
            _ => None,
        }
    }
}

impl End {
    fn new(exit: &Exit, duration_ms: u64, usage: Usage, restarts: u32) -> Self {
        Self { exit: exit.clone(), duration: Duration::from_millis(duration_ms), usage, restarts }
    }
}

impl AgentView {
    fn new(name: AgentName) -> Self {
        Self {
            name,
            phase: Phase::Waiting,
            started: None,
            fraction: None,
            status: None,
            task: None,
            enforcement: None,
            restarts: 0,
        }
    }

    /// What it is doing, in its own words: the task and the status, or whichever it told.
    pub(crate) fn doing(&self) -> String {
        match (&self.task, &self.status) {
            (Some(task), Some(status)) => format!("{task}: {status}"),
            (Some(text), None) | (None, Some(text)) => text.clone(),
            (None, None) => String::new(),
        }
    }

    fn progress(&mut self, fraction: Option<f64>, status: Option<&str>, task: Option<&str>) {
        if let Some(fraction) = fraction.filter(|fraction| fraction.is_finite()) {
            self.fraction = Some(fraction.clamp(0.0, 1.0));
        }
        for (new, shown) in [(status, &mut self.status), (task, &mut self.task)] {
            if let Some(text) = new {
                *shown = Some(safe(text)).filter(|text| !text.is_empty());
            }
        }
    }
}

impl RunView {
    /// Moves the model on by one event that was seen at `at`.
    pub(crate) fn apply(&mut self, event: &Event, at: Duration) {
        if let EventKind::RunStarted { agents, .. } = &event.kind {
            self.run = Some(event.run);
            self.project = Some(event.project.to_string());
            self.started = at;
            for name in agents {
                self.slot(name);
            }
        }
        if let Some(name) = &event.agent {
            let slot = self.slot(name);
            apply_to_agent(&mut self.agents[slot], &event.kind, at);
        }
    }

    /// The agents, in the order of the plan.
    pub(crate) fn agents(&self) -> &[AgentView] {
        &self.agents
    }

    /// Columns of the longest name.
    pub(crate) fn longest_name(&self) -> usize {
        // Names are ASCII: one byte, one column.
        self.agents.iter().map(|agent| agent.name.as_str().len()).max().unwrap_or(0)
    }

    /// One agent.
    pub(crate) fn agent(&self, name: &AgentName) -> Option<&AgentView> {
        self.index.get(name).map(|at| &self.agents[*at])
    }

    /// The agent's place in the plan.
    pub(crate) fn place(&self, name: &AgentName) -> usize {
        self.index.get(name).copied().unwrap_or(0)
    }

    /// How many agents have this outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        self.agents.iter().filter(|agent| agent.phase.outcome() == outcome).count()
    }

    /// The counts that are not zero: `2 running · 3 waiting · 1 failed`.
    pub(crate) fn counts(&self) -> String {
        let counts = Outcome::ALL.map(|outcome| (self.count(outcome), outcome.as_str()));
        let shown: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        shown.join(" · ")
    }

    fn slot(&mut self, name: &AgentName) -> usize {
        *self.index.entry(name.clone()).or_insert_with(|| {
            self.agents.push(AgentView::new(name.clone()));
            self.agents.len() - 1
        })
    }
}

fn apply_to_agent(agent: &mut AgentView, kind: &EventKind, at: Duration) {
    match kind {
        EventKind::AgentRequeued { .. } => {
            *agent =
                AgentView { enforcement: agent.enforcement.take(), ..AgentView::new(agent.name.clone()) };
        }
        EventKind::AgentWaiting { .. } => agent.phase = Phase::Waiting,
        EventKind::AgentStarting => {
            *agent = AgentView {
                phase: Phase::Starting,
                started: Some(at),
                restarts: agent.restarts,
                ..AgentView::new(agent.name.clone())
            };
        }
        EventKind::AgentStarted { enforcement, .. } => {
            agent.phase = Phase::Running;
            agent.started = Some(at);
            agent.enforcement = Some(enforcement.clone());
        }
        EventKind::AgentReady => agent.phase = Phase::Ready,
        EventKind::AgentNotReady { .. } if agent.phase == Phase::Ready => agent.phase = Phase::Running,
        EventKind::AgentPaused => agent.phase = Phase::Paused,
        EventKind::AgentResumed => agent.phase = Phase::Running,
        EventKind::AgentStopping { .. } => agent.phase = Phase::Stopping,
        EventKind::AgentEnded { exit, duration_ms, usage } => {
            agent.phase = Phase::Ended(End::new(exit, *duration_ms, *usage, agent.restarts));
        }
        EventKind::AgentRestarting { restarts, delay_ms, .. } => {
            agent.restarts = *restarts;
            agent.phase = Phase::Backoff(at + Duration::from_millis(*delay_ms));
        }
        EventKind::AgentQuarantined { exit, duration_ms, usage, restarts } => {
            agent.phase = Phase::Quarantined(End::new(exit, *duration_ms, *usage, *restarts));
        }
        EventKind::AgentBlocked { by, why } => agent.phase = Phase::Blocked(by.clone(), why.clone()),
        EventKind::Progress { fraction, status, task } => {
            agent.progress(*fraction, status.as_deref(), task.as_deref());
        }
        EventKind::TaskStarted { description, .. } => agent.progress(None, Some(""), Some(description)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::canned;
    use super::*;

    #[test]
    fn the_canned_run_is_counted() {
        let view = canned::view_after(canned::events().len());
        assert_eq!(view.counts(), "1 succeeded · 1 failed · 1 blocked · 1 stopped");
        let view = canned::view_after(canned::MIDDLE);
        assert_eq!(view.counts(), "2 running · 1 waiting · 1 succeeded");
    }

    #[test]
    fn what_an_agent_says_cannot_reach_the_terminal_raw() {
        let view = canned::view_after(canned::MIDDLE);
        for agent in view.agents() {
            assert!(agent.doing().chars().all(|c| !c.is_control()), "{:?}", agent.doing());
        }
    }

    #[test]
    fn an_impossible_fraction_is_not_shown() {
        let mut agent = AgentView::new(canned::name("a"));
        agent.progress(Some(f64::NAN), None, None);
        assert_eq!(agent.fraction, None);
        agent.progress(Some(7.0), None, None);
        assert_eq!(agent.fraction, Some(1.0));
    }
}
