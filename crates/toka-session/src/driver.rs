//! Drives one attempt at a task: asks the model, has done what it wants, tells it what came of it, until it wants nothing more.
//!
//! What is to be done next is a pure function of the transcript ([`next`]): so a session whose daemon was killed goes on at the same place,
//! whatever that was. Each call of a tool goes one way: is it a tool that the agent has, do its arguments fit ─▶ intent, durable ─▶ done ─▶
//! receipt. A call whose intent is on record and whose result is not was perhaps done: what the runner did it still knows; of a command nobody
//! knows, and the model is told so.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::Map;
use sha2::{Digest as _, Sha256};
use toka_core::agent_program::{failure, prompt};
use toka_core::approval::ToolRequest;
use toka_core::event::{Effect, Usage};
use toka_core::tool::ReadFile;
use toka_core::{
    EventKind, Exit, FileCall, FileChange, FileTool, Kept, PlanStep, Progress, Risk, SessionKey, SessionMode,
    SessionState, StepStatus,
};
use toka_gateway::Asker;
use toka_runtime::Attempt;
use toka_wire::said::{Answer, Stop};
use toka_wire::{ToolDefinition, said};
use tokio::sync::watch;

use crate::loops::{Finding, Loops, Over};
use crate::model;
use crate::prompt::{Facts, INSTRUCTION_FILES, system, without_numbers};
use crate::request::{Settings, conversation, tokens};
use crate::shared::{Said, Shared};
use crate::steps::Steps;
use crate::tools::{Tool, ToolUse, UpdatePlan, about, exec, in_full, like, offered, parse};
use crate::transcript::{RunEffect, Transcript, open_calls};
use toka_core::transcript::{CallEntry, Entry, EntryKind};

/// Answers of a model in one attempt.
const MOST_TURNS: u32 = 250;
/// How often in a row a model is told that its answer is of no use.
const NUDGES: u32 = 3;
/// The longest reason, in characters.
const LONGEST_REASON: usize = 300;
/// The longest text of a response in an event, in characters.
const LONGEST_RESPONSE: usize = 400;
/// The longest status, in characters.
const LONGEST_STATUS: usize = 200;
/// Tokens of a request from which on old results of tools are left out: few models have less room.
const ROOM: u64 = 110_000;
/// Lines of a transcript whose results are never left out.
const RECENT: u64 = 12;

/// What is to be done next.
#[derive(Debug, PartialEq)]
enum Next {
    /// These calls have no result yet.
    Calls(Vec<(CallEntry, RunEffect)>),
    /// The model is asked.
    Ask,
    /// The model has answered, and wants nothing more.
    Compile(String),
}

/// What is to be done next, by what is on record.
fn next(entries: &[Entry]) -> Next {
    let mut open = open_calls(entries);
    open.retain(|(_, effect)| *effect != RunEffect::Ended);
    if !open.is_empty() {
        return Next::Calls(open);
    }
    let last = entries.iter().rev().find_map(|entry| match &entry.kind {
        EntryKind::Assistant { calls, text, .. } if calls.is_empty() => Some(Some(text.clone())),
        EntryKind::Assistant { .. }
        | EntryKind::Task { .. }
        | EntryKind::Person { .. }
        | EntryKind::Notice { .. }
        | EntryKind::Session { .. } => Some(None),
        _ => None,
    });
    last.flatten().map_or(Next::Ask, Next::Compile)
}

/// Works on an attempt to its end, which is told in `steps`.
pub(crate) async fn run(
    shared: Arc<Shared>,
    attempt: Attempt,
    steps: Arc<Steps>,
    paused: watch::Receiver<bool>,
) {
    let _lane = shared.lane.lock().await;
    let mut driver = match Driver::begin(&shared, &attempt, &steps, paused).await {
        Ok(driver) => driver,
        Err(reason) => return steps.end(undone(&reason)),
    };
    let exit = driver.work().await.unwrap_or_else(|reason| undone(&reason));
    let _ = driver.enter(SessionState::Idle);
    let ended = EntryKind::Ended { index: attempt.task.index, attempt: attempt.number, exit: exit.clone() };
    let exit = match driver.add(vec![ended], true).await {
        Ok(()) => exit,
        Err(reason) => undone(&reason),
    };
    steps.end(exit);
}

