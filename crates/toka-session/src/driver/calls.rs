//! Has done what a model wants: each call of a tool is checked, asked about, put on record, made, and its result put on record.

use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha256};
use toka_core::approval::{Question, Subject, ToolRequest};
use toka_core::event::{Effect, Usage};
use toka_core::transcript::{CallEntry, Entry, EntryKind};
use toka_core::{
    EventKind, FileCall, FileChange, FileTool, Kept, PlanStep, Progress, Risk, SessionNews, SessionState,
    StepStatus,
};

use super::{Driver, Halt, LONGEST_REASON, unless_interrupted};
use crate::loops::{Finding, Over};
use crate::tools::{
    AskPerson, PollProcess, Ran, ReportProgress, StartProcess, ToolUse, UpdatePlan, WriteProcess, about,
    exec, in_full, like, parse,
};
use crate::transcript::{RunEffect, open_calls};

/// The largest call of a file tool, in bytes: it has to fit into one line of the agent's socket.
const LARGEST_CALL: usize = 900 * 1024;

impl Driver<'_> {
    /// Makes calls one after the other, in the order in which the model wants them.
    pub(super) async fn call_all(&mut self, calls: Vec<(usize, CallEntry, RunEffect)>) -> Result<(), Halt> {
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
                return Err(Halt::Turn(why));
            }
        }
        Ok(())
    }

    /// Makes one call.
    async fn call(&mut self, call: &CallEntry, effect: RunEffect) -> Result<Finding, Halt> {
        let line = about(&call.name, &call.arguments);
        let separator = if line.is_empty() { "" } else { ": " };
        let line = self.asker.masked(format!("{}{separator}{line}", call.name));
        self.steps.say(&format!("> {line}"));
        self.tell_status(&line);
        let Some(tool) = self.tools.iter().find(|tool| tool.name == call.name) else {
            let names: Vec<&str> = self.tools.iter().map(|tool| &*tool.name).collect();
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
        let is_lost = matches!(
            used,
            ToolUse::Exec(_) | ToolUse::Start(_) | ToolUse::Write(_) | ToolUse::Kill(_) | ToolUse::Mcp(_)
        );
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
            ToolUse::Plan(plan) => self.plan(plan).await?,
            ToolUse::Ask(asked) => self.question(call, asked).await?,
            ToolUse::Report(report) => self.report(report),
            used => match unless_interrupted(self.interrupts.clone(), self.perform(call, used)).await {
                Some(performed) => {
                    let Performed { done, whole } = performed?;
                    Done { whole: self.keep(whole).await?, ..done }
                }
                None => return Err(Halt::Interrupted),
            },
        };
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.finish(call, done, duration_ms).await
    }

    /// Has a call made in the sandbox. Nothing is put on record here: when this is dropped, what runs is killed.
    async fn perform(&mut self, call: &CallEntry, used: ToolUse) -> Result<Performed, String> {
        let commands = Arc::clone(&self.attempt.commands);
        Ok(match used {
            ToolUse::File(tool) => self.file(call, tool).await?,
            ToolUse::Exec(command) => {
                let say = |line: &str| self.say_output(call, line);
                let ran = exec(self.running(&say), &command).await;
                Performed::of(ran.map_err(|why| format!("the command did not start: {why}")))
            }
            ToolUse::Start(StartProcess { command, folder }) => {
                let started = self.processes.start(&*commands, (&command, folder.as_deref())).await;
                Performed::of(started)
            }
            ToolUse::Poll(PollProcess { process, wait }) => {
                Performed::of(self.processes.poll(process, wait).await)
            }
            ToolUse::Write(WriteProcess { process, text, close }) => {
                Performed::of(self.processes.write(process, &text, close).await)
            }
            ToolUse::Kill(process) => Performed::of(self.processes.kill(process).await),
            ToolUse::Mcp(arguments) => Performed::of(self.servers.call(&call.name, &arguments).await),
            ToolUse::Plan(_) | ToolUse::Ask(_) | ToolUse::Report(_) => {
                Performed::of(Err("this touches nothing in the sandbox".to_owned()))
            }
        })
    }

    /// A line that a command writes, for the log and for those who look on.
    fn say_output(&self, call: &CallEntry, line: &str) {
        let text = self.asker.masked_line(line.to_owned());
        self.steps.say(&text);
        self.shared.tell(SessionNews::ToolCallChunk { call: call.id.clone(), text });
    }

    /// Waits until a person has said whether a call may be made.
    async fn ask_person(
        &mut self,
        call: &CallEntry,
        risk: Risk,
    ) -> Result<Result<Option<String>, String>, Halt> {
        let request = ToolRequest {
            session: self.key.clone(),
            call: call.id.clone(),
            tool: call.name.clone(),
            about: self.asker.masked(in_full(&call.name, &call.arguments)),
            risk,
            hash: hash_of(call),
            like: like(&call.name, &call.arguments),
        };
        self.wait_for_person(Subject::Tool(request)).await
    }

    /// Puts a question of the model's to a person.
    async fn question(&mut self, call: &CallEntry, asked: AskPerson) -> Result<Done, Halt> {
        let AskPerson { question, options } = asked;
        let (session, call) = (self.key.clone(), call.id.clone());
        self.steps.say(&format!("? {question}"));
        let subject = Subject::Question(Question { session, call, question, options });
        Ok(match self.wait_for_person(subject).await? {
            Ok(words) => Done { text: words.unwrap_or_default(), ..Done::default() },
            Err(why) => {
                let text = format!("{why}. Decide yourself what is safest, and say what you have assumed.");
                Done { text, is_error: true, effect: Effect::NotDone, ..Done::default() }
            }
        })
    }

    /// Waits for a person's answer; no model is asked meanwhile.
    async fn wait_for_person(&mut self, subject: Subject) -> Result<Result<Option<String>, String>, Halt> {
        self.enter(SessionState::Paused)?;
        let answer = self.shared.config.persons.ask(&self.attempt.agent, subject);
        let answer = unless_interrupted(self.interrupts.clone(), answer).await.ok_or(Halt::Interrupted)?;
        self.enter(SessionState::Planning)?;
        self.enter(SessionState::ToolCalling)?;
        Ok(answer)
    }

    /// Puts on record that a call is about to be made, so that nothing is done of which nobody knows.
    async fn intend(&mut self, call: &CallEntry, risk: Risk) -> Result<(), String> {
        let about = self.asker.masked(about(&call.name, &call.arguments));
        let intent = EventKind::ToolCallStart {
            session: self.key.clone(),
            call: call.id.clone(),
            tool: call.name.clone(),
            about: about.clone(),
            risk,
            hash: hash_of(call),
        };
        match self.attempt.sink.emit(&self.attempt.agent, intent).await {
            // An intent that is told twice, when the daemon is killed in between, is better than one that is not told.
            Kept::OnDisk => self.add(vec![EntryKind::Intent { call: call.id.clone(), about }], false).await,
            Kept::InMemory => {
                Err("the journal cannot be written, so no tool is used: the disk may be full (`toka health`)"
                    .to_owned())
            }
        }
    }

    /// Has the runner do something with files.
    async fn file(&self, call: &CallEntry, tool: FileTool) -> Result<Performed, String> {
        let call = FileCall { id: call.id.clone(), tool };
        if serde_json::to_vec(&call).map_or(0, |bytes| bytes.len()) > LARGEST_CALL {
            let text = format!("the arguments are longer than {} KiB: do it in parts", LARGEST_CALL / 1024);
            return Ok(Performed::of(Err(text)));
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
        let done =
            Done { text, is_error: outcome.is_error, effect, changes: outcome.changes, ..Done::default() };
        Ok(Performed { done, whole: None })
    }

    /// Tells persons how far the work is.
    fn report(&self, ReportProgress { percent, status }: ReportProgress) -> Done {
        // The last word is that of the end.
        let fraction = percent.map(|percent| (f64::from(percent) / 100.0).min(0.99));
        self.steps.report(Progress { fraction, ..Progress::default() });
        if let Some(status) = &status {
            self.tell_status(&self.asker.masked(status.clone()));
        }
        Done { text: "it is told".to_owned(), ..Done::default() }
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
    pub(super) async fn close_calls(&mut self, cut: Cut) -> Result<(), String> {
        for (call, effect) in open_calls(&self.entries) {
            let (text, effect) = match effect {
                RunEffect::Ended => continue,
                RunEffect::Begun => (format!("{} while this ran", cut.in_words()), Effect::Unknown),
                RunEffect::NotBegun => (format!("{} before this was done", cut.in_words()), Effect::NotDone),
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
    async fn refuse(&mut self, call: &CallEntry, text: String) -> Result<Finding, Halt> {
        let done = Done { text, is_error: true, effect: Effect::NotDone, ..Done::default() };
        self.finish(call, done, 0).await
    }

    /// A command whose watcher was killed.
    async fn tell_unknown(&mut self, call: &CallEntry) -> Result<Finding, Halt> {
        let text = match self.attempt.goes_on {
            true => "the daemon was killed while this ran, and the next one has ended the command",
            false => "the attempt before this one was ended while this ran",
        };
        let text = text.to_owned();
        let done = Done { text, is_error: true, effect: Effect::Unknown, ..Done::default() };
        self.finish(call, done, 0).await
    }

    /// Puts the end of a call on record, and says whether the session gets anywhere.
    async fn finish(&mut self, call: &CallEntry, mut done: Done, duration_ms: u64) -> Result<Finding, Halt> {
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
}

/// What has cut calls short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The end of the attempt.
    End,
    /// The end of the attempt before this one.
    EndBefore,
    /// A person.
    Person,
}

impl Cut {
    fn in_words(self) -> &'static str {
        match self {
            Self::End => "the attempt was ended",
            Self::EndBefore => "the attempt before this one ended",
            Self::Person => "a person has interrupted",
        }
    }
}

/// What a tool has given, and the whole of its output, which is not kept yet.
struct Performed {
    done: Done,
    whole: Option<Vec<u8>>,
}

impl Performed {
    /// What came of a command; where it did not start, nothing was done.
    fn of(ran: Result<Ran, String>) -> Self {
        match ran {
            Ok(Ran { text, whole, is_success, usage }) => {
                Self { done: Done { text, is_error: !is_success, usage, ..Done::default() }, whole }
            }
            Err(text) => {
                let done = Done { text, is_error: true, effect: Effect::NotDone, ..Done::default() };
                Self { done, whole: None }
            }
        }
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
pub(super) fn started(entries: &[Entry]) -> u64 {
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
