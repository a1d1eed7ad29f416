//! A keeper that forks nothing and a journal that keeps nothing, both driven by the test.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tempfile::TempDir;
use toka_core::event::Usage;
use toka_core::rpc::TaskList;
use toka_core::{
    AgentName, Confinement, Coverage, Enforcement, EventKind, Kept, Layer, LogPolicy, Name, Probes,
    Resources, Restart, RestartPolicy, RunId,
};
use toka_keeper::{KeeperError, KeeperEvent, ProcessId, Program, SpawnError, Started, Status};
use toka_logs::{LogPlace, LogRetention};
use toka_sandbox::namespace::Family;
use toka_sandbox::{AgentFolders, CompileInput, GroupLimits, HostFacts, SandboxPlan};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Admission, AgentHandle, Command, Durable, EventSink, Hooks, Launch, Processes, Profile, Runtime,
    StopPolicy,
};

/// What the keeper was asked.
#[derive(Debug)]
pub(crate) enum Asked {
    Spawn(oneshot::Sender<Result<Started, SpawnError>>),
    Signal(i32),
    Kill,
    Freeze,
    Limit(GroupLimits),
    Thaw,
    SetMain(i32),
    MakeLeaf(String, i32),
    RemoveLeaf(String),
}

#[derive(Debug, Clone)]
pub(crate) struct FakeKeeper {
    asked: mpsc::UnboundedSender<Asked>,
    owners: Arc<Mutex<HashMap<i32, ProcessId>>>,
    /// What the agent uses.
    pub(crate) resources: Arc<Mutex<Resources>>,
}

impl FakeKeeper {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Asked>) {
        let (asked, receiver) = mpsc::unbounded_channel();
        (Self { asked, owners: Arc::default(), resources: Arc::default() }, receiver)
    }

    /// Puts a process into an agent's control group.
    pub(crate) fn own(&self, pid: i32, id: ProcessId) {
        self.owners.lock().expect("no panic").insert(pid, id);
    }

    fn ask(&self, asked: Asked) {
        let _ = self.asked.send(asked);
    }
}

impl Processes for FakeKeeper {
    async fn spawn(&self, _: toka_keeper::Launch) -> Result<Started, SpawnError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Asked::Spawn(answer));
        answered.await.expect("the test answers")
    }

    async fn spawn_reading(&self, launch: toka_keeper::Launch, _: OwnedFd) -> Result<Started, SpawnError> {
        self.spawn(launch).await
    }

    fn signal(&self, _: ProcessId, signal: i32) {
        self.ask(Asked::Signal(signal));
    }

    fn kill(&self, _: ProcessId) {
        self.ask(Asked::Kill);
    }

    fn settle(&self, _: ProcessId) {}

    async fn hold(&self, _: ProcessId, _: &str, _: Vec<OwnedFd>) -> io::Result<()> {
        Ok(())
    }

    async fn tcp_socket(&self, _id: ProcessId, _family: Family) -> Result<OwnedFd, KeeperError> {
        Err(KeeperError::Gone)
    }

    async fn freeze(&self, _: ProcessId) -> io::Result<()> {
        self.ask(Asked::Freeze);
        Ok(())
    }

    async fn thaw(&self, _: ProcessId) -> io::Result<()> {
        self.ask(Asked::Thaw);
        Ok(())
    }

    async fn limit(&self, _: ProcessId, limits: GroupLimits) -> Result<(), KeeperError> {
        self.ask(Asked::Limit(limits));
        Ok(())
    }

    async fn set_main(&self, id: ProcessId, pid: i32) -> Result<i32, KeeperError> {
        if self.owner_of(pid).await != Some(id) {
            return Err(KeeperError::Stranger);
        }
        self.ask(Asked::SetMain(pid));
        Ok(pid)
    }

    async fn make_leaf(&self, id: ProcessId, leaf: &str, pid: i32) -> Result<(), KeeperError> {
        if self.owner_of(pid).await != Some(id) {
            return Err(KeeperError::Stranger);
        }
        self.ask(Asked::MakeLeaf(leaf.to_owned(), pid));
        Ok(())
    }

    async fn remove_leaf(&self, _: ProcessId, leaf: &str) -> io::Result<Usage> {
        self.ask(Asked::RemoveLeaf(leaf.to_owned()));
        Ok(Usage { cpu_us: Some(7), ..Usage::default() })
    }

    async fn resources(&self, _: ProcessId) -> Option<Resources> {
        Some(*self.resources.lock().expect("no panic"))
    }

    async fn owner_of(&self, pid: i32) -> Option<ProcessId> {
        self.owners.lock().expect("no panic").get(&pid).copied()
    }
}

struct FakeSink(mpsc::UnboundedSender<EventKind>);

impl EventSink for FakeSink {
    fn emit(&self, _: &AgentName, kind: EventKind) -> Durable {
        let _ = self.0.send(kind);
        let (kept, durable) = Durable::pair();
        let _ = kept.send(Kept::OnDisk);
        durable
    }
}

/// One agent with everything around it.
pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    pub(crate) keeper: FakeKeeper,
    pub(crate) asked: mpsc::UnboundedReceiver<Asked>,
    pub(crate) says: mpsc::UnboundedSender<KeeperEvent>,
    pub(crate) events: mpsc::UnboundedReceiver<EventKind>,
    pub(crate) agent: AgentHandle,
    pub(crate) pipes: Option<[OwnedFd; 2]>,
}

