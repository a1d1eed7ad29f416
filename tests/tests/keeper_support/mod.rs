//! What tests of the keeper have in common: a daemon of a few lines, with real processes in real control groups.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use toka_core::{Confinement, Name};
use toka_keeper::process::start_time;
use toka_keeper::{
    Attach, Attached, Entry, Keeper, KeeperEvent, KeeperOptions, Launch, Outlive, ProcessId, Program, Status,
};
use toka_sandbox::{AgentFolders, CompileInput, HostFacts, SandboxPlan};
use toka_tests::toka_binary;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

/// Far above what anything here takes; only a failure waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon: a keeper, its folders and its groups.
pub(crate) struct Bench {
    /// The handle.
    pub(crate) keeper: Keeper,
    /// Its events.
    pub(crate) events: UnboundedReceiver<KeeperEvent>,
    /// Where the agents work.
    pub(crate) folders: Arc<TempDir>,
    /// The name of the groups.
    pub(crate) groups: String,
    /// What was told of processes so far.
    exits: BTreeMap<u64, Status>,
    gone: BTreeSet<u64>,
    guard: Guard,
}

/// Ends a keeper that a failed test leaves behind.
struct Guard(Option<i32>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let (Some(pid), true) = (self.0, std::thread::panicking()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

impl Bench {
    /// One whose keeper ends with it.
    pub(crate) async fn new() -> Self {
        Self::with(&tempfile::tempdir().map(Arc::new).expect("a folder"), &groups(), KeeperOptions::default())
            .await
    }

    /// One whose keeper listens for the next.
    pub(crate) async fn listening() -> Self {
        let folders = tempfile::tempdir().map(Arc::new).expect("a folder");
        let outlive = Outlive::Listen { socket: socket_of(&folders) };
        Self::with(&folders, &groups(), KeeperOptions { outlive, ..KeeperOptions::default() }).await
    }

    /// One in given folders and groups.
    pub(crate) async fn with(folders: &Arc<TempDir>, groups: &str, options: KeeperOptions) -> Self {
        let options = KeeperOptions {
            program: toka_binary().to_owned(),
            cgroup_name: groups.to_owned(),
            leftovers: vec![folders.path().join("run")],
            ..options
        };
        let (keeper, events) = Keeper::start(&options).await.expect("a keeper");
        Self::of((keeper, events), folders, groups)
    }

    /// One with a keeper that somebody else has started.
    pub(crate) fn of(
        (keeper, events): (Keeper, UnboundedReceiver<KeeperEvent>),
        folders: &Arc<TempDir>,
        groups: &str,
    ) -> Self {
        let guard = Guard(keeper.pid());
        let (folders, groups) = (Arc::clone(folders), groups.to_owned());
        Self { keeper, events, folders, groups, exits: BTreeMap::new(), gone: BTreeSet::new(), guard }
    }

    /// Where its keeper listens.
    pub(crate) fn socket(&self) -> PathBuf {
        socket_of(&self.folders)
    }

    /// Dies as a killed daemon does, without a word, and comes again.
    pub(crate) async fn again(self) -> (Self, Vec<Entry>) {
        let Self { keeper, folders, groups, .. } = self;
        keeper.detach().await;
        Self::attached(&folders, &groups).await
    }

    /// Comes to a keeper that has nobody.
    pub(crate) async fn attached(folders: &Arc<TempDir>, groups: &str) -> (Self, Vec<Entry>) {
        let attached = Keeper::attach(&socket_of(folders), Attach::IfFree).await.expect("attached");
        let Attached { keeper, events, holdings } = attached;
        (Self::of((keeper, events), folders, groups), holdings)
    }

    /// Kills the keeper, and waits until another has taken over what it left.
    pub(crate) async fn kill_keeper(&mut self) {
        let pid = self.keeper.pid().expect("it says");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("our keeper");
        loop {
            match self.next().await {
                KeeperEvent::Succeeded { pid: next } => {
                    assert_ne!(next, pid);
                    self.guard = Guard(Some(next));
                    return;
                }
                event => self.note(event),
            }
        }
    }

    /// Ends it and looks whether anything is left.
    pub(crate) async fn finish(self) {
        let Self { keeper, folders, groups, guard: _guard, .. } = self;
        keeper.shutdown().await;
        // What a process of an agent sees mounted, nobody else does.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("a Linux host");
        assert!(!mounts.contains(&folders.path().display().to_string()), "{mounts}");
        assert_eq!(toka_tests::cgroups_of(&groups), Vec::<PathBuf>::new());
        assert!(!socket_of(&folders).exists(), "its socket is still there");
        assert!(!folders.path().join("run").exists(), "sockets and secrets do not stay");
    }

    /// A shell with this script.
    pub(crate) fn launch(&self, id: u64, script: &str) -> Launch {
        Launch {
            id: ProcessId(id),
            program: Program::Path("/bin/sh".into()),
            argv: vec!["sh".into(), "-c".into(), script.into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            plan: Arc::new(plan(self.folders.path(), id, &Confinement::default())),
            beside: None,
            notification_fd: None,
            terminal: None,
            stop_signal: libc::SIGTERM,
            grace: Duration::from_millis(100),
        }
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> KeeperEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an open keeper")
    }

    fn note(&mut self, event: KeeperEvent) {
        match event {
            KeeperEvent::Exited { id, status } => drop(self.exits.insert(id.0, status)),
            KeeperEvent::Gone { id, .. } => drop(self.gone.insert(id.0)),
            _ => {}
        }
    }

    /// Waits until the process is gone; returns how its main process ended.
    pub(crate) async fn end_of(&mut self, id: u64) -> Status {
        while !self.gone.remove(&id) {
            let event = self.next().await;
            self.note(event);
        }
        self.exits.remove(&id).expect("its exit before its end")
    }
}

/// A name of its own for the groups of one bench.
pub(crate) fn groups() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("toka-test-keeper-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn socket_of(folders: &TempDir) -> PathBuf {
    folders.path().join("run/keeper.sock")
}

/// What confines agent number `id`.
pub(crate) fn plan(root: &Path, id: u64, confinement: &Confinement) -> SandboxPlan {
    let folders = AgentFolders::below(root);
    folders.make().expect("folders");
    let name = |text: &str| Name::new(text).expect("a label");
    SandboxPlan::compile(&CompileInput {
        confinement,
        folders: &folders,
        host: &HostFacts::probe(),
        project: &name("keeper"),
        agent: &name(&format!("agent-{id}")),
        facts: &toka_sandbox::plan::WorkspaceFacts::plain(&folders.workspace),
        workstream_dir: None,
        toka_exe: toka_binary(),
        programs: &[],
        run_as: None,
    })
    .expect("a plan")
}

/// Reads a non-blocking pipe to its end, which has come once the process is gone.
pub(crate) fn read_all(pipe: OwnedFd) -> String {
    let mut text = String::new();
    File::from(pipe).read_to_string(&mut text).expect("its output");
    text
}

/// Waits until something is said.
pub(crate) async fn first_line(pipe: OwnedFd) {
    let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe).expect("a pipe");
    timeout(PATIENCE, pipe.readable()).await.expect("a line in time").expect("a line");
}

/// The program that runs this test alone, with a word that tells it so.
pub(crate) fn myself(test: &str, part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test knows itself"));
    command.args([test, "--exact", "--nocapture"]).env("TOKA_TEST_PART", part);
    command
}

/// The part that this process is to play, if it is not the test itself.
pub(crate) fn part() -> Option<String> {
    std::env::var("TOKA_TEST_PART").ok()
}

/// Whether it runs: neither gone nor waiting to be reaped.
pub(crate) fn is_alive(pid: i32) -> bool {
    start_time(pid).is_some() && !stat(pid).contains(") Z ")
}

/// Its line in /proc.
pub(crate) fn stat(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default()
}
