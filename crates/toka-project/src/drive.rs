//! The loop of a run: one event or order after the other, and after each what the orchestration says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toka_core::exit::END_OF_RUN;
use toka_core::rpc::MAX_METRICS;
use toka_core::state::Happening;
use toka_core::{AgentName, AgentState, Event, EventKind, Exit, ExitCode, Request};
use toka_orchestration::{Action, exit_code, next_actions};
use toka_prepare::furnishing::Furnishing;
use toka_prepare::secrets;
use toka_prepare::trust::TrustStore;
use tracing::Instrument as _;

use crate::RunSummary;
use crate::approvals::is_over;
use crate::member::Member;
use crate::order::Order;
use crate::{Project, Shutdown};

/// How long the keeper may take to end once every agent has.
const KEEPER_END: Duration = Duration::from_secs(5);

/// Everything that can wake the owner of a project.
enum Wake {
    Event(Event),
    Order(Order),
    Clock,
    Room(AgentName),
    Report,
    Approval,
    JournalGone,
}

impl Project {
    /// Drives the run to its end: every agent has come to its own, and its folders are clean.
    pub async fn drive(self) -> RunSummary {
        let span = self.span.clone();
        self.drive_to_the_end().instrument(span).await
    }

    async fn drive_to_the_end(mut self) -> RunSummary {
        self.run_loop().await;
        self.broker.withdraw_openings(END_OF_RUN);
        self.finish_reports().await;
        while self.writes.join_next().await.is_some() {}
        self.sweeper.finish().await;
        let summary =
            RunSummary { exit_code: self.exit_code(), status: self.exit_status(), run: self.context.run };
        self.close(summary.status).await;
        summary
    }

    async fn run_loop(&mut self) {
        while !self.is_over() {
            // Before anybody of them ends, too: one that has not started ends at once.
            self.hold_while_some_come_back();
            self.advance_batches().await;
            self.hold_while_some_come_back();
            for action in next_actions(&self.plan, &self.state, &self.limits) {
                self.act(action);
            }
            self.review_queue();
            self.begin_recovered().await;
            self.begin_opened().await;
            self.tell_ending();
            let wake = tokio::select! {
                biased;
                event = self.events.recv() => event.map_or(Wake::JournalGone, Wake::Event),
                Some(order) = self.orders.recv() => Wake::Order(order),
                () = self.clock.ring() => Wake::Clock,
                agent = self.queue.turn() => Wake::Room(agent),
                () = self.reports.due() => Wake::Report,
                () = is_over(&self.broker, &mut self.broker_changes) => Wake::Approval,
            };
            match wake {
                Wake::Event(event) => self.observe(&event),
                Wake::Order(order) => self.handle_order(order).await,
                Wake::Clock => self.attend_clock().await,
                Wake::Report => self.report(),
                Wake::Approval => self.broker.expire(),
                Wake::Room(agent) => self.queue.call(&agent),
                Wake::JournalGone => return,
            }
            while self.writes.try_join_next().is_some() {}
        }
    }

    /// Whether the journal has the end of every agent, and nothing is to follow.
    fn is_over(&self) -> bool {
        self.status.run.is_some() && self.status.is_over() && self.state.is_finished() && self.is_ending()
    }

    fn is_ending(&self) -> bool {
        self.batches.is_empty()
            && !self.awaits_openings()
            && (self.state.ends_by_itself() || self.state.ending().is_some())
    }

