//! A person tells the model that works on the tasks of an agent something, while it works.

use toka_core::{AgentName, SessionKey};
use tokio::sync::oneshot;

use crate::Project;
use crate::error::SteerError;

impl Project {
    /// Tells it before it is asked next; the answer comes when that is on record.
    pub(crate) fn steer(
        &mut self,
        agent: &AgentName,
        (text, by): (String, String),
        answer: oneshot::Sender<Result<SessionKey, SteerError>>,
    ) {
        let found = self.members.get(agent).ok_or(SteerError::Undeclared);
        let session = found.and_then(|member| member.session.clone().ok_or(SteerError::NoModel));
        self.writes.spawn(async move {
            let steered = match session {
                Ok(session) => session.steer(text, by).await.map_err(SteerError::Session),
                Err(error) => Err(error),
            };
            // Whoever asked may be gone.
            let _ = answer.send(steered);
        });
    }
}
