//! One agent's processes as the keeper sees them: from the fork until its control group is empty and removed.

pub(super) mod appeared;
mod listener;
mod main_process;
pub(super) mod notification;
mod protection;
pub(super) mod terminal;

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{AccessFlags, Pid, access, pipe2};
use toka_core::event::Usage;
use toka_core::{Enforcement, Name};
use toka_sandbox::cgroup::folder_of;
use toka_sandbox::guard::{self, Guard, Planted};
use toka_sandbox::init::read_status;
use toka_sandbox::sys::{self, Arguments};
use toka_sandbox::{
    Birth, Group, GroupLimits, PrepareError, Prepared, Preparer, Program, Seat, StepError, Streams,
};

use super::held::Held;
use super::number;
use super::oom::Told;
use super::peer::Caller;
use super::pipes::{self, Readers};
use crate::busy;
use crate::process::{self, Presence, presence};
use crate::protocol::{self, Body, Entry, Launch, Orphan, ProcessId, StartError, State, Status};
use appeared::Appeared;
use listener::OwnListener;
use main_process::Named;
use notification::Notification;
pub(in crate::server) use protection::Protection;
use terminal::OwnTerminal;

/// How far it is.
#[derive(Debug)]
pub(in crate::server) enum Phase {
    /// Forked, not yet executing its program; the pipe closes when it does, or says why not.
    Starting { report: OwnedFd, caller: Caller },
    /// Executing its program.
    Running,
    /// Its main process has ended; what is left in its group is being killed.
    Draining,
}

/// One agent's processes.
#[derive(Debug)]
pub(in crate::server) struct Child {
    pub(in crate::server) pid: i32,
    /// The process that it named as its main one, if that is another.
    pub(in crate::server) named: Option<Named>,
    pub(in crate::server) phase: Phase,
    pub(in crate::server) birth: Birth,
    pub(in crate::server) project: String,
    pub(in crate::server) agent: Name,
    /// The process that it runs beside, if it is not an agent's main one.
    pub(in crate::server) beside: Option<ProcessId>,
    pub(in crate::server) group: Group,
    pub(in crate::server) enforcement: Enforcement,
    /// The read ends of its output and errors; lost when it was adopted and they could not be opened anew.
    pub(in crate::server) pipes: Option<[OwnedFd; 2]>,
    /// Its terminal, until it executes its program; from then on the master is in the place of its output.
    pub(in crate::server) terminal: Option<OwnTerminal>,
    /// Its listening socket, until it executes its program; from then on it is held.
    pub(in crate::server) listener: Option<OwnListener>,
    pub(in crate::server) held: Held,
    pub(in crate::server) usage: Usage,
    /// What was told of kills for memory.
    pub(in crate::server) oom: Told,
    /// Kills in leaves that were removed, where the group does not know of them any more.
    pub(in crate::server) forgotten_kills: u64,
    /// What a person should know about what it left.
    pub(in crate::server) notices: Vec<String>,
    /// What it made and must not make, and nobody was told of.
    pub(in crate::server) planted: Vec<Planted>,
    /// How often something appeared lately that git would obey.
    pub(in crate::server) appearances: Appeared,
    rest: Rest,
    pub(in crate::server) guards: Vec<Guard>,
    pub(in crate::server) protection: Protection,
    /// Whether it shares its network with others of the project.
    shares_network: bool,
    /// Where the true status comes from when the forked process only stands before the agent.
    status: Option<OwnedFd>,
    /// How its main process ended; known before we have read that it started when it was quick.
    exited: Option<Status>,
    started: Startup,
    /// What it is known by when it is somebody else's child: adopted.
    watch: Option<OwnedFd>,
    freezer: Freezer,
    notification_fd: Option<u16>,
    pub(in crate::server) start_time: Option<u64>,
    started_ms: u64,
    stop_signal: i32,
    grace: Duration,
    /// When to kill it, once it has been asked to stop by us.
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum Startup {
    Undecided,
    Executed,
    /// Whoever asked is told when nothing of it is left.
    Failed(StepError, Caller),
}

/// What becomes of the processes that its main one leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// They may end by themselves for a moment, which began when the main one had ended.
    MayEnd { since: Option<Instant> },
    /// They are killed: the agent was asked to end, or the moment is over.
    IsKilled,
}

