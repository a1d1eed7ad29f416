//! Tasks on which somebody outside of the sandbox works: the runtime brings the two together, and does not know what is thought. The
//! runner inside asks what it is to do; whoever works on the task answers, and has commands run beside the agent.

use std::fmt::Debug;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use toka_core::event::Usage;
use toka_core::rpc::{TaskSpec, TaskStep};
use toka_core::{AgentName, Exit, FileOutcome};
use toka_keeper::{ProcessId, Program, Status};

use crate::beside::Besides;
use crate::{Command, EventSink, Execution, Processes, Streams};

/// A future that may be sent.
pub type Sent<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Works on the tasks of one agent.
pub trait WorksOnTasks: Debug + Send + Sync + 'static {
    /// Begins to work on an attempt at a task, or goes on with one that an earlier daemon began.
    fn begin(&self, attempt: Attempt) -> Box<dyn Work>;
}

/// An attempt at a task.
pub struct Attempt {
    /// Whose it is.
    pub agent: AgentName,
    /// What is to be done.
    pub task: TaskSpec,
    /// Which task it is, from 1, and of how many.
    pub place: (usize, usize),
    /// Which attempt, from 1.
    pub number: u32,
    /// The main process of the agent's life, by its id on the host: what was said in another life is another conversation.
    pub pid: i32,
    /// Whether an earlier daemon began it.
    pub goes_on: bool,
    /// Runs commands beside the agent.
    pub commands: Arc<dyn RunsCommands>,
    /// Where is told what happens.
    pub sink: Arc<dyn EventSink>,
}

/// Work on an attempt. When this is dropped it stops where it is: the next daemon goes on.
pub trait Work: Send + Sync {
    /// The next step, or one without anything to do when there is none in time. `outcome` is what the last call gave.
    fn next(&mut self, outcome: Option<FileOutcome>, wait: Duration) -> Sent<TaskStep>;

    /// How the attempt has ended; `None` when it has not.
    fn verdict(&self) -> Option<Exit>;

    /// The attempt has ended so, whatever is under way: that is put on record. One that has come to its end by itself is left as it is.
    fn end(self: Box<Self>, exit: &Exit);

    /// The agent is frozen: nothing new is asked for it.
    fn pause(&self);

    /// It goes on.
    fn resume(&self);
}

/// Runs commands beside one agent: in its sandbox and limits, each in a control group of its own.
pub trait RunsCommands: Send + Sync + 'static {
    /// Starts a program with its arguments, which reads `input`; its path is absolute.
    ///
    /// # Errors
    /// Why it did not start, in words.
    fn run(&self, argv: Vec<String>, input: Option<OwnedFd>)
    -> Sent<Result<Box<dyn RunningCommand>, String>>;
}

/// A command that runs. When this is dropped, it is killed with all that it started.
pub trait RunningCommand: Send {
    /// Where what it writes can be read; once.
    fn take_streams(&mut self) -> Option<Streams>;

    /// Kills it with all that it started.
    fn kill(&self);

    /// Waits until its main process has ended. Cancel-safe.
    fn exited(&mut self) -> Pin<Box<dyn Future<Output = Status> + Send + '_>>;

    /// Waits until it and all that it started are gone; what they used. Cancel-safe.
    fn gone(&mut self) -> Pin<Box<dyn Future<Output = (Status, Usage)> + Send + '_>>;
}

impl<P: Processes> RunningCommand for Execution<P> {
    fn take_streams(&mut self) -> Option<Streams> {
        Execution::take_streams(self)
    }

    fn kill(&self) {
        Execution::kill(self);
    }

    fn exited(&mut self) -> Pin<Box<dyn Future<Output = Status> + Send + '_>> {
        Box::pin(Execution::exited(self))
    }

    fn gone(&mut self) -> Pin<Box<dyn Future<Output = (Status, Usage)> + Send + '_>> {
        Box::pin(async {
            let status = self.ended().await;
            (status, self.usage())
        })
    }
}

/// Runs commands beside an agent as it is executed itself, but for the program.
pub(crate) struct Commands<P> {
    pub(crate) besides: Besides<P>,
    pub(crate) agent: ProcessId,
    /// What the agent is executed as, or why that is not known.
    pub(crate) command: Result<Command, String>,
    pub(crate) spent: Arc<AtomicU64>,
}

impl<P: Processes> RunsCommands for Commands<P> {
    fn run(
        &self,
        argv: Vec<String>,
        input: Option<OwnedFd>,
    ) -> Sent<Result<Box<dyn RunningCommand>, String>> {
        let (besides, agent, spent) = (self.besides.clone(), self.agent, Arc::clone(&self.spent));
        let command = self.command.clone();
        Box::pin(async move {
            let Command { env, plan, .. } = command?;
            let program = Program::Path(PathBuf::from(argv.first().map_or("", String::as_str)));
            let argv = argv.into_iter().map(Into::into).collect();
            let command = Command { program, argv, env, plan, terminal: None };
            let execution = Execution::start(&besides, agent, command, input, spent).await;
            let execution = execution.map_err(|error| toka_core::error::with_causes(&error))?;
            Ok(Box::new(execution) as Box<dyn RunningCommand>)
        })
    }
}
