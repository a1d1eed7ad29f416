//! The hooks around a life, each a task of its own, so that the actor hears everything else meanwhile.

use std::sync::Arc;
use std::time::Duration;

use toka_core::event::Usage;
use toka_core::{AgentState, Exit};
use toka_keeper::{SpawnError, Started};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Actor;
use super::channels::Opened;
use crate::Processes;
use crate::beside::{Beside, Company};

/// How long all hooks of one kind may take together; those before a stop have the grace period instead. As long as
/// systemd waits for a unit to start (systemd-system.conf(5), `DefaultTimeoutStartSec=`).
const LIMIT: Duration = Duration::from_secs(90);

/// Why there is no process.
#[derive(Debug)]
pub(super) enum StartError {
    /// Its log or its sockets could not be made.
    Open(String),
    /// A hook before it failed.
    Hook(String),
    /// The keeper could not start it.
    Spawn(SpawnError),
}

/// The outcome of a start.
pub(super) type StartOutcome = Result<(Started, Opened), StartError>;

/// What the hooks that run are for.
#[derive(Debug)]
pub(super) enum Occasion {
    /// The agent runs.
    PostStart,
    /// The agent is about to be asked to stop.
    PreStop,
    /// The agent is gone, and ends so when they have run.
    PostStop(Exit, Usage),
}

/// Hooks that run. Dropped, they are called off.
pub(super) struct Running {
    occasion: Occasion,
    task: JoinHandle<Result<(), String>>,
    call_off: watch::Sender<bool>,
}

impl<P: Processes> Actor<P> {
    /// Runs the hooks of an occasion, if it has any. Whether it has.
    pub(super) fn begin_hooks(&mut self, occasion: Occasion) -> bool {
        let hooks = &self.profile.hooks;
        let (commands, company, limit) = match &occasion {
            Occasion::PostStart => (&hooks.post_start, Company::Agent, LIMIT),
            Occasion::PreStop => (&hooks.pre_stop, Company::Agent, self.profile.stop.grace),
            Occasion::PostStop(..) => (&hooks.post_stop, Company::Nobody, LIMIT),
        };
        let Some(command) = self.command.as_ref().ok().filter(|_| !commands.is_empty()).cloned() else {
            return false;
        };
        let commands = commands.clone();
        let beside = Beside::new(self.besides.clone(), self.profile.id, command, Arc::clone(&self.spent));
        let (call_off, called_off) = watch::channel(false);
        let task = tokio::spawn(async move { beside.run_all(company, &commands, limit, called_off).await });
        self.hooks = Some(Running { occasion, task, call_off });
        true
    }

    pub(super) async fn on_hooks(&mut self, (occasion, outcome): (Occasion, Result<(), String>)) {
        match (occasion, outcome) {
            (Occasion::PostStart, Err(reason)) => {
                let reason = format!("hook post_start: {reason}");
                if matches!(self.state, AgentState::Running { .. } | AgentState::Paused { .. }) {
                    self.stop(Exit::StartFailed { reason }).await;
                }
            }
            (Occasion::PostStart, Ok(())) => {}
            (Occasion::PreStop, outcome) => {
                self.tell_failure("pre_stop", outcome);
                self.processes.signal(self.profile.id, self.profile.stop.signal);
            }
            (Occasion::PostStop(exit, usage), outcome) => {
                self.tell_failure("post_stop", outcome);
                self.end(exit, usage).await;
            }
        }
    }

    /// Has the hooks that run killed; what they were for goes on.
    pub(super) fn call_off_hooks(&self) {
        if let Some(hooks) = &self.hooks {
            // A task that has just ended does not listen any more.
            let _ = hooks.call_off.send(true);
        }
    }

    /// Whether its process is gone already, and only the hooks after it run.
    pub(super) fn is_winding_up(&self) -> bool {
        matches!(&self.hooks, Some(Running { occasion: Occasion::PostStop(..), .. }))
    }

    /// It was asked to stop while the hooks after its process run: it ends so, and does not come back.
    pub(super) fn end_as(&mut self, new: Exit) {
        if let Some(Running { occasion: Occasion::PostStop(exit, _), .. }) = &mut self.hooks {
            *exit = new;
        }
    }

    fn tell_failure(&self, hook: &str, outcome: Result<(), String>) {
        if let Err(reason) = outcome {
            self.warn(format!("hook {hook} of {}: {reason}", self.profile.name));
        }
    }
}

/// The outcome of the hooks that run; never, when there are none.
pub(super) async fn finished(hooks: &mut Option<Running>) -> (Occasion, Result<(), String>) {
    let Some(running) = hooks else { return std::future::pending().await };
    let outcome = (&mut running.task).await.unwrap_or_else(|_| Err("it was not run to its end".to_owned()));
    let occasion = std::mem::replace(&mut running.occasion, Occasion::PostStart);
    *hooks = None;
    (occasion, outcome)
}

/// The hooks before a start.
pub(super) struct PreStart<P> {
    pub(super) beside: Beside<P>,
    pub(super) commands: Vec<Vec<String>>,
    pub(super) called_off: watch::Receiver<bool>,
}

impl<P: Processes> PreStart<P> {
    /// Runs them all.
    pub(super) async fn run(self) -> Result<(), StartError> {
        let Self { beside, commands, called_off } = self;
        let outcome = beside.run_all(Company::Nobody, &commands, LIMIT, called_off).await;
        outcome.map_err(|reason| StartError::Hook(format!("hook pre_start: {reason}")))
    }
}
