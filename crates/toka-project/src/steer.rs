//! A person tells the model that works on the tasks of an agent something, while it works, and looks on.

use std::sync::Arc;

use toka_core::{AgentName, EventKind, SessionKey, SessionNews};
use toka_session::SessionWorker;
use tokio::sync::{mpsc, oneshot};

use crate::Project;
use crate::error::SteerError;

/// The most of a text that an event tells, in characters.
const LONGEST: usize = 400;

/// A word of a person's to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steering {
    /// What it is told; with `interrupts`, and where a person talks to the model, it may be empty.
    pub text: String,
    /// Whether what is under way ends now, instead of coming to its end first.
    pub interrupts: bool,
}

impl Project {
    /// Tells it before it is asked next; the answer comes when that is on record.
    pub(crate) fn steer(
        &mut self,
        agent: &AgentName,
        Steering { text, interrupts }: Steering,
        (by, uid): (String, u32),
        answer: oneshot::Sender<Result<SessionKey, SteerError>>,
    ) {
        let session = self.session(agent);
        let (journal, agent) = (Arc::clone(&self.journal), agent.clone());
        self.writes.spawn(async move {
            let steered = match session {
                Ok(session) => {
                    session.steer(text.clone(), by.clone(), interrupts).await.map_err(SteerError::Session)
                }
                Err(error) => Err(error),
            };
            if let Ok(session) = steered.clone() {
                let text = text.chars().take(LONGEST).collect();
                let told = EventKind::SessionSteered { session, text, by, uid, interrupted: interrupts };
                drop(journal.record(Some(agent), told));
            }
            // Whoever asked may be gone.
            let _ = answer.send(steered);
        });
    }

    /// What the session of an agent says.
    pub(crate) fn look_on(
        &self,
        agent: &AgentName,
        after: u64,
    ) -> Result<mpsc::Receiver<SessionNews>, SteerError> {
        Ok(self.session(agent)?.look_on(after))
    }

    fn session(&self, agent: &AgentName) -> Result<SessionWorker, SteerError> {
        let member = self.members.get(agent).ok_or(SteerError::Undeclared)?;
        member.session.clone().ok_or(SteerError::NoModel)
    }
}
