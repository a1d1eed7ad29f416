//! The conversation itself: news of the session are shown as they come, what a person types is said, and approvals are answered by a key.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde_json::json;
use toka_api::client::{Client, ClientError};
use toka_api::wire::{AnswerBody, MAX_STEER, SteerBody};
use toka_core::approval::Subject;
use toka_core::budget::{Measure, Scope};
use toka_core::{
    AgentName, Approval, ApprovalAnswer, EventKind, ExitCode, ProjectName, RunId, SessionNews, SessionState,
};
use toka_terminal::chat::ChatView;
use toka_terminal::failure::Failure;
use toka_terminal::out::ignore_closed;
use toka_terminal::palette::Palette;
use toka_terminal::text::{safe, whole};
use toka_terminal::{json, list, plain};
use tokio::sync::mpsc;

use super::typing::{Typed, Typing, Wanted};
use crate::commands::reach::{Found, failure};
use crate::commands::signals::{Ending, Signals};

/// What Esc sends.
const ESCAPE: char = '\u{1b}';
/// How long a question is there until a key can be an answer to it.
const READ_WITHIN: Duration = Duration::from_millis(400);
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
    /// This waits for a person already.
    Waits(Box<Approval>),
    /// Nothing more is told, for this reason if there is one.
    Over(Option<String>),
}

