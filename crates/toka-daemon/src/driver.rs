//! The loop of a run: one event after the other, and after each what the orchestration says.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use toka_core::state::Happening;
use toka_core::{AgentName, Event, Exit, ExitCode, Request};
use toka_orchestration::{Action, Limits, RunState, exit_code, next_actions};
use toka_runtime::AgentHandle;
use toka_workstream::{Plan, Secret};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::exam::Proctor;
use crate::outcome::Outcomes;
use crate::sweeper::{Private, Sweeper};
use crate::workplace::Grounds;
use crate::{Caller, RunCommand, secrets};

/// One agent, as the driver holds it.
pub(crate) struct Member {
    pub(crate) handle: AgentHandle,
    pub(crate) private: Private,
    pub(crate) grounds: Grounds,
    pub(crate) secrets: Arc<[Secret]>,
    /// Watches the checks of its objectives, if it has any.
    pub(crate) proctor: Option<Arc<Proctor>>,
}

impl Member {
    /// Ends the agent, and the checks of its objectives, which may run when its own processes are gone already.
    fn end(&self, request: Request, by: &str) {
        self.handle.tell(request, by);
        if let Some(proctor) = &self.proctor {
            proctor.tell(request, by);
        }
    }
}

/// What a run is driven with.
pub(crate) struct Driver {
    pub(crate) plan: Plan,
    pub(crate) caller: Arc<Caller>,
    pub(crate) members: HashMap<AgentName, Member>,
    pub(crate) limits: Limits,
    pub(crate) state: RunState,
    pub(crate) outcomes: Outcomes,
    writes: JoinSet<()>,
    sweeper: Sweeper,
}

/// Everything that can wake the driver.
enum Wake {
    Event(Event),
    Command(RunCommand),
    JournalGone,
}

impl Driver {
    pub(crate) fn new(
        plan: Plan,
        caller: Arc<Caller>,
        members: HashMap<AgentName, Member>,
        max_concurrent: Option<usize>,
    ) -> Self {
        let sweeper = Sweeper::default();
        let state = RunState::new(&plan);
        let outcomes = Outcomes::new(plan.nodes().iter().map(|node| node.agent.clone()));
        let limits = Limits { max_concurrent: max_concurrent.and_then(NonZeroUsize::new) };
        Self { plan, caller, members, limits, state, outcomes, writes: JoinSet::new(), sweeper }
    }

    /// Drives the run to its end: every agent has come to its own, and its folders are clean.
    pub(crate) async fn drive(
        &mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
        mut commands: mpsc::Receiver<RunCommand>,
    ) {
        let mut listening = true;
        while !self.outcomes.all_ended() {
            for action in next_actions(&self.plan, &self.state, &self.limits) {
                self.act(action);
            }
            let wake = tokio::select! {
                biased;
                event = events.recv() => event.map_or(Wake::JournalGone, Wake::Event),
                command = commands.recv(), if listening => match command {
                    Some(command) => Wake::Command(command),
                    None => {
                        listening = false;
                        continue;
                    }
                },
            };
            match wake {
                Wake::Event(event) => self.observe(&event),
                Wake::Command(command) => self.obey(command),
                Wake::JournalGone => return,
            }
            while self.writes.try_join_next().is_some() {}
        }
        while self.writes.join_next().await.is_some() {}
        self.sweeper.finish().await;
    }

    /// The exit status of the run.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self.state.ending() {
            Some("SIGINT") => ExitCode::Interrupted,
            Some("SIGTERM" | "SIGHUP") => ExitCode::Terminated,
            _ => exit_code(&self.plan, &self.state),
        }
    }

    /// Does what the orchestration says. The state takes the step at once, so that it is not said again; the event
    /// that follows is then known already.
    fn act(&mut self, action: Action) {
        match action {
            Action::Start(agent) => {
                self.step(&agent, Happening::StartRequested);
                self.start(&agent);
            }
            Action::Block { agent, by } => {
                self.step(&agent, Happening::DependencyFailed(by.clone()));
                self.with(&agent, |member| member.handle.block(by));
            }
            Action::Cancel { agent, by } | Action::Stop { agent, by } => {
                self.step(&agent, Happening::StopRequested(Exit::Stopped { by: by.clone() }));
                self.with(&agent, |member| member.end(Request::Stop, &by));
            }
            // The loop ends when the journal has the end of every agent.
            Action::Finish => {}
        }
    }

    fn step(&mut self, agent: &AgentName, happening: Happening) {
        if let Err(error) = self.state.apply(&self.plan, agent, happening) {
            tracing::error!(%agent, %error, "the orchestration asked for an impossible step");
        }
    }

    fn with(&self, agent: &AgentName, action: impl FnOnce(&Member)) {
        if let Some(member) = self.members.get(agent) {
            action(member);
        }
    }

    /// Sees that its folders are still there, writes the agent's secrets, and then starts it.
    fn start(&mut self, agent: &AgentName) {
        let Some(member) = self.members.get(agent) else { return };
        let handle = member.handle.clone();
        if let Err(reason) = member.grounds.check() {
            handle.refuse(Exit::StartFailed { reason });
            return;
        }
        if member.secrets.is_empty() {
            handle.tell(Request::Start, "plan");
            return;
        }
        let (secrets, folder) = (Arc::clone(&member.secrets), member.private.credentials.clone());
        let caller = Arc::clone(&self.caller);
        self.writes.spawn(async move {
            let write = move || secrets::write(&secrets, &folder, &caller);
            match tokio::task::spawn_blocking(write).await {
                Ok(Ok(())) => handle.tell(Request::Start, "plan"),
                Ok(Err(reason)) => handle.refuse(Exit::StartFailed { reason }),
                Err(_) => {
                    let reason = "its secrets could not be written".to_owned();
                    handle.refuse(Exit::StartFailed { reason });
                }
            }
        });
    }

    fn observe(&mut self, event: &Event) {
        let Some(agent) = &event.agent else { return };
        if let Err(error) = self.state.observe(&self.plan, agent, &event.kind) {
            tracing::error!(%agent, %error, "an event does not fit");
        }
        if self.outcomes.observe(event) {
            self.clear(&agent.clone());
        }
    }

    /// Removes what an agent must not leave, beside everything else that goes on.
    fn clear(&mut self, agent: &AgentName) {
        if let Some(member) = self.members.get(agent) {
            self.sweeper.sweep(member.private.clone());
        }
    }

    fn obey(&mut self, command: RunCommand) {
        match command {
            RunCommand::Stop { by } => self.state.request_stop(&by),
            RunCommand::Kill => {
                self.state.request_stop("operator");
                let by = self.state.ending().unwrap_or("operator").to_owned();
                for member in self.members.values() {
                    member.end(Request::Kill, &by);
                }
            }
        }
    }
}
