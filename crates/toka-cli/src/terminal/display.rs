//! The thread that shows a run. It is a thread of its own because a terminal can stand still (Ctrl-S, a pager), and the
//! supervision of agents must not stand still with it: events wait here, agents do not.

use std::io::IsTerminal as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use toka_core::{AgentName, Event, escape};

use super::palette::Palette;
use super::plain::PlainLines;
use super::screen::Screen;
use super::view::{AgentView, RunView};
use super::{json, live, plain};

/// Least time between two drawings of the live part: ten a second.
const REDRAW: Duration = Duration::from_millis(100);
/// Most messages taken into one writing to a pipe, so that a burst costs few system calls and little memory.
const BATCH: usize = 512;
/// Characters of one line of output that are shown.
const OUTPUT_COLUMNS: usize = 2000;

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Lines that move, on a terminal.
    Live,
    /// One line per change.
    Plain,
    /// One JSON object per event.
    Json,
    /// Failures only.
    Quiet,
}

impl Mode {
    /// What suits stdout: live on a terminal that can move its cursor, plain lines elsewhere.
    pub(crate) fn for_stdout() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if std::io::stdout().is_terminal() && !dumb { Self::Live } else { Self::Plain }
    }
}

/// What the display is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something happened.
    Event(Box<Event>),
    /// An agent wrote a line.
    Output(OutputLine),
    /// Something that the command itself has to say.
    Notice(String),
}

/// A line of an agent's output.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct OutputLine {
    /// Who wrote it.
    pub(crate) agent: AgentName,
    /// `stdout` or `stderr`.
    pub(crate) stream: &'static str,
    /// The line without its end; bytes that are not UTF-8 are replaced.
    pub(crate) line: String,
}

/// A handle to the thread.
#[derive(Debug)]
pub(crate) struct Display {
    sender: Sender<Message>,
    thread: JoinHandle<RunView>,
}

impl Display {
    /// Starts to show a run.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(crate) fn start(mode: Mode, palette: Palette) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let screen = Screen::of(mode);
        let work = move || Show::new(mode, palette, screen).run(&receiver);
        let thread = std::thread::Builder::new().name("display".into()).spawn(work)?;
        Ok(Self { sender, thread })
    }

    /// Where to send what happens. The display ends when every sender is gone.
    pub(crate) fn sender(&self) -> Sender<Message> {
        self.sender.clone()
    }

    /// Shows what is still waiting, clears the live part, and returns the final view. Blocks while stdout does.
    pub(crate) fn finish(self) -> RunView {
        drop(self.sender);
        // A panic in the display must not become one of the run: what is left is an empty table.
        self.thread.join().unwrap_or_default()
    }
}

/// The state of the thread.
struct Show {
    mode: Mode,
    palette: Palette,
    screen: Screen,
    view: RunView,
    plain: PlainLines,
    began: Instant,
}

impl Show {
    fn new(mode: Mode, palette: Palette, screen: Screen) -> Self {
        let plain = PlainLines::new(palette);
        Self { mode, palette, screen, view: RunView::default(), plain, began: Instant::now() }
    }

