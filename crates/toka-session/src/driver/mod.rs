//! Drives one attempt at a task: asks the model, has done what it wants, tells it what came of it, until it wants nothing more.
//!
//! What is to be done next is a pure function of the transcript ([`next`]): so a session whose daemon was killed goes on at the same place,
//! whatever that was. Each call of a tool goes one way: is it a tool that the agent has, do its arguments fit ─▶ intent, durable ─▶ done ─▶
//! receipt. A call whose intent is on record and whose result is not was perhaps done: what the runner did it still knows; of a command nobody
//! knows, and the model is told so.

mod asking;
mod begin;
mod calls;
mod compacting;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use toka_core::agent_program::failure;
use toka_core::transcript::{CallEntry, Entry, EntryKind};
use toka_core::{EventKind, Exit, Progress, SessionKey, SessionState};
use toka_gateway::Asker;
use toka_runtime::Attempt;
use toka_wire::ToolDefinition;
use tokio::sync::watch;

use calls::Cut;

use crate::loops::Loops;
use crate::shared::{SessionCheck, Shared};
use crate::steps::Steps;
use crate::tools::{McpServers, Processes, Running, Tool, run};
use crate::transcript::{RunEffect, Transcript, open_calls};

/// Answers of a model in one attempt.
const MOST_TURNS: u32 = 250;
/// How often a model is told that an objective is not met.
const MOST_CHECKED: u32 = 2;
/// The longest reason, in characters.
const LONGEST_REASON: usize = 300;
/// The longest text of a response in an event, in characters.
const LONGEST_RESPONSE: usize = 400;
/// The longest status, in characters.
const LONGEST_STATUS: usize = 200;

/// What is to be done next.
#[derive(Debug, PartialEq)]
enum Next {
    /// These calls, by their places in the answer, have no result yet.
    Calls(Vec<(usize, CallEntry, RunEffect)>),
    /// The model is asked.
    Ask,
    /// The model has answered, and wants nothing more.
    Compile(String),
    /// A person is to say what they want.
    Listen,
    /// A person has interrupted before so many calls were begun: they are not made.
    Close(usize),
}

/// Why a turn does not go on.
#[derive(Debug, PartialEq)]
enum Halt {
    /// For a reason that another word of a person's may change.
    Turn(String),
    /// A person has interrupted it.
    Interrupted,
    /// Nothing can be put on record any more, or the agent is being ended.
    Session(String),
}

impl From<String> for Halt {
    fn from(why: String) -> Self {
        Self::Session(why)
    }
}

/// What is to be done next, by what is on record.
fn next(entries: &[Entry]) -> Next {
    if let Some(said) = said_while_thinking(entries) {
        return said;
    }
    let all = open_calls(entries).into_iter().enumerate();
    let open: Vec<_> = all
        .filter(|(_, (_, effect))| *effect != RunEffect::Ended)
        .map(|(at, (call, effect))| (at, call, effect))
        .collect();
    if !open.is_empty() {
        return Next::Calls(open);
    }
    let last = entries.iter().rev().find_map(|entry| match &entry.kind {
        EntryKind::Assistant { calls, text, .. } if calls.is_empty() => Some(Next::Compile(text.clone())),
        EntryKind::Task { text, .. } if text.is_empty() => Some(Next::Listen),
        EntryKind::Interrupted { .. } | EntryKind::Halted { .. } => Some(Next::Listen),
        EntryKind::Assistant { .. }
        | EntryKind::Task { .. }
        | EntryKind::Person { .. }
        | EntryKind::Notice { .. }
        | EntryKind::Session { .. } => Some(Next::Ask),
        _ => None,
    });
    last.unwrap_or(Next::Ask)
}

