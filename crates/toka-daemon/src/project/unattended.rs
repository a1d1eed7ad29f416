//! A run that is open, and that nobody drives: its daemon was ended or the machine was. Whoever wants no daemon to go on with
//! it ends it here, under the project's lock.

use std::path::Path;

use toka_core::event::Usage;
use toka_core::{EventKind, Exit, ExitCode, ProjectName, RunStatus};
use toka_sandbox::Cgroups;
use toka_sandbox::cgroup::Layout;

use super::adopt::last_run;
use super::legacy::{agents_in, is_unfinished};
use crate::folders::{LOCK, group_name, journal_in};
use crate::journal::{Journal, Stamp};
use crate::lock::ProjectLock;
use crate::{FolderError, RunError};

/// Ends the open run of a project that nobody drives; whether there was one. `by` says who asks, for the record.
///
/// # Errors
/// When somebody drives it, agents of it still run, or its journal cannot be written.
pub async fn end_unattended(state_dir: &Path, project: &ProjectName, by: &str) -> Result<bool, RunError> {
    let root = state_dir.join("projects").join(project.as_str());
    if !is_unfinished(&root) {
        return Ok(false);
    }
    let real = root
        .canonicalize()
        .map_err(|source| RunError::Folder(FolderError { what: "resolve", path: root.clone(), source }))?;
    let _lock = ProjectLock::take(&root.join(LOCK), last_run(&root)?.0).map_err(RunError::Lock)?;
    // From here on nobody else begins or ends one.
    if !is_unfinished(&root) {
        return Ok(false);
    }
    let agents = agents_in(&Cgroups::new(Layout::probe(Path::new("/")), &group_name(&real)));
    if !agents.is_empty() {
        return Err(RunError::LeftBehind { project: project.clone(), agents });
    }
    let (run, past) = last_run(&root)?;
    let mut status = RunStatus::default();
    past.iter().for_each(|event| status.observe(event));
    let (path, stamp) = (journal_in(&root), Stamp { project: project.clone(), run });
    let journal = Journal::open(&path, stamp, Vec::new())
        .map_err(|source| RunError::Journal { path: path.clone(), source })?;
    drop(journal.record(None, EventKind::RunEnding { by: by.to_owned() }));
    for agent in status.agents().iter().filter(|agent| !agent.state.is_final()) {
        let (duration_ms, usage) = (0, Usage::default());
        let ended = EventKind::AgentEnded { exit: Exit::Unknown, duration_ms, usage };
        drop(journal.record(Some(agent.name.clone()), ended));
    }
    let ended = EventKind::RunEnded { exit_code: ExitCode::Terminated as u8 };
    journal.record(None, ended).await;
    drop(journal);
    if is_unfinished(&root) {
        let source = std::io::Error::other("it cannot be written");
        return Err(RunError::Journal { path, source });
    }
    Ok(true)
}