/// Something that waits for a person.
struct Waiting {
    approval: Approval,
    /// Since when it stands on the screen.
    since: Instant,
    /// Whether the keys that answer it are read: those typed before a person can have read it are no answer.
    is_offered: bool,
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
    /// What waits for a person.
    approvals: BTreeMap<u64, Waiting>,
    /// The question that the line that is being typed answers: it stood there when the line began.
    answers: Option<u64>,
    /// Whether it waits for what a person says when its tasks are done.
    talks: bool,
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
        // Before anything is looked at, so that nothing is missed in between.
        let since = with.client.project(&with.project).await.map_err(failure)?.seq;
        let view = with.client.agent(&with.project, &with.agent).await.map_err(failure)?;
        if view.status.state.is_final() {
            let message = format!("{} does not run: {}", with.agent, list::activity(&view.status));
            return Err(Failure::new(ExitCode::Usage, message)
                .help(format!("`toka start {}` begins it anew", with.agent))
                .into());
        }
        let talks = view.declared.iter().any(|line| line.key == "chat");
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(tell_news(with.clone(), tell.clone()));
        let _ = view
            .status
            .approvals
            .iter()
            .try_for_each(|approval| tell.send(Told::Waits(Box::new(approval.clone()))));
        tokio::spawn(tell_events(with.clone(), since, tell));
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
            approvals: BTreeMap::new(),
            answers: None,
            talks,
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
        let is_done = !self.is_busy() || (!self.talks && self.view.has_ended());
        !self.reads && self.messages.is_empty() && is_done
    }

    /// Says what waits to be said, or asks for what the person wants to say.
    async fn ask_for_more(&mut self) -> anyhow::Result<()> {
        if self.held.is_some() {
            return Ok(());
        }
        // A model that works on its tasks hears it meanwhile, and nobody does when it has ended.
        let is_heard = !self.talks && self.view.is_live();
        if let Some(text) = self.messages.front().cloned().filter(|_| is_heard) {
            self.messages.pop_front();
            self.show_said(&text)?;
            return self.say(&text, false).await;
        }
        let takes_lines = is_heard && self.reads && !self.typing.is_terminal() && !self.view.has_ended();
        if self.is_busy() && !takes_lines {
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
            Told::Event(event) => return self.event(&event),
            Told::Waits(approval) => {
                self.waits(&approval, &json!({"type": "approval_asked", "approval": &*approval}))?;
            }
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

    fn event(&mut self, event: &toka_core::Event) -> anyhow::Result<ControlFlow<ExitCode>> {
        match &event.kind {
            EventKind::ApprovalAsked(approval) => self.waits(approval, event)?,
            EventKind::ApprovalAnswered { id, answer, words, .. } => {
                if self.approvals.remove(id).is_none() {
                    return Ok(ControlFlow::Continue(()));
                }
                if self.is_json {
                    self.print(&(json::line(event) + "\n"))?;
                }
                let words = words.as_ref().map_or_else(String::new, |words| format!(": {}", safe(words)));
                let end = self.view.close();
                let told = format!("  approval {id}: {}{words}", answer.as_str());
                self.show(&format!("{end}{}\n", self.palette.faint.paint(told)))?;
            }
            EventKind::AgentEnded { .. } => {
                let (words, _) = plain::in_words(&event.kind);
                let end = self.view.close();
                self.show(&format!(
                    "{end}{}\n",
                    self.palette.warn.paint(format!("{}: {words}", self.with.agent))
                ))?;
                if !self.typing.is_terminal() {
                    // Nobody is there who would wait until it begins again.
                    return Ok(ControlFlow::Break(ExitCode::AgentFailed));
                }
            }
            _ => {
                if let Some(line) = plain::failure(event, self.palette) {
                    let end = self.view.close();
                    self.show(&format!("{end}{line}\n"))?;
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Something waits for a person; `told` is how JSON tells it.
    fn waits(&mut self, approval: &Approval, told: &impl serde::Serialize) -> anyhow::Result<()> {
        let waiting = Waiting { approval: approval.clone(), since: Instant::now(), is_offered: false };
        if self.approvals.insert(approval.id, waiting).is_some() {
            return Ok(());
        }
        if self.is_json {
            return self.print(&(json::line(told) + "\n"));
        }
        let end = self.view.close();
        let what = self.palette.warn.paint(format!("? {}", whole(&approval.subject.to_string())));
        self.show(&format!("{end}{what}\n"))?;
        if self.typing.is_terminal() { Ok(()) } else { self.offer(Instant::now() + READ_WITHIN) }
    }

    /// Says what answers what waits first, once a person can have read it: from then on its keys are read.
    fn offer(&mut self, now: Instant) -> anyhow::Result<()> {
        let is_terminal = self.typing.is_terminal();
        let Some((id, waiting)) = self.approvals.iter_mut().next() else { return Ok(()) };
        if waiting.is_offered || now.saturating_duration_since(waiting.since) < READ_WITHIN {
            return Ok(());
        }
        waiting.is_offered = true;
        let subject = &waiting.approval.subject;
        let how = match (subject.yes(), subject) {
            (Some(yes), _) if is_terminal => format!("press a to {yes}, d to {}", subject.no()),
            (None, Subject::Question(_)) if is_terminal => {
                "type the answer, or press the number of one; an empty line gives none".to_owned()
            }
            _ => subject.how_to_say_yes(*id),
        };
        let end = self.view.close();
        self.show(&format!("{end}  {}\n", self.palette.accent.paint(how)))
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
                let answers = self.answers.take().filter(|id| self.approvals.contains_key(id));
                if let Some(id) = answers.filter(|_| !text.is_empty()) {
                    self.answer(id, ApprovalAnswer::YES, Some(text.to_owned())).await?;
                    self.release()?;
                    return Ok(ControlFlow::Continue(()));
                }
                // A path is no command.
                let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '?');
                let flow = match text.strip_prefix('/').filter(is_word) {
                    _ if text.is_empty() => ControlFlow::Continue(()),
                    Some(word) if self.typing.is_terminal() => self.command(word).await?,
                    _ if text.len() > MAX_STEER => {
                        self.has_failed = true;
                        let words =
                            format!("that is too long to be said at once: {} KiB at most", MAX_STEER / 1024);
                        self.show(&format!("{}\n", self.palette.bad.paint(words)))?;
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
    async fn key(&mut self, key: char) -> anyhow::Result<()> {
        let first = self.approvals.first_key_value();
        let open = first.filter(|(_, waiting)| waiting.is_offered);
        let open = open.map(|(id, waiting)| (*id, waiting.approval.subject.clone()));
        let is_too_early =
            first.is_some() && open.is_none() && matches!(key, 'a' | 'A' | 'd' | 'D' | '0'..='9');
        if is_too_early {
            return Ok(());
        }
        match (key, &open) {
            (ESCAPE, _) => self.interrupt().await?,
            ('\r' | '\n', Some((id, Subject::Question(_)))) => {
                self.answer(*id, ApprovalAnswer::Denied, None).await?;
            }
            (key, Some((id, Subject::Question(asked)))) => {
                let chosen =
                    key.to_digit(10).and_then(|digit| asked.options.get(digit.checked_sub(1)? as usize));
                match chosen {
                    Some(words) => self.answer(*id, ApprovalAnswer::YES, Some(words.clone())).await?,
                    None => self.begin_line(key, Some(*id))?,
                }
            }
            ('a' | 'A', Some((id, subject))) if subject.yes().is_some() => {
                self.answer(*id, ApprovalAnswer::YES, None).await?;
            }
            ('d' | 'D', Some((id, _))) => self.answer(*id, ApprovalAnswer::Denied, None).await?,
            (key, _) => self.begin_line(key, None)?,
        }
        Ok(())
    }

    /// A key begins a line, which may answer a question.
    fn begin_line(&mut self, key: char, answers: Option<u64>) -> anyhow::Result<()> {
        // Ctrl-D and the like are nothing to begin a line with.
        if key.is_control() {
            return Ok(());
        }
        self.erase()?;
        let end = self.view.close();
        self.print(&end)?;
        (self.held, self.answers) = (Some(String::new()), answers);
        self.typing.want(Wanted::Line(key.to_string()));
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
                match self.is_json {
                    true => {
                        self.print(&(json::line(&json!({"type": "refused", "error": refused.error})) + "\n"))
                    }
                    false => self.print(&format!("{}\n", self.palette.bad.paint(&refused.error))),
                }
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
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        // Whoever reads has enough: that is no failure of the conversation.
        Ok(ignore_closed(written)?)
    }

    /// Says that something is under way.
    fn draw(&mut self) -> anyhow::Result<ControlFlow<ExitCode>> {
        self.offer(Instant::now())?;
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
    let (mut last, mut told) = (0, None);
    let mut left = SUCCESSOR;
    loop {
        let after = last;
        let each = |news: SessionNews| {
            match &news {
                SessionNews::Entry { entry } if entry.id <= last => return ControlFlow::Continue(()),
                SessionNews::Entry { entry } => last = entry.id,
                SessionNews::Session { session } if told.as_ref() != Some(session) => {
                    (last, told) = (0, Some(session.clone()));
                }
                _ => {}
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
async fn tell_events(with: With, since: u64, tell: mpsc::UnboundedSender<Told>) {
    let query = format!("&agent={}", with.agent);
    let each = |event: &toka_core::Event, _: &[u8]| match tell.send(Told::Event(Box::new(event.clone()))) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    // That nobody tells any more is seen where the session is listened to.
    let _ = with.client.follow((&with.project, with.run), (since, &query), each).await;
}
