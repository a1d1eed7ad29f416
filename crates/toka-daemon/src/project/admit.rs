//! What stays the same for all agents of a run, and the admission of agents on that ground.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use toka_core::capability::Policy;
use toka_core::{AgentName, RunId};
use toka_sandbox::{AgentFolders, HostFacts};
use toka_workstream::{Agent, Plan, Set};

use super::Doors;
use crate::admission::{Admitted, Context, admit};
use crate::confine::Confiner;
use crate::folders::ProjectFolders;
use crate::users::Users;
use crate::workplace::{self, Remains};
use crate::{Caller, FolderError, Problem, RunError};

/// What the agents of a run stand on.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) folders: ProjectFolders,
    pub(crate) run: RunId,
    pub(crate) caller: Arc<Caller>,
    pub(crate) policy: Policy,
    pub(crate) toka_exe: PathBuf,
    pub(crate) host: Arc<HostFacts>,
}

pub(crate) type AdmittedAgents = Vec<(AgentName, Admitted)>;

/// An agent with its folders, and what admission says of it.
pub(crate) type Examined<'a> = (&'a Agent, AgentFolders, Result<Admitted, Vec<Problem>>);

impl Ground {
    /// Finds a place for the door of each of these agents of the set, and admits them all.
    ///
    /// # Errors
    /// With every problem of every agent, or when a door cannot be made.
    #[tracing::instrument(name = "admission", skip_all, fields(agents = set.agents.len()))]
    pub(crate) fn admit(
        &self,
        (set, plan): (&Set, &Plan),
        wanted: impl Fn(&AgentName) -> bool,
        doors: &mut Doors,
    ) -> Result<AdmittedAgents, RunError> {
        let files: Vec<PathBuf> =
            set.files.iter().map(|file| file.canonicalize().unwrap_or_else(|_| file.clone())).collect();
        let users = Users::of(in_order(set, plan), &self.folders.project);
        let context = self.context(plan, &files, &users);
        let (mut admitted, mut problems): (AdmittedAgents, Vec<Problem>) = Default::default();
        for agent in in_order(set, plan).filter(|agent| wanted(&agent.name)) {
            let mut own = self.folders.of(agent, plan);
            own.door = doors.make(&agent.name, &own.door).map_err(RunError::Folder)?;
            match admit(agent, own, context) {
                Ok(agent_admitted) => admitted.push((agent.name.clone(), agent_admitted)),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(admitted) } else { Err(RunError::Refused(problems)) }
    }

    /// The same one by one, for agents whose doors are there: what speaks against one speaks not against the others.
    pub(crate) fn admit_each<'a>(
        &self,
        (set, plan): (&'a Set, &'a Plan),
        doors: &mut Doors,
    ) -> Vec<Examined<'a>> {
        let files: Vec<PathBuf> =
            set.files.iter().map(|file| file.canonicalize().unwrap_or_else(|_| file.clone())).collect();
        let users = Users::of(in_order(set, plan), &self.folders.project);
        let context = self.context(plan, &files, &users);
        let mut each = Vec::with_capacity(plan.len());
        for agent in in_order(set, plan) {
            let mut own = self.folders.of(agent, plan);
            // One whose door is gone cannot be reached through a new one, and lives on.
            match doors.find(&agent.name, &own.door).or_else(|_| doors.make(&agent.name, &own.door)) {
                Ok(door) => own.door = door,
                Err(error) => tracing::warn!(agent = %agent.name, %error, "it has no door any more"),
            }
            each.push((agent, own.clone(), admit(agent, own, context)));
        }
        each
    }

    fn context<'a>(&'a self, plan: &'a Plan, files: &'a [PathBuf], users: &'a Users) -> Context<'a> {
        let confiner = Confiner {
            host: &self.host,
            project: &self.folders.project,
            toka_exe: &self.toka_exe,
            files,
            users,
        };
        let (policy, caller, project) = (&self.policy, self.caller.as_ref(), &self.folders);
        Context { plan, policy, caller, project, confiner, run: self.run }
    }
}

/// The agents in the order of the plan.
pub(crate) fn in_order<'a>(set: &'a Set, plan: &'a Plan) -> impl Iterator<Item = &'a Agent> {
    let declared: HashMap<&AgentName, &Agent> = set.agents.iter().map(|agent| (&agent.name, agent)).collect();
    plan.nodes().iter().filter_map(move |node| declared.get(&node.agent).copied())
}

/// Makes the folders of the agents, and gives the agents back.
///
/// # Errors
/// When a folder cannot be made.
pub(crate) async fn set_up(
    admitted: AdmittedAgents,
    remains: Remains,
) -> Result<AdmittedAgents, FolderError> {
    let work = tokio::task::spawn_blocking(move || {
        admitted.iter().try_for_each(|(_, Admitted { folders, sections, command })| {
            workplace::set_up(folders, remains)?;
            workplace::tell(folders, sections)?;
            workplace::give(folders, command.plan.run_as.as_ref())
        })?;
        Ok(admitted)
    });
    match work.await {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
