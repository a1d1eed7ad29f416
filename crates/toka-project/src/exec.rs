//! A command that a person runs beside an agent: with the rules, the environment and the folders that the agent has by its
//! declaration, and on record.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use toka_core::{AgentName, EventKind, Exit, TerminalSize};
use toka_keeper::{Keeper, Program, SpawnError, Status};
use toka_runtime::{Command, Execution, program};
use tokio::sync::oneshot;

use crate::Project;
use crate::error::ExecError;
use crate::journal::Journal;

/// What to run, and for whom.
#[derive(Debug)]
pub struct ExecRequest {
    /// The agent beside which it runs.
    pub agent: AgentName,
    /// At least one word.
    pub argv: Vec<String>,
    /// The first size of its terminal, if it gets one.
    pub terminal: Option<TerminalSize>,
    /// What the terminal of whoever asks is called.
    pub term: Option<String>,
    /// What it reads.
    pub input: Option<OwnedFd>,
    /// Who asks, for the journal.
    pub by: String,
    /// The user who asks.
    pub uid: u32,
}

/// A command that runs, and its record.
pub struct Begun {
    /// The command.
    pub execution: Execution<Keeper>,
    /// Where its end is told.
    pub record: Record,
}

/// Sees that the end of a command is told, once.
#[derive(Debug)]
pub struct Record {
    journal: Weak<Journal>,
    agent: AgentName,
    exec: u64,
    begun: Instant,
    exit: Exit,
}

impl Record {
    /// It ended so.
    pub fn end(mut self, exit: Exit) {
        self.exit = exit;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // When the run is over its journal is closed.
        let Some(journal) = self.journal.upgrade() else { return };
        let duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let ended = EventKind::ExecEnded { exec: self.exec, exit: self.exit.clone(), duration_ms };
        drop(journal.record(Some(self.agent.clone()), ended));
    }
}

/// A command that an earlier daemon began, and whose end was not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnfinishedExec {
    pub(crate) agent: AgentName,
    pub(crate) exec: u64,
    pub(crate) begun_ms: i64,
}

impl UnfinishedExec {
    /// Sees that its end is told: how it ended, if the keeper knows of it and there is a `command`.
    pub(crate) fn end(self, command: Option<Execution<Keeper>>, journal: &Arc<Journal>) {
        let ran = u64::try_from(super::now_ms().saturating_sub(self.begun_ms)).unwrap_or(0);
        let now = Instant::now();
        let begun = now.checked_sub(Duration::from_millis(ran)).unwrap_or(now);
        let Self { agent, exec, .. } = self;
        let record = Record { journal: Arc::downgrade(journal), agent, exec, begun, exit: Exit::Unknown };
        if let Some(mut command) = command {
            tokio::spawn(async move { record.end(exit_of(command.ended().await)) });
        }
    }
}

/// How a command ended, in the words of the journal.
pub fn exit_of(status: Status) -> Exit {
    match status {
        Status::Code(code) => Exit::Code { code },
        Status::Signal { signal, core } => Exit::Signal { signal, core },
        Status::Unknown => Exit::Unknown,
    }
}

impl Project {
    /// Begins to run a command; the answer comes when it executes its program.
    pub(crate) async fn exec(
        &mut self,
        mut request: ExecRequest,
        answer: oneshot::Sender<Result<Begun, ExecError>>,
    ) {
        let input = request.input.take();
        let command = self.command_of(&request).await;
        let handle = self.members.get(&request.agent).map(|member| member.handle.clone());
        let (runtime, journal) = (self.runtime.clone(), Arc::downgrade(&self.journal));
        self.writes.spawn(async move {
            let begun = match (command, handle) {
                (Ok(command), Some(handle)) => {
                    let execution = runtime.execute(&handle, command, input).await;
                    execution.map_err(unstarted).map(|execution| begin(execution, journal, request))
                }
                (Err(error), _) => Err(error),
                // The agent was taken out of the project meanwhile.
                (Ok(_), None) => Err(ExecError::Undeclared),
            };
            // Whoever asked may be gone: then it is killed, and that is told.
            let _ = answer.send(begun);
        });
    }

    /// What the agent is executed as, with another program.
    async fn command_of(&mut self, request: &ExecRequest) -> Result<Command, ExecError> {
        let parsed = self.declaration.parse().map_err(|_| ExecError::Undeclared)?;
        let set = (parsed.set, self.plan.clone());
        let admitted = self.context.admit(set, |name| *name == request.agent, &mut self.doors).await;
        let (_, _, admitted) = admitted.map_err(ExecError::Refused)?;
        let (_, admitted) = admitted.into_iter().next().ok_or(ExecError::Undeclared)?;
        let Command { mut env, plan, .. } = admitted.command;
        if let Some(term) = request.term.as_ref().filter(|_| request.terminal.is_some()) {
            env.retain(|(name, _)| name != "TERM");
            env.push(("TERM".into(), term.into()));
        }
        let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
        let word = request.argv.first().map_or("", String::as_str);
        let file = program::find(word, Path::new(&plan.working_dir), path.unwrap_or_default());
        let file = file.map_err(|error| match error.status() {
            127 => ExecError::NotFound(error.to_string()),
            _ => ExecError::NotExecutable(error.to_string()),
        })?;
        let argv = request.argv.iter().map(Into::into).collect();
        Ok(Command { program: Program::Path(file), argv, env, plan, terminal: request.terminal })
    }
}

fn begin(execution: Execution<Keeper>, journal: Weak<Journal>, request: ExecRequest) -> Begun {
    let ExecRequest { agent, argv, terminal, by, uid, .. } = request;
    let exec = execution.id().0;
    let started = EventKind::ExecStarted { exec, argv, by, uid, tty: terminal.is_some() };
    if let Some(journal) = journal.upgrade() {
        drop(journal.record(Some(agent.clone()), started));
    }
    let record = Record { journal, agent, exec, begun: Instant::now(), exit: Exit::Unknown };
    Begun { execution, record }
}

/// What the last step of a start failed with, if it was that one; a script can lack its interpreter, and the sandbox may
/// hide or refuse what the daemon sees.
fn unstarted(error: SpawnError) -> ExecError {
    match &error {
        SpawnError::Step(step) if step.step == "exec" => {
            let text = format!("the command did not start: {step}");
            if step.errno == nix::libc::ENOENT {
                ExecError::NotFound(text)
            } else {
                ExecError::NotExecutable(text)
            }
        }
        _ => ExecError::Start(error),
    }
}
