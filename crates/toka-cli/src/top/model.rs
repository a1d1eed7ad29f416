//! Everything that `toka top` knows, and what each message changes about it. Nothing here reads a clock, a file or a
//! socket: what has to be done outside is an [`Effect`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use ratatui::crossterm::event::{KeyEvent, MouseEvent};
use ratatui::layout::Size;
use toka_api::client::Client;
use toka_api::health::ProjectHealth;
use toka_api::wire::{AgentView, ProjectView, ResourcesView, RunInfo};
use toka_core::health::Reason;
use toka_core::{
    AgentName, AgentStatus, Approval, ApprovalAnswer, Event, ExitCode, ProjectName, Request, RunStatus,
    Verdict,
};

use super::figures::Figures;
use super::layout::{Areas, Zoom};
use super::log_line::{LogLine, Wanted};
use super::machine::Machine;
use super::pages::{Details, Events};
use super::rows::{AgentId, Order, Row, Turn, fits};
use crate::commands::reach::Left;

/// How long an outcome is shown, in milliseconds.
const NOTE_MS: i64 = 10_000;

/// Something that happened outside.
#[derive(Debug)]
pub(crate) enum Message {
    /// A key.
    Key(KeyEvent),
    /// The mouse.
    Mouse(MouseEvent),
    /// The terminal has this size.
    Resized(Size),
    /// There are no keys any more.
    KeyboardGone,
    /// It is this time of the wall clock, in milliseconds since the Unix epoch.
    Tick(i64),
    /// A project as it is, from this daemon.
    Project(Box<ProjectView>, Client),
    /// Something happened in a project.
    Event(Box<Event>),
    /// A project's events have come to an end.
    Quiet(ProjectName),
    /// Its daemon does not have this project any more.
    Gone(ProjectName),
    /// Everybody was asked what runs; so many daemons answered.
    Searched {
        /// What is left of daemons and runs that were killed, but for what a daemon answers for.
        left: Left,
        /// How many.
        daemons: usize,
    },
    /// What agents use.
    Figures(Sample),
    /// How well the agents of a project are.
    Health(Box<ProjectHealth>),
    /// What somebody wanted to know of an agent, or why nobody tells.
    Details(AgentId, Result<Box<AgentView>, String>),
    /// How busy the machine is.
    Machine(Machine),
    /// The last lines of an agent.
    Log {
        /// Whose.
        agent: AgentId,
        /// Oldest first.
        lines: Vec<LogLine>,
    },
    /// What became of a command.
    Told(Note),
}

/// What agents of a project use.
#[derive(Debug)]
pub(crate) struct Sample {
    /// The project.
    pub(crate) project: ProjectName,
    /// When, by a clock that only goes forward.
    pub(crate) at: Duration,
    /// Who was asked about; everybody when empty.
    pub(crate) asked: Vec<AgentName>,
    /// The answer.
    pub(crate) view: ResourcesView,
}

/// Something to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Ask for something.
    Ask {
        /// Whom to ask.
        client: Client,
        /// What.
        request: Request,
        /// About whom.
        agent: AgentId,
    },
    /// Send a signal.
    Signal {
        /// Whom to ask.
        client: Client,
        /// Its number.
        signal: i32,
        /// To whom.
        agent: AgentId,
    },
    /// Answer what an agent waits for.
    Answer {
        /// Whom to ask.
        client: Client,
        /// Who waits.
        agent: AgentId,
        /// The number of the approval.
        id: u64,
        /// The answer.
        answer: ApprovalAnswer,
    },
    /// Look up what is known of an agent.
    Look {
        /// Whom to ask.
        client: Client,
        /// Of whom.
        agent: AgentId,
    },
    /// Run this program with these words on the terminal, and come back.
    Run(Vec<String>),
    /// Let the shell have the terminal for a while.
    Suspend,
    /// End.
    Quit,
}

/// A line for the person at the keyboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// What it says.
    pub(crate) text: String,
    /// How.
    pub(crate) tone: Tone,
}

/// How something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It goes on.
    Busy,
    /// It was done.
    Good,
    /// It was not.
    Bad,
}

