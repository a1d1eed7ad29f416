//! The thread that shows a run. It is a thread of its own because a terminal can stand still (Ctrl-S, a pager), and the
//! supervision of agents must not stand still with it: events wait here, agents do not.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use toka_core::{AgentName, CallOutcome, Event, EventKind, escape};

use super::follow::{Follow, OutputLine};
use super::mode::Mode;
use super::palette::Palette;
use super::plain::PlainLines;
use super::screen::Screen;
use super::text::{cell, safe};
use super::view::{AgentView, Outcome, RunView};
use super::wrap::reflow;
use super::{json, live, plain};

/// In plain lines: after so long without any, one says what still runs. A log of CI that stands still looks like a hang.
const SILENCE: Duration = Duration::from_secs(30);
/// Least time between two drawings of the live part: ten a second.
const REDRAW: Duration = Duration::from_millis(100);
/// Most messages taken into one writing to a pipe, so that a burst costs few system calls and little memory.
const BATCH: usize = 512;
/// Characters of one line of output that are shown.
const OUTPUT_COLUMNS: usize = 2000;

/// What the display is told.
#[derive(Debug)]
pub enum Message {
    /// Something happened.
    Event(Box<Event>),
    /// Something that the command itself has to say.
    Notice(String),
    /// What a key at this terminal would answer; nothing any more when it is empty.
    Question(String),
}

/// A handle to the thread.
#[derive(Debug)]
pub struct Display {
    sender: Sender<Message>,
    thread: JoinHandle<Shown>,
}

/// What is known when everything is shown.
#[derive(Debug)]
pub struct Shown {
    /// What became of the run.
    pub view: RunView,
    /// Whether everything could be written to stdout.
    pub written: std::io::Result<()>,
}

impl Display {
    /// Starts to show a run.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(mode: Mode, palette: Palette, follow: Option<Follow>) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let work = move || Show::new(mode, palette, Screen::of(mode), follow).run(&receiver);
        let thread = std::thread::Builder::new().name("display".into()).spawn(work)?;
        Ok(Self { sender, thread })
    }

    /// Where to send what happens. The display ends when every sender is gone.
    pub fn sender(&self) -> Sender<Message> {
        self.sender.clone()
    }

    /// Shows what is still waiting, clears the live part, and returns the final view. Blocks while stdout does.
    pub fn finish(self) -> Shown {
        drop(self.sender);
        // A panic in the display must not become one of the run: what is left is an empty table.
        self.thread.join().unwrap_or_else(|_| Shown { view: RunView::default(), written: Ok(()) })
    }
}

/// The state of the thread.
struct Show {
    mode: Mode,
    palette: Palette,
    screen: Screen,
    view: RunView,
    plain: PlainLines,
    follow: Option<Follow>,
    /// What the command had to say before there was a heading to say it under.
    early: Vec<String>,
    began: Instant,
    /// When the last line was printed.
    spoke: Instant,
}

impl Show {
    fn new(mode: Mode, palette: Palette, screen: Screen, follow: Option<Follow>) -> Self {
        let plain = PlainLines::new(palette);
        let (view, began) = (RunView::default(), Instant::now());
        Self { mode, palette, screen, view, plain, follow, early: Vec::new(), began, spoke: began }
    }