fn undone(reason: &str) -> Exit {
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Exit::Undone { reason: reason.chars().take(LONGEST_REASON).collect() }
}

struct Driver<'a> {
    shared: &'a Shared,
    attempt: &'a Attempt,
    steps: &'a Steps,
    paused: watch::Receiver<bool>,
    asker: Asker,
    tools: Vec<Tool>,
    definitions: Vec<ToolDefinition>,
    key: SessionKey,
    transcript: Arc<Mutex<Transcript>>,
    entries: Vec<Entry>,
    state: SessionState,
    loops: Loops,
    nudges: u32,
}

impl<'a> Driver<'a> {
    /// Begins a session, or goes on with that of this life.
    async fn begin(
        shared: &'a Shared,
        attempt: &'a Attempt,
        steps: &'a Steps,
        paused: watch::Receiver<bool>,
    ) -> Result<Self, String> {
        let asker = shared.config.models.open(&attempt.agent, Arc::clone(&attempt.sink))?;
        let (_, model) = asker.first()?;
        let tools = offered(&shared.config.rules);
        let definitions = tools.iter().map(Tool::definition).collect();
        let (key, is_known) = session_of(shared, attempt).await?;
        let path = shared.config.folder.path(&key);
        let (transcript, entries) = match is_known {
            true => open(path, attempt).await?,
            false => create(shared, attempt, steps, &key, &tools).await?,
        };
        let mut driver = Self {
            shared,
            attempt,
            steps,
            paused,
            asker,
            tools,
            definitions,
            key: key.clone(),
            transcript: Arc::new(Mutex::new(transcript)),
            entries,
            state: SessionState::Idle,
            loops: Loops::default(),
            nudges: 0,
        };
        if !is_known || attempt.goes_on {
            driver.emit(EventKind::SessionStarted { session: key, model, resumed: is_known });
        }
        driver.begin_task().await?;
        Ok(driver)
    }