/// Whether a project's events still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// They do.
    Live,
    /// Its daemon does not answer: what is known of it is old.
    Lost,
}

/// A project.
#[derive(Debug)]
pub(crate) struct Project {
    /// Who runs it.
    pub(crate) client: Client,
    /// What never changes.
    pub(crate) overview: RunInfo,
    /// What is known of its agents.
    pub(crate) status: RunStatus,
    /// Whether that is fresh.
    pub(crate) link: Link,
    /// What happened last.
    pub(crate) events: Events,
    /// How well its agents are, as far as somebody said.
    pub(crate) health: HashMap<AgentName, Judged>,
}

/// How well an agent is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judged {
    /// In a word.
    pub(crate) verdict: Verdict,
    /// Why, the worst first.
    pub(crate) reasons: Vec<Reason>,
}

/// What keys are about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Moving around.
    #[default]
    Browse,
    /// A filter is being typed.
    Filter,
    /// A text to look for in what is below is being typed.
    Search,
    /// A question waits for its answer.
    Confirm(Request, AgentId),
    /// Whether what an agent waits for is allowed.
    Answer(AgentId, Approval),
    /// A signal is being chosen: whose, and which of the list.
    Signal(AgentId, usize),
    /// What is known of an agent is shown, from this line on.
    Details(usize),
    /// The keys are being explained.
    Help,
}

/// Which part the arrows move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Pane {
    /// The table.
    #[default]
    Agents,
    /// The output.
    Log,
}

/// What is shown below the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Below {
    /// What the agent wrote.
    #[default]
    Log,
    /// What happened to it.
    Events,
}

/// The output that is shown.
#[derive(Debug, Default)]
pub(crate) struct LogPane {
    /// Whose.
    pub(crate) agent: Option<AgentId>,
    /// Its last lines, oldest first.
    pub(crate) lines: Vec<LogLine>,
    /// How many lines the person went back; while it is not 0, what is new waits.
    pub(crate) back: usize,
    /// The line that was found last, from the oldest.
    pub(crate) found: Option<usize>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// What runs, by name.
    pub(crate) projects: BTreeMap<ProjectName, Project>,
    /// What agents use.
    pub(crate) figures: HashMap<AgentId, Figures>,
    /// How busy the machine is.
    pub(crate) machine: Machine,
    /// How many daemons answered last; `None` before the first search.
    pub(crate) daemons: Option<usize>,
    /// What is left of those that were killed.
    pub(crate) left: Left,
    /// Whose row the cursor is on.
    pub(crate) selected: Option<AgentId>,
    /// The rows, in their order.
    pub(crate) rows: Vec<Row>,
    /// The first row that is on the screen.
    pub(crate) offset: usize,
    /// What rows are ordered by.
    pub(crate) order: Order,
    /// Which end of that order comes first.
    pub(crate) turn: Turn,
    /// What rows are filtered by.
    pub(crate) filter: String,
    /// What is looked for in what is below.
    pub(crate) search: String,
    /// What keys are about.
    pub(crate) mode: Mode,
    /// Which part the arrows move.
    pub(crate) pane: Pane,
    /// How much of the terminal the log has.
    pub(crate) zoom: Zoom,
    /// What is shown below the table.
    pub(crate) below: Below,
    /// The output that is shown.
    pub(crate) log: LogPane,
    /// What is known of an agent that somebody asked about.
    pub(crate) details: Option<Details>,
    /// What was said last, and until when it is shown.
    pub(crate) note: Option<(Note, i64)>,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub(crate) now_ms: i64,
    /// The terminal.
    pub(crate) size: Size,
    /// Why it ends, when the keyboard is what ended.
    pub(crate) ending: Option<ExitCode>,
}

