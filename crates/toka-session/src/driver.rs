//! Drives one attempt at a task: asks the model, has done what it wants, tells it what came of it, until it wants nothing more.
//!
//! What is to be done next is a pure function of the transcript ([`next`]): so a session whose daemon was killed goes on at the same place,
//! whatever that was. Each call of a tool goes one way: is it a tool that the agent has, do its arguments fit ─▶ intent, durable ─▶ done ─▶
//! receipt. A call whose intent is on record and whose result is not was perhaps done: what the runner did it still knows; of a command nobody
//! knows, and the model is told so.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Map;
use sha2::{Digest as _, Sha256};
use toka_core::agent_program::{failure, prompt};
use toka_core::approval::ToolRequest;
use toka_core::event::{Effect, Usage};
use toka_core::tool::ReadFile;
use toka_core::transcript::{CallEntry, Entry, EntryKind};
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
use crate::shared::{SessionCheck, Shared};
use crate::steps::Steps;
use crate::tools::{
    PollProcess, Processes, Ran, Running, StartProcess, Tool, ToolUse, UpdatePlan, WriteProcess, about, exec,
    in_full, like, offered, parse, run,
};
use crate::transcript::{RunEffect, Transcript, open_calls};

/// Answers of a model in one attempt.
const MOST_TURNS: u32 = 250;
/// How often a model is told that an objective is not met.
const MOST_CHECKED: u32 = 2;
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
/// Bytes of the last results that are never left out.
const RECENT: usize = 100 * 1024;
/// Bytes that leaving results out must save: each time a provider reads everything anew.
const WORTHWHILE: usize = 40 * 1024;
/// The largest call of a file tool, in bytes: it has to fit into one line of the agent's socket.
const LARGEST_CALL: usize = 900 * 1024;

/// What is to be done next.
#[derive(Debug, PartialEq)]
enum Next {
    /// These calls, by their places in the answer, have no result yet.
    Calls(Vec<(usize, CallEntry, RunEffect)>),
    /// The model is asked.
    Ask,
    /// The model has answered, and wants nothing more.
    Compile(String),
}