impl Default for Rest {
    fn default() -> Self {
        Self::MayEnd { since: None }
    }
}

/// How long what a main process leaves may take to end by itself: the last of a pipeline, a child that was just told to go.
const REST_ENDS_WITHIN: Duration = Duration::from_millis(5);
/// Most names of processes that are told.
const MOST_NAMES: usize = 5;

/// What these processes are called, in a sentence; `None` when all of them are about to be gone.
fn left_running(processes: &[i32]) -> Option<String> {
    let is_there = |pid: &i32| presence(*pid) == Presence::Alive;
    let name = |pid: &i32| process::text(*pid, "comm");
    let names: Vec<String> = processes.iter().filter(|pid| is_there(pid)).filter_map(name).collect();
    if names.is_empty() {
        return None;
    }
    let shown: Vec<&str> = names.iter().take(MOST_NAMES).map(|name| name.trim_end()).collect();
    let more = if names.len() > MOST_NAMES { ", …" } else { "" };
    let (count, noun) = (names.len(), if names.len() == 1 { "process" } else { "processes" });
    Some(format!(
        "it left {count} {noun} running ({}{more}), killed with it: what is to run on is a service of its own",
        shown.join(", ")
    ))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freezer {
    Frozen,
    Thawed,
}

impl Child {
    /// Prepares everything, forks, and returns at once; the child confines itself and executes its program. It reads
    /// `input`.
    pub(in crate::server) fn start(
        preparer: &Preparer,
        input: &OwnedFd,
        caller: Caller,
        launch: &Launch,
        host: Option<&Self>,
        readers: Readers,
    ) -> Result<Self, PrepareError> {
        let failed = |error: std::io::Error| StepError::new("streams: make pipe", None, &error);
        let ((output, output_end), (error, error_end)) =
            (pipes::pipe(readers).map_err(failed)?, pipes::pipe(readers).map_err(failed)?);
        let (report, report_end) = pipe2(OFlag::O_CLOEXEC).map_err(|error| failed(error.into()))?;
        let leaf = leaf_name(launch.id);
        let notification =
            launch.notification_fd.map(|number| Notification::new(number, readers)).transpose()?;
        let terminal = launch.terminal.map(OwnTerminal::new).transpose()?;
        // What runs beside an agent finds the agent's.
        let address = launch.plan.listen.filter(|_| host.is_none());
        let listener =
            address.map(|address| OwnListener::new(address, launch.plan.hosts.clone())).transpose()?;
        let number = launch.notification_fd;
        let report_end = notification::elsewhere(report_end, number)?;
        let executable = Executable::new(preparer, launch)?;
        let seat = match host {
            Some(host) => Seat::Beside { group: &host.group, leaf: &leaf, pid: host.pid },
            None => Seat::Own,
        };
        let prepared = preparer.prepare(&launch.plan, seat)?;
        let (group, enforcement) = (prepared.group.clone(), prepared.enforcement.clone());
        let streams = Streams {
            input: input.as_fd(),
            output: output_end.as_fd(),
            error: error_end.as_fd(),
            terminal: terminal.as_ref().map(OwnTerminal::for_child),
            listener: listener.as_ref().map(OwnListener::for_child),
        };
        let ends = Ends { streams, notification: notification.as_ref(), report: report_end.as_fd() };
        let birth = match prepared.birth(&launch.plan, &ends.descriptors(&executable)) {
            // In the agent's own group it goes as slowly as the agent makes it, and the keeper would stand still.
            Birth::Sharing if host.is_some() => Birth::Copied,
            birth => birth,
        };
        let begun = prepared
            .start(birth, preparer, || become_agent(&prepared, preparer, launch, &executable, (birth, ends)));
        let pid = begun.map_err(|error| {
            let _ = group.remove();
            StepError::new("fork", None, &error)
        })?;
        drop(report_end);
        let status = prepared.into_status_pipe();
        let mut held = Held::default();
        if let Some(notification) = notification {
            notification.hold(&mut held);
        }
        Ok(Self {
            pid,
            named: None,
            phase: Phase::Starting { report, caller },
            birth,
            project: launch.plan.project.to_string(),
            agent: launch.plan.agent.clone(),
            // Of what runs beside an agent, the agent's own end takes care.
            shares_network: launch.plan.network == toka_core::NetworkAccess::Project,
            guards: if host.is_none() { launch.plan.guards.clone() } else { Vec::new() },
            protection: Protection::default(),
            beside: launch.beside,
            oom: Told::default(),
            forgotten_kills: 0,
            notices: Vec::new(),
            planted: Vec::new(),
            appearances: Appeared::default(),
            rest: Rest::default(),
            group,
            enforcement,
            pipes: Some([output, error]),
            terminal,
            listener,
            held,
            usage: Usage::default(),
            status,
            exited: None,
            started: Startup::Undecided,
            watch: None,
            freezer: Freezer::Thawed,
            notification_fd: launch.notification_fd,
            start_time: None,
            started_ms: protocol::now_ms(),
            stop_signal: launch.stop_signal,
            grace: launch.grace,
            deadline: None,
        })
    }

    /// Takes over what an earlier keeper started. `watch` is its main process, if that still runs.
    pub(in crate::server) fn adopt(orphan: &Orphan, group: Group, watch: Option<OwnedFd>) -> Self {
        let others = group.processes().unwrap_or_default();
        let processes: Vec<i32> = std::iter::once(orphan.pid).chain(others).collect();
        // What the former keeper reported and the group does not count was in leaves that are gone.
        let counted = if group.forgets_leaves() { group.oom_kills() } else { orphan.oom_kills };
        let forgotten_kills = orphan.oom_kills.saturating_sub(counted);
        let freezer = if group.is_frozen() { Freezer::Frozen } else { Freezer::Thawed };
        let pipes = watch.as_ref().and_then(|_| pipes::reopen(&processes));
        let mut held = Held::default();
        if let Some(number) = orphan.notification_fd.filter(|_| watch.is_some()) {
            notification::hold_again(&mut held, number, &processes, pipes.as_ref());
        }
        Self {
            pid: orphan.pid,
            named: None,
            phase: Phase::Running,
            // In a process namespace of its own it would have ended with its keeper.
            birth: Birth::Copied,
            project: orphan.project.to_string(),
            agent: orphan.agent.clone(),
            guards: orphan.guards.clone(),
            protection: Protection::default(),
            shares_network: orphan.shares_network,
            beside: orphan.beside,
            oom: Told::until(orphan.oom_kills),
            forgotten_kills,
            notices: Vec::new(),
            planted: Vec::new(),
            appearances: Appeared::default(),
            rest: Rest::default(),
            group,
            enforcement: orphan.enforcement.clone(),
            pipes,
            terminal: None,
            listener: None,
            held,
            usage: Usage::default(),
            status: None,
            exited: None,
            started: Startup::Executed,
            watch,
            freezer,
            notification_fd: orphan.notification_fd,
            start_time: Some(orphan.start_time),
            started_ms: orphan.started_ms,
            stop_signal: orphan.stop_signal,
            grace: orphan.grace,
            deadline: None,
        }
    }

    /// It executes its program now; the status if it has already ended.
    pub(in crate::server) fn executed(&mut self) -> Option<Status> {
        self.started = Startup::Executed;
        self.phase = if self.exited.is_none() { Phase::Running } else { Phase::Draining };
        self.exited
    }

    /// It could not be confined or executed; its process ends by itself.
    pub(in crate::server) fn failed(&mut self, error: StepError, caller: Caller) {
        self.started = Startup::Failed(error, caller);
        self.phase = if self.exited.is_some() { Phase::Draining } else { Phase::Running };
    }

    /// Whether anybody was told that it started.
    pub(in crate::server) fn was_started(&self) -> bool {
        matches!(self.started, Startup::Executed)
    }

    /// Why it did not start, and who is to be told.
    pub(in crate::server) fn failure(&self) -> Option<(Caller, StepError)> {
        match &self.started {
            Startup::Failed(error, caller) => Some((*caller, error.clone())),
            Startup::Undecided | Startup::Executed => None,
        }
    }

    /// How its main process ended, if that may be told: not before it was told that it started.
    pub(in crate::server) fn told_status(&self) -> Option<Status> {
        self.exited.filter(|_| self.was_started())
    }

    /// Its main process has ended. The true status when this is to be told now.
    pub(in crate::server) fn on_exit(&mut self, status: Status) -> Option<Status> {
        let status = match self.status.take().and_then(read_status) {
            Some([0, code, _]) => Status::Code(code.into()),
            Some([_, signal, core]) => Status::Signal { signal: signal.into(), core: core != 0 },
            None => status,
        };
        self.exited = Some(status);
        if let Phase::Starting { .. } = self.phase {
            return None;
        }
        self.phase = Phase::Draining;
        if !self.group.can_kill() && self.watch.is_none() {
            // Without groups, its process group is the best there is; that of an orphan may be somebody else's by now.
            let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        self.told_status()
    }

    /// What tells of its end when it is somebody else's child.
    pub(in crate::server) fn watch(&self) -> Option<&OwnedFd> {
        self.watch.as_ref()
    }

    /// How far it is.
    pub(in crate::server) fn state(&self) -> State {
        match (&self.started, &self.phase, self.exited) {
            (Startup::Failed(error, _), ..) => State::NotStarted(StartError::Step(error.clone())),
            (Startup::Undecided, ..) => State::Starting,
            (Startup::Executed, Phase::Draining, Some(status)) => State::Exited { status },
            (Startup::Executed, ..) if self.freezer == Freezer::Frozen => State::Frozen,
            (Startup::Executed, ..) => State::Running,
        }
    }

    /// When its main process began; reads it once, while it lives.
    pub(in crate::server) fn begun(&mut self) -> Option<u64> {
        if self.start_time.is_none() && self.exited.is_none() {
            self.start_time = process::start_time(self.pid);
        }
        self.start_time.filter(|_| self.exited.is_none())
    }

    /// All that a daemon needs to go on with it.
    pub(in crate::server) fn entry(&mut self, id: ProcessId) -> Entry {
        let main = if self.exited.is_none() { self.main_process() } else { self.pid };
        Entry {
            id,
            pid: main,
            project: self.project.clone(),
            agent: self.agent.to_string(),
            start_time: if main == self.pid { self.begun() } else { process::start_time(main) },
            started_ms: self.started_ms,
            state: self.state(),
            enforcement: self.enforcement.clone(),
            beside: self.beside,
            held: self.held.names(),
            stop_signal: self.stop_signal,
            grace: self.grace,
            guards: self.guards.clone(),
            inner_binds: self.protection.binds.clone(),
            shares_network: self.shares_network,
            notification_fd: self.notification_fd,
            oom_kills: self.oom.kills(),
        }
    }

    pub(in crate::server) fn freeze(&mut self) -> Result<Body, String> {
        self.group.freeze().map_err(|error| with_source(&error))?;
        if self.has_left_its_group() {
            // It runs on, and so shall what is left in the group.
            let _ = self.group.thaw();
            return Err(format!("somebody moved its process {} out of its control group", self.pid));
        }
        self.freezer = Freezer::Frozen;
        Ok(Body::Done)
    }

    pub(in crate::server) fn limit(&mut self, limits: &GroupLimits) -> Result<Body, String> {
        let reasons = self.group.change_limits(limits);
        if reasons.is_empty() { Ok(Body::Done) } else { Err(reasons.join("; ")) }
    }

    /// Whether its process lives elsewhere. One that has ended lives nowhere.
    fn has_left_its_group(&self) -> bool {
        let read = |name: &str| process::text(self.pid, name).unwrap_or_default();
        let (groups, stat) = (read("cgroup"), read("stat"));
        let has_ended = stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['Z', 'X']);
        let own = format!("/{}/{}", folder_of(&self.project), folder_of(self.agent.as_str()));
        !groups.is_empty() && !has_ended && !groups.contains(&own)
    }

    pub(in crate::server) fn thaw(&mut self) -> Result<Body, String> {
        self.group.thaw().map_err(|error| with_source(&error))?;
        self.freezer = Freezer::Thawed;
        Ok(Body::Done)
    }

    /// When its group is empty: takes its last figures and removes it. True when it is done with.
    pub(in crate::server) fn try_finish(&mut self) -> bool {
        if !matches!(self.phase, Phase::Draining) {
            return false;
        }
        self.usage = self.usage_now();
        if self.group.remove().is_ok() {
            self.planted.extend(guard::sweep(&self.guards, &self.agent, self.started_ms));
            return true;
        }
        if self.ends_by_itself() {
            return false;
        }
        let _ = self.group.kill();
        false
    }

    /// Whether what is left in its group has a moment to end, because nobody asked it to. What is there after that is told.
    fn ends_by_itself(&mut self) -> bool {
        let Rest::MayEnd { since } = &mut self.rest else { return false };
        if since.get_or_insert_with(Instant::now).elapsed() < REST_ENDS_WITHIN {
            return true;
        }
        self.rest = Rest::IsKilled;
        let left = left_running(&self.own_processes());
        self.notices.extend(left.filter(|_| self.beside.is_none()));
        false
    }

    /// The processes of its group that it started itself: those in leaves of their own are probes, hooks and commands of `toka exec`,
    /// which others asked for.
    pub(in crate::server) fn own_processes(&self) -> Vec<i32> {
        let mut own = self.group.processes().unwrap_or_default();
        // Looked at after that: what is forked in between is in no list, and so it is not taken for the agent's.
        let leaves = self.group.leaves().into_iter().filter(|leaf| is_of_one_beside(leaf));
        let beside: BTreeSet<i32> =
            leaves.flat_map(|leaf| self.group.open_leaf(&leaf).processes().unwrap_or_default()).collect();
        own.retain(|pid| !beside.contains(pid));
        own
    }

    /// What it has used so far, with what its former leaves say of kills for memory.
    pub(in crate::server) fn usage_now(&self) -> Usage {
        let usage = self.group.usage();
        Usage { oom_kills: usage.oom_kills + self.forgotten_kills, ..usage }
    }

    /// How many of its processes the kernel has killed for memory.
    pub(in crate::server) fn oom_kills(&self) -> u64 {
        self.group.oom_kills() + self.forgotten_kills
    }

    /// What a task leaves running in the leaf that was its own, after it had a moment to end.
    pub(in crate::server) fn left_in(&self, leaf: &str) -> Option<String> {
        let leaf = self.group.open_leaf(leaf);
        let deadline = Instant::now() + REST_ENDS_WITHIN;
        loop {
            let left = left_running(&leaf.processes().unwrap_or_default())?;
            if Instant::now() >= deadline {
                return Some(left);
            }
            std::thread::sleep(REST_ENDS_WITHIN / 5);
        }
    }

    /// A leaf was removed that had this to tell. Whether the group would not have told it.
    pub(in crate::server) fn remember_leaf(&mut self, usage: &Usage) -> bool {
        let forgotten = if self.group.forgets_leaves() { usage.oom_kills } else { 0 };
        self.forgotten_kills += forgotten;
        forgotten > 0
    }

    pub(in crate::server) fn signal(&mut self, signal: i32) -> Result<Body, String> {
        let signal = Signal::try_from(signal).map_err(|error| error.to_string())?;
        if signal as i32 == self.stop_signal || signal == Signal::SIGKILL {
            self.rest = Rest::IsKilled;
        }
        if matches!(self.phase, Phase::Draining) {
            return Ok(Body::Done);
        }
        let sent = match self.living_named() {
            None => self.send(signal),
            Some(named) => named.signal(Some(signal)).map_err(Into::into),
        };
        sent.map_err(|error| error.to_string())?;
        Ok(Body::Done)
    }

    /// A child of ours keeps its number until we have reaped it; that of another's child may be used again.
    fn send(&self, signal: Signal) -> std::io::Result<()> {
        match &self.watch {
            Some(watch) => sys::signal_process(watch.as_fd(), signal as i32),
            None => Ok(kill(Pid::from_raw(self.pid), signal)?),
        }
    }

    pub(in crate::server) fn kill(&mut self) -> Result<Body, String> {
        self.rest = Rest::IsKilled;
        if !matches!(self.phase, Phase::Draining) {
            let _ = self.send(Signal::SIGKILL);
        }
        self.group.kill().map_err(|error| error.to_string())?;
        Ok(Body::Done)
    }

    /// The keeper ends: asks it to stop, frozen or not.
    pub(in crate::server) fn begin_stop(&mut self, now: Instant) {
        self.deadline = Some(now + self.grace);
        let _ = self.thaw();
        let _ = self.signal(self.stop_signal);
    }

    /// What is due: the kill after the grace period, another look at a group that empties.
    pub(in crate::server) fn on_time(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            let _ = self.kill();
        }
    }

    /// The host's number of the process that its processes call `number`; `None` when none of them is called so. The
    /// first process of its namespace is ours, and no task of it.
    pub(in crate::server) fn on_host(&self, number: i32) -> Option<i32> {
        match self.birth {
            Birth::Sharing | Birth::Copied => Some(number),
            Birth::InNamespaces => {
                let members: Vec<i32> = if self.group.can_kill() {
                    self.group.processes().unwrap_or_default()
                } else {
                    number::descendants(Path::new("/proc"), self.pid).into_iter().collect()
                };
                let others = members.into_iter().filter(|pid| *pid != self.pid);
                number::on_host(Path::new("/proc"), others, self.pid, number)
            }
        }
    }

    /// The host's number of the agent's first process: where ours only stands before it, that is the second of its namespace.
    pub(in crate::server) fn inside(&self) -> Option<i32> {
        match self.birth {
            Birth::Sharing | Birth::Copied => Some(self.pid),
            Birth::InNamespaces => self.on_host(2),
        }
    }

    /// Whether it was frozen because somebody asked for that.
    pub(in crate::server) fn is_frozen(&self) -> bool {
        self.freezer == Freezer::Frozen
    }

    /// Whether its main process executes its program.
    pub(in crate::server) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running) && self.was_started()
    }

    /// Whether its main process has ended, and its group may have others.
    pub(in crate::server) fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining)
    }

    /// How long until [`Child::on_time`] has something to do.
    pub(in crate::server) fn time_left(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }
}