impl Model {
    /// Takes a message; the answer is what has to be done about it.
    pub(crate) fn update(&mut self, message: Message) -> Option<Effect> {
        match message {
            Message::Key(key) => {
                self.settle();
                return self.key(key);
            }
            Message::Mouse(mouse) => {
                self.settle();
                self.mouse(mouse);
            }
            Message::KeyboardGone => {
                self.ending = Some(ExitCode::Terminated);
                return Some(Effect::Quit);
            }
            Message::Resized(size) => self.size = size,
            Message::Tick(now_ms) => self.tick(now_ms),
            Message::Project(view, client) => self.take(*view, client),
            Message::Event(event) => self.observe(&event),
            Message::Quiet(project) => self.lose(&project),
            Message::Gone(project) => self.forget(&project),
            Message::Searched { daemons, left } => (self.daemons, self.left) = (Some(daemons), left),
            Message::Figures(sample) => self.sample(sample),
            Message::Health(health) => self.judge(*health),
            Message::Details(agent, view) => self.tell_details(&agent, view),
            Message::Machine(machine) => self.machine = machine,
            Message::Log { agent, lines } => self.hear(agent, lines),
            Message::Told(note) => self.say(note),
        }
        None
    }

    fn tick(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        if self.note.as_ref().is_some_and(|(note, until)| note.tone != Tone::Busy && *until <= now_ms) {
            self.note = None;
        }
    }

    /// Says something in the line at the bottom.
    pub(crate) fn say(&mut self, note: Note) {
        self.note = Some((note, self.now_ms + NOTE_MS));
    }

    fn take(&mut self, view: ProjectView, client: Client) {
        let (overview, status) = view.into_status();
        let name = overview.project.clone();
        let known: HashSet<&AgentName> = status.agents().iter().map(|agent| &agent.name).collect();
        self.figures.retain(|id, _| id.project != name || known.contains(&id.agent));
        let (events, health) = match self.projects.remove(&name) {
            // Of another run there is nothing to tell any more.
            Some(known) if known.overview.run == overview.run => (known.events, known.health),
            _ => Default::default(),
        };
        self.projects.insert(name, Project { client, overview, status, link: Link::Live, events, health });
    }

    fn observe(&mut self, event: &Event) {
        let is_shown = self.below == Below::Events
            && self
                .selected
                .as_ref()
                .is_some_and(|id| id.project == event.project && Events::concerns(event, &id.agent));
        let Some(project) = self.projects.get_mut(&event.project) else { return };
        project.status.observe(event);
        let is_new = project.events.take(event);
        // Who reads back is not disturbed.
        if is_shown && is_new && self.log.back > 0 {
            self.log.back += 1;
        }
    }

    fn judge(&mut self, health: ProjectHealth) {
        if let Some(project) = self.projects.get_mut(&health.project) {
            let judged = |report: toka_core::HealthReport| {
                (report.status.name, Judged { verdict: report.verdict, reasons: report.reasons })
            };
            project.health = health.agents.into_iter().map(judged).collect();
        }
    }

    fn tell_details(&mut self, agent: &AgentId, view: Result<Box<AgentView>, String>) {
        if let Some(details) = self.details.as_mut().filter(|details| details.agent == *agent) {
            details.view = Some(view.map(|view| *view));
        }
    }

    /// How well an agent is, as far as somebody said.
    pub(crate) fn judged(&self, id: &AgentId) -> Option<&Judged> {
        self.projects.get(&id.project)?.health.get(&id.agent)
    }

    /// The events of a project have ended: with its run, or because nobody tells them any more.
    fn lose(&mut self, name: &ProjectName) {
        let Some(project) = self.projects.get_mut(name) else { return };
        let (text, tone) = match project.status.exit_code {
            Some(0) => (format!("{name} has ended with status 0"), Tone::Good),
            Some(code) => (format!("{name} has ended with status {code}"), Tone::Bad),
            // Whoever tells events may be gone before the last of them was heard.
            None if project.status.is_over() => (format!("{name} has ended"), Tone::Good),
            None => {
                project.link = Link::Lost;
                return;
            }
        };
        self.say(Note { text, tone });
        self.forget(name);
    }

    fn forget(&mut self, name: &ProjectName) {
        self.projects.remove(name);
        self.figures.retain(|id, _| id.project != *name);
    }

