//! The conversation itself: news of the session are shown as they come, what a person types is said, and approvals are answered by a key.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

use toka_api::client::{Client, ClientError};
use toka_api::wire::{AnswerBody, SteerBody};
use toka_core::approval::{Question, Subject};
use toka_core::budget::{Measure, Scope};
use toka_core::{
    AgentName, Approval, ApprovalAnswer, EventKind, ExitCode, ProjectName, RunId, SessionNews, SessionState,
};
use toka_terminal::chat::ChatView;
use toka_terminal::palette::Palette;
use toka_terminal::text::{safe, whole};
use toka_terminal::{json, plain};
use tokio::sync::mpsc;

use super::typing::{ESCAPE, Typed, Typing, Wanted};
use crate::commands::reach::{Found, failure};
use crate::commands::signals::{Ending, Signals};

/// How often the line is drawn that says that something is under way.
const TICK: Duration = Duration::from_millis(120);
/// How long the next daemon may take until it tells on.
const SUCCESSOR: Duration = Duration::from_secs(10);
/// The pause between two looks for it.
const PAUSE: Duration = Duration::from_millis(200);
/// What is drawn in turn.
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

const HELP: &str = "/plan  the plan, and how far it is\n/cost  what this has used of its budget\n/exit  ends the conversation (Ctrl-D)\n\
    While it works, Esc interrupts, and any other key begins a line that it is told before it goes on.\n";

/// With whom is talked.
#[derive(Debug, Clone)]
pub(super) struct With {
    pub(super) client: Client,
    pub(super) project: ProjectName,
    pub(super) run: RunId,
    pub(super) agent: AgentName,
}

impl With {
    pub(super) fn of(found: &Found, agent: AgentName) -> Self {
        let (project, run) = found.run();
        Self { client: found.client.clone(), project: project.clone(), run, agent }
    }
}

/// What happens beside the person.
#[derive(Debug)]
enum Told {
    News(Box<SessionNews>),
    Event(Box<toka_core::Event>),
    /// Nothing more is told, for this reason if there is one.
    Over(Option<String>),
}

/// A conversation.
pub(super) struct Conversation {
    with: With,
    typing: Typing,
    typed: mpsc::UnboundedReceiver<Typed>,
    told: mpsc::UnboundedReceiver<Told>,
    signals: Signals,
    view: ChatView,
    palette: Palette,
    is_json: bool,
    /// What is to be said without being typed.
    messages: VecDeque<String>,
    /// Whether stdin may say more.
    reads: bool,
    /// A line is being typed: what is to be shown waits.
    held: Option<String>,
    approvals: BTreeMap<u64, Approval>,
    /// Whether the last turn has failed.
    has_failed: bool,
    /// Whether a turn is under way, whose figures are to be told.
    is_turn: bool,
    is_drawn: bool,
    tick: usize,
    interrupts: u32,
}

impl Conversation {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the agent cannot be talked to.
    pub(super) async fn begin(with: With, messages: Vec<String>, is_json: bool) -> anyhow::Result<Self> {
        let view = with.client.agent(&with.project, &with.agent).await.map_err(failure)?;
        let approvals =
            view.status.approvals.iter().map(|approval| (approval.id, approval.clone())).collect();
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(tell_news(with.clone(), tell.clone()));
        tokio::spawn(tell_events(with.clone(), tell));
        let palette = Palette::for_stream(&std::io::stdout());
        let (typing, typed) = Typing::start()?;
        let reads = typing.is_terminal() || messages.is_empty();
        Ok(Self {
            view: ChatView::new(palette),
            with,
            typing,
            typed,
            told,
            signals: Signals::catch()?,
            palette,
            is_json,
            messages: messages.into(),
            reads,
            held: None,
            approvals,
            has_failed: false,
            is_turn: false,
            is_drawn: false,
            tick: 0,
            interrupts: 0,
        })
    }

    /// Talks until one side has enough.
    ///
    /// # Errors
    /// When nobody answers any more, or stdout cannot be written.
    pub(super) async fn run(mut self) -> anyhow::Result<ExitCode> {
        if self.typing.is_terminal() && !self.is_json {
            let about = format!("{} in {}", self.with.agent, self.with.project);
            let hint = "/help shows what there is; Ctrl-D ends";
            self.print(&format!(
                "{}  {}\n",
                self.palette.strong.paint(about),
                self.palette.faint.paint(hint)
            ))?;
        }
        let mut ticks = tokio::time::interval(TICK);
        loop {
            self.ask_for_more().await?;
            if self.is_over() {
                break;
            }
            let is_busy = self.is_busy() && self.typing.is_terminal();
            let flow = tokio::select! {
                Some(told) = self.told.recv() => self.hear(told).await?,
                Some(typed) = self.typed.recv() => self.take(typed).await?,
                signal = self.signals.next() => self.signal(signal).await?,
                _ = ticks.tick(), if is_busy => self.draw()?,
            };
            if let ControlFlow::Break(code) = flow {
                self.print("")?;
                return Ok(code);
            }
        }
        Ok(if self.has_failed { ExitCode::AgentFailed } else { ExitCode::Success })
    }

