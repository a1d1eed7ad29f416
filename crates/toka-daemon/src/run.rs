//! One run from its options to its summary, as one straight function:
//!
//! 1. make the project's folders, take its lock;
//! 2. admit every agent, or refuse the run with every problem of every agent;
//! 3. make the agents' folders and doors;
//! 4. open the journal, see that there is room to write, start the keeper, make the actors;
//! 5. drive the run to its end;
//! 6. let the keeper end, close the journal, remove what was made for the run alone.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toka_core::{AgentName, Event, EventKind, RunId};
use toka_keeper::{Keeper, KeeperEvent, KeeperOptions, ProcessId};
use toka_runtime::door::DoorFolder;
use toka_runtime::output::LogPlace;
use toka_runtime::{Hooks, Launch, Profile, Runtime, StopPolicy};
use toka_sandbox::{AgentFolders, HostFacts};
use toka_workstream::{Agent, Hook, Plan};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::admission::{Admitted, Context, admit};
use crate::confine::Confiner;
use crate::driver::{Driver, Member};
use crate::exam::{Exam, Examiner, Proctor, Question};
use crate::folders::ProjectFolders;
use crate::journal::{Journal, Stamp};
use crate::lock::ProjectLock;
use crate::logs;
use crate::objectives::{Check, are_ignored, checks};
use crate::sweeper::Private;
use crate::users::Users;
use crate::workplace::Grounds;
use crate::{
    AgentSummary, Caller, FolderError, Problem, RunCommand, RunError, RunOptions, RunSummary, room,
    task_list, workplace,
};

/// How long the keeper may take to end once every agent has.
const KEEPER_END: std::time::Duration = std::time::Duration::from_secs(5);

/// Runs to the end: until every task has ended and the services are stopped, or until `commands` says so. Everything
/// that happens is sent to `events`, in the order of the journal.
///
/// # Errors
/// When nothing could be started. What goes wrong later is an event, and shows in the summary.
#[tracing::instrument(skip_all, fields(project = %options.project, run = tracing::field::Empty))]
pub async fn run(
    options: RunOptions,
    commands: mpsc::Receiver<RunCommand>,
    events: mpsc::UnboundedSender<Event>,
) -> Result<RunSummary, RunError> {
    let caller = Arc::new(Caller::of_this_process());
    let id = RunId::from_uuid(Uuid::now_v7());
    tracing::Span::current().record("run", tracing::field::display(id));
    let folders = settle(options.folders(&caller)).map_err(RunError::Folder)?;
    let lock = ProjectLock::take(&folders.lock(), id).map_err(RunError::Lock)?;
    // What a run left that was killed: sockets, secrets.
    remove_run_folder(&folders);
    // However this one ends, its own go before the lock does, and the doors in it along.
    let run_folder = RunFolder(&folders);
    let (doors, admitted) = admit_all(&options, &folders, &caller, id)?;
    let admitted = set_up(admitted).await.map_err(RunError::Folder)?;

    let (seen, own_events) = mpsc::unbounded_channel();
    let journal = open_journal(&folders, id, vec![events, seen])?;
    room::find(&folders.root(), &folders.run_dir, admitted.len()).map_err(RunError::Folder)?;
    let (keeper, keeper_events) = lock.shared_with_child(start_keeper(&options, &folders, &doors)).await?;
    let agents: Vec<AgentName> = options.plan.nodes().iter().map(|node| node.agent.clone()).collect();
    let workspace = folders.workspace.to_string_lossy().into_owned();
    journal.record(None, EventKind::RunStarted { workspace, agents }).await;

    let journal = Arc::new(journal);
    let members = employ(&options, &folders, id, admitted, &journal, (keeper.clone(), keeper_events));
    let RunOptions { set, plan, max_concurrent, .. } = options;
    let titles = set.agents.into_iter().map(|agent| (agent.name, agent.title)).collect();
    let mut driver = Driver::new(plan, caller, members, max_concurrent);
    driver.drive(own_events, commands).await;

    let exit_code = driver.exit_code();
    let agents = summaries(&driver, titles, &folders);
    drop(driver);
    // It ends by itself when the last handle is gone; a keeper that hangs must not keep the terminal.
    let _ = tokio::time::timeout(KEEPER_END, keeper.shutdown()).await;
    journal.record(None, EventKind::RunEnded { exit_code: exit_code as u8 }).await;
    drop(run_folder);
    drop(doors);
    drop(lock);
    Ok(RunSummary { exit_code, run: id, agents })
}

