//! A conversation with an agent, as a terminal shows it: what is said, what tools do, where a turn ends. News come in, text comes out;
//! nothing is drawn twice, so that what stands there can be scrolled back to, copied and piped.

use std::collections::HashMap;
use std::time::Duration;

use toka_core::escape::is_harmless;
use toka_core::event::Effect;
use toka_core::transcript::{CallEntry, Entry, EntryKind};
use toka_core::units::format_duration;
use toka_core::{SessionNews, SessionState};

use crate::palette::{Paint, Palette};
use crate::sessions::plan;
use crate::text::{count, safe};

/// Lines that are shown of what a tool writes.
const LINES: usize = 12;
/// A tool that takes less is not told how long it took.
const WORTH_TELLING: Duration = Duration::from_millis(500);

/// What is open at the end of what was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// Nothing: the next text begins a line.
    Nothing,
    /// A line of the answer.
    Response,
    /// A line of the reasoning.
    Thinking,
}

/// What was shown of a conversation.
#[derive(Debug)]
pub struct ChatView {
    palette: Palette,
    open: Open,
    /// Whether pieces of the answer that comes were shown.
    is_streamed: bool,
    /// Whether its first pieces were not: it is shown again, whole.
    is_partial: bool,
    /// Whether what comes next says where the session was when this began to look on.
    joins: bool,
    /// Whether the attempt at which the model worked has ended.
    has_ended: bool,
    /// What is on record is told again: also what the person at this terminal has said.
    is_live: bool,
    /// What the person at this terminal has said, and stands there already.
    own: Vec<String>,
    calls: HashMap<String, CallEntry>,
    /// The call whose line stands there, and lines that may follow of what it writes.
    shown: Option<(String, usize)>,
    state: SessionState,
    /// Whether it waits for what a person says.
    listens: bool,
    /// Tokens of this turn: read and written.
    tokens: (u64, u64),
    asked: usize,
    last_plan: String,
}

impl ChatView {
    /// Nothing was shown yet.
    pub fn new(palette: Palette) -> Self {
        Self {
            palette,
            open: Open::Nothing,
            is_streamed: false,
            is_partial: false,
            joins: false,
            has_ended: false,
            is_live: false,
            own: Vec::new(),
            calls: HashMap::new(),
            shown: None,
            state: SessionState::Idle,
            listens: false,
            tokens: (0, 0),
            asked: 0,
            last_plan: String::new(),
        }
    }

    /// Where the session is.
    pub fn state(&self) -> SessionState {
        self.state
    }

    /// Whether the attempt has ended at which the model worked: nobody hears what is said.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether all that was on record before was told.
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// Whether it waits for what a person says.
    pub fn listens(&self) -> bool {
        self.listens
    }

    /// Whether the next text begins a line.
    pub fn is_at_start(&self) -> bool {
        self.open == Open::Nothing
    }

    /// The plan that was told last, or that there is none.
    pub fn plan(&self) -> String {
        if self.last_plan.is_empty() { "there is no plan\n".to_owned() } else { self.last_plan.clone() }
    }

    /// The person at this terminal says this, and sees it.
    pub fn says(&mut self, text: &str) {
        self.own.push(text.to_owned());
        if std::mem::take(&mut self.listens) {
            // Else it belongs to the turn that is under way.
            (self.tokens, self.asked) = ((0, 0), 0);
        }
    }

    /// What was said last was not heard.
    pub fn was_not_heard(&mut self) {
        self.own.pop();
        self.listens = true;
    }

    /// What a turn took, in words; nothing when no model was asked.
    pub fn figures(&self) -> Option<String> {
        let (read, written) = self.tokens;
        (self.asked > 0)
            .then(|| format!("{}, {read} tokens read, {written} written", count(self.asked, "answer")))
    }

