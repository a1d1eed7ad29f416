//! What a run was, from what its events told.

use toka_core::event::Usage;
use toka_core::{AgentName, AgentState, Exit};

use super::Project;
use crate::{AgentSummary, RunSummary};

impl Project {
    pub(super) fn summary(&self) -> RunSummary {
        let agents = self.plan.nodes().iter().map(|node| self.summary_of(&node.agent, &node.title)).collect();
        RunSummary { exit_code: self.exit_code(), status: self.exit_status(), run: self.ground.run, agents }
    }

    fn summary_of(&self, name: &AgentName, title: &str) -> AgentSummary {
        let status = self.status.agent(name);
        let last = status.and_then(|status| status.last.as_deref());
        let state = status.map(|status| status.state.clone()).filter(AgentState::is_final);
        AgentSummary {
            name: name.clone(),
            title: title.to_owned(),
            state: state.unwrap_or(AgentState::Ended { exit: Exit::Unknown }),
            duration_ms: last.map_or(0, |last| last.duration_ms),
            usage: last.map_or(Usage::default(), |last| last.usage),
            enforcement: status.and_then(|status| status.enforcement.as_deref()).cloned().unwrap_or_default(),
            log: self.ground.folders.log(name),
            artifacts: self.ground.folders.artifacts(name),
        }
    }
}
