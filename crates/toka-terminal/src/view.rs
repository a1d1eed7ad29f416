//! What a run looks like at this moment: the status that the events of its journal make, as everywhere else, and when this
//! display saw what. It reads no clock; the caller says when it saw an event, so that a wall clock that jumps moves no figure
//! on the screen.

use std::collections::HashMap;
use std::time::Duration;

use toka_core::event::Usage;
use toka_core::{AgentName, AgentState, AgentStatus, Enforcement, Event, EventKind, Exit, RunId, RunStatus};

use super::text::safe;

/// All agents of a run. Times are since the display began.
#[derive(Debug, Default)]
pub struct RunView {
    /// The project, once an event told it.
    pub project: Option<String>,
    /// When the run was seen to begin.
    pub started: Duration,
    /// What the command itself has to say at the moment.
    pub notice: Option<String>,
    status: RunStatus,
    seen: HashMap<AgentName, Seen>,
    agents: Vec<AgentView>,
}

/// When what of an agent was seen.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// When this life, or the last one, was seen to start.
    started: Option<Duration>,
}

/// One agent.
#[derive(Debug, Clone)]
pub struct AgentView {
    /// Its name.
    pub name: AgentName,
    /// Where it is in its life.
    pub state: AgentState,
    /// How it ended, if it has for good.
    pub end: Option<End>,
    /// When it was seen to start.
    pub started: Option<Duration>,
    /// How far it is, 0.0 to 1.0.
    pub fraction: Option<f64>,
    /// What it says that it is doing; safe to show.
    pub status: Option<String>,
    /// The task it is at; safe to show.
    pub task: Option<String>,
    /// What confines it, once it runs.
    pub enforcement: Option<Enforcement>,
    /// How often it was restarted.
    pub restarts: u32,
    /// Objectives that are not met.
    pub unmet: Vec<Box<str>>,
    /// What it waits for from a person; safe to show.
    pub awaits: Option<String>,
    /// Why it was not started when its turn had come, while it waits for room on the host.
    pub held: Option<String>,
}

/// How an agent ended, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// The cause.
    pub exit: Exit,
    /// How long it lived.
    pub duration: Duration,
    /// What it used.
    pub usage: Usage,
    /// How often it was restarted.
    pub restarts: u32,
}

/// The kinds of outcome that people count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Starting, running, ready, paused or stopping, or about to be started again.
    Live,
    /// Not started yet.
    Pending,
    /// Ended as it should.
    Succeeded,
    /// Ended otherwise.
    Failed,
    /// Never started, because of a dependency.
    Blocked,
    /// Stopped by somebody.
    Stopped,
    /// The run ended before its turn.
    NotStarted,
    /// There was nothing that it would have done.
    Skipped,
}

impl Outcome {
    /// All of them, in the order of the counts on the screen.
    pub const ALL: [Self; 8] = [
        Self::Live,
        Self::Pending,
        Self::Succeeded,
        Self::Failed,
        Self::Blocked,
        Self::Stopped,
        Self::NotStarted,
        Self::Skipped,
    ];

    /// What a state counts as.
    pub fn of(state: &AgentState) -> Self {
        match state {
            AgentState::Pending => Self::Pending,
            AgentState::Blocked { .. } => Self::Blocked,
            AgentState::Quarantined { .. } => Self::Failed,
            AgentState::Ended { exit } if exit.is_success() => Self::Succeeded,
            AgentState::Ended { exit: Exit::Stopped { .. } } => Self::Stopped,
            AgentState::Ended { exit: Exit::NotStarted { .. } } => Self::NotStarted,
            AgentState::Ended { exit: Exit::Skipped { .. } } => Self::Skipped,
            AgentState::Ended { .. } => Self::Failed,
            AgentState::Starting
            | AgentState::Running { .. }
            | AgentState::Paused { .. }
            | AgentState::Stopping { .. }
            | AgentState::Backoff { .. } => Self::Live,
        }
    }

    /// The word for it in a list of counts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "running",
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Blocked => "blocked",
            Self::NotStarted => "not started",
            Self::Skipped => "skipped",
        }
    }
}

impl AgentView {
    fn of(status: &AgentStatus, seen: Seen) -> Self {
        let end = status.exit().map(|exit| End {
            exit: exit.clone(),
            duration: Duration::from_millis(
                status.last.as_ref().map_or(0, |last| last.all_lives_ms.unwrap_or(last.duration_ms)),
            ),
            usage: status.last.as_ref().map(|last| last.usage).unwrap_or_default(),
            restarts: status.restart_count,
        });
        let text = |text: &Option<Box<str>>| text.as_deref().map(safe).filter(|text| !text.is_empty());
        Self {
            name: status.name.clone(),
            state: status.state.clone(),
            end,
            started: seen.started,
            fraction: status.progress.fraction,
            status: text(&status.progress.status),
            task: text(&status.progress.task),
            enforcement: status.enforcement.as_deref().cloned(),
            restarts: status.restart_count,
            unmet: status.unmet.clone(),
            awaits: status.approvals.first().map(|approval| safe(&approval.subject.to_string())),
            held: status.held.as_ref().map(ToString::to_string),
        }
    }

    /// What it counts as.
    pub fn outcome(&self) -> Outcome {
        Outcome::of(&self.state)
    }

