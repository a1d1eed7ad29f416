//! What stays the same for all agents of a run, and the admission of agents on that context.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use toka_api::caller::Caller;
use toka_api::declaration::Declaration;
use toka_core::capability::Policy;
use toka_core::{AgentName, Origin, RunId};
use toka_prepare::admission::{Admitted, Context, admit};
use toka_prepare::confine::{Confiner, workspace_facts};
use toka_prepare::folders::ProjectFolders;
use toka_prepare::furnishing::Furnishing;
use toka_prepare::users::{Claim, Users};
use toka_prepare::workplace;
use toka_prepare::{FolderError, Models, Problem, ProblemKind, RunError};
use toka_sandbox::plan::WorkspaceFacts;
use toka_sandbox::{AgentFolders, HostFacts};
use toka_workstream::{Agent, Plan, Set};

use crate::SocketDirs;
use crate::openings::Openings;

/// What the agents of a run stand on.
#[derive(Debug, Clone)]
pub(crate) struct RunContext {
    pub(crate) folders: ProjectFolders,
    pub(crate) run: RunId,
    pub(crate) caller: Arc<Caller>,
    pub(crate) policy: Policy,
    pub(crate) models: Models,
    pub(crate) toka_exe: PathBuf,
    pub(crate) host: Arc<HostFacts>,
    /// What persons have opened for agents in this run.
    pub(crate) openings: Openings,
}

pub(crate) type AdmittedAgents = Vec<(AgentName, Admitted)>;

/// An agent with its folders, and what admission says of it.
pub(crate) type Examined = (Agent, AgentFolders, Result<Admitted, Vec<Problem>>);

/// Agents that one thread looks at.
type Share<'a> = Mutex<Vec<(&'a Agent, AgentFolders)>>;

/// How long admission may take. It reads files of the workspace, which may lie on a disk that does not answer.
const LONGEST: Duration = Duration::from_secs(60);

/// Most threads that look at agents.
const MOST_EXAMINERS: usize = 4;
/// With fewer agents a thread costs more than it saves: a tenth of a millisecond each.
const WORTH_A_THREAD: usize = 32;

impl RunContext {
    /// Finds a place for the door of each of these agents of the set, and admits them all. The set and its plan come back.
    ///
    /// # Errors
    /// With every problem of every agent, or when a door cannot be made.
    pub(crate) async fn admit(
        &self,
        (set, plan): (Set, Plan),
        wanted: impl Fn(&AgentName) -> bool,
        doors: &mut SocketDirs,
    ) -> Result<(Set, Plan, AdmittedAgents), RunError> {
        let folders = make_doors(&self.folders, (&set, &plan), &wanted, doors)?;
        self.admit_in(folders, (set, plan), wanted).await
    }

    /// Admits agents of the set that have these folders, in the order of the plan.
    ///
    /// # Errors
    /// With every problem of every agent.
    #[tracing::instrument(name = "admission", skip_all, fields(agents = set.agents.len()))]
    pub(crate) async fn admit_in(
        &self,
        folders: Vec<AgentFolders>,
        (set, plan): (Set, Plan),
        wanted: impl Fn(&AgentName) -> bool,
    ) -> Result<(Set, Plan, AdmittedAgents), RunError> {
        let Some(first) = in_order(&set, &plan).map(|agent| agent.name.clone()).find(|name| wanted(name))
        else {
            return Ok((set, plan, Vec::new()));
        };
        let names: HashSet<AgentName> =
            in_order(&set, &plan).map(|agent| agent.name.clone()).filter(|name| wanted(name)).collect();
        let context = self.clone();
        let work = move || {
            let examined = context.examine((&set, &plan), |name| names.contains(name), folders);
            let (mut admitted, mut problems): (AdmittedAgents, Vec<Problem>) = Default::default();
            for (agent, _, found) in examined {
                match found {
                    Ok(of_agent) => admitted.push((agent.name, of_agent)),
                    Err(found) => problems.extend(found),
                }
            }
            if problems.is_empty() { Ok((set, plan, admitted)) } else { Err(RunError::Refused(problems)) }
        };
        match beside_the_loop(work).await {
            Some(outcome) => outcome,
            None => Err(RunError::Refused(vec![too_slow(first)])),
        }
    }

