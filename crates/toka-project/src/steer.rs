//! A person tells the model that works on the tasks of an agent something, while it works.

use toka_core::{AgentName, AgentState, SessionKey};

use crate::Project;
use crate::error::SteerError;

impl Project {
    /// Tells it before it is asked next.
    pub(crate) fn steer(
        &self,
        agent: &AgentName,
        text: String,
        by: String,
    ) -> Result<SessionKey, SteerError> {
        let member = self.members.get(agent).ok_or(SteerError::Undeclared)?;
        let session = member.session.as_ref().ok_or(SteerError::NoModel)?;
        let state = self.status.agent(agent).map(|status| &status.state);
        let is_at_work = matches!(state, Some(AgentState::Running { .. } | AgentState::Paused { .. }));
        let key = session.session().filter(|_| is_at_work);
        let key =
            key.ok_or_else(|| SteerError::Idle { state: state.map_or("pending", |state| state.into()) })?;
        session.steer(text, by);
        Ok(key)
    }
}
