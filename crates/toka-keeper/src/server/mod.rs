//! The keeper's loop: one thread, one place where it waits, and every reason that it wakes up for on this page.

mod child;
mod main_process;
mod notification;
mod number;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use toka_sandbox::{Birth, Cgroups, HostFacts, Preparer, sys};

use crate::packet::{Inbox, Packet};
use crate::protocol::{Body, Call, Entry, Launch, Message, ProcessId, Request, Status, VERSION};
use child::{Child, Phase};

/// What woke the loop.
enum Wake {
    Control,
    Signals,
    /// A child's report pipe: it has executed its program, or says why not.
    Report(ProcessId),
}

const CONTROL: u64 = u64::MAX;
const SIGNALS: u64 = u64::MAX - 1;
/// While a group is being emptied it is looked at this often, beside every SIGCHLD: a process may be gone for the kernel
/// a moment before its group is empty.
const DRAIN_INTERVAL: Duration = Duration::from_millis(2);
/// Events taken at once.
const BATCH: usize = 64;

/// Runs the keeper on `control` until its other side is closed and every agent is gone, and then removes the folders
/// `leftovers`: a daemon that was killed has left its sockets and secrets there.
///
/// # Errors
/// When the process cannot be set up, or its own descriptors fail.
pub fn serve(control: OwnedFd, cgroup_name: &str, leftovers: &[PathBuf]) -> io::Result<()> {
    // Not of the terminal's process group: Ctrl-C is the daemon's to handle.
    let _ = nix::unistd::setsid();
    sys::default_signals();
    sys::become_subreaper()?;
    let host = HostFacts::probe();
    let cgroups = Cgroups::new(host.cgroups.clone(), cgroup_name);
    let preparer = Preparer::new(host, cgroups)?;
    let mut server = Server::new(control, preparer)?;
    server.say(None, Body::Hello { version: VERSION }, Vec::new());
    let ended = server.run();
    for folder in leftovers {
        // Mostly the daemon has done it.
        let _ = std::fs::remove_dir_all(folder);
    }
    ended
}

struct Server {
    control: OwnedFd,
    inbox: Inbox,
    /// False once the daemon's side is closed: then agents are being stopped, and nothing can be said any more.
    connected: bool,
    signals: SignalFd,
    epoll: Epoll,
    preparer: Preparer,
    null: OwnedFd,
    children: BTreeMap<ProcessId, Child>,
    /// Whose main process a pid is.
    mains: HashMap<i32, ProcessId>,
    /// Those whose main process has ended and whose group may not be empty yet: few, whatever the number of children.
    draining: BTreeSet<ProcessId>,
    outgoing: VecDeque<Packet>,
}