    /// What is to be printed for a piece of news.
    pub fn tell(&mut self, news: &SessionNews) -> String {
        match news {
            SessionNews::Session { .. } => String::new(),
            SessionNews::Live => {
                // Where it is comes next: an answer may be on its way already.
                (self.is_live, self.joins) = (true, true);
                String::new()
            }
            SessionNews::StateChange { to } => {
                if self.listens || self.state == SessionState::Idle {
                    // Another turn begins, whoever has begun it.
                    (self.tokens, self.asked) = ((0, 0), 0);
                }
                if std::mem::take(&mut self.joins) {
                    self.is_partial = *to == SessionState::Thinking;
                }
                (self.state, self.listens) = (*to, false);
                String::new()
            }
            SessionNews::Listens => {
                (self.state, self.listens, self.joins) = (SessionState::Idle, true, false);
                String::new()
            }
            SessionNews::Entry { entry } => self.entry(entry),
            SessionNews::ResponseChunk { text } => {
                let begin = self.begin(Open::Response);
                self.is_streamed = true;
                begin + &plain(text)
            }
            SessionNews::ThinkingChunk { text } => {
                let begin = self.begin(Open::Thinking);
                begin + &self.palette.faint.paint(plain(text))
            }
            SessionNews::ResponseRestarted => {
                self.is_streamed = false;
                let words = self.palette.warn.paint("the answer broke off, and is asked for again");
                format!("{}{words}\n", self.close())
            }
            SessionNews::ToolCallChunk { call, text } => self.output(call, text),
            SessionNews::Missed { count } => {
                self.is_partial = true;
                let words = format!("{count} pieces came too fast to be shown");
                format!("{}{}\n", self.close(), self.palette.faint.paint(words))
            }
        }
    }

    /// Ends the line that is open, so that another begins.
    pub fn close(&mut self) -> String {
        let is_open = std::mem::replace(&mut self.open, Open::Nothing) != Open::Nothing;
        if is_open { "\n".to_owned() } else { String::new() }
    }

    fn begin(&mut self, what: Open) -> String {
        let end = if self.open == what { String::new() } else { self.close() };
        self.open = what;
        end
    }

