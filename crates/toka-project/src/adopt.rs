//! A daemon goes on with a run that another began and did not end: it was killed, or another takes its place. The keeper has
//! the agents, their pipes and the project's lock ([`super::takeover`] when it was killed too); the journal tells what was known
//! of them; the declaration what they are. Nothing is started twice, and whatever ended meanwhile is told with its true
//! status.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toka_api::declaration::{Declaration, Parsed};
use toka_core::event::Awaits;
use toka_core::{AgentName, AgentState, Event, EventKind, ProjectName, RunId};
use toka_keeper::protocol::{Attach, Entry, State};
use toka_keeper::{Keeper, KeeperError, LISTENER, NOTIFICATION, ProcessId};
use toka_orchestration::{Lifetime, RunState};
use toka_prepare::folders::{ProjectFolders, journal_in, root_in};
use toka_prepare::furnishing::Furnishing;
use toka_prepare::{FolderError, Models, RunError, secrets};
use toka_runtime::{AdoptedProcess, Restarts, Runtime};
use toka_sandbox::HostFacts;
use toka_workstream::{Plan, Set};
use tokio::sync::mpsc;
use tracing::{Instrument as _, Span};

use crate::admit::{Furnishings, RunContext, models_of};
use crate::approvals::{broker, host_grants};
use crate::assemble::Parts;
use crate::interrupted::RECOVERY;
use crate::keeper::{forward_events, keeper_options, keeper_socket};
use crate::member::{Ids, Member, MemberBuilder};
use crate::open_calls::OpenCalls;
use crate::openings::{self, Openings};
use crate::queue::Queue;
use crate::replay::ReplayedRun;
use crate::run_files::{
    RunFolder, has_ended, is_unfinished, last_run, open_journal, run_folder, settle, unreadable,
};
use crate::schedule::last_seen;
use crate::takeover::{Takeover, orphans, populate};
use crate::{Opened, Project, SocketDirs};

/// How often a keeper may go while it is being attached to: all that it listens with goes with it, so the second try finds
/// nobody there.
const TRIES: usize = 3;

/// Where a run may be that another daemon began.
#[derive(Debug, Clone)]
pub struct AdoptOptions {
    /// The project.
    pub project: ProjectName,
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// Where sockets and secrets are.
    pub run_dir: PathBuf,
    /// The `toka` binary.
    pub toka_exe: PathBuf,
}

impl Project {
    /// Goes on with a run that nobody looks after; `None` when there is none.
    ///
    /// # Errors
    /// When its keeper is there and cannot be talked to, none can be started, or what the run was declared to be cannot be
    /// read: its agents run on.
    pub async fn adopt(options: AdoptOptions) -> Result<Option<Opened>, RunError> {
        let span = tracing::info_span!("run", project = %options.project, run = tracing::field::Empty);
        for _ in 1..TRIES {
            match Self::take_over(options.clone(), span.clone()).instrument(span.clone()).await {
                // It was killed together with its daemon, and could still be reached while the kernel took it down.
                Err(RunError::Keeper(KeeperError::Gone)) => {}
                done => return done,
            }
        }
        Self::take_over(options, span.clone()).instrument(span).await
    }