/// An error with what it comes from.
pub(in crate::server) fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What the names of such leaves begin with.
const BESIDE: &str = "beside-";

/// Whether a leaf is one in which a process began beside the agent.
pub(in crate::server) fn is_of_one_beside(leaf: &str) -> bool {
    leaf.starts_with(BESIDE)
}

/// The leaf of an agent's group in which a process begins that runs beside it.
pub(in crate::server) fn leaf_name(id: ProcessId) -> String {
    format!("{BESIDE}{}", id.0)
}

/// Why a file that is there is not executed.
const NO_INTERPRETER: &str = "it is there, but what executes it is not, at least not for the agent: what its first line names, or its loader";

/// Longest report, in bytes: a step, a path whose bytes may all have to be escaped, and an error.
const REPORT: usize = 64 * 1024;

/// Reads why a start failed; `None` when the pipe closed because the program was executed.
pub(in crate::server) fn read_report(report: &OwnedFd) -> Option<StepError> {
    let mut text = vec![0; REPORT];
    let mut length = 0;
    loop {
        match nix::unistd::read(report, &mut text[length..]) {
            Ok(0) if length == 0 => return None,
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::EINTR) => {}
            Err(_) => return Some(unreadable("its report cannot be read")),
        }
    }
    serde_json::from_slice(&text[..length]).ok().or_else(|| Some(unreadable("its report is damaged")))
}

