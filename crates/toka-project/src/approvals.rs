//! What waits for a person in a run, and what becomes of agents meanwhile: they are frozen while they wait, and go on or end with the
//! answer. Who decides is the broker; here its events are acted upon.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use toka_api::declaration::Declaration;
use toka_broker::{Answered, Broker, HostGrants, NotAnswered};
use toka_core::approval::Reply;
use toka_core::approval::{Lasting, Subject, TrustedHost};
use toka_core::{AgentName, AgentState, AgentStatus, ApprovalAnswer, Event, EventKind, Exit, Request};
use toka_prepare::trust::TrustStore;
use tokio::sync::{oneshot, watch};

use crate::Project;
use crate::journal::Journal;

/// Who freezes and thaws an agent because of its budget, for the record.
pub(crate) const BUDGET: &str = "budget";
/// The longest sleep: the clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The broker of a run, whose events go into this journal as long as that is written.
pub(crate) fn broker(journal: &Arc<Journal>) -> Arc<Broker> {
    let journal: Weak<Journal> = Arc::downgrade(journal);
    let record = move |agent: Option<&AgentName>, kind| {
        if let Some(journal) = journal.upgrade() {
            drop(journal.record(agent.cloned(), kind));
        }
    };
    Arc::new(Broker::new(Arc::new(record), crate::now_ms))
}

/// Ready when the time of an approval is over.
pub(crate) async fn is_over(broker: &Broker, changes: &mut watch::Receiver<()>) {
    loop {
        let sleep = match broker.expires_in() {
            Some(Duration::ZERO) => return,
            Some(left) => left.min(LONGEST_SLEEP),
            None => Duration::MAX,
        };
        // The broker is there as long as the project.
        let _ = tokio::time::timeout(sleep, changes.changed()).await;
    }
}

/// What a declaration says of hosts that nobody has declared.
pub(crate) fn host_grants(declaration: &Declaration) -> HostGrants {
    HostGrants { policy: declaration.policy.clone(), trusted: declaration.trusted_hosts.clone() }
}

fn waits_for_budget(status: &AgentStatus) -> bool {
    status.approvals.iter().any(|approval| approval.subject.is_budget())
}

impl Project {
    /// Answers what waits.
    pub(crate) fn answer(
        &mut self,
        id: u64,
        reply: Reply,
        by: &str,
        uid: u32,
    ) -> Result<ApprovalAnswer, NotAnswered> {
        let answered = self.broker.answer(id, reply, by, Some(uid))?;
        self.open_answered(id);
        Ok(answered)
    }

    /// The same, and the reply comes when what lasts beyond the run is recorded.
    pub(crate) fn answer_and_reply(
        &mut self,
        (id, answer): (u64, Reply),
        (by, uid): (&str, u32),
        reply: oneshot::Sender<Result<ApprovalAnswer, NotAnswered>>,
    ) {
        let answered = self.answer(id, answer, by, uid);
        match answered {
            Ok(ApprovalAnswer::Approved { lasting: Some(lasting), .. }) => {
                self.trust_host((id, lasting), answered, reply);
            }
            // Whoever asked may be gone.
            answered => drop(reply.send(answered)),
        }
    }

    /// Does what follows from an event of the broker's.
    pub(crate) fn hear_broker(&mut self, event: &Event) {
        self.broker.observe(event);
        match (&event.agent, &event.kind) {
            // The last call of it that went on is over, or it waits anew.
            (
                Some(agent),
                EventKind::ApprovalAsked(_)
                | EventKind::ModelAnswered { .. }
                | EventKind::AgentStarted { .. },
            ) => {
                self.freeze(agent);
            }
            // Somebody else's pause, or another life.
            (Some(agent), EventKind::AgentPaused { by }) if by != BUDGET => {
                self.frozen.remove(agent);
            }
            (Some(agent), EventKind::AgentStarting) => {
                self.frozen.remove(agent);
            }
            (_, EventKind::ApprovalAnswered { id, .. }) => {
                if let Some(answered) = self.broker.answered(*id) {
                    self.end_refused(&answered);
                }
                self.thaw_all();
            }
            _ => {}
        }
    }