    async fn take_over(options: AdoptOptions, span: Span) -> Result<Option<Opened>, RunError> {
        let root = root_in(&options.state_dir, &options.project);
        let socket = keeper_socket(&options.run_dir.join(options.project.as_str()));
        let mut attached = match Keeper::attach(&socket, Attach::IfFree).await {
            Err(KeeperError::NotThere { .. }) if !is_unfinished(&root) => return Ok(None),
            Err(KeeperError::NotThere { .. }) => None,
            attached => Some(attached.map_err(RunError::Keeper)?),
        };
        // Its daemon was killed between two runs.
        if let Some(attached) = attached.take_if(|_| has_ended(&root)) {
            attached.keeper.shutdown().await;
            return Ok(None);
        }
        let declaration = read_declaration(&root)?;
        let Parsed { set, plan, .. } =
            declaration.parse().map_err(|_| unreadable(&root, "its workstreams have errors now"))?;
        let (run, past) = last_run(&root)?;
        span.record("run", tracing::field::display(run));
        let asks = |agent: &AgentName| set.agent(agent).is_some_and(|it| it.confinement.asks_paths.is_some());
        let (openings, denials) = openings::recall(&past, asks);
        let context = RunContext { openings, ..context(&options, (&declaration, &set), run).await? };
        let mut replayed = ReplayedRun::of(&past);
        let folders = &context.folders;
        let mut doors = SocketDirs::of(run_folder(folders));
        let (set, plan, mut admitted) = context.admit_each((set, plan), &mut doors).await?;
        let heir = keeper_options((folders, &context.toka_exe), None, doors.short(), Lifetime::UntilStopped);
        let Takeover { keeper, events: keeper_events, holdings, lock } = match attached {
            Some(attached) => Takeover::kept(attached, &heir, folders, run).await?,
            None => {
                populate(&mut admitted, &replayed, &context.caller);
                let found =
                    Takeover::found(heir, folders, run, orphans(&admitted, &replayed, folders)).await?;
                // Somebody may have ended it while nobody had its lock.
                if !is_unfinished(&root) {
                    found.keeper.shutdown().await;
                    return Ok(None);
                }
                found
            }
        };
        let (seen, events) = mpsc::unbounded_channel();
        // The last that can fail: what is found from here on is removed when it is dropped.
        let journal = Arc::new(open_journal(folders, run, vec![seen])?);
        // A keeper that was killed with its daemon takes its numbers along, but for those in the journal.
        let used = holdings.iter().map(|entry| entry.id).max().unwrap_or(ProcessId(0));
        let used = used.max(ProcessId(replayed.last_exec));
        let runtime = Runtime::outlived(keeper.clone(), Arc::clone(&journal) as Arc<_>, used);
        let queue = Queue::new(declaration.pressure, &journal);
        let runtime = runtime.admitting(queue.gate());
        let log_retention = crate::logs::log_retention(&folders.state_dir);
        let broker = broker(&journal);
        broker.configure(
            declaration.models.budgets,
            declaration.models.approvals_expire,
            host_grants(&declaration),
        );
        broker.recall(&past);
        let mut open_calls = OpenCalls::of(&past);
        let mut ids = Ids::after(&holdings);
        let mut processes = Processes::of(&keeper, &replayed, holdings).await;
        let mut members = HashMap::with_capacity(set.agents.len());
        let mut builder = MemberBuilder {
            plan: &plan,
            folders,
            journal: &journal,
            runtime: &runtime,
            log_retention: &log_retention,
            run,
            models: &context.models,
            broker: &broker,
            left: Vec::new(),
            resume: declaration.resume.as_ref(),
            ids: &mut ids,
            furnishings: Furnishings::new(),
        };
        let now_ms = crate::now_ms();
        let (state, changed) = recall_state(&plan, &past);
        for (agent, own, admitted) in admitted {
            let (id, process) = processes.take(&agent.name);
            if process.is_some() {
                builder.left = open_calls.take_batches(&agent.name);
            }
            if process.is_some() || !replayed.lacks_folders(&agent.name) {
                builder.furnishings.insert(agent.name.clone(), Arc::new(Furnishing::made()));
            }
            let mut life = replayed.life_of(&agent.name, process, now_ms);
            if !state.may_restart(&plan, &agent.name) {
                life.restarts = Restarts::Held;
            }
            let member: Member = builder.adopt(&agent, own, admitted, id, life);
            know_secrets(&agent.name, &member, &context);
            members.insert(agent.name.clone(), member);
        }
        open_calls.close(&journal);
        for (exec, left) in std::mem::take(&mut replayed.left) {
            let id = ProcessId(exec);
            let command = processes.take_command(id).then(|| runtime.end_left(id));
            left.end(command, &journal);
        }
        processes.end_the_rest(&keeper);
        if let Some(changed) = changed {
            drop(journal.record(None, changed));
        }
        let (mut going_on, begun) = (replayed.interrupted(&set.agents), replayed.begun());
        going_on.retain(|agent, _| !begun.iter().any(|begun| begun.agents.contains(agent)));
        let agents = members.len();
        drop(journal.record(None, EventKind::RunAdopted { agents }));
        runtime.listen(forward_events(keeper_events, &journal));

        let last_seen = last_seen(&journal_in(&root), &set.agents);
        let run_folder = RunFolder(run_folder(&context.folders));
        let parts = Parts {
            declaration,
            state,
            plan,
            status: replayed.status,
            members,
            queue,
            ids,
            runtime,
            log_retention,
            keeper,
            journal,
            broker,
            events,
            doors,
            run_folder,
            lock,
            context,
            span,
        };
        let mut opened = parts.assemble(Lifetime::UntilStopped, &set.agents, &last_seen);
        opened.project.denials = denials;
        opened.project.go_on_with(going_on);
        opened.project.finish_begun(begun);
        opened.project.catch_up_with_approvals();
        opened.project.ask_what_was_not_asked();
        Ok(Some(opened))
    }
}

