//! A project becomes what another declaration says: agents that are declared as before go on undisturbed, as do those of
//! which only that is another which their process does not depend on; all others whose declaration is another
//! are stopped and begin anew, those that are no more are stopped. When anything of the new declaration cannot be, nothing
//! changes: what Toka finds before it stops anybody stops nobody, and whom it has stopped begins anew as before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use toka_api::declaration::{Declaration, Parsed};
use toka_api::wire::Changes;
use toka_core::event::Awaits;
use toka_core::{AgentName, AgentPattern, BudgetConfig, EventKind, Exit, ModelConfig, Request};
use toka_prepare::{Models, RunError};
use toka_workstream::{Plan, Set, Start};
use tokio::sync::oneshot;

use crate::Project;
use crate::admit::{AdmittedAgents, RunContext, models_of, set_up};
use crate::approvals::host_grants;
use crate::batch::Then;
use crate::change::{Change, Prepared};
use crate::differences::compare;
use crate::error::ApplyError;
use crate::facts::with_plan;
use crate::member::budget_of;
use crate::order::{ApplyMode, ApplyRequest};
use crate::run_files::keep;

/// The agents that a declaration means, with all their dependencies: which of these it leaves out, because nobody named what they
/// lead to, makes no difference to one that runs.
fn whole(declaration: &Declaration) -> Result<Set, ApplyError> {
    let meant = declaration.parse().map_err(ApplyError::Unparsed)?.set;
    if declaration.only.is_empty() {
        return Ok(meant);
    }
    let all = Declaration { only: Vec::new(), ..declaration.clone() };
    let mut all = all.parse().map_err(ApplyError::Unparsed)?.set;
    all.agents.retain(|agent| meant.agent(&agent.name).is_some());
    Ok(all)
}

impl Project {
    pub(crate) async fn apply(
        &mut self,
        request: ApplyRequest,
        answer: oneshot::Sender<Result<Changes, ApplyError>>,
    ) {
        let ApplyRequest { declaration, by, mode } = request;
        let mut prepared = match self.prepare(declaration).await {
            Ok(prepared) => prepared,
            // Whoever asked may be gone.
            Err(error) => return drop(answer.send(Err(error))),
        };
        if mode == ApplyMode::Apply {
            self.take_over_rules(&prepared);
            self.equip(std::mem::take(&mut prepared.equipped));
            self.go_on_again(&prepared.changes.going_on().cloned().collect::<Vec<_>>());
        }
        let changes = &prepared.changes;
        if mode == ApplyMode::DryRun || changes.is_empty() {
            self.forget_doors();
            return drop(answer.send(Ok(prepared.changes)));
        }
        let agents: BTreeSet<AgentName> = changes.changed.iter().chain(&changes.removed).cloned().collect();
        self.leave_batches(&agents.iter().cloned().collect::<Vec<_>>(), &by);
        let undone = agents.iter().filter_map(|agent| Some((agent.clone(), self.awaited(agent)?))).collect();
        let change = Box::new(Change { prepared, undone, stopped: BTreeMap::new(), answer });
        self.begin_batch(agents, &by, Then::Change(change));
    }