    /// Tells the model what is to be done, unless it is at that already.
    async fn begin_task(&mut self) -> Result<(), String> {
        let Attempt { task, number, place, .. } = self.attempt;
        let under_way = self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::Task { index, attempt, .. } => Some((*index, *attempt) == (task.index, *number)),
            EntryKind::Ended { .. } => Some(false),
            _ => None,
        });
        if self.attempt.goes_on && under_way == Some(true) {
            return Ok(());
        }
        let last = self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::Ended { exit, .. } => Some(exit.to_string()),
            _ => None,
        });
        let is_first = !self.entries.iter().any(|entry| matches!(entry.kind, EntryKind::Task { .. }));
        let why = last.filter(|_| *number > 1);
        let text = prompt("", *place, &task.description, why.as_deref(), !is_first);
        self.add(vec![EntryKind::Task { index: task.index, attempt: *number, text }], true).await
    }

    /// Works until the model wants nothing more.
    async fn work(&mut self) -> Result<Exit, String> {
        let mut turns = 0;
        self.enter(SessionState::Planning)?;
        loop {
            self.hear_persons().await?;
            match next(&self.entries) {
                Next::Calls(calls) => {
                    self.enter(SessionState::ToolCalling)?;
                    self.call_all(calls).await?;
                    self.enter(SessionState::Observing)?;
                    self.enter(SessionState::Planning)?;
                }
                Next::Ask => {
                    turns += 1;
                    if turns > MOST_TURNS {
                        return Err(format!(
                            "the model was asked {MOST_TURNS} times and has not come to an end"
                        ));
                    }
                    self.ask().await?;
                    if let Next::Ask = next(&self.entries) {
                        self.enter(SessionState::Compiling)?;
                        self.enter(SessionState::Planning)?;
                    }
                }
                Next::Compile(text) => {
                    if self.state == SessionState::Planning {
                        // The answer was there before this daemon was.
                        self.enter(SessionState::Thinking)?;
                    }
                    self.enter(SessionState::Compiling)?;
                    let short = text.chars().take(LONGEST_RESPONSE).collect();
                    self.emit(EventKind::ResponseComplete { session: self.key.clone(), text: short });
                    return Ok(match failure(&text) {
                        Some(why) => undone(if why.is_empty() { "without a reason" } else { &why }),
                        None => Exit::Code { code: 0 },
                    });
                }
            }
        }
    }

    /// Asks the model, and puts its answer on record.
    async fn ask(&mut self) -> Result<(), String> {
        self.prune().await?;
        self.go_on().await;
        self.enter(SessionState::Thinking)?;
        let (wire, model) = self.asker.first()?;
        let config = &self.shared.config;
        let settings = Settings {
            model: &model,
            wire,
            tools: &self.definitions,
            max_output_tokens: config.max_output_tokens,
            temperature: config.temperature,
        };
        let conversation = conversation(&self.entries, &settings);
        let asked = model::ask(&self.asker, (wire, &model), &conversation, |_| {});
        let model::Asked { answer, model, call } =
            asked.await.map_err(|why| format!("the model gives no answer: {why}"))?;
        let (calls, blocks) = self.name_calls(&answer);
        if !answer.text.trim().is_empty() {
            self.steps.say(&answer.text);
            let first = answer.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            self.tell_status(first.trim());
        }
        let nudge = nudge(&answer);
        let Answer { text, thinking, tokens, stop, .. } = answer;
        let mut kinds =
            vec![EntryKind::Assistant { model, wire, call, text, thinking, calls, blocks, tokens }];
        self.nudges = if nudge.is_some() { self.nudges + 1 } else { 0 };
        let is_given_up = self.nudges > NUDGES;
        kinds.extend(nudge.filter(|_| !is_given_up).map(|text| EntryKind::Notice { text }));
        self.add(kinds, true).await?;
        match stop {
            Stop::Refused => Err("the model, or its provider, refuses".to_owned()),
            _ if is_given_up => {
                Err(format!("the model has given {NUDGES} answers in a row that are of no use"))
            }
            _ => Ok(()),
        }
    }

    /// The calls of an answer with names that are unique in the session, and its blocks, where those have the same names.
    fn name_calls(&self, answer: &Answer) -> (Vec<CallEntry>, Vec<serde_json::Value>) {
        let known = |id: &str| {
            self.entries.iter().any(|entry| match &entry.kind {
                EntryKind::Assistant { calls, .. } => calls.iter().any(|call| call.id == id),
                _ => false,
            })
        };
        let number = self.entries.last().map_or(0, |entry| entry.id) + 1;
        let mut is_renamed = false;
        let mut named: Vec<CallEntry> = Vec::new();
        for (at, said::Call { id, name, arguments }) in answer.calls.iter().enumerate() {
            let is_taken = known(id) || named.iter().any(|call| call.id == *id);
            is_renamed |= is_taken && !id.is_empty();
            let id = if id.is_empty() || is_taken { format!("call_{number}_{at}") } else { id.clone() };
            let (arguments, nonsense) = match arguments {
                Ok(arguments) => (arguments.clone(), None),
                Err(nonsense) => (Map::new(), Some(nonsense.clone())),
            };
            named.push(CallEntry { id, name: name.clone(), arguments, nonsense });
        }
        (named, if is_renamed { Vec::new() } else { answer.blocks.clone() })
    }

    /// Leaves old results out of later requests when those get long.
    async fn prune(&mut self) -> Result<(), String> {
        if tokens(&self.entries) < ROOM {
            return Ok(());
        }
        let last = self.entries.last().map_or(0, |entry| entry.id);
        let before = last.saturating_sub(RECENT);
        let pruned = self.entries.iter().rev().find_map(|entry| match entry.kind {
            EntryKind::Pruned { before } => Some(before),
            _ => None,
        });
        // What was cut a moment ago is not cut again: each time a provider reads everything anew.
        match pruned.is_none_or(|pruned| pruned + RECENT < before) {
            true => self.add(vec![EntryKind::Pruned { before }], false).await,
            false => Ok(()),
        }
    }

    /// Makes calls one after the other, in the order in which the model wants them.
    async fn call_all(&mut self, calls: Vec<(CallEntry, RunEffect)>) -> Result<(), String> {
        let most = self.shared.config.rules.most_calls();
        for (at, (call, effect)) in calls.into_iter().enumerate() {
            let finding = if at >= most {
                let text = format!("not done: at most {most} calls are made for one answer");
                self.refuse(&call, text).await?
            } else {
                self.call(&call, effect).await?
            };
            if let Finding::Stuck(why) = finding {
                return Err(why);
            }
        }
        Ok(())
    }

    /// Makes one call.
    async fn call(&mut self, call: &CallEntry, effect: RunEffect) -> Result<Finding, String> {
        let line = about(&call.name, &call.arguments);
        let separator = if line.is_empty() { "" } else { ": " };
        let line = self.asker.masked(format!("{}{separator}{line}", call.name));
        self.steps.say(&format!("> {line}"));
        self.tell_status(&line);
        let Some(tool) = self.tools.iter().find(|tool| tool.name == call.name) else {
            let names: Vec<&str> = self.tools.iter().map(|tool| tool.name).collect();
            let text = format!("there is no tool {:?}; there are {}", call.name, names.join(", "));
            return self.refuse(call, text).await;
        };
        let risk = tool.risk;
        if let Some(nonsense) = &call.nonsense {
            let shown: String = nonsense.chars().take(200).collect();
            let text = format!("not done: the arguments are no JSON object: {shown}");
            return self.refuse(call, text).await;
        }
        let used = match parse(&call.name, &call.arguments) {
            Ok(used) => used,
            Err(text) => return self.refuse(call, text).await,
        };
        if effect == RunEffect::Begun && matches!(used, ToolUse::Exec(_)) {
            return self.tell_unknown(call).await;
        }
        if effect == RunEffect::NotBegun {
            if self.shared.config.rules.asks(&call.name, risk)
                && let Err(why) = self.ask_person(call, risk).await?
            {
                return self.refuse(call, format!("not done: {why}")).await;
            }
            self.go_on().await;
            self.intend(call, risk).await?;
        }
        self.go_on().await;
        let begun = Instant::now();
        let done = match used {
            ToolUse::File(tool) => self.file(call, tool).await?,
            ToolUse::Exec(command) => {
                match exec(&*self.attempt.commands, &command, self.paused.clone()).await {
                    Ok(ran) => {
                        let whole = self.keep(ran.whole).await?;
                        Done {
                            text: ran.text,
                            is_error: !ran.is_success,
                            usage: ran.usage,
                            whole,
                            ..Done::default()
                        }
                    }
                    Err(why) => Done {
                        text: format!("the command did not start: {why}"),
                        is_error: true,
                        effect: Effect::NotDone,
                        ..Done::default()
                    },
                }
            }
            ToolUse::Plan(plan) => self.plan(plan).await?,
        };
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.finish(call, done, duration_ms).await
    }

    /// Waits until a person has said whether a call may be made.
    async fn ask_person(&mut self, call: &CallEntry, risk: Risk) -> Result<Result<(), String>, String> {
        let request = ToolRequest {
            session: self.key.clone(),
            call: call.id.clone(),
            tool: call.name.clone(),
            about: self.asker.masked(in_full(&call.name, &call.arguments)),
            risk,
            hash: hash_of(call),
            like: like(&call.name, &call.arguments),
        };
        self.enter(SessionState::Paused)?;
        let answer = self.shared.config.persons.ask(&self.attempt.agent, request).await;
        self.enter(SessionState::Planning)?;
        self.enter(SessionState::ToolCalling)?;
        Ok(answer)
    }

    /// Puts on record that a call is about to be made, so that nothing is done of which nobody knows.
    async fn intend(&mut self, call: &CallEntry, risk: Risk) -> Result<(), String> {
        self.add(vec![EntryKind::Intent { call: call.id.clone() }], false).await?;
        let intent = EventKind::ToolCallStart {
            session: self.key.clone(),
            call: call.id.clone(),
            tool: call.name.clone(),
            about: self.asker.masked(about(&call.name, &call.arguments)),
            risk,
            hash: hash_of(call),
        };
        match self.attempt.sink.emit(&self.attempt.agent, intent).await {
            Kept::OnDisk => Ok(()),
            Kept::InMemory => {
                Err("the journal cannot be written, so no tool is used: the disk may be full (`toka health`)"
                    .to_owned())
            }
        }
    }

    /// Has the runner do something with files.
    async fn file(&self, call: &CallEntry, tool: FileTool) -> Result<Done, String> {
        let call = FileCall { id: call.id.clone(), tool };
        let outcome = self.steps.call(call).await.ok_or("the agent is being ended")?;
        let text = match &outcome.refused {
            Some(path) => {
                let denied = serde_json::json!({"denied": {"path": path}});
                format!("{}\n{denied}", outcome.text)
            }
            None => outcome.text,
        };
        let is_done = !outcome.is_error || !outcome.changes.is_empty();
        let effect = if is_done { Effect::Done } else { Effect::NotDone };
        Ok(Done { text, is_error: outcome.is_error, effect, changes: outcome.changes, ..Done::default() })
    }

    /// Takes over a plan.
    async fn plan(&mut self, plan: UpdatePlan) -> Result<Done, String> {
        let steps: Vec<PlanStep> = plan.steps.into_iter().map(PlanStep::from).collect();
        let before = self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::Plan { steps } => Some(steps.clone()),
            _ => None,
        });
        let session = self.key.clone();
        let is_same = |before: &Vec<PlanStep>| {
            before.iter().map(|step| &step.description).eq(steps.iter().map(|step| &step.description))
        };
        match before.filter(is_same) {
            Some(before) => {
                for (at, (old, new)) in before.iter().zip(&steps).enumerate() {
                    if old.status != new.status {
                        let session = session.clone();
                        self.emit(EventKind::PlanStepUpdate { session, step: at + 1, status: new.status });
                    }
                }
            }
            None => self.emit(EventKind::PlanCreated { session, steps: steps.clone() }),
        }
        let done = steps.iter().filter(|step| step.status == StepStatus::Completed).count();
        // The last word is that of the end.
        let fraction = (done as f64 / steps.len().max(1) as f64).min(0.99);
        self.steps.report(Progress { fraction: Some(fraction), ..Progress::default() });
        let text = format!("{done} of {} steps are done", steps.len());
        self.add(vec![EntryKind::Plan { steps }], false).await?;
        Ok(Done { text, ..Done::default() })
    }

    /// A call that is not made.
    async fn refuse(&mut self, call: &CallEntry, text: String) -> Result<Finding, String> {
        let done = Done { text, is_error: true, effect: Effect::NotDone, ..Done::default() };
        self.finish(call, done, 0).await
    }

    /// A command whose watcher was killed.
    async fn tell_unknown(&mut self, call: &CallEntry) -> Result<Finding, String> {
        let text = "the daemon was killed while this ran, and the next one has ended the command".to_owned();
        let done = Done { text, is_error: true, effect: Effect::Unknown, ..Done::default() };
        self.finish(call, done, 0).await
    }

    /// Puts the end of a call on record.
    async fn finish(&mut self, call: &CallEntry, done: Done, duration_ms: u64) -> Result<Finding, String> {
        let Done { text, is_error, effect, whole, usage, changes } = done;
        let text = self.asker.masked(text);
        let arguments = serde_json::to_string(&call.arguments).unwrap_or_default();
        let has_changed = !changes.is_empty();
        let over = Over { tool: &call.name, arguments: &arguments, text: &text, is_error, has_changed };
        let finding = self.loops.observe(over);
        let reason: String = text.lines().next().unwrap_or_default().chars().take(LONGEST_REASON).collect();
        let text = match &finding {
            Finding::Warn(warning) => format!("{text}\n\n{warning}"),
            _ => text,
        };
        let (session, id, tool) = (self.key.clone(), call.id.clone(), call.name.clone());
        if is_error {
            self.steps.say(&format!("! {reason}"));
        }
        let event = match is_error {
            true => EventKind::ToolCallFailed { session, call: id, tool, reason, effect, duration_ms, usage },
            false => {
                let changes = changes.clone();
                EventKind::ToolCallComplete { session, call: id, tool, duration_ms, usage, changes }
            }
        };
        self.emit(event);
        let effect = is_error.then_some(effect);
        let call = call.id.clone();
        let result = EntryKind::Result { call, text, is_error, effect, whole, duration_ms, usage, changes };
        self.add(vec![result], false).await?;
        Ok(finding)
    }

    /// Tells the model what persons have said.
    async fn hear_persons(&mut self) -> Result<(), String> {
        let open = open_calls(&self.entries);
        if open.iter().any(|(_, effect)| *effect != RunEffect::Ended) {
            return Ok(());
        }
        let said = std::mem::take(&mut *self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        for Said { text, by } in &said {
            self.steps.say(&format!("{by}: {text}"));
        }
        let kinds: Vec<EntryKind> =
            said.into_iter().map(|Said { text, by }| EntryKind::Person { text, by }).collect();
        if kinds.is_empty() { Ok(()) } else { self.add(kinds, true).await }
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
        self.emit(EventKind::StateChange { session: self.key.clone(), from, to });
        Ok(())
    }

    /// Adds to the transcript. `durable`: also when the host loses power.
    async fn add(&mut self, kinds: Vec<EntryKind>, durable: bool) -> Result<(), String> {
        let transcript = Arc::clone(&self.transcript);
        let write = move || transcript.lock().unwrap_or_else(PoisonError::into_inner).append(kinds, durable);
        let added = tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?;
        self.entries.extend(added.map_err(|error| toka_core::error::with_causes(&error))?);
        Ok(())
    }

    async fn keep(&self, whole: Option<Vec<u8>>) -> Result<Option<String>, String> {
        let Some(whole) = whole else { return Ok(None) };
        let whole = self.asker.masked(String::from_utf8_lossy(&whole).into_owned());
        let transcript = Arc::clone(&self.transcript);
        let keep = move || transcript.lock().unwrap_or_else(PoisonError::into_inner).keep(whole.as_bytes());
        let kept = tokio::task::spawn_blocking(keep).await.map_err(|error| error.to_string())?;
        kept.map(Some).map_err(|error| toka_core::error::with_causes(&error))
    }
}