/// Reads the secrets of a life that goes on once more, so that they are looked for in what leaves. Beside the loop: their disk may not answer.
fn know_secrets(agent: &AgentName, member: &Member, context: &RunContext) {
    if member.secrets.is_empty() {
        return;
    }
    let (known, agent) = (Arc::clone(context.models.secrets()), agent.clone());
    let (secrets, caller) = (Arc::clone(&member.secrets), Arc::clone(&context.caller));
    let workspace = context.folders.workspace.clone();
    tokio::task::spawn_blocking(move || {
        // One that is not there any more is found by nobody.
        if let Ok(values) = secrets::values(&secrets, &caller, &workspace) {
            known.set(&agent, &values);
        }
    });
}

fn read_declaration(root: &Path) -> Result<Declaration, RunError> {
    let path = root.join(toka_prepare::folders::DECLARATION);
    Declaration::read(&path).map_err(|source| RunError::Folder(FolderError { what: "read", path, source }))
}

async fn context(
    options: &AdoptOptions,
    (declaration, set): (&Declaration, &Set),
    run: RunId,
) -> Result<RunContext, RunError> {
    let mut caller = declaration.caller();
    // Keys are written to no disk: what this daemon was started with is all that is left.
    for name in Models::variables(&declaration.models) {
        if let Some(value) = std::env::var_os(name) {
            caller.environment.entry(name.into()).or_insert(value);
        }
    }
    let folders = settle(ProjectFolders {
        state_dir: options.state_dir.clone(),
        run_dir: options.run_dir.clone(),
        project: options.project.clone(),
        workspace: declaration.workspace.clone(),
        user_home: caller.home.clone(),
    });
    let (folders, caller) = (folders.map_err(RunError::Folder)?, Arc::new(caller));
    let models = models_of((declaration, set), &caller, &folders).await?;
    Ok(RunContext {
        folders,
        run,
        caller,
        models,
        policy: declaration.policy.clone(),
        toka_exe: options.toka_exe.clone(),
        host: Arc::new(HostFacts::probe()),
        openings: Openings::default(),
    })
}

/// What the orchestration knows, from all that happened; and the change of the run that was declared and not told any more.
fn recall_state(plan: &Plan, past: &[Event]) -> (RunState, Option<EventKind>) {
    let mut state = RunState::new(plan, Lifetime::UntilStopped);
    // Who was given up was told so. Of the others, those may begin anew that they wait for: before the first decision is
    // taken, it is known which do.
    state.hold();
    state.replay(true);
    let mut last: BTreeSet<&AgentName> = BTreeSet::new();
    for event in past {
        match (&event.agent, &event.kind) {
            (Some(agent), kind) if plan.position(agent).is_some() => {
                if let Err(error) = state.observe(plan, agent, kind) {
                    tracing::debug!(%agent, %error, "an event of the past does not fit");
                }
            }
            (None, EventKind::RunStarted { agents, .. }) => last = agents.iter().collect(),
            (None, EventKind::RunEnding { end_of: Some(agent), .. }) => state.end_with(agent),
            (None, EventKind::RunEnding { by, end_of: None }) => state.request_stop(by),
            (None, EventKind::RunChanged { agents, changed, added, .. }) => {
                last = agents.iter().collect();
                // As when it was done: one that waits for the clock, or for a person, waits for that again. One that is added may have
                // been there before, and have ended then.
                for agent in changed.iter().chain(added).filter(|agent| plan.position(agent).is_some()) {
                    let _ = state.requeue(plan, agent, Awaits::Clock);
                }
            }
            _ => {}
        }
    }
    state.replay(false);
    let now: Vec<AgentName> = plan.nodes().iter().map(|node| node.agent.clone()).collect();
    let added: Vec<AgentName> = now.iter().filter(|agent| !last.contains(agent)).cloned().collect();
    let removed: Vec<AgentName> =
        last.iter().filter(|agent| plan.position(agent).is_none()).map(|agent| (*agent).clone()).collect();
    let differs = !added.is_empty() || !removed.is_empty();
    let (changed, adjusted) = (Vec::new(), Vec::new());
    let by = RECOVERY.to_owned();
    let changed = EventKind::RunChanged { by, agents: now, added, changed, adjusted, removed };
    (state, differs.then_some(changed))
}

/// The processes that the keeper has of the agents.
struct Processes {
    of: BTreeMap<AgentName, (ProcessId, AdoptedProcess)>,
    /// Those that belong to no life that goes on: probes, hooks and checks of the former daemon.
    rest: Vec<ProcessId>,
}