impl Server {
    fn new(control: OwnedFd, preparer: Preparer) -> io::Result<Self> {
        let mask: SigSet =
            [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&control, EpollEvent::new(EpollFlags::EPOLLIN, CONTROL))?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        let null = std::fs::File::open("/dev/null")?.into();
        Ok(Self {
            control,
            inbox: Inbox::new(),
            connected: true,
            signals,
            epoll,
            preparer,
            null,
            children: BTreeMap::new(),
            mains: HashMap::new(),
            draining: BTreeSet::new(),
            outgoing: VecDeque::new(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        while self.connected || !self.children.is_empty() {
            let mut events = [EpollEvent::empty(); BATCH];
            let count = match self.epoll.wait(&mut events, self.next_wake()) {
                Err(Errno::EINTR) => 0,
                other => other?,
            };
            for event in &events[..count] {
                match wake_of(event.data()) {
                    Wake::Control => self.on_control(),
                    Wake::Signals => self.on_signals(),
                    Wake::Report(id) => self.on_report(id),
                }
            }
            self.on_time();
        }
        kill_orphans();
        self.preparer.cgroups().remove_empty();
        Ok(())
    }

    /// When to wake up although nothing happens: only while groups are being emptied or agents stopped.
    fn next_wake(&self) -> EpollTimeout {
        let now = Instant::now();
        let draining = (!self.draining.is_empty()).then_some(DRAIN_INTERVAL);
        let deadline = self.stopping().filter_map(|child| child.time_left(now)).min();
        let next = draining.into_iter().chain(deadline).min();
        next.and_then(|wait| EpollTimeout::try_from(wait + Duration::from_millis(1)).ok())
            .unwrap_or(EpollTimeout::NONE)
    }

    /// Children with a deadline: none before the daemon's side closes.
    fn stopping(&self) -> impl Iterator<Item = &Child> {
        self.children.values().filter(|_| !self.connected)
    }

    fn on_control(&mut self) {
        self.flush();
        loop {
            match self.inbox.receive::<Call>(self.control.as_fd()) {
                Ok(Some((call, descriptors))) => self.on_call(call, descriptors),
                Ok(None) => return self.disconnect(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    let body = Body::Failed { reason: format!("not understood: {error}") };
                    self.say(None, body, Vec::new());
                }
                Err(_) => return self.disconnect(),
            }
        }
    }

    /// The daemon is gone: every agent is asked to stop, and killed when its grace period is over.
    fn disconnect(&mut self) {
        if !self.connected {
            return;
        }
        self.connected = false;
        self.outgoing.clear();
        let _ = self.epoll.delete(&self.control);
        for child in self.children.values_mut() {
            child.begin_stop(Instant::now());
        }
    }

    fn on_signals(&mut self) {
        let mut stop = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            stop |= i32::try_from(info.ssi_signo) != Ok(Signal::SIGCHLD as i32);
        }
        if stop {
            self.disconnect();
        }
        self.reap();
    }

    /// Collects every dead child: main processes, and orphans of agents that became ours.
    fn reap(&mut self) {
        loop {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
            let (pid, status) = match waitid(Id::All, flags) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Status::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, core)) => {
                    (pid, Status::Signal { signal: signal as i32, core })
                }
                _ => break,
            };
            if let Some(id) = self.mains.remove(&pid.as_raw()) {
                self.on_exit(id, pid.as_raw(), status);
            }
        }
        self.settle();
    }

    fn on_exit(&mut self, id: ProcessId, pid: i32, status: Status) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if child.lives_on_without(pid) {
            return;
        }
        let told = child.on_exit(status);
        if child.is_draining() {
            self.draining.insert(id);
        }
        if let Some(status) = told {
            self.say(None, Body::Exited { id, status }, Vec::new());
        }
    }

    fn on_report(&mut self, id: ProcessId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let Phase::Starting { report, call } = &child.phase else { return };
        let call = *call;
        if child.birth != Birth::Sharing {
            let _ = self.epoll.delete(report);
        }
        match child::read_report(report) {
            None => {
                let pipes = [&child.output, &child.error].into_iter().chain(child.notification());
                let pipes: io::Result<Vec<OwnedFd>> = pipes.map(OwnedFd::try_clone).collect();
                let body = Body::Started { pid: child.pid, enforcement: child.enforcement.clone() };
                let early = child.executed();
                match pipes {
                    Ok(pipes) => self.say(Some(call), body, pipes),
                    Err(_) => self.say(Some(call), failed("duplicate its output pipes"), Vec::new()),
                }
                if let Some(status) = early {
                    self.say(None, Body::Exited { id, status }, Vec::new());
                }
            }
            Some(error) => {
                child.failed();
                self.say(Some(call), Body::NotStarted(error), Vec::new());
            }
        }
        if self.children.get(&id).is_some_and(Child::is_draining) {
            self.draining.insert(id);
        }
        self.settle();
    }

    fn on_time(&mut self) {
        if !self.connected {
            let now = Instant::now();
            self.children.values_mut().for_each(|child| child.on_time(now));
        }
        self.settle();
    }

    /// Lets go of every child whose main process has ended and whose group is empty.
    fn settle(&mut self) {
        let (children, draining) = (&mut self.children, &mut self.draining);
        let mut finished = |id: &ProcessId| children.get_mut(id).is_none_or(Child::try_finish);
        let ended: Vec<ProcessId> = draining.iter().copied().filter(|id| finished(id)).collect();
        for id in ended {
            self.draining.remove(&id);
            let Some(child) = self.children.remove(&id) else { continue };
            for text in child.notices.iter().cloned() {
                self.say(None, Body::Notice { id, text }, Vec::new());
            }
            if child.was_started() {
                self.say(None, Body::Gone { id, usage: child.usage }, Vec::new());
            }
        }
    }

    fn on_call(&mut self, Call { call, request }: Call, descriptors: Vec<OwnedFd>) {
        let body = match request {
            Request::Spawn(launch) => return self.spawn(call, *launch),
            Request::HandBack { id } => return self.hand_back(call, id),
            Request::List => Body::List(self.list()),
            Request::Owner { pid } => Body::Owner(self.owner(pid)),
            Request::Hold { id, name } => self.with(id, |child| {
                child.held.extend(descriptors.into_iter().map(|fd| (name.clone(), fd)));
                Ok(Body::Done)
            }),
            Request::SetMain { id, pid } => self.set_main(id, pid),
            Request::Signal { id, signal } => self.with(id, |child| child.signal(signal)),
            Request::Kill { id } => self.with(id, |child| child.kill()),
            Request::Freeze { id } => self.with(id, |child| done(child.group.freeze())),
            Request::Thaw { id } => self.with(id, |child| done(child.group.thaw())),
            Request::MakeLeaf { id, leaf, pid } => self.make_leaf(id, &leaf, pid),
            Request::RemoveLeaf { id, leaf } => self.with(id, |child| {
                child.group.remove_leaf(&leaf).map(Body::Usage).map_err(|e| with_source(&e))
            }),
            Request::Resources { id } => {
                self.with(id, |child| Ok(Body::Resources(child.group.resources(Path::new("/proc")))))
            }
            Request::Usage { id } => self.with(id, |child| Ok(Body::Usage(child.group.usage()))),
        };
        self.say(Some(call), body, Vec::new());
    }

    /// Moves the process that the agent calls `number` into a leaf, if the kernel says that it is the agent's.
    fn make_leaf(&self, id: ProcessId, leaf: &str, number: i32) -> Body {
        let Some(child) = self.children.get(&id) else { return failed("find the process") };
        if !child.group.can_kill() {
            // There is nothing to move it into, and nothing that would tell whose it is.
            return Body::Done;
        }
        match child.on_host(number).filter(|pid| self.owner(*pid) == Some(id)) {
            Some(pid) => {
                done(child.group.make_leaf(leaf, pid)).unwrap_or_else(|reason| Body::Failed { reason })
            }
            None => Body::Stranger,
        }
    }

    fn with(&mut self, id: ProcessId, act: impl FnOnce(&mut Child) -> Result<Body, String>) -> Body {
        match self.children.get_mut(&id) {
            Some(child) => act(child).unwrap_or_else(|reason| Body::Failed { reason }),
            None => failed("find the process"),
        }
    }

    fn spawn(&mut self, call: u64, launch: Launch) {
        let id = launch.id;
        if self.children.contains_key(&id) {
            return self.say(Some(call), failed("reuse the number of a process that still runs"), Vec::new());
        }
        let host = match launch.beside {
            None => None,
            Some(host) => match self.children.get(&host).filter(|host| host.is_running()) {
                Some(host) => Some(host),
                None => return self.say(Some(call), failed("find the process to start beside"), Vec::new()),
            },
        };
        match Child::start(&self.preparer, &self.null, call, launch, host) {
            Ok(child) => {
                let birth = child.birth;
                self.mains.insert(child.pid, id);
                self.children.insert(id, child);
                match birth {
                    // It has executed its program, or has failed to: we stood still meanwhile.
                    Birth::Sharing => self.on_report(id),
                    Birth::Copied | Birth::InNamespaces => self.await_report(id, call),
                }
            }
            Err(error) => self.say(Some(call), Body::NotPrepared(error), Vec::new()),
        }
    }

    fn await_report(&mut self, id: ProcessId, call: u64) {
        let Some(Child { phase: Phase::Starting { report, .. }, .. }) = self.children.get(&id) else {
            return;
        };
        if let Err(error) = self.epoll.add(report, EpollEvent::new(EpollFlags::EPOLLIN, id.0)) {
            self.say(Some(call), Body::Failed { reason: error.to_string() }, Vec::new());
        }
    }

    fn hand_back(&mut self, call: u64, id: ProcessId) {
        let Some(child) = self.children.get(&id) else {
            return self.say(Some(call), failed("find the process"), Vec::new());
        };
        let names: Vec<String> = child.held.iter().map(|(name, _)| name.clone()).collect();
        let all = [&child.output, &child.error].into_iter().chain(child.held.iter().map(|(_, fd)| fd));
        match all.map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>() {
            Ok(descriptors) => self.say(Some(call), Body::HandBack { names }, descriptors),
            Err(error) => self.say(Some(call), Body::Failed { reason: error.to_string() }, Vec::new()),
        }
    }

    fn list(&self) -> Vec<Entry> {
        let entry = |(id, child): (&ProcessId, &Child)| Entry {
            id: *id,
            pid: child.pid,
            project: child.project.clone(),
            agent: child.agent.to_string(),
        };
        self.children.iter().map(entry).collect()
    }

    /// Whose group the kernel says that a process is in. Without groups, whose main process it is or descends from.
    fn owner(&self, pid: i32) -> Option<ProcessId> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let by_group = self.preparer.cgroups().owner(&text).and_then(|(project, agent)| {
            self.children.iter().find(|(_, child)| {
                child.beside.is_none() && child.project == project && child.agent.as_str() == agent
            })
        });
        by_group.map(|(id, _)| *id).or_else(|| self.owner_by_ancestry(pid))
    }

    fn owner_by_ancestry(&self, mut pid: i32) -> Option<ProcessId> {
        for _ in 0..64 {
            if let Some((id, child)) = self.children.iter().find(|(_, child)| child.pid == pid) {
                // What runs beside an agent speaks for it.
                return child.beside.or(Some(*id));
            }
            pid = parent_of(pid).filter(|parent| *parent > 1)?;
        }
        None
    }

    /// Sends, or queues while the daemon does not keep up.
    fn say(&mut self, call: Option<u64>, body: Body, descriptors: Vec<OwnedFd>) {
        if !self.connected {
            return;
        }
        if let Ok(packet) = Packet::new(&Message { call, body }, descriptors) {
            self.outgoing.push_back(packet);
        }
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(packet) = self.outgoing.front() {
            match packet.send(self.control.as_fd()) {
                Ok(()) => drop(self.outgoing.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.disconnect(),
            }
        }
        let mut interest = EpollFlags::EPOLLIN;
        if !self.outgoing.is_empty() {
            interest |= EpollFlags::EPOLLOUT;
        }
        let _ = self.epoll.modify(&self.control, &mut EpollEvent::new(interest, CONTROL));
    }
}

fn wake_of(data: u64) -> Wake {
    match data {
        CONTROL => Wake::Control,
        SIGNALS => Wake::Signals,
        id => Wake::Report(ProcessId(id)),
    }
}

fn failed(what: &str) -> Body {
    Body::Failed { reason: format!("cannot {what}") }
}

fn done<E: std::error::Error>(result: Result<(), E>) -> Result<Body, String> {
    result.map(|()| Body::Done).map_err(|error| with_source(&error))
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The parent of a process (proc_pid_stat(5)): the second field behind the name, which may itself have parentheses.
fn parent_of(pid: i32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Where there are no groups, what agents left behind has become our children; nothing outlives the keeper.
fn kill_orphans() {
    let own = Pid::this().as_raw();
    while let Ok(text) = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")) {
        let orphans: Vec<i32> = text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        if orphans.is_empty() {
            return;
        }
        for pid in orphans {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if waitid(Id::All, WaitPidFlag::WEXITED).is_err() {
            return;
        }
    }
}
