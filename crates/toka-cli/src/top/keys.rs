//! What each key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use toka_core::Request;

use super::layout::Zoom;
use super::model::{Effect, Link, Mode, Model, Note, Pane, Tone};
use super::rows::AgentId;

/// The keys as the help shows them.
pub(crate) const HELP: [(&str, &str); 19] = [
    ("↑ ↓  k j", "one up, one down"),
    ("PgUp PgDn", "a page up, a page down"),
    ("Home End  g G", "to the first, to the last"),
    ("Tab", "between the agents and the log"),
    ("Enter", "the log on the whole screen, and back"),
    ("/", "show only what has these words: name, state, doing"),
    ("o", "order by name, state, CPU, memory"),
    ("", ""),
    ("p", "pause: freeze it; its clocks stand still"),
    ("r", "resume: let it go on"),
    ("s", "stop, after a question"),
    ("S", "start, with what it needs"),
    ("R", "restart, after a question"),
    ("K", "kill: end it at once, after a question"),
    ("", ""),
    ("?", "this help"),
    ("Esc", "back: from the log, the filter; then quit"),
    ("Ctrl-Z", "to the shell; fg comes back"),
    ("q  Ctrl-C", "quit; agents go on"),
];

/// Where the cursor is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
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
            Mode::Confirm(request, agent) => self.answer(key.code, request, agent),
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
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('o') => {
                self.order = self.order.next();
                self.say(Note { text: format!("ordered by {}", self.order.as_str()), tone: Tone::Good });
                self.settle();
            }
            KeyCode::Tab | KeyCode::BackTab => {
                self.pane = if self.pane == Pane::Agents { Pane::Log } else { Pane::Agents };
            }
            KeyCode::Enter => self.zoom(),
            KeyCode::Char(letter) => return self.verb(letter),
            _ => {}
        }
        None
    }

    /// Out of what was entered last; out of everything at last.
    fn back(&mut self) -> Option<Effect> {
        if self.zoom == Zoom::Log {
            self.zoom();
        } else if !self.filter.is_empty() {
            self.filter.clear();
            self.settle();
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
        let Some(areas) = self.areas() else { return };
        match self.pane {
            Pane::Agents => {
                let page = usize::from(areas.rows.height).max(1);
                let last = self.rows.len().saturating_sub(1);
                let place = step.from(self.place().unwrap_or(0), page, last);
                self.selected = self.rows.get(place).cloned();
                self.settle();
            }
            Pane::Log => {
                let page = usize::from(areas.log.height).max(1);
                let last = self.log.lines.len().saturating_sub(page);
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

    fn ask(&mut self, request: Request, agent: AgentId) -> Option<Effect> {
        let asked = self.projects.get(&agent.project).map(|project| (project.client.clone(), project.link));
        match asked {
            Some((client, Link::Live)) => {
                self.say(Note { text: format!("{} {agent} …", word(request)), tone: Tone::Busy });
                Some(Effect::Ask { client, request, agent })
            }
            Some((_, Link::Lost)) => {
                let text = format!("{agent}: its daemon does not answer");
                self.say(Note { text, tone: Tone::Bad });
                None
            }
            None => None,
        }
    }
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
