//! A run without an end in its journal and without a process that drives it: its daemon was ended, its own process was killed, or
//! the machine stopped. `toka down` ends it here, under the project's lock, so that no daemon goes on with it. The agents of a run in
//! the foreground that was killed are ended by its keeper; here only the end is written down.

use std::collections::BTreeSet;
use std::path::Path;

use toka_api::socket::{foreground, is_awaited};
use toka_core::event::Usage;
use toka_core::{AgentName, Event, EventKind, Exit, ExitCode, ProjectName, RunId, RunStatus};
use toka_prepare::folders::{ProjectFolders, group_name, journal_in, lock_in, root_in};
use toka_prepare::lock::{self, ProjectLock};
use toka_prepare::{FolderError, RunError};
use toka_sandbox::Cgroups;
use toka_sandbox::cgroup::Layout;

use crate::journal::{Journal, Stamp};
use crate::keeper::keeper_socket;
use crate::replay::ReplayedRun;
use crate::run_files::{is_open, is_unfinished, last_run, lives_of_last_run, remove_run_folder};
use crate::takeover::agents_in;

/// Ends the last run of a project when no process drives it; whether there was such a run. `by` says who asks, for the journal. Of
/// a run in the foreground whose keeper was killed too, this kills what is left in its control groups.
///
/// # Errors
/// When a process drives the run, agents of a run in the background still run, or the journal cannot be written.
pub async fn end_unattended(
    (state_dir, run_dir): (&Path, &Path),
    project: &ProjectName,
    by: &str,
) -> Result<bool, RunError> {
    let root = root_in(state_dir, project);
    if !is_open(&root) {
        return Ok(false);
    }
    let real = root
        .canonicalize()
        .map_err(|source| RunError::Folder(FolderError { what: "resolve", path: root.clone(), source }))?;
    let _lock = ProjectLock::take(&lock_in(&root), last_run(&root)?.0).map_err(RunError::Lock)?;
    // From here on nobody else begins or ends one.
    if !is_open(&root) {
        return Ok(false);
    }
    let (run, past) = last_run(&root)?;
    let agents = alive(&real, project, || Ok(past.clone()))?;
    match (agents.is_empty(), is_unfinished(&root)) {
        (true, _) => {}
        (false, true) => {
            return Err(RunError::LeftBehind {
                project: project.clone(),
                agents: agents.into_iter().collect(),
            });
        }
        (false, false) => toka_keeper::kill_groups(group_name(&real)).await,
    }
    // A run in the foreground ended when its process was killed, whoever asks for it now.
    let by = is_unfinished(&root).then_some(by);
    write_end(&root, (project, run, &past), by).await?;
    // Commands take a project with a keeper's socket for one that runs.
    remove_run_folder(&run_dir.join(project.as_str()));
    Ok(true)
}

/// Writes the end of the project's last run into its journal, if that was a run in the foreground whose process was killed before it
/// could. To be called under the project's lock.
///
/// # Errors
/// When its journal cannot be read or written.
pub(crate) async fn end_killed(folders: &ProjectFolders) -> Result<(), RunError> {
    let root = folders.root();
    if !is_open(&root) || is_unfinished(&root) {
        return Ok(());
    }
    let (run, past) = last_run(&root)?;
    write_end(&root, (&folders.project, run, &past), None).await
}