    fn sample(&mut self, sample: Sample) {
        let Sample { project, at, asked, view } = sample;
        let Some(known) = self.projects.get(&project) else { return };
        let agents: Vec<AgentName> = match asked.is_empty() {
            true => known.status.agents().iter().map(|agent| agent.name.clone()).collect(),
            false => asked,
        };
        for agent in agents {
            let resources = view.get(&agent).copied();
            let id = AgentId { project: project.clone(), agent };
            self.figures.entry(id).or_default().sample(at, resources);
        }
    }

    fn hear(&mut self, agent: AgentId, lines: Vec<LogLine>) {
        let is_same = self.log.agent.as_ref() == Some(&agent);
        // Who reads back is not disturbed; who reads the events does not see it.
        let is_read = self.below == Below::Log && self.log.back > 0;
        if self.selected.as_ref() == Some(&agent) && !(is_same && is_read) {
            let back = if is_same { self.log.back } else { 0 };
            self.log = LogPane { agent: Some(agent), lines, back, found: None };
        }
    }

    /// An agent.
    pub(crate) fn agent(&self, id: &AgentId) -> Option<(&Project, &AgentStatus)> {
        let project = self.projects.get(&id.project)?;
        Some((project, project.status.agent(&id.agent)?))
    }

    /// Every agent of every project.
    pub(crate) fn agents(&self) -> impl Iterator<Item = &AgentStatus> {
        self.projects.values().flat_map(|project| project.status.agents())
    }

    /// The parts of the terminal.
    pub(crate) fn areas(&self) -> Option<Areas> {
        Areas::of(self.size, self.zoom, self.agents().count())
    }

    /// Brings rows, cursor and scrolling to what is known now. Needed before anything is drawn.
    pub(crate) fn settle(&mut self) {
        let place = self.place();
        self.rows = self.arranged();
        let last = self.rows.len().saturating_sub(1);
        let is_there = self.place().is_some();
        if !is_there {
            self.selected = self.rows.get(place.unwrap_or(0).min(last)).map(|row| row.id.clone());
        }
        if self.log.agent != self.selected && self.log.agent.is_some() {
            self.log = LogPane::default();
        }
        self.scroll();
    }

    fn arranged(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (name, project) in &self.projects {
            for agent in project.status.agents() {
                let id = AgentId { project: name.clone(), agent: agent.name.clone() };
                if fits(&self.filter, &id, agent, self.now_ms) {
                    let figures = self.figures.get(&id);
                    rows.push((id, agent, figures));
                }
            }
        }
        self.order.arrange(rows, self.turn)
    }

    /// The row of the cursor.
    pub(crate) fn place(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.rows.iter().position(|row| row.id == *selected)
    }

    /// Keeps the cursor on the screen.
    pub(crate) fn scroll(&mut self) {
        let height = self.areas().map_or(0, |areas| usize::from(areas.rows.height));
        if height == 0 {
            return;
        }
        let place = self.place().unwrap_or(0);
        self.offset = self.offset.min(self.rows.len().saturating_sub(height)).min(place);
        self.offset = self.offset.max((place + 1).saturating_sub(height));
    }

    /// The rows that are on the screen.
    pub(crate) fn visible(&self) -> &[Row] {
        let height = self.areas().map_or(0, |areas| usize::from(areas.rows.height));
        let from = self.offset.min(self.rows.len());
        &self.rows[from..(from + height).min(self.rows.len())]
    }

    /// Whose output is to be read.
    pub(crate) fn log_wanted(&self) -> Wanted {
        let id = self.selected.clone()?;
        let root = &self.projects.get(&id.project)?.overview.root;
        Some((id.clone(), toka_prepare::folders::log_in(root, &id.agent)))
    }

    /// Projects whose daemon does not answer, and that nothing else is known of.
    pub(crate) fn lost(&self) -> Vec<&ProjectName> {
        let is_lost =
            |(name, project): &(&ProjectName, &Project)| project.link == Link::Lost && !self.left.has(name);
        self.projects.iter().filter(is_lost).map(|(name, _)| name).collect()
    }
}
