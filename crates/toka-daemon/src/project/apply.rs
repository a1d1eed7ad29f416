//! A project becomes what another declaration says: agents that are declared as before go on undisturbed, those whose
//! declaration is another are stopped and begin anew, those that are no more are stopped. When anything of the new
//! declaration cannot be, nothing changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use toka_core::event::Awaits;
use toka_core::{AgentName, EventKind};
use toka_workstream::{Agent, Plan, Set};
use tokio::sync::oneshot;

use super::Project;
use super::admit::{AdmittedAgents, Ground, set_up};
use super::batch::{Batch, Then};
use super::handle::{ApplyRequest, Earnest};
use super::member::awaited_lines;
use super::open::{describe, keep};
use crate::declaration::{Parsed, Unparsed};
use crate::workplace::Remains;
use crate::{Declaration, RunError};

/// What another declaration changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Agents that are new.
    pub added: Vec<AgentName>,
    /// Agents whose declaration is another: they are restarted.
    pub changed: Vec<AgentName>,
    /// Agents that are no more: they are stopped.
    pub removed: Vec<AgentName>,
    /// Agents that go on undisturbed.
    pub unchanged: Vec<AgentName>,
}

impl Changes {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Why a declaration was not applied.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// Its files have errors.
    #[error("the workstreams have errors; nothing was changed")]
    Unparsed(Box<Unparsed>),
    /// An agent of it cannot be started.
    #[error("{0}")]
    Refused(RunError),
    /// Another one is being applied.
    #[error("another change of the project is under way; nothing was changed")]
    Busy,
    /// It is about another folder.
    #[error("the project {project} runs in {}, not in {}", running.display(), declared.display())]
    Workspace {
        /// The project.
        project: toka_core::ProjectName,
        /// Where it runs.
        running: std::path::PathBuf,
        /// What was declared.
        declared: std::path::PathBuf,
    },
    /// The run ends.
    #[error("the run is ending; nothing was changed")]
    Ending,
}

/// A declaration that can be applied.
struct Prepared {
    declaration: Declaration,
    parsed: Parsed,
    ground: Ground,
    admitted: AdmittedAgents,
    /// Agents that are declared as before, and could not be started again until now.
    equipped: AdmittedAgents,
    /// As they were before.
    former: Vec<Agent>,
    changes: Changes,
}

/// A change that begins when those are gone that it is about.
pub(super) struct Change {
    prepared: Prepared,
    /// Those that had not come to their end before, and what they would wait for if they began anew as they were.
    pub(super) undone: BTreeMap<AgentName, Awaits>,
    answer: oneshot::Sender<Result<Changes, ApplyError>>,
}

impl Project {
    pub(super) async fn apply(
        &mut self,
        request: ApplyRequest,
        answer: oneshot::Sender<Result<Changes, ApplyError>>,
    ) {
        let ApplyRequest { declaration, by, earnest } = request;
        let mut prepared = match self.prepare(declaration).await {
            Ok(prepared) => prepared,
            // Whoever asked may be gone.
            Err(error) => return drop(answer.send(Err(error))),
        };
        if earnest == Earnest::Do {
            self.heed(&prepared);
            self.equip(std::mem::take(&mut prepared.equipped));
            self.go_on_again(&prepared.changes.unchanged);
        }
        let changes = &prepared.changes;
        if earnest == Earnest::Tell || changes.is_empty() {
            self.forget_doors();
            return drop(answer.send(Ok(prepared.changes)));
        }
        let agents: BTreeSet<AgentName> = changes.changed.iter().chain(&changes.removed).cloned().collect();
        self.leave_batches(&agents.iter().cloned().collect::<Vec<_>>());
        let undone = agents.iter().filter_map(|agent| Some((agent.clone(), self.awaited(agent)?))).collect();
        let change = Box::new(Change { prepared, undone, answer });
        self.batches.push(Batch { agents, by, then: Then::Change(change) });
    }