/// What a tool has given.
#[derive(Debug)]
struct Done {
    text: String,
    is_error: bool,
    effect: Effect,
    whole: Option<String>,
    usage: Usage,
    changes: Vec<FileChange>,
}

impl Default for Done {
    fn default() -> Self {
        Self {
            text: String::new(),
            is_error: false,
            effect: Effect::Done,
            whole: None,
            usage: Usage::default(),
            changes: Vec::new(),
        }
    }
}

/// The SHA-256 of the arguments of a call.
fn hash_of(call: &CallEntry) -> String {
    let arguments = serde_json::to_vec(&call.arguments).unwrap_or_default();
    Sha256::digest(&arguments).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a model is told whose answer is of no use.
fn nudge(answer: &Answer) -> Option<String> {
    if !answer.calls.is_empty() {
        return None;
    }
    if answer.stop == Stop::Length {
        return Some("Your answer was cut, for it was too long. Go on, in smaller steps.".to_owned());
    }
    answer
        .text
        .trim()
        .is_empty()
        .then(|| "You said nothing. Use a tool, or end with a short account of what you did.".to_owned())
}

/// The session of this life, and whether it is there already.
async fn session_of(shared: &Shared, attempt: &Attempt) -> Result<(SessionKey, bool), String> {
    let life = shared.life.load(Ordering::Relaxed);
    let known = shared.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some((_, key)) = known.filter(|(of, _)| *of == life) {
        return Ok((key, true));
    }
    let (folder, agent, run) = (shared.config.folder.clone(), attempt.agent.clone(), shared.config.run);
    // A life that was begun by an earlier daemon has its session already.
    let goes_on = attempt.goes_on || life == 0;
    let find = move || {
        let last = folder.last(&agent, SessionMode::Task)?;
        if let Some(key) = last.filter(|_| goes_on)
            && folder.info(&key)?.run == Some(run)
        {
            return Ok((key, true));
        }
        folder.next(&agent, SessionMode::Task).map(|key| (key, false))
    };
    let found = tokio::task::spawn_blocking(find).await.map_err(|error| error.to_string())?;
    let (key, is_known) = found.map_err(|error: std::io::Error| {
        format!("read the folder of sessions {}: {error}", shared.config.folder.folder().display())
    })?;
    *shared.session.lock().unwrap_or_else(PoisonError::into_inner) = Some((life, key.clone()));
    Ok((key, is_known))
}

/// Goes on with a transcript.
async fn open(path: PathBuf, attempt: &Attempt) -> Result<(Transcript, Vec<Entry>), String> {
    let shown = path.display().to_string();
    let opened = tokio::task::spawn_blocking(move || Transcript::open(&path)).await;
    let (transcript, read) =
        opened.map_err(|error| error.to_string())?.map_err(|error| toka_core::error::with_causes(&error))?;
    if read.torn > 0 {
        let message = format!("the last {} bytes of {shown} were torn, and are cut off", read.torn);
        drop(attempt.sink.emit(&attempt.agent, EventKind::Warning { message }));
    }
    Ok((transcript, read.entries))
}

/// Begins a transcript, with what a model is told before anything else.
async fn create(
    shared: &Shared,
    attempt: &Attempt,
    steps: &Steps,
    key: &SessionKey,
    tools: &[Tool],
) -> Result<(Transcript, Vec<Entry>), String> {
    let names: Vec<String> = tools.iter().map(|tool| tool.name.to_owned()).collect();
    let instructions = instructions(steps).await;
    let facts = Facts {
        agent: attempt.agent.as_str(),
        domain: &shared.config.domain,
        about: &shared.config.about,
        tools: &names,
        instructions: instructions.as_ref().map(|(file, text)| (*file, text.as_str())),
    };
    let system = system(&facts)?;
    let session =
        EntryKind::Session { version: 1, key: key.clone(), run: shared.config.run, system, tools: names };
    let path = shared.config.folder.path(key);
    let begin = move || {
        let mut transcript = Transcript::create(&path)?;
        let entries = transcript.append(vec![session], false)?;
        Ok((transcript, entries))
    };
    let begun = tokio::task::spawn_blocking(begin).await.map_err(|error| error.to_string())?;
    begun.map_err(|error: crate::TranscriptError| toka_core::error::with_causes(&error))
}

/// What is asked of everybody who works in the agent's folder: read in its sandbox, as it could read it itself.
async fn instructions(steps: &Steps) -> Option<(&'static str, String)> {
    for file in INSTRUCTION_FILES {
        let tool = FileTool::Read(ReadFile { path: file.to_owned(), offset: None, limit: None });
        let outcome = steps.call(FileCall { id: format!("instructions:{file}"), tool }).await?;
        if !outcome.is_error {
            return Some((file, without_numbers(&outcome.text)));
        }
    }
    None
}
