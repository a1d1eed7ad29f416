//! From options to a project that is about to run, as one straight function:
//!
//! 1. make the project's folders, take its lock;
//! 2. make the agents' doors, and begin to start the keeper, which takes a while;
//! 3. admit every agent meanwhile, or refuse the run with every problem of every agent;
//! 4. open the journal, see that there is room to write;
//! 5. with the keeper there, make the actors. An agent's folders are made right before its first start.

use std::sync::Arc;

use toka_api::socket::is_awaited;
use toka_core::{AgentName, Event, EventKind, RunId, RunStatus};
use toka_keeper::{Keeper, KeeperError, ProcessId};
use toka_orchestration::{Lifetime, RunState};
use toka_prepare::folders::ProjectFolders;
use toka_prepare::lock::{self, LockError, ProjectLock};
use toka_prepare::{RunError, disk_space, identity};
use toka_runtime::Runtime;
use tokio::sync::mpsc;
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use crate::RunOptions;
use crate::admit::{Furnishings, RunContext, make_doors, models_of, register};
use crate::approvals::{broker, host_grants};
use crate::assemble::Parts;
use crate::handle::ProjectHandle;
use crate::journal::Journal;
use crate::keeper::{forward_events, hand_over_lock, keeper_options, keeper_socket};
use crate::member::{Ids, MemberBuilder, spawn_all};
use crate::openings::Openings;
use crate::queue::Queue;
use crate::run_files::{RunFolder, keep, open_journal, remove_run_folder, run_folder, settle};
use crate::schedule;
use crate::takeover::clear_left_behind;
use crate::unattended::end_killed;
use crate::{Project, SocketDirs};

/// A project that is about to run, and how others reach it.
pub struct Opened {
    /// The project; nothing happens before [`Project::drive`].
    pub project: Project,
    /// What others hold.
    pub handle: ProjectHandle,
}

impl Project {
    /// Makes everything that a run needs. Everything that happens is sent to `listener` too, in the order of the journal.
    ///
    /// # Errors
    /// When nothing could be started; nothing is left behind then but the project's folder.
    pub async fn open(
        options: RunOptions,
        listener: Option<mpsc::UnboundedSender<Event>>,
    ) -> Result<Opened, RunError> {
        let span = tracing::info_span!("run", project = %options.project, run = tracing::field::Empty);
        Self::begin(options, listener, span.clone()).instrument(span).await
    }