/// Writes an end with an unknown status for each agent that has none in the journal, and the end of the run. `by` is who asked for
/// it; none when its process was killed.
async fn write_end(
    root: &Path,
    (project, run, past): (&ProjectName, RunId, &[Event]),
    by: Option<&str>,
) -> Result<(), RunError> {
    let mut status = RunStatus::default();
    past.iter().for_each(|event| status.observe(event));
    let (path, stamp) = (journal_in(root), Stamp { project: project.clone(), run });
    let journal = Journal::open(&path, stamp, Vec::new())
        .map_err(|source| RunError::Journal { path: path.clone(), source })?;
    if let Some(by) = by {
        drop(journal.record(None, EventKind::RunEnding { by: by.to_owned(), end_of: None }));
    }
    for agent in status.agents().iter().filter(|agent| !agent.state.is_final()) {
        let (duration_ms, usage) = (0, Usage::default());
        let ended = EventKind::AgentEnded { exit: Exit::Unknown, duration_ms, usage };
        drop(journal.record(Some(agent.name.clone()), ended));
    }
    let exit_code = if by.is_some() { ExitCode::Terminated as u8 } else { KILLED };
    journal.record(None, EventKind::RunEnded { exit_code }).await;
    drop(journal);
    if is_open(root) {
        let source = std::io::Error::other("it cannot be written");
        return Err(RunError::Journal { path, source });
    }
    Ok(())
}

/// The exit status of a command that was killed with signal 9, as shells have it (128 and the number).
const KILLED: u8 = 137;

/// The projects whose run in the foreground was killed, and whose keeper still ends the agents.
pub fn being_ended(state_dir: &Path, run_dir: &Path) -> Vec<ProjectName> {
    let entries = state_dir.join("projects").read_dir().into_iter().flatten().flatten();
    let kept = entries.filter(|entry| lock::kept(&lock_in(&entry.path())).is_some());
    let mut names: Vec<ProjectName> =
        kept.filter_map(|entry| ProjectName::new(entry.file_name().to_str()?).ok()).collect();
    names.retain(|project| !is_awaited(&keeper_socket(&run_dir.join(project.as_str()))));
    names.sort();
    names
}

/// The projects whose run in the foreground was killed together with its keeper, and whose agents run on.
pub fn left_behind(state_dir: &Path, run_dir: &Path) -> Vec<ProjectName> {
    let runs_on = |project: &ProjectName| {
        let Ok(root) = root_in(state_dir, project).canonicalize() else { return false };
        !lock::is_held(&lock_in(&root))
            && is_open(&root)
            && !is_unfinished(&root)
            && alive(&root, project, || lives_of_last_run(&root)).is_ok_and(|alive| !alive.is_empty())
    };
    // A run that ends removes its socket before it gives its lock back.
    let mut names = foreground(run_dir);
    names.retain(runs_on);
    names
}

/// The agents of a run that have processes, whose project's directory is `root`, without links; `past` is asked only where our groups
/// have none of them.
fn alive(
    root: &Path,
    project: &ProjectName,
    past: impl FnOnce() -> Result<Vec<Event>, RunError>,
) -> Result<BTreeSet<AgentName>, RunError> {
    let cgroups = Cgroups::new(Layout::probe(Path::new("/")), &group_name(root));
    let mut agents: BTreeSet<AgentName> = agents_in(&cgroups).into_iter().collect();
    if agents.is_empty() {
        // Groups lie below that of whoever ran the daemon, which need not be ours; the processes themselves say where they are.
        agents.extend(living(&cgroups, project, &ReplayedRun::of(&past()?)));
    }
    Ok(agents)
}

/// Kills what runs in the control groups of a project, also under its keeper.
pub async fn kill_groups_of(state_dir: &Path, project: &ProjectName) {
    let root = root_in(state_dir, project);
    if let Ok(real) = root.canonicalize() {
        toka_keeper::kill_groups(group_name(&real)).await;
    }
}

/// The agents whose main process the journal tells of and the kernel still has.
fn living(cgroups: &Cgroups, project: &ProjectName, replayed: &ReplayedRun) -> Vec<AgentName> {
    let lives = |agent: &AgentName| {
        let pid = replayed.pid_of(agent)?;
        let groups = toka_keeper::process::text(pid, "cgroup")?;
        (cgroups.owner(&groups)? == (project.to_string(), agent.to_string())).then_some(())
    };
    let agents = replayed.status.agents().iter().map(|agent| agent.name.clone());
    agents.filter(|agent| lives(agent).is_some()).collect()
}