    /// Whether the agent is at something.
    fn is_busy(&self) -> bool {
        !self.view.listens()
    }

    /// Nothing is under way, and nothing more will be said.
    fn is_over(&self) -> bool {
        !self.reads && self.messages.is_empty() && !self.is_busy()
    }

    /// Says what waits to be said, or asks for what the person wants to say.
    async fn ask_for_more(&mut self) -> anyhow::Result<()> {
        if self.held.is_some() {
            return Ok(());
        }
        if self.is_busy() {
            self.typing.want(Wanted::Keys);
            return Ok(());
        }
        if std::mem::take(&mut self.is_turn) {
            self.tell_figures().await?;
        }
        if let Some(text) = self.messages.pop_front() {
            self.show_said(&text)?;
            return self.say(&text, false).await;
        }
        if self.reads {
            self.erase()?;
            self.typing.want(Wanted::Line(String::new()));
        }
        Ok(())
    }

    async fn hear(&mut self, told: Told) -> anyhow::Result<ControlFlow<ExitCode>> {
        match told {
            Told::News(news) => self.news(&news)?,
            Told::Event(event) => self.event(&event)?,
            Told::Over(why) => {
                let words = why.unwrap_or_else(|| format!("{} has ended", self.with.agent));
                let end = self.view.close();
                self.show(&format!("{end}{}\n", self.palette.warn.paint(words)))?;
                return Ok(ControlFlow::Break(ExitCode::AgentFailed));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn news(&mut self, news: &SessionNews) -> anyhow::Result<()> {
        match news {
            SessionNews::StateChange { to } if *to != SessionState::Idle => {
                (self.is_turn, self.interrupts) = (true, 0);
            }
            SessionNews::Entry { entry } => {
                self.has_failed = matches!(entry.kind, toka_core::transcript::EntryKind::Halted { .. });
            }
            _ => {}
        }
        let text = self.view.tell(news);
        match self.is_json {
            true => self.print(&(json::line(news) + "\n")),
            false => self.show(&text),
        }
    }

    fn event(&mut self, event: &toka_core::Event) -> anyhow::Result<()> {
        match &event.kind {
            EventKind::ApprovalAsked(approval) => {
                self.approvals.insert(approval.id, approval.clone());
                let question = self.question(approval);
                self.show(&question)
            }
            EventKind::ApprovalAnswered { id, answer, words, .. } => {
                if self.approvals.remove(id).is_none() {
                    return Ok(());
                }
                let words = words.as_ref().map_or_else(String::new, |words| format!(": {}", safe(words)));
                let end = self.view.close();
                self.show(&format!(
                    "{end}{}\n",
                    self.palette.faint.paint(format!("  approval {id}: {}{words}", answer.as_str()))
                ))
            }
            _ => {
                let Some(line) = plain::failure(event, self.palette) else { return Ok(()) };
                let end = self.view.close();
                self.show(&format!("{end}{line}\n"))
            }
        }
    }

    /// What waits for the person, whole, and what a key does.
    fn question(&mut self, Approval { id, subject, .. }: &Approval) -> String {
        let end = self.view.close();
        let how = match (subject.yes(), subject) {
            (Some(yes), _) if self.typing.is_terminal() => format!("press a to {yes}, d to {}", subject.no()),
            (None, Subject::Question(_)) if self.typing.is_terminal() => {
                "type the answer, or press the number of one; an empty line gives none".to_owned()
            }
            _ => subject.how_to_say_yes(*id),
        };
        let what = self.palette.warn.paint(format!("? {}", whole(&subject.to_string())));
        format!("{end}{what}\n  {}\n", self.palette.accent.paint(how))
    }

    async fn take(&mut self, typed: Typed) -> anyhow::Result<ControlFlow<ExitCode>> {
        match typed {
            Typed::End => {
                self.reads = false;
                self.release()?;
                if self.typing.is_terminal() {
                    return Ok(ControlFlow::Break(ExitCode::Success));
                }
            }
            Typed::Interrupt => {
                self.release()?;
                self.interrupts += 1;
                if self.interrupts > 1 {
                    return Ok(ControlFlow::Break(ExitCode::Success));
                }
                self.show(&self.palette.faint.paint("once more, or Ctrl-D, ends the conversation\n"))?;
            }
            Typed::Key(key) => self.key(key).await?,
            Typed::Line(line) => {
                self.interrupts = 0;
                let text = line.trim();
                let flow = match text.strip_prefix('/') {
                    _ if text.is_empty() => ControlFlow::Continue(()),
                    Some(word) if self.typing.is_terminal() => self.command(word).await?,
                    _ if self.held.is_some() && self.question_open().is_some() => {
                        if let Some((id, _)) = self.question_open() {
                            self.answer(id, ApprovalAnswer::YES, Some(text.to_owned())).await?;
                        }
                        ControlFlow::Continue(())
                    }
                    _ => {
                        if !self.typing.is_terminal() {
                            self.show_said(text)?;
                        }
                        self.say(text, false).await?;
                        ControlFlow::Continue(())
                    }
                };
                self.release()?;
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A key, while the agent works.
    async fn key(&mut self, key: u8) -> anyhow::Result<()> {
        let open =
            self.approvals.first_key_value().map(|(id, approval)| (*id, approval.subject.yes().is_some()));
        let option = self.question_open().and_then(|(id, asked)| {
            let chosen = char::from(key).to_digit(10)?.checked_sub(1)?;
            Some((id, asked.options.get(chosen as usize)?.clone()))
        });
        if let Some((id, words)) = option {
            return self.answer(id, ApprovalAnswer::YES, Some(words)).await;
        }
        let is_question = self.question_open().is_some();
        match (key, open) {
            (b'\r' | b'\n', Some((id, _))) if is_question => {
                self.answer(id, ApprovalAnswer::Denied, None).await?;
            }
            (ESCAPE, _) => self.interrupt().await?,
            (b'a' | b'A', Some((id, true))) => self.answer(id, ApprovalAnswer::YES, None).await?,
            (b'd' | b'D', Some((id, _))) if !is_question => {
                self.answer(id, ApprovalAnswer::Denied, None).await?;
            }
            // Ctrl-D and the like are nothing to begin a line with.
            (key, _) if key >= 0x20 && key != 0x7f => {
                // More bytes of one character come by themselves.
                let initial = if key.is_ascii() { char::from(key).to_string() } else { String::new() };
                self.erase()?;
                let end = self.view.close();
                self.print(&end)?;
                self.held = Some(String::new());
                self.typing.want(Wanted::Line(initial));
            }
            _ => {}
        }
        Ok(())
    }

    /// What begins with a slash.
    async fn command(&mut self, word: &str) -> anyhow::Result<ControlFlow<ExitCode>> {
        let text = match word.trim() {
            "exit" | "quit" => return Ok(ControlFlow::Break(ExitCode::Success)),
            "help" | "?" => HELP.to_owned(),
            "plan" => self.view.plan(),
            "cost" => self.cost().await?,
            other => {
                format!("there is no /{}: /help shows what there is\n", safe(other))
            }
        };
        self.print(&text)?;
        Ok(ControlFlow::Continue(()))
    }

    /// Shows what is said without being typed here.
    fn show_said(&mut self, text: &str) -> anyhow::Result<()> {
        let line = self.palette.strong.paint(format!("> {}", toka_terminal::chat::plain(text)));
        self.show(&format!("{line}\n"))
    }

    /// Says it, and what keeps from it.
    async fn say(&mut self, text: &str, interrupt: bool) -> anyhow::Result<()> {
        let word = SteerBody { text: text.to_owned(), interrupt };
        self.view.says(text);
        match self.with.client.steer(&self.with.project, &self.with.agent, &word).await {
            Ok(_) => Ok(()),
            Err(ClientError::Refused(refused)) => {
                self.has_failed = true;
                self.view.was_not_heard();
                self.print(&format!("{}\n", self.palette.bad.paint(&refused.error)))
            }
            Err(error) => Err(failure(error).into()),
        }
    }

    async fn interrupt(&mut self) -> anyhow::Result<()> {
        let word = SteerBody { text: String::new(), interrupt: true };
        match self.with.client.steer(&self.with.project, &self.with.agent, &word).await {
            Ok(_) => Ok(()),
            // It has come to its end by itself, or has nothing else to do but its task.
            Err(ClientError::Refused(refused)) => {
                let end = self.view.close();
                self.show(&format!("{end}{}\n", self.palette.faint.paint(&refused.error)))
            }
            Err(error) => Err(failure(error).into()),
        }
    }

    /// The question that waits, if that is what waits first.
    fn question_open(&self) -> Option<(u64, &Question)> {
        match self.approvals.first_key_value()? {
            (id, Approval { subject: Subject::Question(asked), .. }) => Some((*id, asked)),
            _ => None,
        }
    }

    async fn answer(&mut self, id: u64, answer: ApprovalAnswer, words: Option<String>) -> anyhow::Result<()> {
        let body = AnswerBody::of(answer).with(words);
        match self.with.client.answer(&self.with.project, id, &body).await {
            // It is told as an event.
            Ok(_) => Ok(()),
            Err(ClientError::Refused(refused)) => {
                self.approvals.remove(&id);
                self.show(&format!("{}\n", self.palette.faint.paint(&refused.error)))
            }
            Err(error) => Err(failure(error).into()),
        }
    }

    async fn signal(&mut self, signal: Ending) -> anyhow::Result<ControlFlow<ExitCode>> {
        if signal != Ending::Interrupt {
            return Ok(ControlFlow::Break(signal.exit_code()));
        }
        self.interrupts += 1;
        if self.interrupts > 1 || !self.typing.is_terminal() {
            return Ok(ControlFlow::Break(signal.exit_code()));
        }
        self.interrupt().await?;
        Ok(ControlFlow::Continue(()))
    }

    /// What a turn took.
    async fn tell_figures(&mut self) -> anyhow::Result<()> {
        let Some(figures) = self.view.figures().filter(|_| !self.is_json) else { return Ok(()) };
        let end = self.view.close();
        self.show(&format!("{end}{}\n", self.palette.faint.paint(format!("— {figures}"))))
    }

    /// What is used of the budgets.
    async fn cost(&self) -> anyhow::Result<String> {
        let view = self.with.client.agent(&self.with.project, &self.with.agent).await.map_err(failure)?;
        let own =
            view.budget.iter().filter(|used| used.scope == Scope::Agent && used.measure != Measure::Wall);
        let lines: String = own.map(|used| format!("{used}\n")).collect();
        Ok(if lines.is_empty() { "nothing is used\n".to_owned() } else { lines })
    }

    /// Shows text, or keeps it while a line is being typed.
    fn show(&mut self, text: &str) -> anyhow::Result<()> {
        if self.is_json || text.is_empty() {
            return Ok(());
        }
        match &mut self.held {
            Some(held) => {
                held.push_str(text);
                Ok(())
            }
            None => self.print(text),
        }
    }

    /// The line is typed: what has waited is shown.
    fn release(&mut self) -> anyhow::Result<()> {
        match self.held.take() {
            Some(text) => self.print(&text),
            None => Ok(()),
        }
    }

    fn print(&mut self, text: &str) -> anyhow::Result<()> {
        self.erase()?;
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Says that something is under way.
    fn draw(&mut self) -> anyhow::Result<ControlFlow<ExitCode>> {
        if self.is_json || self.held.is_some() || !self.view.is_at_start() || !self.approvals.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        self.tick += 1;
        let what = match self.view.state() {
            SessionState::Thinking => "thinks",
            SessionState::Idle => "begins",
            _ => "works",
        };
        let line = format!("{} {what}  Esc interrupts", SPINNER[self.tick % SPINNER.len()]);
        let line = self.palette.faint.paint(line);
        let mut out = anstream::stdout().lock();
        write!(out, "\r{line}\x1b[K")?;
        out.flush()?;
        self.is_drawn = true;
        Ok(ControlFlow::Continue(()))
    }

    fn erase(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.is_drawn) {
            let mut out = anstream::stdout().lock();
            write!(out, "\r\x1b[K")?;
            out.flush()?;
        }
        Ok(())
    }
}

/// Passes on what the session says, also by the next daemon.
async fn tell_news(with: With, tell: mpsc::UnboundedSender<Told>) {
    let mut last = 0;
    let mut left = SUCCESSOR;
    loop {
        let after = last;
        let each = |news: SessionNews| {
            if let SessionNews::Entry { entry } = &news {
                last = entry.id;
            }
            left = SUCCESSOR;
            match tell.send(Told::News(Box::new(news))) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        let ended = with.client.look_on((&with.project, &with.agent), after, each).await;
        if let Err(ClientError::Refused(refused)) = &ended {
            drop(tell.send(Told::Over(Some(refused.error.clone()))));
            return;
        }
        // Either side may be about to end: another daemon may go on.
        left = left.saturating_sub(PAUSE);
        let goes_on =
            with.client.project(&with.project).await.is_ok_and(|project| project.overview.run == with.run);
        if left.is_zero() || tell.is_closed() || !goes_on && matches!(ended, Ok(())) {
            drop(tell.send(Told::Over(None)));
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Passes on what happens to the agent besides.
async fn tell_events(with: With, tell: mpsc::UnboundedSender<Told>) {
    let Ok(project) = with.client.project(&with.project).await else { return };
    let query = format!("&agent={}", with.agent);
    let each = |event: &toka_core::Event, _: &[u8]| match tell.send(Told::Event(Box::new(event.clone()))) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    // That nobody tells any more is seen where the session is listened to.
    let _ = with.client.follow((&with.project, with.run), (project.seq, &query), each).await;
}