fn unreadable(reason: &str) -> StepError {
    StepError { step: "start".into(), path: None, errno: 0, reason: reason.into() }
}

/// The child's ends of its pipes.
#[derive(Clone, Copy)]
struct Ends<'a> {
    streams: Streams<'a>,
    notification: Option<&'a Notification>,
    report: BorrowedFd<'a>,
}

impl<'a> Ends<'a> {
    /// All of them, with the program's.
    fn descriptors(&self, executable: &'a Executable<'_>) -> Vec<BorrowedFd<'a>> {
        let Streams { input, output, error, terminal, listener } = self.streams;
        let channels = terminal.map(|terminal| terminal.channel);
        let channels = channels.into_iter().chain(listener.map(|listener| listener.channel));
        let notification = self.notification.map(Notification::end);
        let program = match &executable.target {
            Target::Open(file) => Some(*file),
            Target::Moved(file) => Some(file.as_fd()),
            Target::Path(_) => None,
        };
        [input, output, error, self.report]
            .into_iter()
            .chain(channels)
            .chain(notification)
            .chain(program)
            .collect()
    }
}

/// In the child: confines itself and executes the program; on failure says the step, the path and the error, and returns
/// the status to end with.
fn become_agent(
    prepared: &Prepared,
    preparer: &Preparer,
    launch: &Launch,
    executable: &Executable<'_>,
    (birth, ends): (Birth, Ends<'_>),
) -> i32 {
    // What is placed last takes the number of nothing that is still needed.
    let placed = prepared
        .enter(&launch.plan, preparer, birth, ends.streams)
        .and_then(|()| ends.notification.map_or(Ok(()), Notification::place));
    let error = match placed {
        Ok(()) => executable.execute(),
        Err(error) => error,
    };
    if let Ok(text) = serde_json::to_vec(&error) {
        let _ = nix::unistd::write(ends.report, &text);
    }
    127
}

/// What is to be executed, made ready before there is a process.
#[derive(Debug)]
struct Executable<'a> {
    target: Target<'a>,
    arguments: Arguments,
}

