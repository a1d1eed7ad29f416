//! A project's keeper: what it is started with, what it holds for the next daemon, and what it says that is not about one
//! agent.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toka_core::EventKind;
use toka_keeper::{HostLook, Keeper, KeeperError, KeeperEvent, KeeperOptions, Outlive};
use toka_orchestration::Lifetime;
use toka_prepare::folders::ProjectFolders;
use toka_prepare::lock::ProjectLock;
use tokio::sync::mpsc;

use crate::Project;
use crate::journal::Journal;
use crate::run_files::run_folder;

/// Under which name the keeper holds the project's lock.
const LOCK: &str = "lock";

/// How the keeper of a run is started, the first as well as one that takes over.
pub(crate) fn keeper_options(
    (folders, toka_exe): (&ProjectFolders, &Path),
    host: Option<&HostLook>,
    short: Option<&Path>,
    lifetime: Lifetime,
) -> KeeperOptions {
    let run_folder = run_folder(folders);
    let outlive = match lifetime {
        Lifetime::UntilDone | Lifetime::UntilTasksEnd => Outlive::EndWithDaemon,
        Lifetime::UntilStopped => Outlive::Listen { socket: keeper_socket(&run_folder) },
    };
    KeeperOptions {
        program: toka_exe.to_owned(),
        host: host.cloned(),
        cgroup_name: cgroup_name(folders),
        // Of a run that is killed, sockets and secrets shall not stay until the next one.
        leftovers: [Some(run_folder.as_path()), short].into_iter().flatten().map(Path::to_owned).collect(),
        outlive,
        adopt: Vec::new(),
    }
}

/// Where the keeper of a run waits for its next daemon.
pub(crate) fn keeper_socket(run_folder: &Path) -> PathBuf {
    run_folder.join(toka_api::socket::KEEPER)
}

/// Gives the keeper what the next daemon must have: the lock.
///
/// # Errors
/// When it does not take it.
pub(crate) fn hand_over_lock(
    keeper: &Keeper,
    lock: &ProjectLock,
) -> impl Future<Output = Result<(), KeeperError>> + use<> {
    let (keeper, duplicate) = (keeper.clone(), lock.duplicate());
    async move {
        let duplicate = duplicate.map_err(|error| KeeperError::Refused(error.to_string()))?;
        keeper.hold(None, LOCK, vec![duplicate]).await
    }
}

/// The lock that the keeper held for us; `None` when it had just taken over, and nobody had given it.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn take_back_lock(keeper: &Keeper) -> Result<Option<OwnedFd>, KeeperError> {
    let held = keeper.hand_back(None).await?;
    Ok(held.into_iter().find(|(name, _)| name == LOCK).map(|(_, fd)| fd))
}

/// Passes on what a keeper says about agents. That another has taken over goes into the journal.
pub(crate) fn forward_events(
    mut events: mpsc::UnboundedReceiver<KeeperEvent>,
    journal: &Arc<Journal>,
) -> mpsc::UnboundedReceiver<KeeperEvent> {
    let (passed_on, received) = mpsc::unbounded_channel();
    let journal = Arc::downgrade(journal);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let (KeeperEvent::Succeeded { pid }, Some(journal)) = (&event, journal.upgrade()) {
                drop(journal.record(None, EventKind::KeeperSucceeded { pid: *pid }));
            }
            // Whoever listened is gone when the run is over.
            let _ = passed_on.send(event);
        }
    });
    received
}

impl Project {
    /// Gives a keeper that has taken over what the former one held of ours.
    pub(crate) fn entrust_again(&mut self) {
        let entrusting = hand_over_lock(&self.keeper, &self.lock);
        self.writes.spawn(async move {
            if let Err(error) = entrusting.await {
                tracing::warn!(%error, "a new keeper has not taken the project's lock");
            }
        });
    }
}

/// Name of the control group that the agents of a project lie in, the same for each of its runs.
pub(crate) fn cgroup_name(folders: &ProjectFolders) -> String {
    toka_prepare::folders::group_name(&folders.root())
}