    async fn begin(
        options: RunOptions,
        listener: Option<mpsc::UnboundedSender<Event>>,
        span: Span,
    ) -> Result<Opened, RunError> {
        let run = RunId::from_uuid(Uuid::now_v7());
        span.record("run", tracing::field::display(run));
        let folders = settle(options.folders()).map_err(RunError::Folder)?;
        let RunOptions { set, plan, declaration, caller, lifetime, toka_exe, host, .. } = options;
        identity::claim(&folders)?;
        let lock = ProjectLock::take(&folders.lock(), run).map_err(|error| refusal(error, &folders))?;
        let ended = match lifetime {
            // Its keeper begins with that.
            Lifetime::UntilStopped => None,
            Lifetime::UntilDone | Lifetime::UntilTasksEnd => clear_left_behind(&folders).await?,
        };
        end_killed(&folders).await?;
        // What a run left that was killed: sockets, secrets.
        remove_run_folder(&run_folder(&folders));
        // However this one ends, its own go before the lock does, and the doors in it along.
        let run_folder = RunFolder(run_folder(&folders));
        let mut doors = SocketDirs::of(run_folder.0.clone());
        let places = make_doors(&folders, (&set, &plan), |_| true, &mut doors)?;
        let options = keeper_options((&folders, &toka_exe), Some(&host), doors.short(), lifetime);
        let caller = Arc::new(caller);
        let (seen, events) = mpsc::unbounded_channel();
        let prepared = async {
            let (policy, host) = (declaration.policy.clone(), host.facts().await);
            let models = models_of((&declaration, &set), &caller, &folders).await?;
            let openings = Openings::default();
            let context = RunContext { folders, run, caller, policy, models, toka_exe, host, openings };
            let (set, plan, admitted) = context.admit_in(places, (set, plan), |_| true).await?;
            let admitted = register(admitted).await.map_err(RunError::Folder)?;
            let folders = &context.folders;
            let last_seen = schedule::last_seen(&folders.journal(), &set.agents);
            let journal = open_journal(folders, run, listener.into_iter().chain([seen]).collect())?;
            disk_space::find(&folders.root(), &folders.run_dir, admitted.len()).map_err(RunError::Folder)?;
            keep(&declaration, folders, &set.agents)?;
            Ok((context, set, plan, admitted, last_seen, Arc::new(journal)))
        };
        // It takes about as long to begin as all this does.
        let started = lock.shared_with_child(Keeper::begin(&options));
        let ((keeper, keeper_events), prepared) = with_keeper(started, prepared).await?;
        let (context, set, plan, admitted, last_seen, journal) = prepared;
        let folders = &context.folders;
        // Only now is there something that another daemon could go on with.
        if let Err(error) = keeper.settle_in(&options).await {
            keeper.shutdown().await;
            return Err(RunError::Keeper(error));
        }
        // In the foreground too; who asks for an end then ends the next one.
        keeper.succeed_with(&options);
        if lifetime == Lifetime::UntilStopped
            && let Err(error) = hand_over_lock(&keeper, &lock).await
        {
            keeper.shutdown().await;
            return Err(RunError::Keeper(error));
        }
        let (layout, own) = (context.host.cgroups.clone(), options.cgroup_name.clone());
        // Beside everything else: nobody waits for it.
        tokio::task::spawn_blocking(move || crate::stray_groups::sweep(&layout, &own));
        begin(&journal, &context, &plan, lifetime).await;
        if let Some(message) = ended {
            drop(journal.record(None, EventKind::Warning { message }));
        }

        let sink = Arc::clone(&journal) as Arc<_>;
        let runtime = match lifetime {
            Lifetime::UntilDone | Lifetime::UntilTasksEnd => {
                Runtime::new(keeper.clone(), forward_events(keeper_events, &journal), sink)
            }
            Lifetime::UntilStopped => {
                let runtime = Runtime::outlived(keeper.clone(), sink, ProcessId(0));
                runtime.listen(forward_events(keeper_events, &journal));
                runtime
            }
        };
        let queue = Queue::new(declaration.pressure, &journal);
        let runtime = runtime.admitting(queue.gate());
        let broker = broker(&journal);
        broker.configure(
            declaration.models.budgets,
            declaration.models.approvals_expire,
            host_grants(&declaration),
        );
        let mut ids = Ids::default();
        let log_retention = crate::logs::log_retention(&folders.state_dir);
        let builder = MemberBuilder {
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
        let members = spawn_all(builder, &set, admitted).into_iter().collect();
        let parts = Parts {
            declaration,
            state: RunState::new(&plan, lifetime),
            plan,
            status: RunStatus::default(),
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
        Ok(parts.assemble(lifetime, &set.agents, &last_seen))
    }
}

/// The keeper, which begins first, and what is prepared meanwhile; neither without the other.
async fn with_keeper<E, T>(
    started: impl Future<Output = Result<(Keeper, E), KeeperError>>,
    prepared: impl Future<Output = Result<T, RunError>>,
) -> Result<((Keeper, E), T), RunError> {
    match tokio::join!(biased; started, prepared) {
        (Ok(started), Ok(prepared)) => Ok((started, prepared)),
        (Err(error), Ok(_)) => Err(RunError::Keeper(error)),
        (started, Err(error)) => {
            // It removes what a killed daemon leaves, and must be gone before another run makes the same.
            if let Ok((keeper, _)) = started {
                keeper.shutdown().await;
            }
            Err(error)
        }
    }
}

async fn begin(journal: &Journal, context: &RunContext, plan: &toka_workstream::Plan, lifetime: Lifetime) {
    let workspace = context.folders.workspace.to_string_lossy().into_owned();
    let agents: Vec<AgentName> = plan.nodes().iter().map(|node| node.agent.clone()).collect();
    let detached = lifetime == Lifetime::UntilStopped;
    journal.record(None, EventKind::RunStarted { workspace, agents, detached }).await;
}

/// Why there can be no run beside another one: a keeper that waits for a daemon is not one that ends its agents.
fn refusal(error: LockError, folders: &ProjectFolders) -> RunError {
    let waits = || is_awaited(&keeper_socket(&run_folder(folders)));
    match error {
        LockError::Kept(_) if waits() => RunError::Unattended { project: folders.project.clone() },
        error => RunError::Lock(error),
    }
}

/// Why no run of the project can begin now: another has it, or the keeper of one that was killed. Takes nothing and changes nothing.
pub fn obstacle(folders: &ProjectFolders) -> Option<RunError> {
    lock::would_refuse(&folders.lock()).map(|error| refusal(error, folders))
}