    fn entry(&mut self, entry: &Entry) -> String {
        self.has_ended = match entry.kind {
            EntryKind::Ended { .. } => true,
            EntryKind::Task { .. } | EntryKind::Session { .. } => false,
            _ => self.has_ended,
        };
        let palette = self.palette;
        let line = |paint: Paint, text: String| format!("{}\n", paint.paint(text));
        match &entry.kind {
            EntryKind::Person { text, by } => {
                if self.is_live
                    && let Some(at) = self.own.iter().position(|own| own == text)
                {
                    self.own.remove(at);
                    return String::new();
                }
                let who = if by == "operator" { String::new() } else { format!("{}: ", safe(by)) };
                let said = plain(text).replace('\n', "\n  ");
                format!("{}{}\n", self.close(), palette.strong.paint(format!("> {who}{said}")))
            }
            EntryKind::Task { text, .. } if !text.is_empty() => {
                format!("{}{}", self.close(), line(palette.strong, format!("task: {}", plain(text))))
            }
            EntryKind::Assistant { text, calls, tokens, .. } => {
                self.asked += 1;
                self.tokens.0 += tokens.read();
                self.tokens.1 += tokens.output.unwrap_or(0);
                self.calls.extend(calls.iter().map(|call| (call.id.clone(), call.clone())));
                let is_partial = std::mem::take(&mut self.is_partial);
                let is_streamed = std::mem::take(&mut self.is_streamed) && !is_partial;
                let end = self.close();
                match text.trim_end() {
                    "" => end,
                    _ if is_streamed => end,
                    text => format!("{end}{}\n", plain(text)),
                }
            }
            EntryKind::Intent { call, about } => {
                let name = self.calls.get(call).map_or("a tool", |call| call.name.as_str());
                let about = if about.is_empty() { String::new() } else { format!(" {}", safe(about)) };
                let head =
                    format!("{} {}{about}\n", palette.busy.paint("●"), palette.strong.paint(safe(name)));
                self.shown = Some((call.clone(), LINES));
                // A plan is shown itself.
                if name == "update_plan" { String::new() } else { self.close() + &head }
            }
            EntryKind::Result { call, text, is_error, effect, duration_ms, changes, .. } => {
                let took = Duration::from_millis(*duration_ms);
                let mut parts: Vec<String> = changes
                    .iter()
                    .map(|it| format!("{} +{} -{}", safe(&it.path), it.added, it.removed))
                    .collect();
                parts.extend((took >= WORTH_TELLING).then(|| format_duration(took)));
                let head = if self.shown.as_ref().is_some_and(|(shown, _)| shown == call) {
                    String::new()
                } else {
                    let name = self.calls.get(call).map_or("a tool", |call| call.name.as_str());
                    format!("{} {}\n", palette.busy.paint("●"), palette.strong.paint(safe(name)))
                };
                self.shown = None;
                if *is_error {
                    let how = match effect {
                        Some(Effect::NotDone) => "not done",
                        Some(Effect::Unknown) => "perhaps done",
                        _ => "failed",
                    };
                    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
                    parts.insert(0, format!("{how}: {}", safe(first)));
                    return format!(
                        "{}{head}{}",
                        self.close(),
                        line(palette.bad, format!("  └ {}", parts.join(", ")))
                    );
                }
                if parts.is_empty() {
                    return self.close() + &head;
                }
                format!("{}{head}{}", self.close(), line(palette.faint, format!("  └ {}", parts.join(", "))))
            }
            EntryKind::Plan { steps } => {
                self.last_plan = plan(steps, "  ");
                format!("{}{}", self.close(), self.last_plan)
            }
            EntryKind::Notice { text } => {
                self.close() + &line(palette.faint, format!("toka: {}", plain(text)))
            }
            EntryKind::Interrupted { .. } => self.close() + &line(palette.warn, "interrupted".to_owned()),
            EntryKind::Halted { reason } => self.close() + &line(palette.bad, safe(reason)),
            EntryKind::Compacted { .. } => {
                let words = "what was said and done before is summarised from here on";
                self.close() + &line(palette.faint, words.to_owned())
            }
            EntryKind::Pruned { .. } => {
                let words = "what tools gave long ago is left out from here on";
                self.close() + &line(palette.faint, words.to_owned())
            }
            EntryKind::Ended { exit, .. } if !exit.is_success() => {
                self.close() + &line(palette.bad, safe(&exit.to_string()))
            }
            EntryKind::Session { .. }
            | EntryKind::Task { .. }
            | EntryKind::Ended { .. }
            | EntryKind::Unknown => String::new(),
        }
    }

    /// A line that a tool writes.
    fn output(&mut self, call: &str, text: &str) -> String {
        let Some((_, room)) = self.shown.as_mut().filter(|(shown, _)| shown == call) else {
            return String::new();
        };
        let Some(left) = room.checked_sub(1) else { return String::new() };
        *room = left;
        let shown = if left == 0 { "…".to_owned() } else { safe(text.trim_end()) };
        format!("{}{}\n", self.close(), self.palette.faint.paint(format!("  │ {shown}")))
    }
}

