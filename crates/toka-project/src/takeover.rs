//! What a daemon that was killed has left of a run: a keeper that waits, or, when that was killed as well, only the processes
//! in their control groups.
//!
//! Of those the journal tells the pids and the kernel whose groups they are in. A new keeper takes them over; what is in the
//! groups beside them was started and never told of, and is killed. After a restart of the machine nothing is left, and the
//! restart policies say what is started again.

use std::path::Path;

use toka_api::caller::Caller;
use toka_core::{AgentName, AgentState, Name, Origin, ProjectName, RunId};
use toka_keeper::protocol::Entry;
use toka_keeper::{Attached, Keeper, KeeperEvent, KeeperOptions, Orphan, ProcessId, kill_groups, process};
use toka_prepare::admission::Admitted;
use toka_prepare::folders::ProjectFolders;
use toka_prepare::furnishing;
use toka_prepare::lock::ProjectLock;
use toka_prepare::problem::{Problem, ProblemKind, names};
use toka_prepare::workplace::Remains;
use toka_prepare::{RunError, secrets};
use toka_sandbox::cgroup::Layout;
use toka_sandbox::renewal::exposed_binds;
use toka_sandbox::{Cgroups, Group};
use tokio::sync::mpsc;

use crate::admit::Examined;
use crate::keeper::{cgroup_name, hand_over_lock, take_back_lock};
use crate::replay::ReplayedRun;
use crate::run_files::is_unfinished;

/// A run that is taken over, as far as it is not in files.
pub(crate) struct Takeover {
    pub(crate) keeper: Keeper,
    pub(crate) events: mpsc::UnboundedReceiver<KeeperEvent>,
    pub(crate) holdings: Vec<Entry>,
    pub(crate) lock: ProjectLock,
}

impl Takeover {
    /// What a keeper has kept. When that is killed, one by `heir` comes after it.
    ///
    /// # Errors
    /// When it does not answer, or somebody else has the lock.
    pub(crate) async fn kept(
        attached: Attached,
        heir: &KeeperOptions,
        folders: &ProjectFolders,
        run: RunId,
    ) -> Result<Self, RunError> {
        let Attached { keeper, events, holdings } = attached;
        let lock = match take_back_lock(&keeper).await.map_err(RunError::Keeper)? {
            Some(lock) => ProjectLock::handed_over(lock, &folders.lock(), run),
            None => ProjectLock::take(&folders.lock(), run),
        };
        let lock = lock.map_err(RunError::Lock)?;
        keeper.succeed_with(heir);
        Ok(Self { keeper, events, holdings, lock })
    }

    /// What a new keeper finds of a run whose keeper was killed too.
    ///
    /// # Errors
    /// When somebody else has the lock, or the keeper cannot be started.
    pub(crate) async fn found(
        mut options: KeeperOptions,
        folders: &ProjectFolders,
        run: RunId,
        orphans: Vec<Orphan>,
    ) -> Result<Self, RunError> {
        let lock = ProjectLock::take(&folders.lock(), run).map_err(RunError::Lock)?;
        options.adopt = orphans;
        let started = lock.shared_with_child(Keeper::start(&options)).await;
        let (keeper, events) = started.map_err(RunError::Keeper)?;
        hand_over_lock(&keeper, &lock).await.map_err(RunError::Keeper)?;
        let holdings = keeper.list().await.map_err(RunError::Keeper)?;
        Ok(Self { keeper, events, holdings, lock })
    }
}

