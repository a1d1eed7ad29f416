//! The keeper over its socket, with real processes in real control groups: start, end, kill, freeze, exact errors, held
//! descriptors, and what becomes of agents when the daemon's side closes.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use toka_core::{Confinement, Coverage, Declared, Name};
use toka_keeper::{Keeper, KeeperEvent, KeeperOptions, Launch, ProcessId, Program, SpawnError, Status};
use toka_sandbox::{AgentFolders, CompileInput, HostFacts, SandboxPlan};
use toka_tests::{Need, require, toka_binary};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

/// Far above what anything here takes; only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    keeper: Keeper,
    events: UnboundedReceiver<KeeperEvent>,
    folders: TempDir,
    groups: String,
}

impl Bench {
    async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let groups = format!("toka-test-keeper-{}-{count}", std::process::id());
        let options = KeeperOptions { program: toka_binary().to_owned(), cgroup_name: groups.clone() };
        let (keeper, events) = Keeper::start(&options).await.expect("a keeper");
        Self { keeper, events, folders: tempfile::tempdir().expect("a folder"), groups }
    }

    fn launch(&self, id: u64, script: &str) -> Launch {
        Launch {
            id: ProcessId(id),
            program: Program::Path("/bin/sh".into()),
            argv: vec!["sh".into(), "-c".into(), script.into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            plan: Arc::new(plan(self.folders.path(), id, &Confinement::default())),
            stop_signal: libc::SIGTERM,
            grace: Duration::from_millis(100),
        }
    }

    async fn next(&mut self) -> KeeperEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an open keeper")
    }

    /// Waits until the process is gone; returns how its main process ended.
    async fn end_of(&mut self, id: u64) -> Status {
        let mut ended = None;
        loop {
            match self.next().await {
                KeeperEvent::Exited { id: of, status } if of.0 == id => ended = Some(status),
                KeeperEvent::Gone { id: of, .. } if of.0 == id => {
                    return ended.expect("its exit before its end");
                }
                _ => {}
            }
        }
    }
}

fn plan(root: &Path, id: u64, confinement: &Confinement) -> SandboxPlan {
    let make = |name: &str| {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder.canonicalize().expect("a real folder")
    };
    let folders = AgentFolders {
        workspace: make("workspace"),
        home: make("home"),
        tmp: make("tmp"),
        artifacts: make("artifacts"),
        inputs: Vec::new(),
        inputs_dir: make("inputs"),
        credentials: make("credentials"),
        door: make("door"),
        state_dir: root.to_owned(),
        run_dir: root.to_owned(),
        working_dir: make("workspace"),
        user_home: make("home"),
    };
    let name = |text: &str| Name::new(text).expect("a label");
    SandboxPlan::compile(&CompileInput {
        confinement,
        folders: &folders,
        host: &HostFacts::probe(),
        project: &name("keeper"),
        agent: &name(&format!("agent-{id}")),
        workstream_files: &[],
        workstream_dir: None,
        toka_exe: toka_binary(),
        programs: &[],
        run_as: None,
    })
    .expect("a plan")
}

/// Reads a non-blocking pipe to its end, which has come once the process is gone.
fn read_all(pipe: OwnedFd) -> String {
    let mut text = String::new();
    File::from(pipe).read_to_string(&mut text).expect("its output");
    text
}

/// Waits until something is said.
async fn first_line(pipe: OwnedFd) {
    let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe).expect("a pipe");
    timeout(PATIENCE, pipe.readable()).await.expect("a line in time").expect("a line");
}