impl Processes {
    async fn of(keeper: &Keeper, replayed: &ReplayedRun, mut holdings: Vec<Entry>) -> Self {
        let mut processes = Self { of: BTreeMap::new(), rest: Vec::new() };
        holdings.sort_by_key(|entry| entry.id);
        for entry in holdings {
            let Ok(agent) = AgentName::new(&entry.agent) else { continue };
            let state = replayed.status.agent(&agent).map(|status| status.state.clone());
            if !is_life(&entry, state.as_ref()) {
                processes.rest.push(entry.id);
                continue;
            }
            let process = take_back(keeper, &entry).await;
            if let Some((older, _)) = processes.of.insert(agent, (entry.id, process)) {
                processes.rest.push(older);
            }
        }
        processes
    }

    fn take(&mut self, agent: &AgentName) -> (Option<ProcessId>, Option<AdoptedProcess>) {
        self.of.remove(agent).map_or((None, None), |(id, process)| (Some(id), Some(process)))
    }

    /// Whether the keeper has this command; somebody sees to its end then.
    fn take_command(&mut self, id: ProcessId) -> bool {
        let before = self.rest.len();
        self.rest.retain(|rest| *rest != id);
        self.rest.len() < before
    }

    fn end_the_rest(self, keeper: &Keeper) {
        let unknown = self.of.into_values().map(|(id, _)| id);
        for id in self.rest.into_iter().chain(unknown) {
            keeper.kill(id);
            keeper.settled(id);
        }
    }
}

/// Whether a process is the agent's life that the journal speaks of.
fn is_life(entry: &Entry, state: Option<&AgentState>) -> bool {
    if entry.beside.is_some() || matches!(entry.state, State::NotStarted(_)) {
        return false;
    }
    matches!(
        state,
        Some(
            AgentState::Starting
                | AgentState::Running { .. }
                | AgentState::Paused { .. }
                | AgentState::Stopping { .. }
        )
    )
}

async fn take_back(keeper: &Keeper, entry: &Entry) -> AdoptedProcess {
    let mut held: BTreeMap<String, Vec<OwnedFd>> = BTreeMap::new();
    match keeper.hand_back(entry.id).await {
        Ok(all) => all.into_iter().for_each(|(name, fd)| held.entry(name).or_default().push(fd)),
        Err(error) => tracing::warn!(agent = %entry.agent, %error, "its pipes were not handed back"),
    }
    let mut take = |name: &str| held.remove(name).unwrap_or_default();
    let pipes = match (take("stdout").pop(), take("stderr").pop()) {
        (Some(stdout), Some(stderr)) => Some([stdout, stderr]),
        _ => None,
    };
    AdoptedProcess {
        pid: entry.pid,
        enforcement: entry.enforcement.clone(),
        pipes,
        notification: take(NOTIFICATION).pop(),
        listeners: take(LISTENER),
        is_frozen: entry.state == State::Frozen,
    }
}

#[cfg(test)]
mod tests {
    use toka_core::{Exit, Name};
    use toka_orchestration::{Limits, next_actions};

    use super::*;

    #[test]
    fn nobody_is_given_up_because_of_one_that_has_begun_anew_since() {
        let text = "metadata: {name: a}\nspec: {process: {command: [x]}}\n---\nmetadata: {name: b}\n\
            spec: {process: {command: [x]}}\ndependencies: {required: {a: {reason: r, condition: completed_successfully}}}\n";
        let file = toka_api::declaration::SourceFile { path: "/w/all.yaml".into(), text: text.into() };
        let declaration = Declaration::of_files("/w".as_ref(), vec![file]);
        let plan = declaration.parse().unwrap_or_else(|found| panic!("{:?}", found.diagnostics)).plan;
        let name = |text: &str| Name::new(text).expect("a label");
        let stopped = Exit::stopped("operator");
        let told = [
            EventKind::AgentStarting,
            EventKind::AgentEnded { exit: stopped, duration_ms: 1, usage: Default::default() },
            EventKind::AgentRequeued { by: "operator".into(), awaits: Default::default() },
        ];
        let event = |(seq, kind)| Event {
            seq,
            time_ms: 1,
            project: name("p"),
            run: RunId::from_uuid(uuid::Uuid::nil()),
            agent: Some(name("a")),
            kind,
        };
        let past: Vec<Event> = (1..).zip(told).map(event).collect();
        let next = |past: &[Event]| {
            let (mut state, _) = recall_state(&plan, past);
            state.release(&plan);
            next_actions(&plan, &state, &Limits::default())
        };
        assert_eq!(next(&past), [toka_orchestration::Action::Start(name("a"))]);
        let next = next(&past[..2]);
        let [toka_orchestration::Action::Block { agent, by, .. }] = next.as_slice() else {
            panic!("{next:?}")
        };
        assert_eq!((agent, by), (&name("b"), &name("a")), "it has ended, and nobody has begun it again");
    }
}