    fn run(mut self, messages: &Receiver<Message>) -> Shown {
        loop {
            let next = match self.pace() {
                Pace::Ticking => messages.recv_timeout(REDRAW),
                Pace::Until(moment) => {
                    messages.recv_timeout(moment.saturating_duration_since(Instant::now()))
                }
                Pace::Waiting => messages.recv().map_err(RecvTimeoutError::from),
            };
            match next {
                Ok(message) => self.round(Some(message), messages),
                Err(RecvTimeoutError::Timeout) => self.round(None, messages),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.last_output();
        // A run that never began has no heading.
        let mut lines = Lines::default();
        self.early_notices(&mut lines, self.began.elapsed());
        self.draw(&lines.0);
        Shown { view: self.view, written: self.screen.finish() }
    }

    /// Whether anything can change without a message: a clock on the screen, a log that grows.
    fn pace(&self) -> Pace {
        let clocks = self.mode == Mode::Live && self.view.count(Outcome::Live) > 0;
        match self.mode {
            _ if clocks || self.follow.is_some() => Pace::Ticking,
            Mode::Plain if self.view.agents().iter().any(AgentView::is_due) => {
                Pace::Until(self.spoke + SILENCE)
            }
            _ => Pace::Waiting,
        }
    }

    /// Takes a message and those behind it, and shows them in one go with what agents wrote.
    fn round(&mut self, first: Option<Message>, messages: &Receiver<Message>) {
        let mut lines = Lines::default();
        if let Some(first) = first {
            self.take(first, &mut lines);
            let deadline = Instant::now() + REDRAW;
            for _ in 0..BATCH {
                let next = match self.mode {
                    Mode::Live => {
                        messages.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
                    }
                    _ => messages.try_recv().ok(),
                };
                let Some(message) = next else { break };
                self.take(message, &mut lines);
            }
        }
        self.output(&mut lines);
        if lines.0.is_empty() && self.mode == Mode::Plain && self.spoke.elapsed() >= SILENCE {
            lines.extend(self.plain.still(&self.view, self.began.elapsed()));
            self.spoke = Instant::now();
        }
        if !lines.0.is_empty() {
            self.spoke = Instant::now();
        }
        self.draw(&lines.0);
    }

    /// What agents wrote until now.
    fn output(&mut self, lines: &mut Lines) {
        let output = self.follow.as_mut().map(Follow::lines).unwrap_or_default();
        lines.extend(output.iter().filter_map(|line| self.output_line(line)));
    }

    /// What agents wrote that was not shown yet, to the end.
    fn last_output(&mut self) {
        if let Some(follow) = &mut self.follow {
            follow.all_ended();
        }
        loop {
            let mut lines = Lines::default();
            self.output(&mut lines);
            if lines.0.is_empty() {
                return;
            }
            self.draw(&lines.0);
        }
    }

    fn draw(&mut self, lines: &str) {
        let frame = match (self.mode, self.screen.size()) {
            (Mode::Live, Some(size)) if !self.view.agents().is_empty() => {
                live::frame(&self.view, self.began.elapsed(), size, self.palette)
            }
            _ => Vec::new(),
        };
        self.screen.show(lines, frame);
    }

    /// Moves the view on, and adds the lines that stay.
    fn take(&mut self, message: Message, lines: &mut Lines) {
        let at = self.began.elapsed();
        match message {
            Message::Event(event) => {
                self.view.apply(&event, at);
                self.follow_event(&event, lines);
                lines.extend(self.event_line(&event, at));
                if matches!(event.kind, EventKind::RunStarted { .. }) {
                    self.early_notices(lines, at);
                }
            }
            Message::Notice(text) if self.mode == Mode::Plain && self.view.run().is_none() => {
                self.early.push(text);
            }
            Message::Notice(text) => lines.extend(self.notice_line(text, at)),
            Message::Question(text) => lines.extend(self.question_line(text, at)),
        }
    }

    fn early_notices(&mut self, lines: &mut Lines, at: Duration) {
        for text in std::mem::take(&mut self.early) {
            lines.extend(self.notice_line(text, at));
        }
    }

    /// Opens the log of an agent that starts; shows the last words of one that ends before its end is told.
    fn follow_event(&mut self, event: &Event, lines: &mut Lines) {
        let (Some(follow), Some(agent)) = (&mut self.follow, &event.agent) else { return };
        match event.kind {
            EventKind::AgentStarted { .. } => follow.started(agent),
            EventKind::AgentEnded { .. } | EventKind::AgentQuarantined { .. } => {
                follow.ended(agent);
                self.output(lines);
            }
            _ => {}
        }
    }

    fn event_line(&mut self, event: &Event, at: Duration) -> Option<String> {
        match self.mode {
            Mode::Live => {
                let line = live_line(event, &self.view, self.palette)?;
                Some(self.screen.size().map_or_else(|| line.clone(), |size| reflow(&line, size.columns)))
            }
            Mode::Plain => self.plain.line(event, &self.view, at),
            Mode::Json => Some(json::line(event)),
            Mode::Quiet => plain::failure(event, self.palette),
        }
    }

    fn output_line(&self, output: &OutputLine) -> Option<String> {
        match self.mode {
            Mode::Json => Some(json::line(&JsonOutput {
                r#type: "output",
                agent: &output.agent,
                stream: output.stream,
                line: String::from_utf8_lossy(&output.bytes),
            })),
            Mode::Quiet => None,
            Mode::Live | Mode::Plain => {
                let paint = self.palette.name(self.view.place(&output.agent));
                let name = cell(output.agent.as_str(), self.view.longest_name().min(live::MAX_NAME));
                let text = escape::for_terminal(&output.bytes, OUTPUT_COLUMNS);
                Some(format!("{} {} {text}", paint.paint(name), self.palette.faint.paint("│")))
            }
        }
    }

    /// A question stands below in the place of a notice; in plain lines, it is a line.
    fn question_line(&mut self, text: String, at: Duration) -> Option<String> {
        match self.mode {
            Mode::Live => {
                self.view.notice = Some(text).filter(|text| !text.is_empty());
                None
            }
            Mode::Plain if !text.is_empty() => Some(self.plain.notice(&text, &self.view, at)),
            Mode::Plain | Mode::Quiet | Mode::Json => None,
        }
    }

    /// Live, a notice stands below until the next one; elsewhere it is a line.
    fn notice_line(&mut self, text: String, at: Duration) -> Option<String> {
        match self.mode {
            Mode::Live => {
                self.view.notice = Some(text);
                None
            }
            Mode::Plain => Some(self.plain.notice(&text, &self.view, at)),
            Mode::Quiet => Some(self.palette.warn.paint(text)),
            Mode::Json => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Something may change at any time.
    Ticking,
    /// Nothing changes before the next message, but for a word at this moment.
    Until(Instant),
    /// Nothing changes before the next message.
    Waiting,
}

/// Lines that stay, each with its end.
#[derive(Debug, Default)]
struct Lines(String);

impl Lines {
    fn extend(&mut self, lines: impl IntoIterator<Item = String>) {
        for line in lines {
            self.0.push_str(&line);
            self.0.push('\n');
        }
    }
}

/// A line of output as `--json` tells it.
#[derive(Debug, serde::Serialize)]
struct JsonOutput<'a> {
    r#type: &'static str,
    agent: &'a AgentName,
    stream: &'static str,
    line: std::borrow::Cow<'a, str>,
}

/// What scrolls past above the live part: the heading, agents that ended, warnings.
fn live_line(event: &Event, view: &RunView, palette: Palette) -> Option<String> {
    use toka_core::EventKind as K;
    let agent: Option<&AgentView> = event.agent.as_ref().and_then(|name| view.agent(name));
    match (&event.kind, agent) {
        (K::RunStarted { .. }, _) => Some(live::heading(view, palette)),
        (K::AgentEnded { .. } | K::AgentBlocked { .. } | K::AgentQuarantined { .. }, Some(agent)) => {
            live::last_line(view, agent, palette)
        }
        (K::ObjectiveChecked { description, exit, .. }, Some(agent)) => {
            let (text, paint) = plain::objective(description, exit, palette);
            Some(paint.paint(format!("{}: {text}", agent.name)))
        }
        (
            K::AgentHint { .. }
            | K::ApprovalAsked(_)
            | K::ApprovalAnswered { .. }
            | K::BudgetNearing { .. }
            | K::HostDenied { .. }
            | K::SecretSent { .. }
            | K::AgentOomKilled { .. }
            | K::AgentUncovered { .. }
            | K::AgentPlanted { .. },
            Some(agent),
        ) => {
            let (text, _) = plain::in_words(&event.kind);
            Some(palette.warn.paint(format!("{}: {text}", agent.name)))
        }
        (K::ModelAnswered { receipt, .. }, Some(agent))
            if !matches!(receipt.outcome, CallOutcome::Completed | CallOutcome::Cancelled)
                || !receipt.failed_tries.is_empty() =>
        {
            let (text, _) = plain::in_words(&event.kind);
            Some(palette.warn.paint(format!("{}: {text}", agent.name)))
        }
        (K::Warning { message }, agent) => {
            let who = agent.map_or_else(String::new, |agent| format!("{}: ", agent.name));
            Some(palette.warn.paint(format!("warning: {who}{}", safe(message))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::in_memory;
    use crate::{canned, follow};

    fn shown(mode: Mode, follow: Option<Follow>, messages: Vec<Message>) -> (String, RunView) {
        let (sender, receiver) = channel();
        for message in messages {
            sender.send(message).expect("the receiver is here");
        }
        drop(sender);
        let (screen, terminal) = in_memory();
        let shown = Show::new(mode, Palette::PLAIN, screen, follow).run(&receiver);
        shown.written.expect("a terminal in memory");
        (terminal.text(), shown.view)
    }

    fn events() -> Vec<Message> {
        canned::events().into_iter().map(|event| Message::Event(Box::new(event))).collect()
    }

    #[test]
    fn whether_an_objective_is_met_scrolls_past() {
        let view = canned::view_after(canned::MIDDLE);
        for (code, expected) in
            [(0, "inventory: objective met: Listed"), (4, "inventory: objective not met: Listed")]
        {
            let (description, exit) = ("Listed".to_owned(), toka_core::Exit::Code { code });
            let kind = EventKind::ObjectiveChecked { index: 0, description, met: code == 0, exit };
            let event = Event { kind, ..canned::events()[1].clone() };
            let line = live_line(&event, &view, Palette::PLAIN).expect("a line");
            assert!(line.starts_with(expected), "{line}");
        }
    }

    #[test]
    fn what_a_live_run_leaves_on_the_screen() {
        let (text, view) = shown(Mode::Live, None, events());
        insta::assert_snapshot!(text);
        assert_eq!(view.agents().len(), 4);
    }

    #[test]
    fn output_names_its_agent_is_escaped_and_comes_before_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        follow::tests::write(&log, b"one\n\x1b[2Jtwo\xff");
        let of = move |agent: &AgentName| {
            if agent.as_str() == "checks" { log.clone() } else { "/nonexistent".into() }
        };
        let (text, _) = shown(Mode::Live, Some(Follow::new(Box::new(of))), events());
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text}"));
        assert!(
            at("checks                   │ one\n") < at("checks                   │ \\x1b[2Jtwo\\xff\n"),
            "{text}"
        );
        assert!(at("two") < at("✗ checks"), "{text}");
    }

    #[test]
    fn a_notice_reaches_people() {
        let notice = || vec![Message::Notice("stopping".into())];
        assert_eq!(shown(Mode::Quiet, None, notice()).0, "stopping");
        assert!(shown(Mode::Plain, None, notice()).0.ends_with("s] stopping"));
        assert_eq!(shown(Mode::Live, None, notice()).1.notice.as_deref(), Some("stopping"));
    }

    #[test]
    fn a_notice_that_comes_early_stands_below_the_heading() {
        let mut messages = vec![Message::Notice("stopping".into())];
        messages.extend(events());
        let text = shown(Mode::Plain, None, messages).0;
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("4 agents in"), "{text}");
        assert!(lines[1].ends_with("] stopping"), "{text}");
    }

    #[test]
    fn json_is_nothing_but_json() {
        let mut messages = events();
        messages.push(Message::Notice("stopping".into()));
        let (text, _) = shown(Mode::Json, None, messages);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), canned::events().len());
    }
}
