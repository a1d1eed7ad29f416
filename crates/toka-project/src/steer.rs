//! A person tells the model that works on the tasks of an agent something, while it works.

use std::sync::Arc;

use toka_core::{AgentName, EventKind, SessionKey};
use tokio::sync::oneshot;

use crate::Project;
use crate::error::SteerError;

/// The most of a text that an event tells, in characters.
const LONGEST: usize = 400;

impl Project {
    /// Tells it before it is asked next; the answer comes when that is on record.
    pub(crate) fn steer(
        &mut self,
        agent: &AgentName,
        (text, by, uid): (String, String, u32),
        answer: oneshot::Sender<Result<SessionKey, SteerError>>,
    ) {
        let found = self.members.get(agent).ok_or(SteerError::Undeclared);
        let session = found.and_then(|member| member.session.clone().ok_or(SteerError::NoModel));
        let (journal, agent) = (Arc::clone(&self.journal), agent.clone());
        self.writes.spawn(async move {
            let steered = match session {
                Ok(session) => session.steer(text.clone(), by.clone()).await.map_err(SteerError::Session),
                Err(error) => Err(error),
            };
            if let Ok(session) = steered.clone() {
                let text = text.chars().take(LONGEST).collect();
                drop(journal.record(Some(agent), EventKind::SessionSteered { session, text, by, uid }));
            }
            // Whoever asked may be gone.
            let _ = answer.send(steered);
        });
    }
}