/// The processes that the journal tells of and that are still there.
pub(crate) fn orphans(
    examined: &[Examined],
    replayed: &ReplayedRun,
    folders: &ProjectFolders,
) -> Vec<Orphan> {
    let cgroups = Cgroups::new(Layout::probe(Path::new("/")), &cgroup_name(folders));
    let numbered = (1..).map(ProcessId).zip(examined);
    numbered
        .filter_map(|(id, (agent, _, admitted))| {
            let status = replayed.status.agent(&agent.name)?;
            let pid = replayed.pid_of(&agent.name)?;
            let groups = process::text(pid, "cgroup")?;
            let owner = cgroups.owner(&groups)?;
            if owner != (folders.project.to_string(), agent.name.to_string()) {
                return None;
            }
            let plan = admitted.as_ref().ok().map(|it| &it.command.plan);
            let shares_network = plan.is_some_and(|plan| plan.network == toka_core::NetworkAccess::Project);
            let inner_binds = plan.map_or_else(Vec::new, |plan| exposed_binds(&plan.binds));
            let guards = admitted.as_ref().map_or_else(|_| Vec::new(), |it| it.command.plan.guards.clone());
            Some(Orphan {
                id,
                project: folders.project.clone(),
                agent: agent.name.clone(),
                pid,
                start_time: process::start_time(pid)?,
                started_ms: status.started_ms.and_then(|time| time.try_into().ok()).unwrap_or(0),
                beside: None,
                stop_signal: agent.stop.signal,
                grace: agent.stop.grace_period,
                guards,
                inner_binds,
                shares_network,
                enforcement: status.enforcement.as_deref().cloned().unwrap_or_default(),
                status: None,
                notification_fd: agent.probes.notification_fd(),
                oom_kills: status.oom_kills,
            })
        })
        .collect()
}

/// Makes the folders again that a restart of the machine has taken, and writes the secrets of those whose lives go on. One
/// that cannot be furnished is not started again by itself.
pub(crate) fn populate(examined: &mut [Examined], replayed: &ReplayedRun, caller: &Caller) {
    for (agent, own, admitted) in examined {
        let Ok(found) = &*admitted else { continue };
        if own.credentials.is_dir() || replayed.lacks_folders(&agent.name) {
            continue;
        }
        let status = replayed.status.agent(&agent.name);
        let state = status.map(|status| &status.state);
        // Whoever waits for its turn gets them when it has come.
        let goes_on = state.is_some_and(|state| !state.is_final() && *state != AgentState::Pending);
        let Admitted { folders, secrets, .. } = found;
        let furnished = furnishing::make(found, Remains::OfThisRun)
            .map_err(|error| format!("{error}: {}", error.source))
            .and_then(|()| match goes_on {
                true => secrets::write(secrets, &folders.credentials, caller, &folders.workspace).map(drop),
                false => Ok(()),
            });
        if let Err(message) = furnished {
            let (kind, agent) = (ProblemKind::Invalid, agent.name.clone());
            let problem = Problem {
                kind,
                agent,
                origin: Origin::Default("what it needs while it runs".into()),
                message,
                help: String::new(),
            };
            *admitted = Err(vec![problem]);
        }
    }
}

/// Clears what a run left that was killed together with its keeper, before another begins in the foreground; what to tell
/// about it, if there was anything.
///
/// # Errors
/// When it was a run in the background: that is gone on with, not ended by the way.
pub(crate) async fn clear_left_behind(folders: &ProjectFolders) -> Result<Option<String>, RunError> {
    let cgroups = Cgroups::new(Layout::probe(Path::new("/")), &cgroup_name(folders));
    let agents = agents_in(&cgroups);
    if agents.is_empty() {
        return Ok(None);
    }
    if is_unfinished(&folders.root()) {
        return Err(RunError::LeftBehind { project: folders.project.clone(), agents });
    }
    kill_groups(cgroup_name(folders)).await;
    Ok(Some(format!(
        "an earlier run was killed with its keeper; what was left of {} is ended",
        names(&agents)
    )))
}

/// The agents that have processes.
pub(crate) fn agents_in(cgroups: &Cgroups) -> Vec<AgentName> {
    let has_processes = |project: &Name, agent: &Name| !Group::open(cgroups, project, agent).is_empty();
    let named = cgroups.agents().into_iter();
    let named =
        named.filter_map(|(project, agent)| Some((Name::new(&project).ok()?, Name::new(&agent).ok()?)));
    named.filter(|(project, agent)| has_processes(project, agent)).map(|(_, agent)| agent).collect()
}

/// The projects whose last run was to go on without whoever began it, and has not ended.
pub fn unfinished(state_dir: &Path) -> Vec<ProjectName> {
    let entries = state_dir.join("projects").read_dir().into_iter().flatten().flatten();
    let goes_on = entries.filter(|entry| is_unfinished(&entry.path()));
    let mut names: Vec<ProjectName> =
        goes_on.filter_map(|entry| ProjectName::new(entry.file_name().to_str()?).ok()).collect();
    names.sort();
    names
}
