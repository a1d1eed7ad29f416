//! Where a doctor's probes run: folders, sockets and a process of the doctor's own to be attacked, and a keeper that confines
//! the probes as it confines every agent.
//!
//! Whatever ends the doctor, nothing of it stays: the keeper sees its socket close, ends the probes, and removes the groups
//! and the folder; the process to be attacked waits for the end of a pipe.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use toka_core::error::with_causes;
use toka_core::event::Usage;
use toka_core::{Confinement, Enforcement, Limits};
use toka_keeper::{
    Keeper, KeeperEvent, KeeperOptions, Launch, ProcessId, Program, SpawnError, Started, Status,
};
use toka_sandbox::{AgentFolders, CompileInput, HostFacts, SandboxPlan};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::DoctorOptions;
use super::probe::{Act, Answer};
use super::target_dir::{self, Listeners, Place, TargetDir};

/// The longest that a probe may take before it is ended.
const LONGEST: Duration = Duration::from_secs(10);
/// How long the pipe of a probe's output may stay open once its group is empty.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A probe that has ended, and all that it started with it.
#[derive(Debug)]
pub(super) struct Finished {
    /// What it reported.
    pub(super) answers: Vec<Answer>,
    /// How its main process ended.
    pub(super) status: Option<Status>,
    /// What it used.
    pub(super) usage: Usage,
    /// What confined it.
    pub(super) enforcement: Enforcement,
    /// Whether somebody still held the pipe of its output when its group was said to be empty.
    pub(super) survived: bool,
}

/// A probe that runs.
#[derive(Debug)]
pub(super) struct Running {
    id: ProcessId,
    /// Its output.
    pub(super) output: pipe::Receiver,
    /// What confines it.
    pub(super) enforcement: Enforcement,
}

/// Something that kept a probe from being made, started or heard, in words.
pub(super) type SetupError = String;

/// The place of the proofs.
#[derive(Debug)]
pub(super) struct TestBed {
    exe: PathBuf,
    pub(super) host: HostFacts,
    folders: AgentFolders,
    /// What confined probes aim at.
    pub(super) inside: Place,
    /// The same for the unconfined, with folders of their own.
    pub(super) without: Place,
    pub(super) keeper: Keeper,
    events: mpsc::UnboundedReceiver<KeeperEvent>,
    launched: u64,
    victim: Child,
    /// Open as long as the test_bed is.
    _listeners: Listeners,
    target_dir: TargetDir,
}