    /// A daemon was killed between an event and what follows from it.
    pub(crate) fn catch_up_with_approvals(&mut self) {
        let status = Arc::clone(&self.status);
        for agent in status.agents() {
            if agent.paused_by.as_deref() == Some(BUDGET) {
                self.frozen.insert(agent.name.clone());
            }
            self.freeze(&agent.name);
            if let Some(refused) = self.broker.refusal(&agent.name) {
                self.end_refused(&refused);
            }
        }
        self.thaw_all();
    }

    /// Freezes an agent that waits for a person and has nothing else in flight. Where there is no control group to freeze it in, only its
    /// calls wait, and it runs on.
    fn freeze(&mut self, agent: &AgentName) {
        let waits = |status: &AgentStatus| {
            waits_for_budget(status) && matches!(status.state, AgentState::Running { .. })
        };
        let waits = self.status.agent(agent).is_some_and(waits);
        if waits && self.can_freeze(agent) && !self.broker.is_calling(agent) {
            self.frozen.insert(agent.clone());
            self.with(agent, |member| member.handle.tell(Request::Pause, BUDGET));
        }
    }

    /// Lets all agents go on that the budget has frozen and that wait for nobody any more.
    fn thaw_all(&mut self) {
        let waits =
            |agent: &AgentName| self.status.agent(agent).is_some_and(|status| !status.approvals.is_empty());
        let (waiting, done): (BTreeSet<AgentName>, BTreeSet<AgentName>) =
            std::mem::take(&mut self.frozen).into_iter().partition(waits);
        self.frozen = waiting;
        // Who got a no is stopped, which thaws it.
        let done = done.into_iter().filter(|agent| self.broker.refusal(agent).is_none());
        let done: Vec<AgentName> = done.collect();
        done.iter().for_each(|agent| self.with(agent, |member| member.handle.tell(Request::Resume, BUDGET)));
    }

    /// Records a host that a person has allowed beyond this run, where no agent can write. Beside the loop: the disk may not answer.
    fn trust_host(
        &mut self,
        (id, lasting): (u64, Lasting),
        answered: Result<ApprovalAnswer, NotAnswered>,
        reply: oneshot::Sender<Result<ApprovalAnswer, NotAnswered>>,
    ) {
        let found = self.broker.answered(id).and_then(|known| {
            let Subject::Host { host, port } = known.subject else { return None };
            let agent = known.waiters.first()?.clone();
            let (name, file) = self.members.get(&agent)?.declared.clone();
            Some((agent, file, TrustedHost { agent: name, host, port, until_ms: lasting.until_ms() }))
        });
        let Some((agent, file, trusted)) = found else { return drop(reply.send(answered)) };
        let store = TrustStore::of(&self.context.folders.state_dir);
        let (workspace, journal) = (self.context.folders.workspace.clone(), Arc::clone(&self.journal));
        self.writes.spawn_blocking(move || {
            let file = file.canonicalize().unwrap_or(file);
            if let Err(error) = store.trust_host(&workspace, &file, trusted) {
                let message = format!(
                    "what was allowed beyond this run could not be recorded, so that it ends with the run: {error}"
                );
                drop(journal.record(Some(agent), EventKind::Warning { message }));
                let why = error.to_string();
                return drop(reply.send(Err(NotAnswered::NotRecorded { id, why })));
            }
            drop(reply.send(answered));
        });
    }

    /// Ends who got a no.
    fn end_refused(&self, answered: &Answered) {
        if !answered.subject.is_budget() {
            return;
        }
        let reason = match answered.answer {
            ApprovalAnswer::Approved { .. } | ApprovalAnswer::Withdrawn => return,
            ApprovalAnswer::Denied => format!("{}; {} has denied more", answered.subject, answered.by),
            ApprovalAnswer::Expired => format!("{}; nobody has answered in time", answered.subject),
        };
        for agent in &answered.waiters {
            let exit = Exit::Budget { reason: reason.clone() };
            self.with(agent, |member| member.handle.end(exit));
        }
    }
}