pub(crate) const ID: ProcessId = ProcessId(1);
pub(crate) const PID: i32 = 4242;
pub(crate) const LIMITS: GroupLimits =
    GroupLimits { memory: 64 << 20, cpu_millis: 1000, cpu_weight: 100, processes: 256 };

impl Rig {
    pub(crate) fn new(change: impl FnOnce(&mut Profile)) -> Self {
        Self::admitted_by(Admission::default(), change)
    }

    pub(crate) fn admitted_by(gate: Admission, change: impl FnOnce(&mut Profile)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut launch = launch(&folder);
        change(&mut launch.profile);
        let (keeper, asked) = FakeKeeper::new();
        let (says, keeper_events) = mpsc::unbounded_channel();
        let (tx, events) = mpsc::unbounded_channel();
        let runtime = Runtime::new(keeper.clone(), keeper_events, Arc::new(FakeSink(tx))).admitting(gate);
        let agent = runtime.add(launch);
        Self { folder, keeper, asked, says, events, agent, pipes: None }
    }

    /// Starts it behind a mount namespace, with `coverage` of that.
    pub(crate) async fn running(change: impl FnOnce(&mut Profile), mounts: Coverage) -> Self {
        Self::running_behind(change, enforcement(mounts, Coverage::Full)).await
    }

    /// Starts it behind whatever is given.
    pub(crate) async fn running_behind(change: impl FnOnce(&mut Profile), enforcement: Enforcement) -> Self {
        let mut rig = Self::new(change);
        rig.start(enforcement).await;
        rig
    }

    /// Starts it.
    pub(crate) async fn start(&mut self, enforcement: Enforcement) {
        self.agent.ask(toka_core::Request::Start, "test").await;
        self.answer_spawn(enforcement).await;
        assert_eq!(self.event().await, EventKind::AgentStarting);
        assert!(matches!(self.event().await, EventKind::AgentStarted { pid: PID, .. }));
    }

    pub(crate) async fn answer_spawn(&mut self, enforcement: Enforcement) {
        let Asked::Spawn(answer) = self.asked().await else { panic!("expected a spawn") };
        let (stdout, out) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let (stderr, err) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        self.pipes = Some([out, err]);
        answer
            .send(Ok(Started {
                pid: PID,
                stdout,
                stderr,
                notification: None,
                listeners: Vec::new(),
                enforcement,
            }))
            .expect("the actor waits");
    }

    pub(crate) async fn asked(&mut self) -> Asked {
        self.asked.recv().await.expect("the runtime lives")
    }

    pub(crate) async fn event(&mut self) -> EventKind {
        self.events.recv().await.expect("the actor lives")
    }

    pub(crate) fn exited(&self, status: Status) {
        self.says.send(KeeperEvent::Exited { id: ID, status }).expect("the runtime lives");
    }

    pub(crate) fn gone(&self, usage: Usage) {
        self.says.send(KeeperEvent::Gone { id: ID, usage }).expect("the runtime lives");
    }
}

/// A report with only these two layers.
pub(crate) fn enforcement(mounts: Coverage, cgroup: Coverage) -> Enforcement {
    let mut enforcement = Enforcement::default();
    enforcement.set(Layer::Mounts, mounts, Vec::new());
    enforcement.set(Layer::Cgroup, cgroup, Vec::new());
    enforcement
}

/// A launch whose folders are in `folder`.
pub(crate) fn launch(folder: &TempDir) -> Launch {
    let root = folder.path().to_owned();
    let door = root.join("door");
    std::fs::create_dir(&door).expect("a folder");
    let command = Command {
        program: Program::Path("/bin/true".into()),
        argv: vec!["true".into()],
        env: Vec::new(),
        plan: Arc::new(plan(&root)),
        terminal: None,
    };
    let profile = Profile {
        probes: Probes::default(),
        watchdog: None,
        hooks: Hooks::default(),
        restart: Restart::with_policy(RestartPolicy::No),
        success: Vec::new(),
        id: ID,
        name: Name::new("agent").expect("a label"),
        stop: StopPolicy { signal: 15, grace: Duration::from_secs(10) },
        timeout: None,
        limits: LIMITS,
        disk: None,
        log: log_of_one_run(&root),
        door,
        declared: Arc::default(),
        tasks: TaskList::default(),
        awaited_lines: Vec::new(),
        port: None,
        worker: None,
    };
    Launch { profile, command }
}

/// The log of a run in `root`; nobody looks after older ones.
fn log_of_one_run(root: &std::path::Path) -> LogPlace {
    LogPlace::of_run(
        root.join("log"),
        RunId::from_bytes([1; 16]),
        LogPolicy::default(),
        &LogRetention::disabled(),
    )
}

fn plan(root: &std::path::Path) -> SandboxPlan {
    let folders = AgentFolders::below(root);
    let name = Name::new("agent").expect("a label");
    SandboxPlan::compile(&CompileInput {
        confinement: &Confinement::default(),
        folders: &folders,
        host: &HostFacts::probe(),
        project: &name,
        agent: &name,
        facts: &toka_sandbox::plan::WorkspaceFacts::plain(&folders.workspace),
        workstream_dir: None,
        toka_exe: std::path::Path::new("/bin/true"),
        programs: &[],
        run_as: None,
    })
    .expect("a plan")
}
