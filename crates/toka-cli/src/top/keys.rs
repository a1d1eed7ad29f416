//! What each key does.

use std::borrow::Cow;
use std::ops::Range;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use toka_api::client::Client;
use toka_core::exit::signal_name;
use toka_core::{Approval, ApprovalAnswer, Request};

use super::layout::Zoom;
use super::log_line::LogLine;
use super::model::{Below, Effect, Link, Mode, Model, Note, Pane, Tone};
use super::pages::Details;
use super::rows::{AgentId, Order, Turn};
use toka_terminal::text::fit;

/// More lines than anybody declares.
const MOST_DETAILS: usize = 10_000;

/// The keys as the help shows them: those that look, and those that act.
pub(crate) const LOOKS: [(&str, &str); 17] = [
    ("↑ ↓  k j", "one up, one down"),
    ("PgUp PgDn", "a page up or down"),
    ("Home End g G", "the first, the last"),
    ("Tab", "agents or what is below"),
    ("Enter", "what is below alone"),
    ("v", "below: output or events"),
    ("i", "all that is known of it"),
    ("/", "filter the agents; in"),
    ("", "what is below, search it"),
    ("n N", "found before, after"),
    ("o O", "another order, reversed"),
    ("t", "who waits for whom"),
    ("mouse", "click, wheel, headings"),
    ("", ""),
    ("?", "this help"),
    ("Esc", "back; then quit"),
    ("q  Ctrl-C", "quit; agents go on"),
];
pub(crate) const ACTS: [(&str, &str); 13] = [
    ("p", "pause: freeze it"),
    ("r", "resume: let it go on"),
    ("s", "stop, after a question"),
    ("S", "start, with what it needs"),
    ("R", "restart, after a question"),
    ("K", "kill, after a question"),
    ("x", "send it a signal"),
    ("A", "answer what it waits for"),
    ("", ""),
    ("a", "attach to its terminal"),
    ("e", "a shell in its sandbox"),
    ("", ""),
    ("Ctrl-Z", "to the shell; fg comes back"),
];

/// The signals that are offered, with what programs make of them.
pub(crate) const SIGNALS: [(i32, &str); 9] = [
    (1, "HUP   reads its settings again"),
    (2, "INT   as Ctrl-C"),
    (3, "QUIT  ends, with a dump"),
    (10, "USR1  its own"),
    (12, "USR2  its own"),
    (15, "TERM  ends; its restart policy counts"),
    (28, "WINCH its own"),
    (6, "ABRT  ends, with a dump"),
    (9, "KILL  ends at once"),
];

/// Where the cursor is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

impl Move {
    fn of(key: KeyCode) -> Option<Self> {
        Some(match key {
            KeyCode::Up | KeyCode::Char('k') => Self::Up,
            KeyCode::Down | KeyCode::Char('j') => Self::Down,
            KeyCode::PageUp => Self::PageUp,
            KeyCode::PageDown | KeyCode::Char(' ') => Self::PageDown,
            KeyCode::Home | KeyCode::Char('g') => Self::First,
            KeyCode::End | KeyCode::Char('G') => Self::Last,
            _ => return None,
        })
    }

    /// From `at` to where, on pages of `page`, when `last` is the largest place.
    fn from(self, at: usize, page: usize, last: usize) -> usize {
        match self {
            Self::Up => at.saturating_sub(1),
            Self::Down => at + 1,
            Self::PageUp => at.saturating_sub(page),
            Self::PageDown => at + page,
            Self::First => 0,
            Self::Last => last,
        }
        .min(last)
    }
}

