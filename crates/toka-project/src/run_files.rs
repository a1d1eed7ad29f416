//! The files of a project that say which run there is: its directories, the journal, the declaration beside it, and the directory of
//! sockets and secrets that lives as long as the run.

use std::io;
use std::path::{Path, PathBuf};

use toka_api::declaration::Declaration;
use toka_core::{Event, EventKind, RunId};
use toka_prepare::folders::{ProjectFolders, journal_in};
use toka_prepare::{FolderError, RunError, workplace};
use toka_store::{Filter, Reader, Run};
use toka_workstream::Agent;
use tokio::sync::mpsc;

use crate::journal::{Journal, Stamp};

/// Makes the project's folders, and gives their names without links.
pub(crate) fn settle(mut folders: ProjectFolders) -> Result<ProjectFolders, FolderError> {
    for folder in [&folders.root(), &folders.run_dir] {
        workplace::make_private(folder)?;
    }
    for folder in [&folders.state_dir, &folders.run_dir, &folders.root()] {
        workplace::must_be_own(folder)?;
    }
    folders.state_dir = resolve(&folders.state_dir)?;
    folders.run_dir = resolve(&folders.run_dir)?;
    Ok(folders)
}

fn resolve(path: &Path) -> Result<PathBuf, FolderError> {
    path.canonicalize().map_err(|source| FolderError { what: "resolve", path: path.to_owned(), source })
}

/// Its journal, for one run.
pub(crate) fn open_journal(
    folders: &ProjectFolders,
    run: RunId,
    listeners: Vec<mpsc::UnboundedSender<Event>>,
) -> Result<Journal, RunError> {
    let (path, stamp) = (folders.journal(), Stamp { project: folders.project.clone(), run });
    Journal::open(&path, stamp, listeners).map_err(|source| RunError::Journal { path, source })
}

/// Keeps what was declared beside the journal.
pub(crate) fn keep(
    declaration: &Declaration,
    folders: &ProjectFolders,
    agents: &[Agent],
) -> Result<(), RunError> {
    let path = folders.declaration();
    declaration
        .keep(&path, agents)
        .map_err(|source| RunError::Folder(FolderError { what: "write", path, source }))
}

/// That a run cannot be gone on with.
pub(crate) fn unreadable(root: &Path, why: &str) -> RunError {
    let source = io::Error::other(why.to_owned());
    RunError::Folder(FolderError { what: "go on with", path: root.to_owned(), source })
}

/// The run that was begun last, and all that happened in it.
pub(crate) fn last_run(root: &Path) -> Result<(RunId, Vec<Event>), RunError> {
    let path = journal_in(root);
    let mut reader = Reader::new(&path);
    let read = reader.runs(1).and_then(|runs| match runs.first() {
        Some(run) => Ok(Some((run.id, reader.events_of_run(run.id)?))),
        None => Ok(None),
    });
    match read {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(unreadable(root, "its journal knows of no run")),
        Err(error) => Err(RunError::Journal { path, source: io::Error::other(error.to_string()) }),
    }
}

/// What says which processes the agents of the run have that was begun last, and nothing else: a run may have had a million events.
pub(crate) fn lives_of_last_run(root: &Path) -> Result<Vec<Event>, RunError> {
    let path = journal_in(root);
    let types = [
        "run_started",
        "run_changed",
        "agent_starting",
        "agent_started",
        "agent_main_process",
        "agent_ended",
        "agent_restarting",
        "agent_quarantined",
    ];
    let mut reader = Reader::new(&path);
    let read = reader.runs(1).and_then(|runs| match runs.first() {
        Some(run) => {
            let types = types.map(str::to_owned).to_vec();
            reader.events(0, &Filter { run: Some(run.id), types, agent: None }, usize::MAX)
        }
        None => Ok(Vec::new()),
    });
    read.map_err(|error| RunError::Journal { path, source: io::Error::other(error.to_string()) })
}

/// The run that was begun last; none when the journal cannot be read.
fn newest(reader: &mut Reader) -> Option<Run> {
    reader.runs(1).ok()?.into_iter().next()
}

/// Whether the last run in a project's folder has ended.
pub(crate) fn has_ended(root: &Path) -> bool {
    newest(&mut Reader::new(journal_in(root))).is_some_and(|run| run.ended.is_some())
}

/// Whether the journal of a project's folder has a last run without an end.
pub(crate) fn is_open(root: &Path) -> bool {
    newest(&mut Reader::new(journal_in(root))).is_some_and(|run| run.ended.is_none())
}

/// Whether the last run in a project's folder was to go on without whoever began it, and has not ended.
pub fn is_unfinished(root: &Path) -> bool {
    let mut reader = Reader::new(journal_in(root));
    let Some(run) = newest(&mut reader).filter(|run| run.ended.is_none()) else { return false };
    let beginning = Filter { run: Some(run.id), types: vec!["run_started".to_owned()], agent: None };
    let first = reader.events(0, &beginning, 1);
    let kind = first.ok().and_then(|events| events.into_iter().next()).map(|event| event.kind);
    matches!(kind, Some(EventKind::RunStarted { detached: true, .. }))
}

/// Where its sockets and secrets are.
pub(crate) fn run_folder(folders: &ProjectFolders) -> PathBuf {
    folders.run_dir.join(folders.project.as_str())
}

/// The folder of a run's sockets and secrets, removed when it is dropped.
pub(crate) struct RunFolder(pub(crate) PathBuf);

impl Drop for RunFolder {
    fn drop(&mut self) {
        remove_run_folder(&self.0);
    }
}

/// Removes the folder of sockets and secrets, all of which are gone by now.
pub(crate) fn remove_run_folder(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "not removed");
    }
}
