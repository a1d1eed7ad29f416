//! What the health of a project is judged by, gathered beside everything else that goes on: nobody who asks how it is may
//! hold up what it does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use toka_api::declaration::Declaration;
use toka_core::health::{Expected, HealthReport, Readiness};
use toka_core::status::StartedBy;
use toka_core::{AgentName, AgentState, Compatibility, Resources, RunStatus, SandboxMode};
use toka_keeper::{Keeper, ProcessId};
use toka_runtime::DiskLimit;
use toka_store::Health;
use toka_workstream::describe::{Described, describe};
use toka_workstream::plan::Node;
use toka_workstream::{Agent, Plan, Start};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::{Member, Project};

/// A keeper that has not answered by then hangs: it answers in less than a millisecond, and starts and stops a thousand
/// agents in a few seconds.
pub const KEEPER_ANSWER: Duration = Duration::from_secs(2);
/// Calls of the keeper at a time: enough that it never waits for the next, few enough that what is urgent comes soon.
const CALLS: usize = 32;

/// Whether the keeper is to be asked for the figures of every agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figures {
    /// No.
    Without,
    /// Yes: one call for each that has a process.
    With,
}

/// What is known of a project's health.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its agents.
    pub status: Arc<RunStatus>,
    /// What they declare.
    pub expected: HashMap<AgentName, Arc<Expected>>,
    /// What they hold and use; of none when nobody asked, or the keeper does not answer.
    pub resources: HashMap<AgentName, Resources>,
    /// How its journal is doing.
    pub journal: Health,
    /// Why its keeper is not well.
    pub keeper: Result<(), String>,
}

impl Facts {
    /// The health of every agent, in the order of the plan.
    #[must_use]
    pub fn reports(&self, now_ms: i64) -> Vec<HealthReport> {
        let nothing = Expected::default();
        let report = |status: &toka_core::AgentStatus| {
            let expected = self.expected.get(&status.name).map_or(&nothing, |expected| expected);
            let resources = self.resources.get(&status.name).copied();
            HealthReport::of(status.clone(), resources, expected, now_ms)
        };
        self.status.agents().iter().map(report).collect()
    }
}

/// What an agent declares, in words.
pub(crate) fn declared(declaration: &Declaration, plan: &Plan, name: &AgentName) -> Vec<Described> {
    let Ok(parsed) = declaration.parse() else { return Vec::new() };
    let node = plan.nodes().iter().find(|node| node.agent == *name);
    node.zip(parsed.set.agent(name)).map_or_else(Vec::new, |(node, agent)| describe(agent, node))
}

/// What an agent declares that its health is measured by.
pub(crate) fn expected(agent: &Agent) -> Expected {
    let confinement = &agent.confinement;
    Expected {
        readiness: Readiness::of(&agent.probes),
        compatibility: match confinement.sandbox.value {
            SandboxMode::On => confinement.compatibility.value,
            // A person allowed that nothing confines it.
            SandboxMode::Off => Compatibility::BestEffort,
        },
        metrics: agent.reporting.metrics.iter().map(|metric| metric.name.clone()).collect(),
        restart_window: (agent.restart.policy != toka_core::RestartPolicy::No)
            .then_some(agent.restart.window),
        unstartable: None,
        cut_off: None,
    }
}

/// Says what no event tells of the agents.
pub(crate) fn with_plan(mut status: RunStatus, plan: &Plan) -> RunStatus {
    for node in plan.nodes() {
        let depends_on = node.gates.iter().map(|gate| gate.on.clone()).collect();
        status.describe(&node.agent, &node.title, node.kind, depends_on);
    }
    status
}

