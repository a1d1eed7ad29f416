//! Agents that end at a wall of their sandbox: told of it, ended, asked about, opened, begun anew.

use std::collections::BTreeSet;

use toka_core::event::Awaits;
use toka_core::{AgentName, ApprovalAnswer, Event, EventKind, Exit};

use crate::Project;
use crate::error::CommandError;
use crate::openings::{APPROVAL, Denials, is_to_ask};

impl Project {
    /// Takes note of a wall at which an agent ends, and asks about it when it has ended.
    pub(crate) fn hear_denials(&mut self, event: &Event) {
        let Some(agent) = &event.agent else { return };
        let members = &self.members;
        let asks = |agent: &AgentName| members.get(agent).is_some_and(|member| member.asks_paths);
        self.denials.hear(agent, &event.kind, &asks);
        let exit = match &event.kind {
            EventKind::AgentEnded { exit, .. } | EventKind::AgentQuarantined { exit, .. } => exit,
            _ => return,
        };
        self.ask_about_wall(&agent.clone(), exit);
    }

    /// Opens what a person has said yes to. Now, and not when the journal tells of it: until the agent begins anew, the run waits for that.
    pub(crate) fn open_answered(&mut self, id: u64) {
        let Some(answered) = self.broker.answered(id) else { return };
        let is_yes = matches!(answered.answer, ApprovalAnswer::Approved { .. });
        let Some(opening) = answered.subject.opening().filter(|_| is_yes) else { return };
        for agent in &answered.waiters {
            self.context.openings.add(agent, opening.clone());
            self.denials.opened.insert(agent.clone());
        }
    }

    fn ask_about_wall(&mut self, agent: &AgentName, exit: &Exit) {
        let Some(opening) = self.denials.told.remove(agent) else { return };
        let is_to_ask = is_to_ask(&self.context.openings, agent, &opening, exit);
        if is_to_ask && self.state.ending().is_none() {
            self.broker.ask_opening(agent, opening);
        }
    }

    /// Whether an agent that has ended, or is about to, may begin anew by the word of a person.
    pub(crate) fn awaits_openings(&self) -> bool {
        let is_asked = || self.broker.open().iter().any(|approval| approval.subject.opening().is_some());
        self.state.ending().is_none()
            && (!self.denials.told.is_empty() || !self.denials.opened.is_empty() || is_asked())
    }

    /// Begins those anew for whom something was opened; asks about nothing more when the run ends.
    pub(crate) async fn begin_opened(&mut self) {
        if self.state.ending().is_some() {
            self.denials = Denials::default();
            return;
        }
        let is_final =
            |agent: &AgentName| self.status.agent(agent).is_some_and(|status| status.state.is_final());
        let opened: BTreeSet<AgentName> =
            self.denials.opened.iter().filter(|agent| is_final(agent)).cloned().collect();
        if opened.is_empty() {
            return;
        }
        self.denials.opened.retain(|agent| !opened.contains(agent));
        if let Err(error) = self.begin_anew(&opened, APPROVAL).await {
            self.end_unopened(&opened, &error);
        }
    }

    /// What a person has opened cannot be: it is closed again, so that it keeps nobody from a later start.
    fn end_unopened(&mut self, agents: &BTreeSet<AgentName>, error: &CommandError) {
        self.context.openings.forget(agents);
        let exit = Exit::StartFailed { reason: error.to_string() };
        for agent in agents {
            self.end_before_it_begins(agent, APPROVAL, Awaits::Dependencies, exit.clone());
        }
    }

    /// Asks what the daemon before was killed before it could ask.
    pub(crate) fn ask_what_was_not_asked(&mut self) {
        for (agent, opening) in std::mem::take(&mut self.denials.unasked) {
            self.broker.ask_opening(&agent, opening);
        }
    }
}