    async fn prepare(&mut self, declaration: Declaration) -> Result<Prepared, ApplyError> {
        if self.state.ending().is_some() {
            return Err(ApplyError::Ending);
        }
        if self.batches.iter().any(|batch| matches!(batch.then, Then::Change(_))) {
            return Err(ApplyError::Busy);
        }
        let running = &self.context.folders.workspace;
        if declaration.workspace != *running {
            return Err(ApplyError::Workspace {
                project: self.context.folders.project.clone(),
                running: running.clone(),
                declared: declaration.workspace,
            });
        }
        let before = whole(&self.declaration)?;
        let only = declaration.only.clone();
        let declaration = if only.is_empty() { declaration } else { self.with_the_others(declaration)? };
        let parsed = declaration.parse().map_err(ApplyError::Unparsed)?;
        let mut changes = compare((&before, &self.plan), (&whole(&declaration)?, &parsed.plan));
        changes.run = differences_of_run(&self.declaration, &declaration);
        refuse_others(&changes, &only, &parsed.set, &self.plan)?;
        let caller = Arc::new(declaration.caller());
        let models = models_of((&declaration, &parsed.set), &caller, &self.context.folders).await;
        let context = RunContext {
            models: models.map_err(ApplyError::Refused)?,
            caller,
            policy: declaration.policy.clone(),
            // What was opened, was opened for another declaration.
            openings: self
                .context
                .openings
                .without(changes.added.iter().chain(&changes.changed).chain(&changes.removed)),
            ..self.context.clone()
        };
        let lacking: BTreeSet<AgentName> =
            changes.going_on().filter(|name| self.lacks(name)).cloned().collect();
        let wanted: BTreeSet<AgentName> = changes.added.iter().chain(&changes.changed).cloned().collect();
        let filed = self.with_environment_files(&changes, &only, &parsed.set);
        let is_wanted =
            |name: &AgentName| wanted.contains(name) || lacking.contains(name) || filed.contains(name);
        let Parsed { set, plan, diagnostics, sources } = parsed;
        let admitted = context.admit((set, plan), is_wanted, &mut self.doors).await;
        let (set, plan, admitted) = admitted.map_err(|error| {
            self.forget_doors();
            ApplyError::Refused(error)
        })?;
        let parsed = Parsed { set, plan, diagnostics, sources };
        let admitted = self.compare_environment_files(admitted, &filed, &mut changes);
        let (equipped, admitted) = admitted.into_iter().partition(|(name, _)| lacking.contains(name));
        let former = before.agents;
        Ok(Prepared { declaration, parsed, context, admitted, equipped, former, changes })
    }

    /// Those whose declaration is as before, and which may be told something else by their environment files.
    fn with_environment_files(
        &self,
        changes: &Changes,
        only: &[AgentPattern],
        set: &Set,
    ) -> BTreeSet<AgentName> {
        let names = || self.plan.nodes().iter().map(|node| &node.agent);
        let is_meant = |name: &AgentName| {
            only.is_empty() || only.iter().any(|pattern| pattern.select(names()).contains(&name))
        };
        let has_files = |name: &AgentName| {
            let process = set.agent(name).and_then(|agent| agent.process.as_ref());
            process.is_some_and(|process| !process.environment_file.is_empty())
        };
        changes
            .going_on()
            .filter(|name| is_meant(name) && has_files(name) && !self.lacks(name))
            .cloned()
            .collect()
    }

    /// Of those, the ones whose files say something else have to begin anew.
    fn compare_environment_files(
        &self,
        mut admitted: AdmittedAgents,
        filed: &BTreeSet<AgentName>,
        changes: &mut Changes,
    ) -> AdmittedAgents {
        admitted.retain(|(name, admitted)| {
            if !filed.contains(name) {
                return true;
            }
            let known = self.members.get(name).and_then(|member| member.environment_files);
            let differs = known.is_some_and(|known| admitted.environment_files != Some(known));
            if differs {
                changes.unchanged.retain(|other| other != name);
                changes.adjusted.retain(|other| other != name);
                changes.changed.push(name.clone());
                let keys = changes.keys.entry(name.clone()).or_default();
                keys.push("the content of spec.process.environment_file".to_owned());
            }
            differs
        });
        admitted
    }

    /// The declaration with those agents besides that run already, and with what was granted to them.
    fn with_the_others(&self, declaration: Declaration) -> Result<Declaration, ApplyError> {
        let all = Declaration { only: Vec::new(), ..declaration.clone() };
        let all = all.parse().map_err(ApplyError::Unparsed)?;
        let running: Vec<AgentName> = self.plan.nodes().iter().map(|node| node.agent.clone()).collect();
        // Those that are named may be fewer than before.
        let is_named = |name: &AgentName| {
            declaration.only.iter().any(|named| named.select(running.iter()).contains(&name))
        };
        let is_gone = |name: &AgentName| all.set.agent(name).is_none();
        let gone: Vec<AgentName> =
            running.iter().filter(|name| is_gone(name) && !is_named(name)).cloned().collect();
        if !gone.is_empty() {
            return Err(ApplyError::Others { agents: gone });
        }
        let running: Vec<AgentName> = running.iter().filter(|name| !is_gone(name)).cloned().collect();
        let only = declaration.only.iter().cloned().chain(running.into_iter().map(AgentPattern::from));
        let environment =
            self.declaration.environment.clone().into_iter().chain(declaration.environment.clone());
        Ok(Declaration {
            only: only.collect(),
            policy: declaration.policy.clone().with(&self.declaration.policy),
            models: self.declaration.models.clone().with(declaration.models.clone()),
            environment: environment.collect(),
            ..declaration
        })
    }