/// Makes the project's folders, and gives their names without links.
fn settle(mut folders: ProjectFolders) -> Result<ProjectFolders, FolderError> {
    for folder in [&folders.root(), &folders.run_dir] {
        workplace::make_private(folder)?;
    }
    folders.state_dir = resolve(&folders.state_dir)?;
    folders.run_dir = resolve(&folders.run_dir)?;
    Ok(folders)
}

fn resolve(path: &Path) -> Result<PathBuf, FolderError> {
    path.canonicalize().map_err(|source| FolderError { what: "resolve", path: path.to_owned(), source })
}

type AdmittedAgents = Vec<(AgentName, Admitted)>;

/// Finds a place for every agent's door, and admits them all.
#[tracing::instrument(name = "admission", skip_all, fields(agents = options.set.agents.len()))]
fn admit_all(
    options: &RunOptions,
    folders: &ProjectFolders,
    caller: &Caller,
    run: RunId,
) -> Result<(Doors, AdmittedAgents), RunError> {
    let host = HostFacts::probe();
    let files: Vec<PathBuf> =
        options.set.files.iter().map(|file| file.canonicalize().unwrap_or_else(|_| file.clone())).collect();
    let users = Users::of(agents(options), &options.project);
    let (project, toka_exe) = (&options.project, options.toka_exe.as_path());
    let confiner = Confiner { host: &host, project, toka_exe, files: &files, users: &users };
    let context =
        Context { plan: &options.plan, policy: &options.policy, caller, project: folders, confiner, run };
    let mut doors = Doors::default();
    let (mut admitted, mut problems): (AdmittedAgents, Vec<Problem>) = Default::default();
    for agent in agents(options) {
        let mut own = folders.of(agent, &options.plan);
        doors.make(&mut own, admitted.len() as u64).map_err(RunError::Folder)?;
        match admit(agent, own, context) {
            Ok(agent_admitted) => admitted.push((agent.name.clone(), agent_admitted)),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok((doors, admitted)) } else { Err(RunError::Refused(problems)) }
}

/// The agents in the order of the plan.
fn agents(options: &RunOptions) -> impl Iterator<Item = &Agent> {
    options.plan.nodes().iter().filter_map(|node| options.set.agent(&node.agent))
}

/// The doors of a run, removed with it, and the short folder of those whose paths would be too long.
#[derive(Debug, Default)]
struct Doors {
    doors: Vec<DoorFolder>,
    short: Option<PathBuf>,
}

impl Doors {
    fn make(&mut self, folders: &mut AgentFolders, number: u64) -> Result<(), FolderError> {
        let wanted = folders.door.clone();
        let short = || short_folder(&mut self.short);
        let door = DoorFolder::make(&wanted, short, number).map_err(|source| FolderError {
            what: "make",
            path: wanted,
            source,
        })?;
        folders.door = door.path().to_owned();
        self.doors.push(door);
        Ok(())
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.doors.clear();
        if let Some(short) = &self.short {
            let _ = std::fs::remove_dir(short);
        }
    }
}

/// A private folder with a short name, made once: root's in /run, a user's where the system keeps such, or in /tmp.
fn short_folder(made: &mut Option<PathBuf>) -> io::Result<PathBuf> {
    if let Some(folder) = made {
        return Ok(folder.clone());
    }
    let mine = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let base = if nix::unistd::geteuid().is_root() { Some(PathBuf::from("/run")) } else { mine };
    let base = base.filter(|base| base.is_dir()).unwrap_or_else(|| PathBuf::from("/tmp"));
    let folder = nix::unistd::mkdtemp(&base.join("toka-XXXXXX"))?;
    *made = Some(folder.clone());
    Ok(folder)
}

/// Makes the folders of the agents, and gives the agents back.
async fn set_up(admitted: AdmittedAgents) -> Result<AdmittedAgents, FolderError> {
    let work = tokio::task::spawn_blocking(move || {
        admitted.iter().try_for_each(|(_, Admitted { folders, sections, command })| {
            workplace::set_up(folders)?;
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

fn open_journal(
    folders: &ProjectFolders,
    run: RunId,
    listeners: Vec<mpsc::UnboundedSender<Event>>,
) -> Result<Journal, RunError> {
    let (path, stamp) = (folders.journal(), Stamp { project: folders.project.clone(), run });
    Journal::open(&path, stamp, listeners).map_err(|source| RunError::Journal { path, source })
}

async fn start_keeper(
    options: &RunOptions,
    folders: &ProjectFolders,
    doors: &Doors,
) -> Result<(Keeper, mpsc::UnboundedReceiver<KeeperEvent>), RunError> {
    let cgroup_name = format!("toka-{:08x}", fingerprint(&folders.root()));
    // Of a run that is killed, sockets and secrets shall not stay until the next one.
    let leftovers = [Some(run_folder(folders)), doors.short.clone()].into_iter().flatten().collect();
    let options = KeeperOptions { program: options.toka_exe.clone(), cgroup_name, leftovers };
    Keeper::start(&options).await.map_err(RunError::Keeper)
}

/// FNV-1a of the path: names the control group of a project, the same for each of its runs.
fn fingerprint(path: &Path) -> u32 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Makes the actors, and tells what of their declarations is not in force.
fn employ(
    options: &RunOptions,
    folders: &ProjectFolders,
    run: RunId,
    admitted: AdmittedAgents,
    journal: &Arc<Journal>,
    (keeper, keeper_events): (Keeper, mpsc::UnboundedReceiver<KeeperEvent>),
) -> HashMap<AgentName, Member> {
    let runtime = Runtime::new(keeper, keeper_events, Arc::clone(journal) as Arc<_>);
    let archivist = logs::archivist(&folders.state_dir);
    let mut ids = Ids::default();
    let mut members = HashMap::with_capacity(admitted.len());
    for (name, admitted) in admitted {
        let Some(agent) = options.set.agent(&name) else { continue };
        if let Some(message) = not_in_force(agent) {
            drop(journal.record(Some(name.clone()), EventKind::Warning { message }));
        }
        let (private, grounds) = (Private::of(&admitted.folders), Grounds::of(&admitted.folders));
        let log = LogPlace::of_run(folders.log(&name), run, agent.logs, &archivist);
        let working_dir = admitted.folders.working_dir.clone();
        let launch = launch(agent, admitted, ids.next(), log, &options.plan);
        let questions = questions(agent, folders, &mut ids);
        let (handle, proctor) = if questions.is_empty() {
            (runtime.add(launch), None)
        } else {
            let proctor = Arc::new(Proctor::default());
            let (runtime, own) = (runtime.clone(), runtime.clone());
            let (launch, agents_own) = (launch.clone(), launch);
            let exam = Exam { runtime, launch, working_dir, questions, proctor: Arc::clone(&proctor) };
            let examiner = Examiner::new(Arc::clone(journal) as Arc<_>, exam);
            (own.reporting_to(Arc::new(examiner)).add(agents_own), Some(proctor))
        };
        let secrets = agent.secrets.clone().into();
        members.insert(name, Member { handle, private, grounds, secrets, proctor });
    }
    members
}

/// Numbers of processes, unique for the keeper of a run, from 1.
#[derive(Debug, Default)]
struct Ids(u64);

impl Ids {
    fn next(&mut self) -> ProcessId {
        self.0 += 1;
        ProcessId(self.0)
    }
}

fn questions(agent: &Agent, folders: &ProjectFolders, ids: &mut Ids) -> Vec<Question> {
    let question = |check: Check| {
        let log = folders.check_log(&agent.name, check.index);
        Question { check, id: ids.next(), log }
    };
    checks(agent).into_iter().map(question).collect()
}

fn launch(agent: &Agent, admitted: Admitted, id: ProcessId, log: LogPlace, plan: &Plan) -> Launch {
    let Admitted { folders, command, .. } = admitted;
    let limits = &agent.confinement.limits;
    let profile = Profile {
        id,
        name: agent.name.clone(),
        stop: StopPolicy { signal: agent.stop.signal, grace: agent.stop.grace_period },
        restart: agent.restart,
        probes: agent.probes.clone(),
        watchdog: agent.watchdog,
        hooks: hooks(agent),
        timeout: limits.timeout.as_ref().map(|timeout| timeout.value),
        memory: limits.memory.value,
        log,
        door: folders.door,
        tasks: task_list(&agent.tasks),
        awaited_lines: awaited_lines(agent, plan),
    };
    Launch { profile, command }
}

fn hooks(agent: &Agent) -> Hooks {
    let commands = |hooks: &[Hook]| hooks.iter().map(|hook| hook.argv.clone()).collect();
    let declared = &agent.hooks;
    Hooks {
        pre_start: commands(&declared.pre_start),
        post_start: commands(&declared.post_start),
        pre_stop: commands(&declared.pre_stop),
        post_stop: commands(&declared.post_stop),
    }
}

/// What dependents and probes wait for in its output.
fn awaited_lines(agent: &Agent, plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> = plan
        .watched_lines(&agent.name)
        .into_iter()
        .chain(agent.probes.awaited_lines())
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

/// What an agent declares, or gets by default, and this version does not do, in one sentence.
fn not_in_force(agent: &Agent) -> Option<String> {
    let parts = [("checks of a service's objectives", are_ignored(agent))];
    let absent: Vec<&str> = parts.iter().filter(|(_, declared)| *declared).map(|(name, _)| *name).collect();
    (!absent.is_empty()).then(|| format!("not in force yet: {}", absent.join(", ")))
}

fn summaries(
    driver: &Driver,
    mut titles: HashMap<AgentName, String>,
    folders: &ProjectFolders,
) -> Vec<AgentSummary> {
    let mut summary = |name: &AgentName| {
        let outcome = driver.outcomes.of(name);
        AgentSummary {
            name: name.clone(),
            title: titles.remove(name).unwrap_or_default(),
            state: outcome.end.unwrap_or(toka_core::AgentState::Pending),
            duration_ms: outcome.duration_ms,
            usage: outcome.usage,
            enforcement: outcome.enforcement,
            log: folders.log(name),
            artifacts: folders.artifacts(name),
        }
    };
    driver.plan.nodes().iter().map(|node| summary(&node.agent)).collect()
}

fn run_folder(folders: &ProjectFolders) -> PathBuf {
    folders.run_dir.join(folders.project.as_str())
}

/// The folder of a run's sockets and secrets, removed when it is dropped.
struct RunFolder<'a>(&'a ProjectFolders);

impl Drop for RunFolder<'_> {
    fn drop(&mut self) {
        remove_run_folder(self.0);
    }
}

/// Removes the folder of sockets and secrets, all of which are gone by now.
fn remove_run_folder(folders: &ProjectFolders) {
    let folder = run_folder(folders);
    if let Err(error) = std::fs::remove_dir_all(&folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "not removed");
    }
}