    async fn prepare(&mut self, declaration: Declaration) -> Result<Prepared, ApplyError> {
        if self.state.ending().is_some() {
            return Err(ApplyError::Ending);
        }
        if self.batches.iter().any(|batch| matches!(batch.then, Then::Change(_))) {
            return Err(ApplyError::Busy);
        }
        let running = &self.ground.folders.workspace;
        if declaration.workspace != *running {
            return Err(ApplyError::Workspace {
                project: self.ground.folders.project.clone(),
                running: running.clone(),
                declared: declaration.workspace,
            });
        }
        let before = self.declaration.parse().map_err(ApplyError::Unparsed)?;
        let parsed = declaration.parse().map_err(ApplyError::Unparsed)?;
        let changes = compare((&before.set, &self.plan), (&parsed.set, &parsed.plan));
        let ground = Ground {
            caller: Arc::new(declaration.caller()),
            policy: declaration.policy.clone(),
            ..self.ground.clone()
        };
        let lacking: BTreeSet<AgentName> =
            changes.unchanged.iter().filter(|name| self.lacks(name)).cloned().collect();
        let wanted: BTreeSet<AgentName> = changes.added.iter().chain(&changes.changed).cloned().collect();
        let is_wanted = |name: &AgentName| wanted.contains(name) || lacking.contains(name);
        let Parsed { set, plan, diagnostics, sources } = parsed;
        let admitted = ground.admit((set, plan), is_wanted, &mut self.doors).await;
        let (set, plan, admitted) = admitted.map_err(|error| {
            self.forget_doors();
            ApplyError::Refused(error)
        })?;
        let parsed = Parsed { set, plan, diagnostics, sources };
        let (equipped, admitted) = admitted.into_iter().partition(|(name, _)| lacking.contains(name));
        let former = before.set.agents;
        Ok(Prepared { declaration, parsed, ground, admitted, equipped, former, changes })
    }

    /// What an agent that has not come to its end would wait for if it began anew.
    fn awaited(&self, agent: &AgentName) -> Option<Awaits> {
        let state = self.state.state_of(&self.plan, agent).filter(|state| !state.is_final());
        let waits_for_clock = self.state.waits_for_clock(&self.plan, agent);
        state.map(|_| if waits_for_clock { Awaits::Clock } else { Awaits::Dependencies })
    }

    fn lacks(&self, agent: &AgentName) -> bool {
        self.members.get(agent).is_some_and(|member| member.expected.unstartable.is_some())
    }

    fn equip(&mut self, equipped: AdmittedAgents) {
        for (name, admitted) in equipped {
            if let Some(member) = self.members.get_mut(&name) {
                member.equip(admitted);
            }
        }
    }

    /// How many may run, and when they have to wait, changes at once, whatever else does. What variables hold is known from
    /// now on, also to agents that do not change: the daemon before may have known more than was ever on a disk.
    fn heed(&mut self, Prepared { declaration, parsed, former, .. }: &Prepared) {
        let Declaration { max_concurrent, pressure, .. } = *declaration;
        self.limits.max_concurrent = max_concurrent.and_then(NonZeroUsize::new);
        self.queue.set_limits(pressure);
        let mut environment = self.declaration.environment.clone();
        environment.extend(declaration.environment.clone());
        let heeded = Declaration { max_concurrent, pressure, environment, ..(*self.declaration).clone() };
        self.ground.caller = Arc::new(heeded.caller());
        if heeded != *self.declaration {
            // Until the change is done, and for good when it fails, the former agents need what they name.
            let agents = [former.as_slice(), &parsed.set.agents].concat();
            if let Err(error) = keep(&heeded, &self.ground.folders, &agents) {
                tracing::warn!(%error, "the next daemon does not know the new limits");
            }
            self.declaration = Arc::new(heeded);
        }
    }

    /// Removes doors that were made for agents that do not come.
    fn forget_doors(&mut self) {
        let plan = &self.plan;
        self.doors.retain(|agent| plan.position(agent).is_some());
    }

    /// Those that had to go are gone.
    pub(super) async fn change(&mut self, change: Change, by: &str) {
        let Change { prepared, answer, .. } = change;
        let changes = prepared.changes.clone();
        let outcome = self.become_of(prepared, by).await;
        let _ = answer.send(outcome.map(|()| changes).map_err(ApplyError::Refused));
    }