    /// What an agent that has not come to its end would wait for if it began anew.
    fn awaited(&self, agent: &AgentName) -> Option<Awaits> {
        let state = self.state.state_of(&self.plan, agent).filter(|state| !state.is_final());
        let waits = self.state.waits_to_be_called(&self.plan, agent);
        state.map(|_| if waits { Awaits::Clock } else { Awaits::Dependencies })
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
    fn take_over_rules(&mut self, Prepared { declaration, parsed, former, context, .. }: &Prepared) {
        let Declaration { max_concurrent, pressure, .. } = *declaration;
        self.plan.take_ends_of(&parsed.plan);
        self.limits.max_concurrent = max_concurrent.and_then(NonZeroUsize::new);
        self.queue.set_limits(pressure);
        let mut environment = self.declaration.environment.clone();
        environment.extend(declaration.environment.clone());
        let (stop, models) = (declaration.stop.clone(), declaration.models.clone());
        let heeded = Declaration {
            max_concurrent,
            pressure,
            stop,
            environment,
            models,
            trusted_hosts: declaration.trusted_hosts.clone(),
            ..(*self.declaration).clone()
        };
        self.context.caller = Arc::new(heeded.caller());
        // Also for those that go on: a provider that is named no more is asked no more.
        self.context.models.renew(&context.models);
        self.broker.configure(
            declaration.models.budgets,
            declaration.models.approvals_expire,
            host_grants(declaration),
        );
        if heeded != *self.declaration {
            // Until the change is done, and for good when it fails, the former agents need what they name.
            let agents = [former.as_slice(), &parsed.set.agents].concat();
            if let Err(error) = keep(&heeded, &self.context.folders, &agents) {
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
    pub(crate) async fn change(&mut self, change: Change, by: &str) {
        let Change { prepared, answer, undone, stopped } = change;
        let changes = prepared.changes.clone();
        match self.become_of(prepared, by).await {
            Ok(()) => {
                self.begin_called(&undone, by);
                for (agent, by) in stopped {
                    if self.plan.position(&agent).is_some() {
                        self.ask_to_stop(&agent, Exit::stopped(by.clone()), Request::Stop, &by);
                    }
                }
                self.unanswered.push_back((answer, changes));
            }
            Err(error) => {
                self.forget_doors();
                self.go_on(undone).await;
                drop(answer.send(Err(ApplyError::Undone(error))));
            }
        }
    }

    /// Answers the oldest change that waits, now that the journal has it: a command that asks for the status next sees it.
    pub(crate) fn answer_change(&mut self) {
        if let Some((answer, changes)) = self.unanswered.pop_front() {
            let _ = answer.send(Ok(changes));
        }
    }

    async fn become_of(&mut self, prepared: Prepared, by: &str) -> Result<(), RunError> {
        let Prepared { declaration, parsed, context, admitted, changes, .. } = prepared;
        let former = self.furnishings(admitted.iter().map(|(name, _)| name));
        let (admitted, furnishings) = set_up(admitted, former).await.map_err(RunError::Folder)?;
        keep(&declaration, &context.folders, &parsed.set.agents)?;
        let Parsed { set, plan, .. } = parsed;
        let unchanged: BTreeSet<&AgentName> = changes.going_on().collect();
        self.flush_reports(|agent| !unchanged.contains(agent));
        self.state = self.state.with_plan(&self.plan, &plan, |agent| unchanged.contains(agent));
        self.plan = plan;
        self.adjust(&set, &changes.adjusted);
        let context = RunContext { models: self.context.models.clone(), ..context };
        (self.declaration, self.context) = (Arc::new(declaration), context);
        changes.removed.iter().for_each(|agent| drop(self.members.remove(agent)));
        self.cut_off.retain(|agent, _| unchanged.contains(agent));
        self.forget_doors();
        let changed = EventKind::RunChanged {
            by: by.to_owned(),
            agents: self.plan.nodes().iter().map(|node| node.agent.clone()).collect(),
            added: changes.added.clone(),
            changed: changes.changed.clone(),
            adjusted: changes.adjusted.clone(),
            removed: changes.removed.clone(),
        };
        drop(self.journal.record(None, changed));
        self.spawn_members(&set, admitted, furnishings);
        self.follow_only(|agent| unchanged.contains(agent));
        self.follow(&set.agents, &HashMap::new());
        Ok(())
    }

    /// Those that somebody had started by hand, and that were stopped for the change, do not wait for that again.
    fn begin_called(&mut self, undone: &BTreeMap<AgentName, Awaits>, by: &str) {
        let of_person = |agent: &AgentName| {
            let at = self.plan.position(agent);
            at.is_some_and(|at| self.plan.nodes()[at].start == Start::Manual)
        };
        let begun = undone.iter().filter(|(_, awaits)| **awaits != Awaits::Clock).map(|(agent, _)| agent);
        let begun: Vec<AgentName> = begun.filter(|agent| of_person(agent)).cloned().collect();
        for agent in begun {
            self.tell_requeued(&agent, by, Awaits::Dependencies);
            self.call(&agent);
        }
    }

    /// Takes over what of these agents is another without touching their processes.
    fn adjust(&mut self, set: &Set, agents: &[AgentName]) {
        for agent in agents.iter().filter_map(|name| set.agent(name)) {
            if let Some(member) = self.members.get_mut(&agent.name) {
                member.adjust(agent);
                if agent.confinement.model.is_some() {
                    self.broker.declare(&agent.name, budget_of(agent));
                }
            }
        }
    }

    /// What no event tells of agents that are new.
    pub(crate) fn describe_agents(&mut self) {
        let status = std::mem::take(Arc::make_mut(&mut self.status));
        self.status = Arc::new(with_plan(status, &self.plan));
    }
}

/// With `--only`, nothing happens to agents that were not named.
fn refuse_others(
    changes: &Changes,
    only: &[AgentPattern],
    set: &Set,
    running: &Plan,
) -> Result<(), ApplyError> {
    if only.is_empty() {
        return Ok(());
    }
    let chosen = set.clone().only(only).map(|set| set.agents).unwrap_or_default();
    let known = || running.nodes().iter().map(|node| &node.agent);
    let is_named = |name: &AgentName| only.iter().any(|named| named.select(known()).contains(&name));
    let is_other = |name: &&AgentName| !is_named(name) && chosen.iter().all(|agent| agent.name != **name);
    let touched = changes.changed.iter().chain(&changes.adjusted).chain(&changes.removed);
    let agents: Vec<AgentName> = touched.filter(is_other).cloned().collect();
    if agents.is_empty() { Ok(()) } else { Err(ApplyError::Others { agents }) }
}

/// What another declaration says of the run itself: that counts at once, for all its agents.
fn differences_of_run(before: &Declaration, after: &Declaration) -> Vec<String> {
    let mut found = Vec::new();
    if before.stop.fail_fast != after.stop.fail_fast {
        found.push(format!("--fail-fast is {}", if after.stop.fail_fast { "on" } else { "off" }));
    }
    if before.stop.exit_code_from != after.stop.exit_code_from {
        let agent = after.stop.exit_code_from.as_ref().map_or("nobody", AgentName::as_str);
        found.push(format!("--exit-code-from is {agent}"));
    }
    if before.max_concurrent != after.max_concurrent {
        let most = after.max_concurrent.map_or_else(|| "not limited".to_owned(), |most| most.to_string());
        found.push(format!("--max-concurrent is {most}"));
    }
    let (former, latter) = (before.models.clone(), after.models.clone());
    if (former.budgets, former.approvals_expire) != (latter.budgets, latter.approvals_expire) {
        found.push("the budgets in toka.yaml are others".to_owned());
    }
    let without_budgets = |models: ModelConfig| ModelConfig {
        budgets: BudgetConfig::default(),
        approvals_expire: None,
        ..models
    };
    if without_budgets(former) != without_budgets(latter) {
        found.push("the models in toka.yaml are others".to_owned());
    }
    let keys = |declaration: &Declaration| -> Vec<Option<String>> {
        let names = Models::variables(&after.models);
        names.iter().map(|name| declaration.environment.get(*name).cloned()).collect()
    };
    if keys(before) != keys(after) {
        found.push("keys of models are others".to_owned());
    }
    found
}