    /// The same one by one, for agents whose doors are there: what speaks against one speaks not against the others.
    ///
    /// # Errors
    /// When it takes too long.
    pub(crate) async fn admit_each(
        &self,
        (set, plan): (Set, Plan),
        doors: &mut SocketDirs,
    ) -> Result<(Set, Plan, Vec<Examined>), RunError> {
        let mut folders = Vec::with_capacity(plan.len());
        for agent in in_order(&set, &plan) {
            let mut own = self.folders.of(agent, &plan);
            // One whose door is gone cannot be reached through a new one, and lives on.
            match doors.find(&agent.name, &own.door).or_else(|_| doors.make(&agent.name, &own.door)) {
                Ok(door) => own.door = door,
                Err(error) => tracing::warn!(agent = %agent.name, %error, "it has no door any more"),
            }
            folders.push(own);
        }
        let first = in_order(&set, &plan).next().map(|agent| agent.name.clone());
        let context = self.clone();
        let work = move || {
            let mut examined = context.examine((&set, &plan), |_| true, folders);
            for (_, folders, admitted) in &mut examined {
                // What appeared while nobody looked was not there when the run began.
                if let (Ok(admitted), Some(guards)) = (admitted, workplace::kept_guards(folders)) {
                    Arc::make_mut(&mut admitted.command.plan).guards = guards;
                }
            }
            (set, plan, examined)
        };
        let problems = || first.map(too_slow).into_iter().collect();
        beside_the_loop(work).await.ok_or_else(|| RunError::Refused(problems()))
    }

    /// Looks at each wanted agent, in the order of the plan; `folders` are theirs.
    fn examine(
        &self,
        (set, plan): (&Set, &Plan),
        wanted: impl Fn(&AgentName) -> bool,
        folders: Vec<AgentFolders>,
    ) -> Vec<Examined> {
        let facts = workspace_facts(set, &self.folders);
        let users = Users::of(in_order(set, plan), &self.folders, Claim::Take);
        let policy = self.openings.granted(&self.policy);
        let context = self.context((plan, &policy), &facts, &users);
        let agents = in_order(set, plan).filter(|agent| wanted(&agent.name));
        let mut agents: Vec<(&Agent, AgentFolders)> = agents.zip(folders).collect();
        let examine = |(agent, own): (&Agent, AgentFolders)| {
            let agent = self.openings.declared(agent);
            let admitted = admit(&agent, own.clone(), context);
            (agent, own, admitted)
        };
        // The first to start waits until the last is admitted.
        let processors = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_EXAMINERS);
        let share = agents.len().div_ceil(processors).max(WORTH_A_THREAD);
        let shares: Vec<Share> = std::iter::from_fn(|| {
            let rest = agents.split_off(share.min(agents.len()));
            let own = std::mem::replace(&mut agents, rest);
            (!own.is_empty()).then(|| Mutex::new(own))
        })
        .collect();
        let work = |share: &Share| {
            let share = std::mem::take(&mut *share.lock().unwrap_or_else(PoisonError::into_inner));
            share.into_iter().map(examine).collect::<Vec<Examined>>()
        };
        std::thread::scope(|scope| {
            let begin = |share| std::thread::Builder::new().spawn_scoped(scope, move || work(share));
            let others: Vec<_> = shares.iter().skip(1).map(|share| (share, begin(share).ok())).collect();
            let own = shares.first().map(work).unwrap_or_default();
            let others = others.into_iter().flat_map(|(share, thread)| match thread.map(|it| it.join()) {
                Some(Ok(examined)) => examined,
                Some(Err(panic)) => std::panic::resume_unwind(panic),
                // The host gives no more threads.
                None => work(share),
            });
            own.into_iter().chain(others).collect()
        })
    }

    fn context<'a>(
        &'a self,
        (plan, policy): (&'a Plan, &'a Policy),
        facts: &'a WorkspaceFacts,
        users: &'a Users,
    ) -> Context<'a> {
        let confiner = Confiner {
            host: &self.host,
            project: &self.folders.project,
            toka_exe: &self.toka_exe,
            facts,
            users,
            chosen: None,
            path: self.caller.variable("PATH").unwrap_or_default(),
        };
        let (caller, project) = (self.caller.as_ref(), &self.folders);
        Context { plan, policy, caller, project, confiner, models: &self.models, run: self.run }
    }
}