#[derive(Debug)]
enum Target<'a> {
    Path(CString),
    Open(BorrowedFd<'a>),
    /// The same, where it had the number that the agent's own descriptor gets.
    Moved(OwnedFd),
}

impl<'a> Executable<'a> {
    fn new(preparer: &'a Preparer, launch: &Launch) -> Result<Self, StepError> {
        let c_string = |bytes: Vec<u8>| CString::new(bytes).unwrap_or_default();
        let argv = launch.argv.iter().map(|arg| c_string(arg.as_bytes().to_vec())).collect();
        let pair = |(name, value): &(OsString, OsString)| {
            let mut pair = name.clone().into_vec();
            pair.push(b'=');
            pair.extend(value.as_bytes());
            c_string(pair)
        };
        let envp = launch.env.iter().map(pair).collect();
        let target = match &launch.program {
            Program::Itself if notification::is(preparer.executable(), launch.notification_fd) => {
                Target::Moved(notification::copy(preparer.executable())?)
            }
            Program::Itself => Target::Open(preparer.executable()),
            Program::Path(path) => {
                Target::Path(sys::c_path(path).map_err(|error| StepError::new("exec", Some(path), &error))?)
            }
        };
        Ok(Self { target, arguments: Arguments::new(argv, envp) })
    }

    /// Returns only with the reason why not.
    fn execute(&self) -> StepError {
        let mut error = self.try_to_execute();
        for _ in 0..busy::TRIES {
            if error.errno != Errno::ETXTBSY as i32 {
                break;
            }
            std::thread::sleep(busy::PAUSE);
            error = self.try_to_execute();
        }
        error
    }

    fn try_to_execute(&self) -> StepError {
        match &self.target {
            Target::Open(file) => StepError::new("exec", None, &sys::exec_file(*file, &self.arguments)),
            Target::Moved(file) => {
                StepError::new("exec", None, &sys::exec_file(file.as_fd(), &self.arguments))
            }
            Target::Path(path) => {
                let error = sys::exec_path(path, &self.arguments);
                let mut step =
                    StepError::new("exec", Some(Path::new(OsStr::from_bytes(path.as_bytes()))), &error);
                if step.errno == Errno::ENOENT as i32 && access(path.as_c_str(), AccessFlags::F_OK).is_ok() {
                    // It is the interpreter of a script, or the loader of a program, that is not there (execve(2)).
                    step.reason = NO_INTERPRETER.to_owned();
                }
                step
            }
        }
    }
}