    async fn become_of(&mut self, prepared: Prepared, by: &str) -> Result<(), RunError> {
        let Prepared { declaration, parsed, ground, admitted, changes, .. } = prepared;
        let admitted = set_up(admitted, Remains::OfThisRun).await.map_err(RunError::Folder)?;
        keep(&declaration, &ground.folders, &parsed.set.agents)?;
        let Parsed { set, plan, .. } = parsed;
        let unchanged: BTreeSet<&AgentName> = changes.unchanged.iter().collect();
        self.flush_reports(|agent| !unchanged.contains(agent));
        self.state = self.state.with_plan(&self.plan, &plan, |agent| unchanged.contains(agent));
        self.plan = plan;
        (self.declaration, self.ground) = (Arc::new(declaration), ground);
        changes.removed.iter().for_each(|agent| drop(self.members.remove(agent)));
        self.cut_off.retain(|agent, _| unchanged.contains(agent));
        self.forget_doors();
        let changed = EventKind::RunChanged {
            by: by.to_owned(),
            agents: self.plan.nodes().iter().map(|node| node.agent.clone()).collect(),
            added: changes.added.clone(),
            changed: changes.changed.clone(),
            removed: changes.removed.clone(),
        };
        drop(self.journal.record(None, changed));
        self.employ(&set, admitted);
        self.follow_only(|agent| unchanged.contains(agent));
        self.follow(&set.agents, &HashMap::new());
        Ok(())
    }

    /// What no event tells of agents that are new.
    pub(super) fn describe_agents(&mut self) {
        let status = std::mem::take(Arc::make_mut(&mut self.status));
        self.status = Arc::new(describe(status, &self.plan));
    }
}

/// What is different between two declarations. Where an agent stands in its file, and what is commented there, makes no
/// difference.
fn compare((before, old): (&Set, &Plan), (after, new): (&Set, &Plan)) -> Changes {
    let known: HashMap<&AgentName, &Agent> = before.agents.iter().map(|agent| (&agent.name, agent)).collect();
    let mut changes = Changes::default();
    for agent in &after.agents {
        let list = match known.get(&agent.name) {
            None => &mut changes.added,
            Some(former) if is_same((former, old), (agent, new)) => &mut changes.unchanged,
            Some(_) => &mut changes.changed,
        };
        list.push(agent.name.clone());
    }
    let is_gone = |agent: &&Agent| after.agents.iter().all(|other| other.name != agent.name);
    changes.removed = before.agents.iter().filter(is_gone).map(|agent| agent.name.clone()).collect();
    changes
}

fn is_same((before, old): (&Agent, &Plan), (after, new): (&Agent, &Plan)) -> bool {
    before.extras == after.extras
        && before.file.parent() == after.file.parent()
        && without_origins(before) == without_origins(after)
        && awaited_lines(before, old) == awaited_lines(after, new)
}

/// The agent as data, without the places in files that its values come from.
fn without_origins(agent: &Agent) -> Value {
    let mut value = serde_json::to_value(agent).unwrap_or_default();
    strip(&mut value);
    value
}

/// Fields that tell where something stands, or that are compared by themselves.
const PLACES: [&str; 4] = ["origin", "command_origin", "file", "extras"];

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !PLACES.contains(&key.as_str()));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Parsed {
        let declaration = Declaration::of_text(&texts.join("---\n"));
        declaration.parse().unwrap_or_else(|unparsed| panic!("{:?}", unparsed.diagnostics))
    }

    const API: &str = "metadata: {name: api}\nspec: {type: service, process: {command: [serve]}}\n";

    /// What changes, as `+added ~changed -removed`.
    fn check(before: &[&str], after: &[&str], expected: &str) {
        let (before, after) = (parsed(before), parsed(after));
        let changes = compare((&before.set, &before.plan), (&after.set, &after.plan));
        let words = |sign: &str, names: &[AgentName]| -> Vec<String> {
            names.iter().map(|name| format!("{sign}{name}")).collect()
        };
        let all = [words("+", &changes.added), words("~", &changes.changed), words("-", &changes.removed)];
        assert_eq!(all.concat().join(" "), expected);
    }

    #[test]
    fn only_what_is_said_makes_a_difference() {
        let commented = format!("# a comment\n\n{API}");
        check(&[API], &[&commented], "");
        let other = API.replace("[serve]", "[serve, --fast]");
        check(&[API], &[&other], "~api");
        let grown = format!("{API}domain_notes: {{origin: here}}\n");
        check(&[API], &[&grown], "~api");
        check(&[&grown], &[&grown.replace("here", "there")], "~api");
    }

    #[test]
    fn what_comes_and_what_goes() {
        let db = API.replace("api", "db");
        check(&[API], &[&db], "+db -api");
        check(&[API, &db], &[&db], "-api");
    }

    #[test]
    fn one_that_has_to_watch_for_another_line_is_changed() {
        let waits = "metadata: {name: job}\nspec: {process: {command: [work]}}\n\
            dependencies: {required: {api: {reason: r, condition: {log_line: up}}}}\n";
        check(&[API], &[API, waits], "+job ~api");
    }
}