    /// The exit status of the run.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self.state.ending() {
            Some("SIGINT") => ExitCode::Interrupted,
            Some("SIGTERM" | "SIGHUP") => ExitCode::Terminated,
            _ => exit_code(&self.plan, &self.state),
        }
    }

    /// The exit status of the command: as of the agent that the declaration names for it, if somebody else has not ended the
    /// run.
    pub(crate) fn exit_status(&self) -> u8 {
        let code = self.exit_code();
        let asked = matches!(code, ExitCode::Interrupted | ExitCode::Terminated);
        let Some(agent) = self.declaration.stop.exit_code_from.as_ref().filter(|_| !asked) else {
            return code as u8;
        };
        match self.state.state_of(&self.plan, agent) {
            // The run was over because of another one: what that was says more than the signal by which this one was stopped.
            Some(AgentState::Ended { exit })
                if exit.is_asked_for() && exit.asked_by() == self.state.ending() =>
            {
                code as u8
            }
            Some(AgentState::Ended { exit } | AgentState::Quarantined { exit, .. }) => exit.status(),
            _ => ExitCode::AgentFailed as u8,
        }
    }

    /// Lets the keeper end, closes the journal, and removes what was made for the run alone.
    async fn close(self, exit_code: u8) {
        let Self { runtime, keeper, journal, members, doors, run_folder, lock, shutdown, orders, .. } = self;
        // The control socket goes with the run's folder, and its listener does not make it anew. A command that waits for an answer gets
        // it when this function has given back the lock: the next run may begin then.
        orders.end();
        drop((members, runtime));
        // It ends by itself when the last handle is gone; a keeper that hangs must not keep the terminal.
        let _ = tokio::time::timeout(KEEPER_END, keeper.shutdown()).await;
        if shutdown == Shutdown::Final {
            journal.record(None, EventKind::RunEnded { exit_code }).await;
        }
        drop(doors);
        drop(run_folder);
        // What it was told last is written before anybody else may write.
        drop(journal);
        drop(lock);
    }

    /// Does what the orchestration says. The state takes the step at once, so that it is not said again; the event
    /// that follows is then known already.
    fn act(&mut self, action: Action) {
        match action {
            Action::Start(agent) if !self.has_room(&agent) => {}
            Action::Start(agent) => {
                self.step(&agent, Happening::StartRequested);
                self.start(&agent);
            }
            Action::Skip { agent, reason } => {
                let exit = Exit::Skipped { reason };
                self.step(&agent, Happening::StartFailed(exit.clone()));
                self.with(&agent, |member| member.handle.refuse(exit));
            }
            Action::Block { agent, by, why } => {
                self.step(&agent, Happening::DependencyFailed(by.clone(), Some(why.clone())));
                self.with(&agent, |member| member.handle.block(by, Some(why)));
            }
            Action::Cancel { agent, by } | Action::Stop { agent, by } => {
                self.ask_to_stop(&agent, Exit::stopped(by.clone()), Request::Stop, &by);
            }
            // The loop ends when the journal has the end of every agent.
            Action::Finish => {}
        }
    }

    pub(crate) fn step(&mut self, agent: &AgentName, happening: Happening) {
        if let Err(error) = self.state.apply(&self.plan, agent, happening) {
            tracing::error!(%agent, %error, "the orchestration asked for an impossible step");
        }
    }

    pub(crate) fn with(&self, agent: &AgentName, action: impl FnOnce(&Member)) {
        if let Some(member) = self.members.get(agent) {
            action(member);
        }
    }

    /// The folders of an agent, and of those whose results it sees: what an earlier run left is none of its inputs, also where the agent
    /// that is to make them never starts.
    fn furnishings_for(&self, agent: &AgentName) -> Vec<Arc<Furnishing>> {
        let gates = self.plan.position(agent).into_iter().flat_map(|at| &self.plan.nodes()[at].gates);
        let names = gates.map(|gate| &gate.on).chain([agent]);
        names.filter_map(|name| Some(Arc::clone(&self.members.get(name)?.furnishing))).collect()
    }

    /// Makes its folders or sees that they are still there, writes the agent's secrets, and then starts it; beside the loop, since
    /// the disks of both may not answer.
    fn start(&mut self, agent: &AgentName) {
        let furnishings = self.furnishings_for(agent);
        let Some(member) = self.members.get(agent) else { return };
        let handle = member.handle.clone();
        let swept = if self.swept.remove(agent) { self.sweeper.done() } else { None };
        let (secrets, folder) = (Arc::clone(&member.secrets), member.private.credentials.clone());
        let (grounds, caller) = (member.grounds.clone(), Arc::clone(&self.context.caller));
        let (known, agent) = (Arc::clone(self.context.models.secrets()), agent.clone());
        let turns = Arc::clone(&self.preparations);
        self.writes.spawn(async move {
            if let Some(swept) = swept {
                // A sweeper that is gone sweeps nothing away.
                let _ = swept.await;
            }
            // Nobody closes it; without a permit it would be prepared all the same.
            let turn = turns.acquire_owned().await;
            let prepare = move || {
                furnishings.iter().try_for_each(|furnishing| furnishing.make_once())?;
                // A disk of the workspace that does not answer keeps nobody else from starting.
                drop(turn);
                grounds.check()?;
                let written = secrets::write(&secrets, &folder, &caller, &grounds.workspace)?;
                known.set(&agent, &written);
                Ok(())
            };
            match tokio::task::spawn_blocking(prepare).await.map(|prepared: Result<(), String>| prepared) {
                Ok(Ok(())) => handle.tell(Request::Start, "plan"),
                Ok(Err(reason)) => handle.refuse(Exit::StartFailed { reason }),
                Err(_) => {
                    let reason = "its secrets could not be written".to_owned();
                    handle.refuse(Exit::StartFailed { reason });
                }
            }
        });
    }

    /// Whether all is kept that the agent of an event reports of itself.
    fn keeps_all_metrics(&self, event: &Event) -> bool {
        let status = event.agent.as_ref().and_then(|agent| self.status.agent(agent));
        status.is_none_or(|status| status.metrics_dropped == 0)
    }

    fn observe(&mut self, event: &Event) {
        let was_final = |project: &Self| {
            let status = event.agent.as_ref().and_then(|agent| project.status.agent(agent));
            status.is_some_and(|status| status.state.is_final())
        };
        let before = was_final(self);
        let kept_all = self.keeps_all_metrics(event);
        Arc::make_mut(&mut self.status).observe(event);
        self.hear_broker(event);
        self.hear_denials(event);
        if kept_all && !self.keeps_all_metrics(event) {
            let message = format!(
                "it reports of itself under more than {MAX_METRICS} names; further ones are dropped, and counted"
            );
            drop(self.journal.record(event.agent.clone(), EventKind::Warning { message }));
        }
        if matches!(event.kind, EventKind::RunStarted { .. } | EventKind::RunChanged { .. }) {
            self.describe_agents();
        }
        if let EventKind::RunChanged { .. } = event.kind {
            self.answer_change();
        }
        if let EventKind::KeeperSucceeded { .. } = event.kind {
            self.entrust_again();
        }
        if let EventKind::AgentUncovered { path, .. } = &event.kind {
            self.withdraw_trust(path.clone());
        }
        if let Some(agent) = &event.agent {
            if let EventKind::AgentRequeued { .. } = event.kind {
                self.hear_requeued(agent);
            }
            self.apply_event(agent, &event.kind);
            self.review_restarts(agent, &event.kind);
            self.hear_for_reports(agent, &event.kind);
            if was_final(self) && !before {
                self.clear(agent);
            }
        }
        self.moved.send_replace(event.seq);
    }

    /// What a person trusted may have become another's words: the agents that are declared there ask again.
    fn withdraw_trust(&self, path: PathBuf) {
        let folders = &self.context.folders;
        let (store, workspace) = (TrustStore::of(&folders.state_dir), folders.workspace.clone());
        let journal = Arc::clone(&self.journal);
        tokio::task::spawn_blocking(move || {
            let shown = path.display();
            let message = match store.withdraw(&workspace, &path) {
                Ok(agents) if agents.is_empty() => return,
                Ok(agents) => {
                    let names = agents.iter().map(AgentName::as_str).collect::<Vec<_>>().join(", ");
                    format!(
                        "{shown} was replaced while an agent that may write beside it ran: what {names} was trusted with does \
                         not count any more; look at the file, then type `toka trust`"
                    )
                }
                Err(error) => format!(
                    "{shown} was replaced while an agent that may write beside it ran, and what its agents are trusted with \
                     cannot be withdrawn ({error}): look at the file before you use it"
                ),
            };
            drop(journal.record(None, EventKind::Warning { message }));
        });
    }

    fn apply_event(&mut self, agent: &AgentName, kind: &EventKind) {
        // What somebody or the clock has begun was begun before it was told; one that is no more has nothing to say.
        if matches!(kind, EventKind::AgentRequeued { .. } | EventKind::ScheduleFired { .. })
            || self.plan.position(agent).is_none()
        {
            return;
        }
        if let Err(error) = self.state.observe(&self.plan, agent, kind) {
            tracing::error!(%agent, %error, "an event does not fit");
        }
    }

    /// Removes what an agent must not leave, beside everything else that goes on.
    fn clear(&mut self, agent: &AgentName) {
        if let Some(member) = self.members.get(agent) {
            self.sweeper.sweep(member.private.clone());
        }
    }

    pub(crate) async fn handle_order(&mut self, order: Order) {
        // Whoever asked may be gone: then the answer goes nowhere.
        match order {
            Order::Command { command, by, answer } => {
                let answered = self.command(command, &by).await;
                let _ = answer.send(answered);
            }
            Order::Interrupt { urgency, by } => self.interrupt(urgency, &by),
            Order::Apply { request, answer } => self.apply(*request, answer).await,
            Order::Status { answer } => drop(answer.send(self.status_now())),
            Order::Health { figures, answer } => self.tell_facts(figures, answer),
            Order::Declared { agent, answer } => {
                let (declaration, plan) = (Arc::clone(&self.declaration), self.plan.clone());
                // Files of a thousand agents take a while.
                self.writes.spawn_blocking(move || {
                    let _ = answer.send(super::facts::declared(&declaration, &plan, &agent));
                });
            }
            Order::Resting { wake, answer } => {
                let providers = self.context.models.current().get();
                let _ = answer.send(if wake { providers.wake() } else { providers.resting() });
            }
            Order::Budget { agent, answer } => drop(answer.send(self.broker.uses(&agent))),
            Order::Resources { agent, answer } => {
                let is_alive = self.status.agent(&agent).is_some_and(|agent| agent.state.is_alive());
                let of = |member: &Member| (member.id, member.disk.clone().filter(|_| is_alive));
                let id = self.members.get(&agent).map(of);
                let keeper = self.keeper.clone();
                self.writes.spawn(async move {
                    let resources = match id {
                        Some((id, disk)) => Member::with_disk(disk.as_ref(), keeper.resources(id).await),
                        None => None,
                    };
                    let _ = answer.send(resources);
                });
            }
            Order::Answer { id, answer, by, uid, reply } => {
                self.answer_and_reply((id, answer), (&by, uid), reply);
            }
            Order::Steer { agent, word, by, answer } => self.steer(&agent, word, by, answer),
            Order::LookOn { agent, after, answer } => drop(answer.send(self.look_on(&agent, after))),
            Order::Exec { request, answer } => self.exec(*request, answer).await,
            Order::Terminal { agent, answer } => {
                let handle = self.members.get(&agent).map(|member| member.handle.clone());
                self.writes.spawn(async move {
                    let terminal = match handle {
                        Some(handle) => handle.terminal().await,
                        None => None,
                    };
                    let _ = answer.send(terminal);
                });
            }
        }
    }
}
