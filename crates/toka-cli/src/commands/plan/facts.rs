//! What there is to know of one agent before it runs.

use std::path::PathBuf;

use toka_core::capability::Policy;
use toka_core::{Layer, SandboxMode};
use toka_daemon::confine::{Confined, Confiner, Demands};
use toka_daemon::folders::ProjectFolders;
use toka_sandbox::{CompileError, Rule};
use toka_workstream::{Agent, Plan};

/// One agent, with what it asks for and what it will be held to.
#[derive(Debug)]
pub(super) struct AgentFacts {
    pub(super) agent: Agent,
    /// Where its process begins.
    pub(super) working_dir: PathBuf,
    pub(super) demands: Demands,
    /// When it was looked at.
    pub(super) now: jiff::Timestamp,
    pub(super) confined: Result<Confined, CompileError>,
}

impl AgentFacts {
    pub(super) fn gather(
        agent: &Agent,
        plan: &Plan,
        folders: &ProjectFolders,
        confiner: &Confiner<'_>,
        policy: &Policy,
    ) -> Self {
        let own = folders.of(agent, plan);
        let demands = Demands::of(agent, folders, policy);
        Self {
            agent: agent.clone(),
            confined: confiner.compile(agent, &own, &demands),
            demands,
            now: jiff::Timestamp::now(),
            working_dir: own.working_dir,
        }
    }

    /// The rules that would be in force, layer by layer. Without a sandbox only limits are left.
    pub(super) fn rules(&self) -> Vec<&Rule> {
        let Ok(Confined { plan, .. }) = &self.confined else { return Vec::new() };
        let holds = |layer| plan.mode == SandboxMode::On || matches!(layer, Layer::Cgroup | Layer::Process);
        let mut rules: Vec<&Rule> = plan.rules().iter().filter(|rule| holds(rule.layer)).collect();
        rules.sort_by_key(|rule| rule.layer);
        rules
    }
}