impl Model {
    /// Takes a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Effect> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Effect::Quit),
                KeyCode::Char('z') => Some(Effect::Suspend),
                _ => None,
            };
        }
        match std::mem::take(&mut self.mode) {
            Mode::Browse => self.browse(key.code),
            Mode::Filter => self.type_filter(key.code),
            Mode::Search => self.type_search(key.code),
            Mode::Confirm(request, agent) => self.answer(key.code, request, agent),
            Mode::Answer(agent, approval) => self.answer_approval(key.code, agent, approval),
            Mode::Signal(agent, at) => self.choose_signal(key.code, agent, at),
            Mode::Details(from) => self.read_details(key.code, from),
            Mode::Help => None,
        }
    }

    fn browse(&mut self, key: KeyCode) -> Option<Effect> {
        if let Some(step) = Move::of(key) {
            self.go(step);
            return None;
        }
        match key {
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Esc => return self.back(),
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Char('/') if self.pane == Pane::Log => {
                self.search.clear();
                self.mode = Mode::Search;
            }
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('n') => self.find(Way::Older),
            KeyCode::Char('N') => self.find(Way::Newer),
            KeyCode::Char('o') => self.order_by(self.order.next(), Turn::Usual),
            KeyCode::Char('O') => self.order_by(self.order, self.turn.other()),
            KeyCode::Char('t') if self.order == Order::Tree => self.order_by(Order::Name, Turn::Usual),
            KeyCode::Char('t') => self.order_by(Order::Tree, Turn::Usual),
            KeyCode::Char('v') => self.turn_below(),
            KeyCode::Char('i') => return self.look(),
            KeyCode::Char('x') => {
                if let Some(agent) = self.selected.clone() {
                    self.mode = Mode::Signal(agent, 0);
                }
            }
            KeyCode::Char('A') => self.ask_for_answer(),
            KeyCode::Char('a') => return self.run(&["attach"], &[]),
            KeyCode::Char('e') => return self.run(&["exec", "--tty"], &["--", "/bin/sh"]),
            KeyCode::Tab | KeyCode::BackTab => {
                self.pane = if self.pane == Pane::Agents { Pane::Log } else { Pane::Agents };
            }
            KeyCode::Enter => self.zoom(),
            KeyCode::Char(letter) => return self.verb(letter),
            _ => {}
        }
        None
    }

    /// Puts the rows into another order.
    pub(super) fn order_by(&mut self, order: Order, turn: Turn) {
        (self.order, self.turn) = (order, turn);
        let reversed = if turn == Turn::Back { ", reversed" } else { "" };
        self.say(Note { text: format!("ordered by {}{reversed}", order.as_str()), tone: Tone::Good });
        self.settle();
    }

    fn turn_below(&mut self) {
        self.below = if self.below == Below::Log { Below::Events } else { Below::Log };
        (self.log.back, self.log.found) = (0, None);
    }

    /// The lines that are shown below the table.
    pub(crate) fn below(&self) -> Cow<'_, [LogLine]> {
        match self.below {
            Below::Log => Cow::Borrowed(&self.log.lines),
            Below::Events => {
                let of = |id: &AgentId| self.projects.get(&id.project).map(|it| it.events.of(&id.agent));
                Cow::Owned(self.selected.as_ref().and_then(of).unwrap_or_default())
            }
        }
    }

    /// Asks for all that is known of the agent under the cursor.
    fn look(&mut self) -> Option<Effect> {
        let agent = self.selected.clone()?;
        let client = self.live_client(&agent)?;
        self.details = Some(Details { agent: agent.clone(), view: None });
        self.mode = Mode::Details(0);
        Some(Effect::Look { client, agent })
    }

    fn read_details(&mut self, key: KeyCode, from: usize) -> Option<Effect> {
        let page = usize::from(self.size.height).saturating_sub(4).max(1);
        self.mode = match key {
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | 'i') => {
                self.details = None;
                return None;
            }
            // Where the last page begins is known to whoever draws it.
            other => Mode::Details(Move::of(other).map_or(from, |step| step.from(from, page, MOST_DETAILS))),
        };
        None
    }

    fn choose_signal(&mut self, key: KeyCode, agent: AgentId, at: usize) -> Option<Effect> {
        match key {
            KeyCode::Enter => {
                let client = self.live_client(&agent)?;
                let signal = SIGNALS[at].0;
                let text = format!("{} to {agent} …", signal_name(signal));
                self.say(Note { text, tone: Tone::Busy });
                return Some(Effect::Signal { client, signal, agent });
            }
            KeyCode::Esc | KeyCode::Char('q' | 'x' | 'n') => return None,
            _ => {}
        }
        let last = SIGNALS.len() - 1;
        let at = Move::of(key).map_or(at, |step| step.from(at, last, last));
        self.mode = Mode::Signal(agent, at);
        None
    }

    /// Runs a command of Toka about the agent under the cursor on the whole terminal.
    fn run(&mut self, before: &[&str], after: &[&str]) -> Option<Effect> {
        let agent = self.selected.clone()?;
        self.live_client(&agent)?;
        let name = agent.to_string();
        let words = before.iter().copied().chain([name.as_str()]).chain(after.iter().copied());
        Some(Effect::Run(words.map(str::to_owned).collect()))
    }

    /// Whom to ask about an agent; when nobody answers, that is said.
    fn live_client(&mut self, agent: &AgentId) -> Option<Client> {
        let project = self.projects.get(&agent.project)?;
        if project.link == Link::Live {
            return Some(project.client.clone());
        }
        let text = format!("{agent}: its daemon does not answer");
        self.say(Note { text, tone: Tone::Bad });
        None
    }

    fn type_search(&mut self, key: KeyCode) -> Option<Effect> {
        self.mode = Mode::Search;
        match key {
            KeyCode::Enter => {
                self.mode = Mode::Browse;
                self.log.found = None;
                self.find(Way::Older);
            }
            KeyCode::Esc => {
                self.search.clear();
                (self.log.found, self.mode) = (None, Mode::Browse);
            }
            KeyCode::Backspace => drop(self.search.pop()),
            KeyCode::Char(letter) if !letter.is_control() => self.search.push(letter),
            _ => {}
        }
        None
    }

    /// Goes to the next line that has the text, from the last that was found, or from the end of what is shown.
    fn find(&mut self, way: Way) {
        if self.search.is_empty() {
            return;
        }
        let lines = self.below();
        let shown = lines.len().saturating_sub(self.log.back);
        let page = self.areas().map_or(1, |areas| usize::from(areas.log.height).max(1));
        let has = |at: &usize| matches(&lines[*at].text, &self.search).next().is_some();
        let found = match way {
            Way::Older => (0..self.log.found.unwrap_or(shown)).rev().find(has),
            Way::Newer => {
                (self.log.found.map_or(shown.saturating_sub(page), |at| at + 1)..lines.len()).find(has)
            }
        };
        let length = lines.len();
        match found {
            Some(at) => {
                self.log.found = Some(at);
                // The line stands in the middle, where there is so much around it.
                self.log.back = (length - 1 - at).saturating_sub(page / 2).min(length.saturating_sub(page));
                self.note = None;
            }
            None => {
                let where_ = if way == Way::Older { "before" } else { "after" };
                let text = format!("no line {where_} this has “{}”", fit(&self.search, 40));
                self.say(Note { text, tone: Tone::Bad });
            }
        }
    }

    /// Out of what was entered last; out of everything at last.
    fn back(&mut self) -> Option<Effect> {
        if !self.search.is_empty() && self.pane == Pane::Log {
            self.search.clear();
            self.log.found = None;
        } else if self.zoom == Zoom::Log {
            self.zoom();
        } else if !self.filter.is_empty() {
            self.filter.clear();
            self.settle();
        } else if self.pane == Pane::Log {
            self.pane = Pane::Agents;
        } else {
            return Some(Effect::Quit);
        }
        None
    }

    fn zoom(&mut self) {
        (self.zoom, self.pane) = match self.zoom {
            Zoom::Split if self.selected.is_some() => (Zoom::Log, Pane::Log),
            _ => (Zoom::Split, Pane::Agents),
        };
        self.log.back = 0;
        self.scroll();
    }

    fn go(&mut self, step: Move) {
        self.go_in(self.pane, step);
    }

    /// Moves the cursor, or what is shown of what is below.
    pub(super) fn go_in(&mut self, pane: Pane, step: Move) {
        let Some(areas) = self.areas() else { return };
        match pane {
            Pane::Agents => {
                let page = usize::from(areas.rows.height).max(1);
                let last = self.rows.len().saturating_sub(1);
                let place = step.from(self.place().unwrap_or(0), page, last);
                self.selected = self.rows.get(place).map(|row| row.id.clone());
                self.settle();
            }
            Pane::Log => {
                // The next search begins at the line that the person looks at.
                self.log.found = None;
                let page = usize::from(areas.log.height).max(1);
                let last = self.below().len().saturating_sub(page);
                let first_shown = last - self.log.back.min(last);
                self.log.back = last - step.from(first_shown, page, last);
            }
        }
    }

    fn type_filter(&mut self, key: KeyCode) -> Option<Effect> {
        self.mode = Mode::Filter;
        match key {
            KeyCode::Enter => self.mode = Mode::Browse,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Browse;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if !letter.is_control() => self.filter.push(letter),
            KeyCode::Up => self.go(Move::Up),
            KeyCode::Down => self.go(Move::Down),
            _ => {}
        }
        self.settle();
        None
    }

    fn verb(&mut self, letter: char) -> Option<Effect> {
        let request = match letter {
            'p' => Request::Pause,
            'r' => Request::Resume,
            's' => Request::Stop,
            'S' => Request::Start,
            'R' => Request::Restart,
            'K' => Request::Kill,
            _ => return None,
        };
        let agent = self.selected.clone()?;
        match request {
            Request::Stop | Request::Restart | Request::Kill => {
                self.mode = Mode::Confirm(request, agent);
                None
            }
            _ => self.ask(request, agent),
        }
    }

    fn answer(&mut self, key: KeyCode, request: Request, agent: AgentId) -> Option<Effect> {
        match key {
            KeyCode::Char('y' | 'Y') => self.ask(request, agent),
            // A stray key is no answer; a wrong yes cannot be taken back.
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc | KeyCode::Enter => None,
            _ => {
                self.mode = Mode::Confirm(request, agent);
                None
            }
        }
    }

    /// Shows the first thing that the agent under the cursor waits for, or says that it waits for no answer.
    fn ask_for_answer(&mut self) {
        let Some(agent) = self.selected.clone() else { return };
        let Some(approval) = self.agent(&agent).and_then(|(_, status)| status.approvals.first().cloned())
        else {
            let text = format!("{agent} waits for no answer of yours");
            return self.say(Note { text, tone: Tone::Good });
        };
        self.mode = Mode::Answer(agent, approval);
    }

    fn answer_approval(&mut self, key: KeyCode, agent: AgentId, approval: Approval) -> Option<Effect> {
        let yes = approval.subject.yes();
        let answer = match (key, yes) {
            (KeyCode::Char('y' | 'Y'), Some(_)) => ApprovalAnswer::YES,
            (KeyCode::Char('y' | 'Y'), None) => {
                let id = approval.id;
                let text =
                    format!("a yes needs a sum: toka approvals approve {}/{id} --raise …", agent.project);
                self.say(Note { text, tone: Tone::Bad });
                return None;
            }
            (KeyCode::Char('n' | 'N'), _) => ApprovalAnswer::Denied,
            (KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | 'A'), _) => return None,
            _ => {
                self.mode = Mode::Answer(agent, approval);
                return None;
            }
        };
        let client = self.live_client(&agent)?;
        self.say(Note { text: format!("answers {agent} …"), tone: Tone::Busy });
        Some(Effect::Answer { client, agent, id: approval.id, answer })
    }

    fn ask(&mut self, request: Request, agent: AgentId) -> Option<Effect> {
        let client = self.live_client(&agent)?;
        self.say(Note { text: format!("{} {agent} …", word(request)), tone: Tone::Busy });
        Some(Effect::Ask { client, request, agent })
    }
}

/// Where to look for a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// In what was written before.
    Older,
    /// In what was written after.
    Newer,
}

/// Where a text has what is looked for, as ranges of bytes; capitals make no difference.
pub(crate) fn matches<'t>(text: &'t str, wanted: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
    let letters: Vec<char> = wanted.chars().flat_map(char::to_lowercase).collect();
    let mut from = 0;
    std::iter::from_fn(move || {
        while !letters.is_empty() && from < text.len() {
            let start = from;
            let rest = text[start..].char_indices();
            from += text[start..].chars().next().map_or(1, char::len_utf8);
            let mut left = letters.iter().peekable();
            for (at, letter) in rest {
                let fits = letter.to_lowercase().all(|small| left.next() == Some(&small));
                if !fits {
                    break;
                }
                if left.peek().is_none() {
                    from = start + at + letter.len_utf8();
                    return Some(start..from);
                }
            }
        }
        None
    })
}

/// The word for a request.
pub(crate) fn word(request: Request) -> &'static str {
    match request {
        Request::Start => "start",
        Request::Pause => "pause",
        Request::Resume => "resume",
        Request::Stop => "stop",
        Request::Restart => "restart",
        Request::Kill => "kill",
    }
}