impl TestBed {
    /// Sets it up.
    pub(super) async fn open(options: &DoctorOptions, host: &HostFacts) -> Result<Self, SetupError> {
        let target_dir =
            TargetDir::make(&options.name).map_err(|error| format!("make a temporary folder: {error}"))?;
        // From here on the keeper tidies up, whatever becomes of us.
        let keeper_options = KeeperOptions {
            program: options.toka_exe.clone(),
            cgroup_name: options.name.clone(),
            leftovers: vec![target_dir.path().to_owned()],
            ..KeeperOptions::default()
        };
        let (keeper, events) = Keeper::start(&keeper_options).await.map_err(|error| with_causes(&error))?;
        let folders = target_dir.populate().map_err(|error| with_causes(&error))?;
        let listeners = Listeners::below(target_dir.path());
        let mut victim = bare(&options.toka_exe, &Act::Wait);
        let victim = victim
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("start a process to be attacked: {error}"))?;
        let pid = i32::try_from(victim.id()).unwrap_or(i32::MAX);
        let (inside, without) =
            (target_dir.inside(&folders, &listeners, pid), target_dir.without(&listeners, pid));
        let (exe, host) = (options.toka_exe.clone(), host.clone());
        Ok(Self {
            exe,
            host,
            folders,
            inside,
            without,
            keeper,
            events,
            launched: 0,
            victim,
            _listeners: listeners,
            target_dir,
        })
    }

    /// The default sandbox, with other limits.
    pub(super) fn plan(&self, change: impl FnOnce(&mut Limits)) -> Result<SandboxPlan, SetupError> {
        let mut confinement = Confinement::default();
        change(&mut confinement.limits);
        compile(&confinement, &self.folders, &self.host, &self.exe)
    }

    /// Starts a probe.
    pub(super) async fn start(&mut self, plan: SandboxPlan, act: &Act) -> Result<Running, SetupError> {
        self.launched += 1;
        let id = ProcessId(self.launched);
        let argv = ["toka", "__probe", &words(act)].map(OsString::from).to_vec();
        let env = [("HOME", &self.folders.home), ("TMPDIR", &self.folders.tmp)];
        let launch = Launch {
            id,
            program: Program::Itself,
            argv,
            env: env.map(|(name, folder)| (name.into(), folder.into())).to_vec(),
            plan: Arc::new(plan.bare()),
            beside: None,
            notification_fd: None,
            terminal: None,
            stop_signal: Signal::SIGTERM as i32,
            grace: Duration::ZERO,
        };
        let Started { stdout, enforcement, .. } = self.keeper.spawn(launch).await.map_err(not_started)?;
        let output = pipe::Receiver::from_owned_fd(stdout).map_err(|error| error.to_string())?;
        Ok(Running { id, output, enforcement })
    }

    /// Runs a probe to its end.
    pub(super) async fn run(&mut self, plan: SandboxPlan, act: &Act) -> Result<Finished, SetupError> {
        let running = self.start(plan, act).await?;
        self.finish(running, LONGEST).await
    }

    /// Waits until a probe and all that it started are gone, and ends them when that takes too long.
    pub(super) async fn finish(
        &mut self,
        mut running: Running,
        patience: Duration,
    ) -> Result<Finished, SetupError> {
        let mut status = None;
        let mut patience = Some(patience);
        let usage = loop {
            let event = match patience {
                Some(left) => timeout(left, self.events.recv()).await,
                None => Ok(self.events.recv().await),
            };
            match event {
                Err(_) => {
                    self.keeper.kill(running.id);
                    patience = None;
                }
                Ok(Some(KeeperEvent::Exited { id, status: how })) if id == running.id => status = Some(how),
                Ok(Some(KeeperEvent::Gone { id, usage })) if id == running.id => break usage,
                Ok(Some(KeeperEvent::Closed) | None) => return Err("the keeper is gone".to_owned()),
                Ok(Some(_)) => {}
            }
        };
        let mut text = Vec::new();
        let read = timeout(LAST_WORDS, running.output.read_to_end(&mut text)).await;
        let Running { enforcement, .. } = running;
        Ok(Finished { answers: answers(&text), status, usage, enforcement, survived: read.is_err() })
    }

    /// Ends a probe.
    pub(super) async fn end(&mut self, running: Running) -> Result<Finished, SetupError> {
        self.finish(running, Duration::ZERO).await
    }

    /// The figures of a probe's group.
    pub(super) async fn resources(&self, running: &Running) -> Option<toka_core::Resources> {
        self.keeper.resources(running.id).await
    }

    /// Freezes a probe.
    pub(super) async fn freeze(&self, running: &Running) -> Result<(), SetupError> {
        self.keeper.freeze(running.id).await.map_err(|error| with_causes(&error))
    }

    /// Thaws it.
    pub(super) async fn thaw(&self, running: &Running) -> Result<(), SetupError> {
        self.keeper.thaw(running.id).await.map_err(|error| with_causes(&error))
    }

    /// The files outside, as they are now; empty when nobody can tell.
    pub(super) fn state_outside(&self) -> Vec<String> {
        self.target_dir.state_outside().unwrap_or_default()
    }

    /// Does the same with nothing around it.
    pub(super) fn unconfined(&self, act: &Act) -> Result<Vec<Answer>, SetupError> {
        let output = bare(&self.exe, act).output().map_err(|error| format!("start a probe: {error}"))?;
        Ok(answers(&output.stdout))
    }

    /// A probe with nothing around it, ready to be started.
    pub(super) fn bare(&self, act: &Act) -> Command {
        bare(&self.exe, act)
    }

    /// Ends everything, and waits for it.
    pub(super) async fn close(mut self) {
        drop(self.victim.stdin.take());
        let _ = self.victim.wait();
        self.keeper.shutdown().await;
    }
}

/// Of what a default agent gets, what can be told before any is started.
pub(super) fn default_plan(host: &HostFacts, exe: &Path) -> Result<SandboxPlan, SetupError> {
    let folders = target_dir::folders_below(Path::new("/var/tmp/toka-doctor"), &target_dir::probe());
    compile(&Confinement::default(), &folders, host, exe)
}

fn compile(
    confinement: &Confinement,
    folders: &AgentFolders,
    host: &HostFacts,
    exe: &Path,
) -> Result<SandboxPlan, SetupError> {
    SandboxPlan::compile(&CompileInput {
        confinement,
        folders,
        host,
        project: &target_dir::project(),
        agent: &target_dir::probe(),
        facts: &toka_sandbox::plan::WorkspaceFacts::plain(&folders.workspace),
        workstream_dir: None,
        toka_exe: exe,
        programs: &[],
        run_as: None,
    })
    .map_err(|error| error.to_string())
}

fn bare(exe: &Path, act: &Act) -> Command {
    let mut command = Command::new(exe);
    command.args(["__probe", &words(act)]).current_dir("/").stdin(Stdio::null());
    command
}

fn words(act: &Act) -> String {
    serde_json::to_string(act).expect("an act is numbers and text")
}

/// One answer a line; what is no answer says nothing.
fn answers(text: &[u8]) -> Vec<Answer> {
    let line = |line: &[u8]| serde_json::from_slice(line).unwrap_or(Answer::Silent);
    text.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()).map(line).collect()
}

fn not_started(error: SpawnError) -> SetupError {
    format!("a probe did not start: {}", with_causes(&error))
}