#[tokio::test]
async fn output_and_exit_status_come_back() {
    let mut bench = Bench::new().await;
    let started =
        bench.keeper.spawn(bench.launch(1, "echo out; echo err >&2; exit 7")).await.expect("a start");
    assert_eq!(bench.end_of(1).await, Status::Code(7));
    assert_eq!((read_all(started.stdout).as_str(), read_all(started.stderr).as_str()), ("out\n", "err\n"));
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn a_signal_is_told_from_a_code() {
    let mut bench = Bench::new().await;
    bench.keeper.spawn(bench.launch(1, "kill -SEGV $$")).await.expect("a start");
    assert!(matches!(bench.end_of(1).await, Status::Signal { signal: 11, .. }));
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn what_a_process_left_behind_is_killed_with_it() {
    let mut bench = Bench::new().await;
    let script =
        "mkfifo /tmp/f; setsid sh -c 'echo $$; echo up > /tmp/f; sleep 1000' & read -r _ < /tmp/f; exit 0";
    let started = bench.keeper.spawn(bench.launch(1, script)).await.expect("a start");
    assert_eq!(bench.end_of(1).await, Status::Code(0));
    let orphan: i32 = read_all(started.stdout).trim().parse().expect("the orphan's pid");
    let gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(orphan), None);
    // In a process namespace of its own the number means nothing here; where it does, nobody has it any more.
    assert!(gone.is_err() || orphan < 10, "{orphan} is still there");
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_named_with_its_error() {
    let bench = Bench::new().await;
    let file = bench.folders.path().join("workspace-script");
    std::fs::write(&file, "#!/does/not/exist\n").expect("a script");
    let launch = Launch { program: Program::Path("/usr/bin/does-not-exist".into()), ..bench.launch(1, "") };
    let Err(SpawnError::Step(error)) = bench.keeper.spawn(launch).await else { panic!("it started") };
    assert_eq!((error.step.as_str(), error.errno), ("exec", libc::ENOENT));
    assert_eq!(error.path.as_deref(), Some("/usr/bin/does-not-exist"));
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn a_missing_working_folder_is_the_step_that_failed() {
    let bench = Bench::new().await;
    let mut launch = bench.launch(1, "true");
    let mut plan = (*launch.plan).clone();
    plan.working_dir = "/usr/no-such-folder".into();
    launch.plan = Arc::new(plan);
    let error = bench.keeper.spawn(launch).await.expect_err("no such folder");
    assert!(error.to_string().contains("/usr/no-such-folder"), "{error}");
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn kill_ends_a_process_that_ignores_everything() {
    let mut bench = Bench::new().await;
    let script = "trap '' TERM INT HUP; echo ready; while :; do sleep 1000; done";
    let started = bench.keeper.spawn(bench.launch(1, script)).await.expect("a start");
    first_line(started.stdout).await;
    bench.keeper.signal(ProcessId(1), libc::SIGTERM);
    bench.keeper.kill(ProcessId(1));
    assert!(matches!(bench.end_of(1).await, Status::Signal { signal: 9, .. }));
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn a_frozen_process_can_be_killed() {
    if !require(&[Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::new().await;
    bench.keeper.spawn(bench.launch(1, "sleep 1000")).await.expect("a start");
    bench.keeper.freeze(ProcessId(1)).await.expect("a freezer");
    bench.keeper.kill(ProcessId(1));
    assert!(matches!(bench.end_of(1).await, Status::Signal { signal: 9, .. }));
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn out_of_memory_is_counted_with_its_peak() {
    if !require(&[Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::new().await;
    let memory = Declared::by_default(toka_core::ByteSize::mib(16), "test");
    let limits = toka_core::Limits { memory, ..toka_core::Limits::default() };
    let confinement = Confinement { limits, ..Confinement::default() };
    let mut launch = bench.launch(1, "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}");
    launch.plan = Arc::new(plan(bench.folders.path(), 1, &confinement));
    bench.keeper.spawn(launch).await.expect("a start");
    let usage = loop {
        if let KeeperEvent::Gone { usage, .. } = bench.next().await {
            break usage;
        }
    };
    assert!(usage.oom_kills > 0, "{usage:?}");
    assert!(usage.memory_peak.is_some_and(|peak| peak > 10 << 20), "{usage:?}");
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn a_leaf_is_accounted_for_itself_and_its_processes_end_with_it() {
    if !require(&[Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::new().await;
    let started = bench.keeper.spawn(bench.launch(1, "sleep 1000 & sleep 1000")).await.expect("a start");
    let own = started.pid;
    assert_eq!(bench.keeper.owner_of(own).await, Some(ProcessId(1)));
    assert_eq!(bench.keeper.owner_of(1).await, None);
    bench.keeper.make_leaf(ProcessId(1), "call-1", own).await.expect("a leaf");
    assert_eq!(bench.keeper.owner_of(own).await, Some(ProcessId(1)));
    bench.keeper.kill(ProcessId(1));
    bench.end_of(1).await;
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn descriptors_are_held_and_handed_back() {
    let mut bench = Bench::new().await;
    bench.keeper.spawn(bench.launch(1, "sleep 1000")).await.expect("a start");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    bench.keeper.hold(ProcessId(1), "door", vec![theirs.into()]).await.expect("held");
    let back = bench.keeper.hand_back(ProcessId(1)).await.expect("handed back");
    let names: Vec<&str> = back.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["stdout", "stderr", "door"]);
    assert_eq!(bench.keeper.list().await.expect("a list")[0].agent, "agent-1");
    drop(ours);
    bench.keeper.kill(ProcessId(1));
    bench.end_of(1).await;
    assert!(bench.keeper.hand_back(ProcessId(1)).await.is_err());
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn when_the_daemon_goes_agents_are_asked_and_then_killed() {
    let bench = Bench::new().await;
    let folder = bench.folders.path().join("artifacts");
    let polite =
        format!("trap 'echo asked > {}/asked; exit 0' TERM; while :; do sleep 0.01; done", folder.display());
    bench.keeper.spawn(bench.launch(1, &polite)).await.expect("a start");
    bench.keeper.spawn(bench.launch(2, "trap '' TERM; while :; do sleep 1000; done")).await.expect("a start");
    let started = folder.join("asked");
    // Dropping the handle closes the socket, as the death of the daemon does; `shutdown` also waits for the keeper.
    bench.keeper.shutdown().await;
    assert!(started.exists(), "the polite agent was not asked to stop");
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        assert!(!hierarchy.path().join(&bench.groups).exists(), "{} is left", hierarchy.path().display());
    }
}

#[tokio::test]
async fn everything_is_enforced_for_root() {
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::new().await;
    let started = bench.keeper.spawn(bench.launch(1, "true")).await.expect("a start");
    assert_eq!(started.enforcement.overall(), Coverage::Full, "{:?}", started.enforcement);
    bench.end_of(1).await;
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn arguments_and_environment_arrive_as_they_are() {
    let mut bench = Bench::new().await;
    let mut launch = bench.launch(1, "printf '%s|' \"$1\" \"$ODD\"; env | wc -l");
    launch.argv.extend([OsString::from("sh"), OsString::from("a b\n$x")]);
    launch.env.push(("ODD".into(), "=\u{1f980}=".into()));
    let started = bench.keeper.spawn(launch).await.expect("a start");
    bench.end_of(1).await;
    let text = read_all(started.stdout);
    assert!(text.starts_with("a b\n$x|=\u{1f980}=|"), "{text}");
    bench.keeper.shutdown().await;
}