/// What follows from an interruption that came when the model had been asked: it counts although the answer stands after it.
fn said_while_thinking(entries: &[Entry]) -> Option<Next> {
    let (at, until) = entries.iter().enumerate().rev().find_map(|(at, entry)| match &entry.kind {
        EntryKind::Assistant { asked, .. } => Some((at, asked.as_ref()?.until)),
        _ => None,
    })?;
    let since = || entries[..at].iter().filter(|entry| entry.id > until);
    since().find(|entry| matches!(entry.kind, EntryKind::Interrupted { .. }))?;
    let open = open_calls(entries).into_iter().enumerate();
    let open: Vec<_> = open
        .filter(|(_, (_, effect))| *effect != RunEffect::Ended)
        .map(|(at, (call, effect))| (at, call, effect))
        .collect();
    if !open.is_empty() {
        return Some(Next::Close(open.len()));
    }
    let is_new = |kind: &EntryKind| {
        matches!(kind, EntryKind::Person { .. } | EntryKind::Task { .. } | EntryKind::Notice { .. })
    };
    let goes_on = since().chain(&entries[at..]).any(|entry| is_new(&entry.kind));
    Some(if goes_on { Next::Ask } else { Next::Listen })
}

/// Works on an attempt to its end, which is told in `steps`.
pub(crate) async fn work(
    shared: Arc<Shared>,
    attempt: Attempt,
    steps: Arc<Steps>,
    (paused, mut cut): (watch::Receiver<bool>, watch::Receiver<Option<Exit>>),
) {
    let _lane = shared.lane.lock().await;
    let begun = tokio::select! {
        begun = Driver::begin(&shared, &attempt, &steps, paused) => begun,
        exit = cut_short(&mut cut) => return steps.end(exit),
    };
    let mut driver = match begun {
        Ok(driver) => driver,
        Err(reason) => return steps.end(undone(&reason)),
    };
    if let Some(exit) = driver.ended_before() {
        return steps.end(exit);
    }
    *lock(&shared.transcript) = Some(Arc::clone(&driver.transcript));
    *lock(&shared.asker) = Some(Arc::clone(&driver.asker));
    let exit = tokio::select! {
        exit = driver.work() => exit.unwrap_or_else(|reason| undone(&reason)),
        exit = cut_short(&mut cut) => exit,
    };
    let closed = driver.close_calls(Cut::End).await;
    let exit = closed.map_or_else(|reason| undone(&reason), |()| exit);
    let _ = driver.enter(SessionState::Idle);
    // Nobody is told anything any more.
    *lock(&shared.transcript) = None;
    *lock(&shared.asker) = None;
    let ended = EntryKind::Ended { index: attempt.task.index, attempt: attempt.number, exit: exit.clone() };
    let exit = match driver.add(vec![ended], true).await {
        Ok(()) => exit,
        Err(reason) => undone(&reason),
    };
    steps.end(exit);
}

/// What comes of it, unless a person interrupts it.
async fn unless_interrupted<T>(
    mut interrupts: watch::Receiver<u64>,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        // Whoever interrupts is there as long as this.
        Ok(()) = interrupts.changed() => None,
        outcome = work => Some(outcome),
    }
}