/// A text of several lines, with nothing in it that a terminal would obey.
pub fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => '\n',
        '\t' => ' ',
        c if is_harmless(c) => c,
        _ => '\u{fffd}',
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Map;
    use toka_core::{FileChange, ModelName, Tokens, Wire};

    use super::*;

    fn entry(id: u64, kind: EntryKind) -> SessionNews {
        SessionNews::Entry { entry: Box::new(Entry { id, parent: None, at: 0, kind }) }
    }

    fn assistant(text: &str, calls: &[(&str, &str)]) -> EntryKind {
        let call = |(id, name): &(&str, &str)| CallEntry {
            id: (*id).to_owned(),
            name: (*name).to_owned(),
            arguments: Map::new(),
            nonsense: None,
        };
        EntryKind::Assistant {
            model: ModelName::from("lab/m".to_owned()),
            wire: Wire::Anthropic,
            call: None,
            text: text.into(),
            thinking: String::new(),
            calls: calls.iter().map(call).collect(),
            blocks: vec![],
            tokens: Tokens { input: Some(10), output: Some(3), ..Tokens::default() },
            asked: None,
        }
    }

    fn result(call: &str, text: &str, is_error: bool, changes: Vec<FileChange>) -> EntryKind {
        EntryKind::Result {
            call: call.into(),
            text: text.into(),
            is_error,
            effect: is_error.then_some(Effect::NotDone),
            whole: None,
            duration_ms: if is_error { 1300 } else { 1 },
            usage: Default::default(),
            changes,
        }
    }

    #[test]
    fn a_turn_reads_from_top_to_bottom() {
        let mut view = ChatView::new(Palette::PLAIN);
        let chunk = |text: &str| SessionNews::ResponseChunk { text: text.into() };
        view.says("mend it");
        let person = |text: &str, by: &str| EntryKind::Person { text: text.into(), by: by.into() };
        let change = FileChange { path: "a.py".into(), added: 2, removed: 1 };
        let news = [
            entry(1, person("hello\nthere", "operator")),
            SessionNews::Live,
            entry(2, person("mend it", "operator")),
            SessionNews::ThinkingChunk { text: "hm".into() },
            chunk("I look"),
            chunk(" at it.\nThen"),
            entry(3, assistant("I look at it.\nThen", &[("1", "edit"), ("2", "exec"), ("3", "fly")])),
            entry(4, EntryKind::Intent { call: "1".into(), about: "a.py".into() }),
            entry(5, result("1", "done", false, vec![change])),
            entry(6, EntryKind::Intent { call: "2".into(), about: "make".into() }),
            SessionNews::ToolCallChunk { call: "2".into(), text: "cc \u{1b}[2Jx\n".into() },
            SessionNews::ToolCallChunk { call: "9".into(), text: "of another".into() },
            entry(7, result("2", "\nno rule\nmore", true, vec![])),
            entry(8, result("3", "there is no tool fly", true, vec![])),
            entry(9, person("quick", "anna")),
            chunk("Bro"),
            SessionNews::ResponseRestarted,
            entry(10, assistant("Done.", &[])),
            entry(11, EntryKind::Interrupted { by: "operator".into() }),
        ];
        let text: String = news.iter().map(|news| view.tell(news)).collect();
        assert_eq!(
            text,
            "> hello\n  there\nhm\nI look at it.\nThen\n● edit a.py\n  └ a.py +2 -1\n● exec make\n  │ cc \\x1b[2Jx\n\
             \u{20} └ not done: no rule, 1.3s\n● fly\n  └ not done: there is no tool fly, 1.3s\n> anna: quick\nBro\n\
             the answer broke off, and is asked for again\nDone.\ninterrupted\n"
        );
        assert_eq!(view.figures().as_deref(), Some("2 answers, 20 tokens read, 6 written"));
    }

    #[test]
    fn an_answer_whose_beginning_was_missed_is_shown_whole() {
        let mut view = ChatView::new(Palette::PLAIN);
        let chunk = |text: &str| SessionNews::ResponseChunk { text: text.into() };
        let thinks = SessionNews::StateChange { to: SessionState::Thinking };
        let news = [
            SessionNews::Live,
            thinks.clone(),
            chunk("of it."),
            entry(1, assistant("The rest of it.", &[])),
            thinks,
            chunk("Whole."),
            entry(2, assistant("Whole.", &[])),
        ];
        let text: String = news.iter().map(|news| view.tell(news)).collect();
        assert_eq!(text, "of it.\nThe rest of it.\nWhole.\n");
    }

    #[test]
    fn a_flood_is_cut() {
        let mut view = ChatView::new(Palette::PLAIN);
        view.tell(&entry(1, EntryKind::Intent { call: "1".into(), about: String::new() }));
        let line = SessionNews::ToolCallChunk { call: "1".into(), text: "y".into() };
        let lines: String = (0..100).map(|_| view.tell(&line)).collect();
        assert_eq!(lines.lines().count(), LINES);
        assert!(lines.ends_with("│ …\n"));
    }

    #[test]
    fn nothing_of_it_is_obeyed() {
        assert_eq!(plain("a\u{1b}[2J\r\tb\u{202e}\nc"), "a\u{fffd}[2J\u{fffd} b\u{fffd}\nc");
    }
}