/// What is to be done next, by what is on record.
fn next(entries: &[Entry]) -> Next {
    let all = open_calls(entries).into_iter().enumerate();
    let open: Vec<_> = all
        .filter(|(_, (_, effect))| *effect != RunEffect::Ended)
        .map(|(at, (call, effect))| (at, call, effect))
        .collect();
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
    let exit = tokio::select! {
        exit = driver.work() => exit.unwrap_or_else(|reason| undone(&reason)),
        exit = cut_short(&mut cut) => exit,
    };
    let closed = driver.close_calls("the attempt was ended while this ran").await;
    let exit = closed.map_or_else(|reason| undone(&reason), |()| exit);
    let _ = driver.enter(SessionState::Idle);
    // Nobody is told anything any more.
    *lock(&shared.transcript) = None;
    let ended = EntryKind::Ended { index: attempt.task.index, attempt: attempt.number, exit: exit.clone() };
    let exit = match driver.add(vec![ended], true).await {
        Ok(()) => exit,
        Err(reason) => undone(&reason),
    };
    steps.end(exit);
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
    /// Programs that the model has started, and that run on.
    processes: Processes,
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
            false => create(shared, attempt, steps, &key, (&tools, &asker)).await?,
        };
        let processes = Processes::after(started(&entries));
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
            processes,
            nudges: 0,
        };
        if !is_known || attempt.goes_on {
            driver.emit(EventKind::SessionStarted { session: key, model, resumed: is_known });
        }
        driver.begin_task().await?;
        Ok(driver)
    }

    /// How this attempt has ended, where an earlier daemon has put that on record and could not tell it.
    fn ended_before(&self) -> Option<Exit> {
        let (task, number) = (self.attempt.task.index, self.attempt.number);
        let last = self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::Task { .. } => Some(None),
            EntryKind::Ended { index, attempt, exit } => {
                Some(Some(exit.clone()).filter(|_| (*index, *attempt) == (task, number)))
            }
            _ => None,
        });
        last.flatten().filter(|_| self.attempt.goes_on)
    }

    /// Tells the model what is to be done, unless it is at that already.
    async fn begin_task(&mut self) -> Result<(), String> {
        let Attempt { task, number, place, .. } = self.attempt;
        let under_way = self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::Task { index, attempt, .. } => Some((*index, *attempt) == (task.index, *number)),
            EntryKind::Ended { .. } => Some(false),
            _ => None,
        });
        if self.attempt.goes_on && (under_way == Some(true) || self.ended_before().is_some()) {
            return Ok(());
        }
        // What is left of an attempt that nobody saw end is not done in this one.
        self.close_calls("the attempt before this one ended while this ran").await?;
        let last = self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::Ended { index, exit, .. } if *index == task.index => Some(exit.to_string()),
            EntryKind::Task { index, attempt, .. } if (*index, *attempt + 1) == (task.index, *number) => {
                Some("nobody saw how".to_owned())
            }
            _ => None,
        });
        let is_first = !self.entries.iter().any(|entry| matches!(entry.kind, EntryKind::Task { .. }));
        let why = last.filter(|_| *number > 1);
        let text = prompt("", *place, &task.description, why.as_deref(), !is_first);
        let text = self.asker.masked(text);
        self.add(vec![EntryKind::Task { index: task.index, attempt: *number, text }], true).await
    }

    /// Works until the model wants nothing more.
    async fn work(&mut self) -> Result<Exit, String> {
        let (mut turns, mut checked) = (0, 0);
        self.enter(SessionState::Planning)?;
        loop {
            self.hear_persons();
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
                    if let Some(why) = failure(&text) {
                        return Ok(undone(if why.is_empty() { "without a reason" } else { &why }));
                    }
                    let Some(lack) = self.lack().await? else { return Ok(Exit::Code { code: 0 }) };
                    checked += 1;
                    if checked > MOST_CHECKED {
                        return Err(lack);
                    }
                    let text = format!("{lack}\n\nThe work is not done before that is so. Go on.");
                    self.add(vec![EntryKind::Notice { text }], true).await?;
                    self.enter(SessionState::Planning)?;
                }
            }
        }
    }

    /// How the agent's commands are run.
    fn running<'r>(&'r self, say: &'r (dyn Fn(&str) + Sync)) -> Running<'r> {
        Running { commands: &*self.attempt.commands, paused: self.paused.clone(), say }
    }

    /// The first objective that is not met, when this was the last task, with what its check says.
    async fn lack(&self) -> Result<Option<String>, String> {
        let (place, total) = self.attempt.place;
        let checks = self.shared.config.checks.iter().filter(|_| place == total);
        for SessionCheck { description, argv, timeout } in checks {
            self.tell_status(&format!("checks: {description}"));
            let ran = run(self.running(&|_| {}), argv.clone(), *timeout).await;
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

    /// Asks the model, and puts its answer on record.
    async fn ask(&mut self) -> Result<(), String> {
        self.prune().await?;
        self.go_on().await;
        self.enter(SessionState::Thinking)?;
        let model::Asked { answer, model, call, wire } = match self.request().await {
            Err(why) if why.is_too_large && self.prune_to(0).await? => self.request().await,
            asked => asked,
        }
        .map_err(|why| format!("the model gives no answer: {why}"))?;
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

    /// Sends the request that follows from the transcript.
    async fn request(&self) -> Result<model::Asked, model::NoAnswer> {
        let (wire, model) = self.asker.first().map_err(model::NoAnswer::of)?;
        self.tell_status(&format!("asks {model}"));
        let config = &self.shared.config;
        let settings = Settings {
            model: &model,
            wire,
            // Sealed blocks must not reach another one, and any of several may answer.
            seals: self.asker.candidates(wire).len() == 1,
            tools: &self.definitions,
            max_output_tokens: config.max_output_tokens,
            temperature: config.temperature,
        };
        let conversation = conversation(&self.entries, &settings);
        model::ask(&self.asker, (wire, &model), &conversation, |_| {}).await
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
            let is_taken = |id: &str| known(id) || named.iter().any(|call| call.id == id);
            is_renamed |= !id.is_empty() && is_taken(id);
            let own = || (at..).map(|at| format!("call_{number}_{at}")).find(|id| !is_taken(id));
            let id = match id.is_empty() || is_taken(id) {
                true => own().unwrap_or_default(),
                false => id.clone(),
            };
            let (arguments, nonsense) = match arguments {
                Ok(arguments) => (arguments.clone(), None),
                Err(nonsense) => (Map::new(), Some(nonsense.clone())),
            };
            named.push(CallEntry { id, name: name.clone(), arguments, nonsense });
        }
        // What is not whole, or not as it came, goes back in our words.
        let is_whole = matches!(answer.stop, Stop::End | Stop::Tools);
        let makes_sense = named.iter().all(|call| call.nonsense.is_none());
        let keeps = !is_renamed && is_whole && makes_sense;
        (named, if keeps { answer.blocks.clone() } else { Vec::new() })
    }

    /// Leaves old results out of later requests when those get long.
    async fn prune(&mut self) -> Result<(), String> {
        if tokens(&self.entries) < ROOM {
            return Ok(());
        }
        self.prune_to(RECENT).await.map(drop)
    }

    /// Leaves all results out but the last ones of so many bytes; whether that saves enough to be done.
    async fn prune_to(&mut self, recent: usize) -> Result<bool, String> {
        let pruned = self.entries.iter().rev().find_map(|entry| match entry.kind {
            EntryKind::Pruned { before } => Some(before),
            _ => None,
        });
        let (mut kept, mut saved, mut before) = (0, 0, 0);
        for entry in self.entries.iter().rev().take_while(|entry| pruned.is_none_or(|at| entry.id >= at)) {
            let EntryKind::Result { text, .. } = &entry.kind else { continue };
            if kept + text.len() <= recent {
                kept += text.len();
                continue;
            }
            before = before.max(entry.id + 1);
            saved += text.len();
        }
        if saved < WORTHWHILE.min(recent.max(1)) {
            return Ok(false);
        }
        self.add(vec![EntryKind::Pruned { before }], false).await?;
        Ok(true)
    }

    /// Makes calls one after the other, in the order in which the model wants them.
    async fn call_all(&mut self, calls: Vec<(usize, CallEntry, RunEffect)>) -> Result<(), String> {
        let most = self.shared.config.rules.most_calls();
        self.loops.begin_answer();
        for (at, call, effect) in calls {
            let finding = if at >= most {
                let text = format!("at most {most} calls are made for one answer");
                self.tell_undone(&call, text).await?;
                Finding::Fine
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
            let text = format!("the arguments are no JSON object: {shown}");
            return self.refuse(call, text).await;
        }
        let used = match parse(&call.name, &call.arguments) {
            Ok(used) => used,
            Err(text) => return self.refuse(call, text).await,
        };
        // A look is taken again; what the runner did it still knows.
        let is_lost =
            matches!(used, ToolUse::Exec(_) | ToolUse::Start(_) | ToolUse::Write(_) | ToolUse::Kill(_));
        if effect == RunEffect::Begun && is_lost {
            return self.tell_unknown(call).await;
        }
        if effect == RunEffect::NotBegun {
            if self.shared.config.rules.asks(&call.name, risk)
                && let Err(why) = self.ask_person(call, risk).await?
            {
                return self.refuse(call, why).await;
            }
            self.go_on().await;
            self.intend(call, risk).await?;
        }
        self.go_on().await;
        let begun = Instant::now();
        let done = match used {
            ToolUse::File(tool) => self.file(call, tool).await?,
            ToolUse::Exec(command) => {
                match exec(
                    self.running(&|line| self.steps.say(&self.asker.masked(line.to_owned()))),
                    &command,
                )
                .await
                {
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
            ToolUse::Start(StartProcess { command, folder }) => {
                let commands = Arc::clone(&self.attempt.commands);
                let ran = self.processes.start(&*commands, (&command, folder.as_deref())).await;
                self.ran(ran).await?
            }
            ToolUse::Poll(PollProcess { process, wait }) => {
                let ran = self.processes.poll(process, wait).await;
                self.ran(ran).await?
            }
            ToolUse::Write(WriteProcess { process, text, close }) => {
                let ran = self.processes.write(process, &text, close).await;
                self.ran(ran).await?
            }
            ToolUse::Kill(process) => {
                let ran = self.processes.kill(process).await;
                self.ran(ran).await?
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
        let intent = EventKind::ToolCallStart {
            session: self.key.clone(),
            call: call.id.clone(),
            tool: call.name.clone(),
            about: self.asker.masked(about(&call.name, &call.arguments)),
            risk,
            hash: hash_of(call),
        };
        match self.attempt.sink.emit(&self.attempt.agent, intent).await {
            // An intent that is told twice, when the daemon is killed in between, is better than one that is not told.
            Kept::OnDisk => self.add(vec![EntryKind::Intent { call: call.id.clone() }], false).await,
            Kept::InMemory => {
                Err("the journal cannot be written, so no tool is used: the disk may be full (`toka health`)"
                    .to_owned())
            }
        }
    }

    /// Has the runner do something with files.
    async fn file(&self, call: &CallEntry, tool: FileTool) -> Result<Done, String> {
        let call = FileCall { id: call.id.clone(), tool };
        if serde_json::to_vec(&call).map_or(0, |bytes| bytes.len()) > LARGEST_CALL {
            let text = format!("the arguments are longer than {} KiB: do it in parts", LARGEST_CALL / 1024);
            return Ok(Done { text, is_error: true, effect: Effect::NotDone, ..Done::default() });
        }
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

    /// What came of a call to a process.
    async fn ran(&self, ran: Result<Ran, String>) -> Result<Done, String> {
        Ok(match ran {
            Ok(Ran { text, whole, is_success, usage }) => {
                let whole = self.keep(whole).await?;
                Done { text, is_error: !is_success, usage, whole, ..Done::default() }
            }
            Err(text) => Done { text, is_error: true, effect: Effect::NotDone, ..Done::default() },
        })
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

    /// Puts the end of calls on record whose end nobody waited for.
    async fn close_calls(&mut self, why: &str) -> Result<(), String> {
        for (call, effect) in open_calls(&self.entries) {
            let (text, effect) = match effect {
                RunEffect::Ended => continue,
                RunEffect::Begun => (why.to_owned(), Effect::Unknown),
                RunEffect::NotBegun => {
                    ("the attempt was ended before this was done".to_owned(), Effect::NotDone)
                }
            };
            let done = Done { text, is_error: true, effect, ..Done::default() };
            self.record(&call, done, 0).await?;
        }
        Ok(())
    }

    /// A call that is not made, for a reason that is none of the model's.
    async fn tell_undone(&mut self, call: &CallEntry, text: String) -> Result<(), String> {
        let done = Done { text, is_error: true, effect: Effect::NotDone, ..Done::default() };
        self.record(call, done, 0).await
    }

    /// A call that is not made.
    async fn refuse(&mut self, call: &CallEntry, text: String) -> Result<Finding, String> {
        let done = Done { text, is_error: true, effect: Effect::NotDone, ..Done::default() };
        self.finish(call, done, 0).await
    }

    /// A command whose watcher was killed.
    async fn tell_unknown(&mut self, call: &CallEntry) -> Result<Finding, String> {
        let text = match self.attempt.goes_on {
            true => "the daemon was killed while this ran, and the next one has ended the command",
            false => "the attempt before this one was ended while this ran",
        };
        let text = text.to_owned();
        let done = Done { text, is_error: true, effect: Effect::Unknown, ..Done::default() };
        self.finish(call, done, 0).await
    }

    /// Puts the end of a call on record, and says whether the session gets anywhere.
    async fn finish(
        &mut self,
        call: &CallEntry,
        mut done: Done,
        duration_ms: u64,
    ) -> Result<Finding, String> {
        let arguments = serde_json::to_string(&call.arguments).unwrap_or_default();
        let has_changed = !done.changes.is_empty();
        let over = Over {
            tool: &call.name,
            arguments: &arguments,
            text: &done.text,
            is_error: done.is_error,
            has_changed,
        };
        let finding = match waits(call) {
            true => Finding::Fine,
            false => self.loops.observe(over),
        };
        if let Finding::Warn(warning) = &finding {
            done.text = format!("{}\n\n{warning}", done.text);
        }
        self.record(call, done, duration_ms).await?;
        Ok(finding)
    }

    /// Puts the end of a call on record.
    async fn record(&mut self, call: &CallEntry, done: Done, duration_ms: u64) -> Result<(), String> {
        let Done { text, is_error, effect, whole, usage, changes } = done;
        let text = self.asker.masked(text);
        let (session, id, tool) = (self.key.clone(), call.id.clone(), call.name.clone());
        let event = match is_error {
            true => {
                let first = text.lines().next().unwrap_or_default();
                let reason: String = first.chars().take(LONGEST_REASON).collect();
                self.steps.say(&format!("! {reason}"));
                EventKind::ToolCallFailed { session, call: id, tool, reason, effect, duration_ms, usage }
            }
            false => {
                let changes = changes.clone();
                EventKind::ToolCallComplete { session, call: id, tool, duration_ms, usage, changes }
            }
        };
        let effect = is_error.then_some(effect);
        let call = call.id.clone();
        let result = EntryKind::Result { call, text, is_error, effect, whole, duration_ms, usage, changes };
        self.add(vec![result], false).await?;
        self.emit(event);
        Ok(())
    }

    /// Tells the model what persons have said.
    fn hear_persons(&mut self) {
        let said = std::mem::take(&mut *lock(&self.shared.inbox));
        for entry in said {
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
        self.emit(EventKind::StateChange { session: self.key.clone(), from, to });
        Ok(())
    }

    /// Adds to the transcript. `durable`: also when the host loses power.
    async fn add(&mut self, kinds: Vec<EntryKind>, durable: bool) -> Result<(), String> {
        let transcript = Arc::clone(&self.transcript);
        let write = move || lock(&transcript).append(kinds, durable);
        let added = tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?;
        self.entries.extend(added.map_err(|error| toka_core::error::with_causes(&error))?);
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

/// Whether a call takes its time to hear of a process: to wait again is no sign of a loop.
fn waits(call: &CallEntry) -> bool {
    call.name == "process_poll"
        && call.arguments.get("wait").and_then(serde_json::Value::as_u64).is_some_and(|wait| wait > 0)
}

/// How many programs a session has started that were to run on.
fn started(entries: &[Entry]) -> u64 {
    let calls = entries.iter().map(|entry| match &entry.kind {
        EntryKind::Assistant { calls, .. } => {
            calls.iter().filter(|call| call.name == "process_start").count()
        }
        _ => 0,
    });
    calls.sum::<usize>() as u64
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
    if let Stop::Other(word) = &answer.stop {
        return Some(format!("Your answer broke off ({word}). Go on."));
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
    let pid = attempt.pid;
    let known = lock(&shared.session).clone();
    if let Some((_, key)) = known.filter(|(of, _)| *of == pid) {
        return Ok((key, true));
    }
    let (folder, agent, run) = (shared.config.folder.clone(), attempt.agent.clone(), shared.config.run);
    let find = move || {
        // A life that was begun under an earlier daemon may have its session already.
        if let Some(key) = folder.last(&agent, SessionMode::Task)? {
            let info = folder.info(&key)?;
            if (info.run, info.pid) == (Some(run), Some(pid)) {
                return Ok((key, true));
            }
        }
        folder.next(&agent, SessionMode::Task).map(|key| (key, false))
    };
    let found = tokio::task::spawn_blocking(find).await.map_err(|error| error.to_string())?;
    let (key, is_known) = found.map_err(|error: std::io::Error| {
        format!("read the folder of sessions {}: {error}", shared.config.folder.folder().display())
    })?;
    *lock(&shared.session) = Some((pid, key.clone()));
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
    (tools, asker): (&[Tool], &Asker),
) -> Result<(Transcript, Vec<Entry>), String> {
    let names: Vec<String> = tools.iter().map(|tool| tool.name.to_owned()).collect();
    let instructions = instructions(steps).await;
    let facts = Facts {
        agent: attempt.agent.as_str(),
        domain: &shared.config.domain,
        about: &shared.config.about,
        places: &shared.config.places,
        tools: &names,
        instructions: instructions.as_ref().map(|(file, text)| (*file, text.as_str())),
    };
    // What stands in a file of the workspace may hold what nobody is to read.
    let system = asker.masked(system(&facts)?);
    let session = EntryKind::Session {
        version: 1,
        key: key.clone(),
        run: shared.config.run,
        pid: attempt.pid,
        system,
        tools: names,
    };
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