/// How the attempt is to end before its time, once that is said.
async fn cut_short(cut: &mut watch::Receiver<Option<Exit>>) -> Exit {
    let told = cut.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
    match told {
        Some(exit) => exit,
        // Whoever could say so is gone, and this is aborted.
        None => std::future::pending().await,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn undone(reason: &str) -> Exit {
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Exit::Undone { reason: reason.chars().take(LONGEST_REASON).collect() }
}

struct Driver<'a> {
    shared: Arc<Shared>,
    attempt: &'a Attempt,
    steps: &'a Steps,
    paused: watch::Receiver<bool>,
    /// How often a person has interrupted.
    interrupts: watch::Receiver<u64>,
    asker: Arc<Asker>,
    tools: Vec<Tool>,
    definitions: Vec<ToolDefinition>,
    key: SessionKey,
    transcript: Arc<Mutex<Transcript>>,
    entries: Vec<Entry>,
    state: SessionState,
    loops: Loops,
    /// Programs that the model has started, and that run on.
    processes: Processes,
    /// Servers of tools.
    servers: McpServers,
    nudges: u32,
}

impl<'a> Driver<'a> {
    /// Works until the model wants nothing more; where a person is to talk to it, until the attempt is ended.
    async fn work(&mut self) -> Result<Exit, String> {
        let talks = self.attempt.task.talk;
        loop {
            let halt = match self.turn().await {
                Ok(None) => return Ok(Exit::Code { code: 0 }),
                Ok(Some(failed)) => return Ok(undone(&failed)),
                Err(halt) => halt,
            };
            match halt {
                Halt::Session(why) => return Err(why),
                Halt::Turn(why) if !talks => return Err(why),
                Halt::Turn(reason) => {
                    self.steps.say(&format!("! {reason}"));
                    self.add(vec![EntryKind::Halted { reason }], true).await?;
                }
                Halt::Interrupted => {
                    self.close_calls(Cut::Person).await?;
                    self.enter(SessionState::Idle)?;
                }
            }
        }
    }

    /// Works until the model wants nothing more, and everything that is aimed at is so; else why the task is not done, in the words of the model.
    async fn turn(&mut self) -> Result<Option<String>, Halt> {
        let (mut turns, mut checked) = (0, 0);
        // Whether the last answer came in this turn, and not before this daemon.
        let mut is_news = !self.attempt.task.talk;
        loop {
            self.hear_persons();
            match next(&self.entries) {
                Next::Calls(calls) => {
                    self.enter_work()?;
                    self.enter(SessionState::ToolCalling)?;
                    self.call_all(calls).await?;
                    self.enter(SessionState::Observing)?;
                    self.enter(SessionState::Planning)?;
                }
                Next::Ask => {
                    self.enter_work()?;
                    turns += 1;
                    if turns > MOST_TURNS {
                        return Err(Halt::Turn(format!(
                            "the model was asked {MOST_TURNS} times and has not come to an end"
                        )));
                    }
                    self.ask().await?;
                    is_news = true;
                    if let Next::Ask = next(&self.entries) {
                        self.enter(SessionState::Compiling)?;
                        self.enter(SessionState::Planning)?;
                    }
                }
                Next::Compile(text) => {
                    if is_news {
                        self.compile(&text)?;
                    }
                    if self.attempt.task.talk {
                        self.listen().await?;
                        (turns, is_news) = (0, false);
                        continue;
                    }
                    if let Some(why) = failure(&text) {
                        return Ok(Some(if why.is_empty() { "without a reason".to_owned() } else { why }));
                    }
                    let Some(lack) = self.lack().await? else { return Ok(None) };
                    checked += 1;
                    if checked > MOST_CHECKED {
                        return Err(Halt::Turn(lack));
                    }
                    let text = format!("{lack}\n\nThe work is not done before that is so. Go on.");
                    self.add(vec![EntryKind::Notice { text }], true).await?;
                    self.enter(SessionState::Planning)?;
                }
                Next::Close(_) => return Err(Halt::Interrupted),
                Next::Listen => {
                    self.listen().await?;
                    turns = 0;
                }
            }
        }
    }

    /// The model wants nothing more: what it says is told.
    fn compile(&mut self, text: &str) -> Result<(), String> {
        self.enter_work()?;
        if self.state == SessionState::Planning {
            // The answer was there before this daemon was.
            self.enter(SessionState::Thinking)?;
        }
        self.enter(SessionState::Compiling)?;
        let short = text.chars().take(LONGEST_RESPONSE).collect();
        self.emit(EventKind::ResponseComplete { session: self.key.clone(), text: short });
        Ok(())
    }

    /// Waits until a person has said something.
    async fn listen(&mut self) -> Result<(), String> {
        self.enter(SessionState::Idle)?;
        self.loops = Loops::default();
        self.tell_status("waits for a person to say something (`toka chat`)");
        let shared = Arc::clone(&self.shared);
        self.hear_persons();
        if next(&self.entries) == Next::Ask {
            return Ok(());
        }
        shared.listen();
        loop {
            let said = shared.said.notified();
            self.hear_persons();
            if next(&self.entries) == Next::Ask {
                return Ok(());
            }
            said.await;
        }
    }

    /// Begins to work, where nothing was asked.
    fn enter_work(&mut self) -> Result<(), String> {
        match self.state {
            SessionState::Idle => self.enter(SessionState::Planning),
            _ => Ok(()),
        }
    }

    /// How the agent's commands are run.
    fn running<'r>(&'r self, say: &'r (dyn Fn(&str) + Sync)) -> Running<'r> {
        Running { commands: &*self.attempt.commands, paused: self.paused.clone(), say }
    }

    /// The first objective that is not met, when this was the last task, with what its check says.
    async fn lack(&mut self) -> Result<Option<String>, Halt> {
        let (place, total) = self.place_of_task(self.attempt.place);
        let checks = self.shared.config.checks.iter().filter(|_| place == total);
        for SessionCheck { description, argv, timeout } in checks {
            self.tell_status(&format!("checks: {description}"));
            let ran = run(self.running(&|_| {}), argv.clone(), *timeout);
            let ran = unless_interrupted(self.interrupts.clone(), ran).await;
            let ran = ran.ok_or(Halt::Interrupted)?;
            let said = match ran {
                Ok(ran) if ran.is_success => continue,
                Ok(ran) => ran.text,
                Err(why) => why,
            };
            let said = self.asker.masked(said);
            self.steps.say(&format!("! not met: {description}"));
            return Ok(Some(format!("This objective is not met: {description}\nIts check says: {said}")));
        }
        Ok(None)
    }

    /// Takes in what persons have said, and is ready for the next interruption.
    fn hear_persons(&mut self) {
        // Before the lines are taken, so that no interruption counts whose line is not among them.
        self.interrupts.borrow_and_update();
        self.take_written();
    }

    /// Takes in what was put on record.
    fn take_written(&mut self) {
        let written = std::mem::take(&mut *lock(&self.shared.written));
        for entry in written {
            if let EntryKind::Person { text, by } = &entry.kind {
                self.steps.say(&format!("{by}: {text}"));
            }
            // It was written when it was said.
            let at = self.entries.partition_point(|known| known.id < entry.id);
            self.entries.insert(at, entry);
        }
    }

    /// Waits while the agent is paused.
    async fn go_on(&mut self) {
        // Whoever pauses is there as long as this.
        let _ = self.paused.wait_for(|paused| !paused).await;
    }

    fn tell_status(&self, text: &str) {
        let status: String = text.chars().take(LONGEST_STATUS).collect();
        self.steps.report(Progress { status: Some(status.into()), ..Progress::default() });
    }

    fn emit(&self, kind: EventKind) {
        drop(self.attempt.sink.emit(&self.attempt.agent, kind));
    }

    fn enter(&mut self, to: SessionState) -> Result<(), String> {
        let from = self.state;
        if from == to {
            return Ok(());
        }
        self.state = from.step(to).map_err(|error| error.to_string())?;
        self.shared.enter(to);
        self.emit(EventKind::StateChange { session: self.key.clone(), from, to });
        Ok(())
    }

    /// Adds to the transcript. `durable`: also when the host loses power. What is written is not lost when this is dropped.
    async fn add(&mut self, kinds: Vec<EntryKind>, durable: bool) -> Result<(), String> {
        let (transcript, shared) = (Arc::clone(&self.transcript), self.shared.clone());
        let write = move || shared.append(&transcript, kinds, durable);
        let added = tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?;
        added.map_err(|error| toka_core::error::with_causes(&error))?;
        self.take_written();
        Ok(())
    }

    async fn keep(&self, whole: Option<Vec<u8>>) -> Result<Option<String>, String> {
        let Some(whole) = whole else { return Ok(None) };
        let whole = self.asker.masked(String::from_utf8_lossy(&whole).into_owned());
        let transcript = Arc::clone(&self.transcript);
        let keep = move || lock(&transcript).keep(whole.as_bytes());
        let kept = tokio::task::spawn_blocking(keep).await.map_err(|error| error.to_string())?;
        kept.map(Some).map_err(|error| toka_core::error::with_causes(&error))
    }
}