/// The folders of each of these agents of the set, with a place for its door.
///
/// # Errors
/// When a door cannot be made.
pub(crate) fn make_doors(
    of_project: &ProjectFolders,
    (set, plan): (&Set, &Plan),
    wanted: impl Fn(&AgentName) -> bool,
    doors: &mut SocketDirs,
) -> Result<Vec<AgentFolders>, RunError> {
    let mut folders = Vec::new();
    for agent in in_order(set, plan).filter(|agent| wanted(&agent.name)) {
        let mut own = of_project.of(agent, plan);
        own.door = doors.make(&agent.name, &own.door).map_err(RunError::Folder)?;
        folders.push(own);
    }
    Ok(folders)
}

/// Whom the agents of a declaration ask, and the seed of their keys.
///
/// # Errors
/// When the seed cannot be kept.
pub(crate) async fn models_of(
    (declaration, set): (&Declaration, &Set),
    caller: &Arc<Caller>,
    folders: &ProjectFolders,
) -> Result<Models, RunError> {
    let (config, caller, folders) = (declaration.models.clone(), Arc::clone(caller), folders.clone());
    let set = set.clone();
    let work = move || {
        let root = folders.root();
        Models::resolve(&config, &caller, &folders, &set)
            .keyed(&root)
            .map_err(|source| RunError::Folder(FolderError { what: "write", path: root, source }))
    };
    match beside_the_loop(work).await {
        Some(models) => models,
        None => Err(RunError::Folder(FolderError {
            what: "read",
            path: declaration.workspace.clone(),
            source: std::io::Error::from(std::io::ErrorKind::TimedOut),
        })),
    }
}

/// Does what may wait for a disk in a thread of its own; `None` when it takes too long.
async fn beside_the_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::time::timeout(LONGEST, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
        Err(_) => None,
    }
}

fn too_slow(agent: AgentName) -> Problem {
    Problem {
        kind: ProblemKind::Unconfigured,
        agent,
        origin: Origin::Default("its files".into()),
        message: format!("its files could not be looked at within {} s", LONGEST.as_secs()),
        help: "see whether the disk of the workspace answers".into(),
    }
}

/// The agents in the order of the plan.
pub(crate) fn in_order<'a>(set: &'a Set, plan: &'a Plan) -> impl Iterator<Item = &'a Agent> {
    let declared: HashMap<&AgentName, &Agent> = set.agents.iter().map(|agent| (&agent.name, agent)).collect();
    plan.nodes().iter().filter_map(move |node| declared.get(&node.agent).copied())
}

/// The folders of agents, by their names.
pub(crate) type Furnishings = HashMap<AgentName, Arc<Furnishing>>;

/// Registers the agents of a run that begins, and gives them back. Their folders are made right before they start, so that the first of many does not wait
/// for the last.
///
/// # Errors
/// When a file or folder cannot be made.
pub(crate) async fn register(admitted: AdmittedAgents) -> Result<AdmittedAgents, FolderError> {
    let begin = |admitted: &Admitted| {
        register_one(admitted)?;
        workplace::forget_results(&admitted.folders)
    };
    on_a_thread(move || admitted.iter().try_for_each(|(_, one)| begin(one)).map(|()| admitted)).await
}

/// The same with the folders: what cannot be made undoes the whole change. `former` are those that the agents had until now.
///
/// # Errors
/// As [`register`].
pub(crate) async fn set_up(
    admitted: AdmittedAgents,
    former: Furnishings,
) -> Result<(AdmittedAgents, Furnishings), FolderError> {
    let work = move || {
        let mut furnishings = Furnishings::with_capacity(admitted.len());
        for (name, one) in &admitted {
            register_one(one)?;
            let furnishing = former.get(name).cloned().unwrap_or_else(|| Arc::new(Furnishing::made()));
            furnishing.make_anew(one)?;
            furnishings.insert(name.clone(), furnishing);
        }
        Ok((admitted, furnishings))
    };
    on_a_thread(work).await
}

fn register_one(admitted: &Admitted) -> Result<(), FolderError> {
    workplace::register(&admitted.folders, &admitted.command.plan.guards)
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