    /// Whether its time has come: it lives, or a person or the host keeps it from starting.
    pub fn is_due(&self) -> bool {
        match self.outcome() {
            Outcome::Live => true,
            Outcome::Pending => self.awaits.is_some() || self.held.is_some(),
            _ => false,
        }
    }

    /// What it waits for, from a person or the host; else what it is doing, in its own words: the task and the status, or whichever it told.
    pub fn doing(&self) -> String {
        if let Some(awaits) = &self.awaits {
            return format!("waits for a person: {awaits}");
        }
        if let Some(held) = &self.held {
            return held.clone();
        }
        match (&self.task, &self.status) {
            (Some(task), Some(status)) => format!("{task}: {status}"),
            (Some(text), None) | (None, Some(text)) => text.clone(),
            (None, None) => String::new(),
        }
    }
}

impl RunView {
    /// Moves the model on by one event that was seen at `at`.
    pub fn apply(&mut self, event: &Event, at: Duration) {
        self.status.observe(event);
        match (&event.agent, &event.kind) {
            (None, EventKind::RunStarted { .. }) => {
                self.project = Some(event.project.to_string());
                self.started = at;
                self.project_all();
            }
            // An answer may be for several of them.
            (None, EventKind::RunChanged { .. }) | (_, EventKind::ApprovalAnswered { .. }) => {
                self.project_all();
            }
            (Some(name), kind) => {
                if matches!(kind, EventKind::AgentStarting | EventKind::AgentStarted { .. }) {
                    self.seen.entry(name.clone()).or_default().started = Some(at);
                }
                if matches!(kind, EventKind::AgentRequeued { .. }) {
                    self.seen.remove(name);
                }
                self.project_one(name);
            }
            (None, _) => {}
        }
    }

    fn project_all(&mut self) {
        let seen = |name| self.seen.get(name).copied().unwrap_or_default();
        self.agents =
            self.status.agents().iter().map(|status| AgentView::of(status, seen(&status.name))).collect();
    }

    fn project_one(&mut self, name: &AgentName) {
        let seen = self.seen.get(name).copied().unwrap_or_default();
        if let (Some(at), Some(status)) = (self.status.place(name), self.status.agent(name)) {
            self.agents[at] = AgentView::of(status, seen);
        }
    }

    /// The run, once an event told it.
    pub fn run(&self) -> Option<RunId> {
        self.status.run
    }

    /// The agents, in the order of the plan.
    pub fn agents(&self) -> &[AgentView] {
        &self.agents
    }

    /// Columns of the longest name.
    pub fn longest_name(&self) -> usize {
        // Names are ASCII: one byte, one column.
        self.agents.iter().map(|agent| agent.name.as_str().len()).max().unwrap_or(0)
    }

    /// One agent.
    pub fn agent(&self, name: &AgentName) -> Option<&AgentView> {
        self.status.place(name).map(|at| &self.agents[at])
    }

    /// The agent's place in the plan.
    pub fn place(&self, name: &AgentName) -> usize {
        self.status.place(name).unwrap_or(0)
    }

    /// How many agents have this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.agents.iter().filter(|agent| agent.outcome() == outcome).count()
    }

    /// The counts that are not zero: `2 running · 3 pending · 1 failed`.
    pub fn counts(&self) -> String {
        let counts = Outcome::ALL.map(|outcome| (self.count(outcome), outcome.as_str()));
        let shown: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        shown.join(" · ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canned;

    #[test]
    fn the_canned_run_is_counted() {
        let view = canned::view_after(canned::events().len());
        assert_eq!(view.counts(), "1 succeeded · 1 failed · 1 blocked · 1 stopped");
        let view = canned::view_after(canned::MIDDLE);
        assert_eq!(view.counts(), "2 running · 1 pending · 1 succeeded");
    }

    #[test]
    fn what_an_agent_says_cannot_reach_the_terminal_raw() {
        let view = canned::view_after(canned::MIDDLE);
        for agent in view.agents() {
            assert!(agent.doing().chars().all(|c| !c.is_control()), "{:?}", agent.doing());
        }
    }

    #[test]
    fn an_agent_that_was_ready_when_it_was_paused_is_ready_when_it_goes_on() {
        let names = ["a"].map(canned::name);
        let told = [
            EventKind::AgentStarting,
            EventKind::AgentStarted { pid: 7, enforcement: Enforcement::default() },
            EventKind::AgentPaused { by: String::new() },
            EventKind::AgentReady,
            EventKind::AgentResumed,
        ];
        let view = canned::view_of(&names, told.map(|kind| (0, kind)));
        assert_eq!(view.agents()[0].state.as_str(), "ready");
    }

    #[test]
    fn a_run_that_becomes_another_is_shown_as_what_it_is() {
        let names = ["a", "b"].map(canned::name);
        let mut view = canned::view_of(&names, [(0, EventKind::AgentStarting)]);
        let kind = EventKind::RunChanged {
            by: "operator".into(),
            agents: vec![canned::name("a"), canned::name("c")],
            added: vec![canned::name("c")],
            changed: Vec::new(),
            adjusted: Vec::new(),
            removed: vec![canned::name("b")],
        };
        view.apply(&Event { seq: 99, agent: None, kind, ..canned::events().remove(0) }, Duration::ZERO);
        let shown: Vec<String> =
            view.agents().iter().map(|agent| format!("{} {}", agent.name, agent.state.as_str())).collect();
        assert_eq!(shown, ["a starting", "c pending"]);
    }
}