impl Project {
    /// Gathers what is asked for, and answers.
    pub(crate) fn tell_facts(&mut self, figures: Figures, answer: oneshot::Sender<Facts>) {
        let of = |(name, member): (&AgentName, &Member)| (name.clone(), Arc::clone(&member.expected));
        let mut facts = Facts {
            status: self.status_now(),
            expected: self.members.iter().map(of).collect(),
            resources: HashMap::new(),
            journal: self.journal.health(),
            keeper: Ok(()),
        };
        let asked = match figures {
            Figures::Without => Vec::new(),
            Figures::With => self.with_processes(),
        };
        let keeper = self.keeper.clone();
        self.writes.spawn(async move {
            facts.keeper = is_well(&keeper).await;
            if facts.keeper.is_ok() {
                facts.resources = resources(&keeper, asked).await;
            }
            // Whoever asked may be gone.
            let _ = answer.send(facts);
        });
    }

    /// What the journal says, and of each agent whose life is to begin what it waits for at this moment.
    pub(crate) fn status_now(&self) -> Arc<RunStatus> {
        let waits = |agent: &toka_core::AgentStatus| {
            let unmet = match agent.state {
                AgentState::Pending | AgentState::Backoff { .. } => {
                    self.state.waits_for(&self.plan, &agent.name)
                }
                AgentState::Quarantined { .. } if self.recovering.contains(&agent.name) => {
                    self.state.lacks_ready(&self.plan, &agent.name)
                }
                _ => return None,
            };
            let unmet = unmet.map(Box::new);
            (unmet != agent.waits).then(|| (agent.name.clone(), unmet))
        };
        let waiting: Vec<_> = self.status.agents().iter().filter_map(waits).collect();
        let (returning, called) = (self.returning(), self.to_be_called());
        if waiting.is_empty() && returning.is_empty() && called.is_empty() {
            return Arc::clone(&self.status);
        }
        let mut status = (*self.status).clone();
        returning.iter().for_each(|agent| status.returns(agent));
        for (agent, unmet) in waiting {
            status.waits(&agent, unmet);
        }
        for (agent, by) in called {
            status.started_by(agent, Some(by));
        }
        Arc::new(status)
    }

    /// Agents that wait for nothing but the clock or a person.
    fn to_be_called(&self) -> Vec<(&AgentName, StartedBy)> {
        let by = |node: &'_ Node| match node.start {
            Start::Plan => None,
            Start::Clock => Some(StartedBy::Clock),
            Start::Manual => Some(StartedBy::Person),
        };
        // One that could not start then is not just waiting for its time.
        let is_waiting = |node: &&Node| {
            self.state.waits_to_be_called(&self.plan, &node.agent)
                && self.state.lacks_required(&self.plan, &node.agent).is_none()
        };
        let waiting = self.plan.nodes().iter().filter(is_waiting);
        waiting.filter_map(|node| Some((&node.agent, by(node)?))).collect()
    }

    fn with_processes(&self) -> Vec<Asked> {
        let alive = self.status.agents().iter().filter(|agent| agent.state.is_alive());
        let asked = |agent: &toka_core::AgentStatus| {
            let member = self.members.get(&agent.name)?;
            Some((agent.name.clone(), member.id, member.disk.clone()))
        };
        alive.filter_map(asked).collect()
    }
}

/// One that has processes, its number, and what its folders may hold.
type Asked = (AgentName, ProcessId, Option<DiskLimit>);

async fn is_well(keeper: &Keeper) -> Result<(), String> {
    match tokio::time::timeout(KEEPER_ANSWER, keeper.answers()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", KEEPER_ANSWER.as_secs())),
    }
}

/// The figures of those that have any; what has not come in time is left out.
async fn resources(keeper: &Keeper, asked: Vec<Asked>) -> HashMap<AgentName, Resources> {
    let deadline = tokio::time::Instant::now() + KEEPER_ANSWER;
    let (mut asked, mut calls, mut found) = (asked.into_iter(), JoinSet::new(), HashMap::new());
    loop {
        while calls.len() < CALLS
            && let Some((name, id, disk)) = asked.next()
        {
            let keeper = keeper.clone();
            calls.spawn(async move {
                let figures = keeper.resources(id).await;
                (name, Member::with_disk(disk.as_ref(), figures))
            });
        }
        match tokio::time::timeout_at(deadline, calls.join_next()).await {
            Ok(Some(Ok((name, Some(resources))))) => drop(found.insert(name, resources)),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return found,
        }
    }
}
