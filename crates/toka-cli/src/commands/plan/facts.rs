//! What there is to know of one agent before it runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use toka_core::capability::Policy;
use toka_core::{Coverage, Layer, LayerReport, SandboxMode};
use toka_files::{Limits, Shared, shared_files};
use toka_prepare::confine::{Confined, Confiner, Demands};
use toka_prepare::folders::ProjectFolders;
use toka_prepare::{BudgetOffer, ModelOffer, Models, started};
use toka_sandbox::{CompileError, HostFacts, Right, Rule, SandboxPlan};
use toka_workstream::{Agent, Plan};

/// One agent, with what it asks for and what it will be held to.
#[derive(Debug)]
pub(super) struct AgentFacts {
    pub(super) agent: Agent,
    /// Where its process begins.
    pub(super) working_dir: PathBuf,
    pub(super) demands: Demands,
    /// The models that it asks.
    pub(super) models: Vec<ModelOffer>,
    /// How the program of its preset is started for each task, where it works through them.
    pub(super) started: Option<Vec<String>>,
    /// What it may use of them, and what the run may; absent when it asks none.
    pub(super) budget: Option<BudgetOffer>,
    /// The layers that this host does not enforce in full, as far as its facts tell.
    pub(super) short: Vec<LayerReport>,
    /// When it was looked at.
    pub(super) now: jiff::Timestamp,
    pub(super) confined: Result<Confined, CompileError>,
    /// Places that it may write to with files that have other names outside of them.
    pub(super) shared: Vec<(PathBuf, Shared)>,
}

/// How far files with other names are looked for, over all places of an agent.
const LOOK: Duration = Duration::from_millis(500);
const MOST_NAMES: usize = 200_000;

impl AgentFacts {
    pub(super) fn gather(
        agent: &Agent,
        plan: &Plan,
        folders: &ProjectFolders,
        confiner: &Confiner<'_>,
        policy: &Policy,
        models: &Models,
    ) -> Self {
        let own = folders.of(agent, plan);
        let demands = Demands::of(agent, folders, policy);
        let confined = confiner.compile(agent, &own, &demands);
        Self {
            agent: agent.clone(),
            models: models.offers(agent),
            started: started(agent, models),
            budget: models.budget(agent),
            shared: confined.as_ref().map(|it| shared(&it.plan, &folders.state_dir)).unwrap_or_default(),
            short: confined.as_ref().map(|it| short(confiner.host, &it.plan)).unwrap_or_default(),
            confined,
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

/// What an agent writes into such a file shows under its other name, which no rule of its knows (security.md).
fn shared(plan: &SandboxPlan, own: &Path) -> Vec<(PathBuf, Shared)> {
    let limits = Limits { names: MOST_NAMES, deadline: Instant::now() + LOOK };
    let written = plan.files.iter().filter(|rule| rule.right >= Right::Write && !rule.path.starts_with(own));
    let looked = written.map(|rule| (rule.path.clone(), shared_files(&rule.path, limits)));
    looked.filter(|(_, shared)| shared.files > 0).collect()
}

fn short(host: &HostFacts, plan: &SandboxPlan) -> Vec<LayerReport> {
    // Without a sandbox that is said once, and not layer by layer.
    let concerns = |layer| plan.mode == SandboxMode::On || layer == Layer::Cgroup;
    let layers = host.enforcement(plan).layers.into_iter();
    layers.filter(|report| report.coverage != Coverage::Full && concerns(report.layer)).collect()
}