    fn run(mut self, messages: &Receiver<Message>) -> RunView {
        while let Ok(first) = messages.recv() {
            self.round(first, messages);
            while self.mode == Mode::Live {
                match messages.recv_timeout(REDRAW) {
                    Ok(next) => self.round(next, messages),
                    Err(RecvTimeoutError::Timeout) => self.draw(String::new()),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        }
        self.screen.clear();
        self.view
    }

    /// Takes a message and those behind it, and shows them in one go.
    fn round(&mut self, first: Message, messages: &Receiver<Message>) {
        let mut lines = String::new();
        let mut next = Some(first);
        let deadline = Instant::now() + REDRAW;
        for _ in 0..BATCH {
            let Some(message) = next else { break };
            if let Some(line) = self.take(message) {
                lines.push_str(&line);
                lines.push('\n');
            }
            next = match self.mode {
                Mode::Live => messages.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok(),
                _ => messages.try_recv().ok(),
            };
        }
        if let Some(last) = next
            && let Some(line) = self.take(last)
        {
            lines.push_str(&line);
            lines.push('\n');
        }
        self.draw(lines);
    }

    fn draw(&mut self, lines: String) {
        let frame = match (self.mode, self.screen.size()) {
            (Mode::Live, Some(size)) if !self.view.agents().is_empty() => {
                live::frame(&self.view, self.began.elapsed(), size, self.palette)
            }
            _ => Vec::new(),
        };
        self.screen.show(&lines, frame);
    }

    /// Moves the view on; the answer is the line that stays, if there is one.
    fn take(&mut self, message: Message) -> Option<String> {
        let at = self.began.elapsed();
        match message {
            Message::Event(event) => {
                self.view.apply(&event, at);
                self.event_line(&event, at)
            }
            Message::Output(output) => self.output_line(&output),
            Message::Notice(text) => self.notice_line(&text, at),
        }
    }

    fn event_line(&mut self, event: &Event, at: Duration) -> Option<String> {
        match self.mode {
            Mode::Live => live_line(event, &self.view, self.palette),
            Mode::Plain => self.plain.line(event, &self.view, at),
            Mode::Json => Some(json::line(event)),
            Mode::Quiet => plain::failure(event, self.palette),
        }
    }

    fn output_line(&self, output: &OutputLine) -> Option<String> {
        match self.mode {
            Mode::Json => {
                #[derive(serde::Serialize)]
                struct Line<'a> {
                    r#type: &'static str,
                    #[serde(flatten)]
                    line: &'a OutputLine,
                }
                Some(json::line(&Line { r#type: "output", line: output }))
            }
            Mode::Quiet => None,
            Mode::Live | Mode::Plain => {
                let paint = self.palette.name(self.view.place(&output.agent));
                let text = escape::for_terminal(output.line.as_bytes(), OUTPUT_COLUMNS);
                Some(format!("{} {} {text}", paint.paint(&output.agent), self.palette.faint.paint("│")))
            }
        }
    }

    fn notice_line(&self, text: &str, at: Duration) -> Option<String> {
        match self.mode {
            Mode::Json => None,
            Mode::Plain => Some(self.plain.notice(text, &self.view, at)),
            Mode::Live | Mode::Quiet => Some(self.palette.warn.paint(text)),
        }
    }
}

/// What scrolls past above the live part: the heading, agents that ended, warnings.
fn live_line(event: &Event, view: &RunView, palette: Palette) -> Option<String> {
    use toka_core::EventKind as K;
    let agent: Option<&AgentView> = event.agent.as_ref().and_then(|name| view.agent(name));
    match (&event.kind, agent) {
        (K::RunStarted { .. }, _) => Some(live::heading(view, palette)),
        (K::AgentEnded { .. } | K::AgentBlocked { .. }, Some(agent)) => live::last_line(view, agent, palette),
        (K::Warning { message }, agent) => {
            let who = agent.map_or_else(String::new, |agent| format!("{}: ", agent.name));
            Some(palette.warn.paint(format!("warning: {who}{}", super::text::safe(message))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::canned;
    use super::*;

    fn shown(mode: Mode, messages: Vec<Message>) -> (String, RunView) {
        let (sender, receiver) = channel();
        for message in messages {
            sender.send(message).expect("the receiver is here");
        }
        drop(sender);
        let (screen, terminal) = super::super::screen::tests::in_memory();
        let show = Show::new(mode, Palette::PLAIN, screen);
        let view = show.run(&receiver);
        (terminal.text(), view)
    }

    fn events(count: usize) -> Vec<Message> {
        canned::events().into_iter().take(count).map(|event| Message::Event(Box::new(event))).collect()
    }

    #[test]
    fn what_a_live_run_leaves_on_the_screen() {
        let (text, view) = shown(Mode::Live, events(usize::MAX));
        insta::assert_snapshot!(text);
        assert_eq!(view.agents().len(), 4);
    }

    #[test]
    fn output_names_its_agent_and_is_escaped() {
        let output =
            OutputLine { agent: canned::name("checks"), stream: "stderr", line: "\u{1b}[2Joh".into() };
        let mut messages = events(1);
        messages.push(Message::Output(output));
        messages.push(Message::Notice("stopping".into()));
        let (text, _) = shown(Mode::Live, messages);
        assert!(text.ends_with("checks │ \\x1b[2Joh\nstopping"), "{text}");
    }

    #[test]
    fn json_is_nothing_but_json() {
        let mut messages = events(usize::MAX);
        messages.push(Message::Notice("stopping".into()));
        messages.push(Message::Output(OutputLine {
            agent: canned::name("checks"),
            stream: "stdout",
            line: "hello".into(),
        }));
        let (text, _) = shown(Mode::Json, messages);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), canned::events().len() + 1);
        assert_eq!(lines.last().expect("a line")["type"], "output");
    }
}
