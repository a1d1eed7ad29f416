//! The keeper's loop: one thread, one place where it waits, and every reason that it wakes up for on this page.

mod adopt;
mod calls;
mod child;
mod held;
mod listener;
mod number;
mod oom;
mod past;
mod peer;
mod peers;
mod pipes;
mod planted;
mod renewal;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use toka_sandbox::guard::watch::Appearances;
use toka_sandbox::renewal::Replacements;
use toka_sandbox::sys::{Collected, Patience};
use toka_sandbox::{Birth, Cgroups, HostFacts, OomWatch, Preparer, sys};

use crate::protocol::{Body, HOST_IS_TOLD, ProcessId, Status};
use child::{Child, Phase};
use held::Held;
use listener::Listener;
use oom::Looks;
use past::{Over, Past};
use peer::{Peer, Role};

/// What woke the loop.
enum Wake {
    /// A connection has something to say, or room to be told something.
    Peer(u64),
    /// Somebody connects.
    Guests,
    Signals,
    /// A child's report pipe: it has executed its program, or says why not.
    Report(ProcessId),
    /// An adopted process has ended.
    Watch(ProcessId),
    /// The kernel may have killed for memory.
    Memory,
    /// A name was replaced that some agent must not change.
    Names,
    /// Something appeared that git may obey.
    Appearance,
}

const SIGNALS: u64 = u64::MAX;
const GUESTS: u64 = u64::MAX - 1;
const MEMORY: u64 = u64::MAX - 2;
const NAMES: u64 = u64::MAX - 3;
const APPEARANCES: u64 = u64::MAX - 4;
/// Marks the number of a connection.
const PEER: u64 = 1 << 63;
/// Marks the number of an adopted process; without a mark it is that of a start under way.
const WATCH: u64 = 1 << 62;
/// While a group is being emptied it is looked at this often, beside every SIGCHLD: a process may be gone for the kernel
/// a moment before its group is empty.
const DRAIN_INTERVAL: Duration = Duration::from_millis(2);
/// Events taken at once.
const BATCH: usize = 64;

/// Whether the keeper has to look at the host itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// It has.
    IsUnknown,
    /// The first packet says what is known.
    IsTold,
}

impl Host {
    /// What the word behind the name of the group says.
    pub fn of(word: Option<&OsStr>) -> Self {
        if word.is_some_and(|word| word == HOST_IS_TOLD) { Self::IsTold } else { Self::IsUnknown }
    }
}

/// Runs the keeper on `control`. It ends when its daemon does, or, once it was told to listen for the next one, when it is
/// told to end or gets a signal; before that every agent is stopped gracefully. Then it removes the folders `leftovers`: a
/// daemon that was killed has left its sockets and secrets there.
///
/// # Errors
/// When the process cannot be set up, or its own descriptors fail.
pub fn serve(control: OwnedFd, cgroup_name: &str, host: Host, leftovers: &[PathBuf]) -> io::Result<()> {
    // Not of the terminal's process group: Ctrl-C is the daemon's to handle.
    let _ = nix::unistd::setsid();
    sys::default_signals();
    sys::become_subreaper()?;
    raise_descriptor_limit();
    let mut creator = greeted(control);
    // What cannot be sent at once is sent when there is room.
    let _ = creator.send();
    let told = match host {
        Host::IsTold => creator.told(),
        Host::IsUnknown => None,
    };
    let host = told.unwrap_or_else(HostFacts::probe);
    let cgroups = Cgroups::new(host.cgroups.clone(), cgroup_name);
    let preparer = Preparer::new(host, cgroups)?;
    let mut server = Server::new(preparer)?;
    server.begin_with(creator)?;
    // Nearly every agent needs it, and the daemon has other things to do before it asks for the first.
    server.preparer.make_empty_network();
    let ended = server.run();
    for folder in leftovers {
        // Mostly the daemon has done it.
        let _ = std::fs::remove_dir_all(folder);
    }
    ended
}

/// The connection to the daemon that started the keeper, with the keeper's greeting on its way. The daemon gets it before the keeper
/// looks at the host, and does other things meanwhile; its calls wait in the socket.
fn greeted(control: OwnedFd) -> Peer {
    let creator = nix::sys::socket::getsockopt(&control, nix::sys::socket::sockopt::PeerCredentials);
    let mut peer = Peer::new(Role::Daemon, creator.map_or(0, |peer| peer.pid()), control);
    peer.greet();
    peer
}

/// Each agent costs descriptors for as long as it is kept. The agents themselves have a limit of their own.
fn raise_descriptor_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// What becomes of the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Keeping,
    /// Agents are being stopped; it ends when they are gone, and their ends settled if there is a daemon.
    Ending,
}

struct Server {
    stage: Stage,
    /// There when it outlives its daemon.
    listener: Option<Listener>,
    signals: SignalFd,
    epoll: Epoll,
    preparer: Preparer,
    null: OwnedFd,
    children: BTreeMap<ProcessId, Child>,
    past: Past,
    /// Held for the keeper as a whole.
    held: Held,
    /// Whose main process a pid is.
    mains: HashMap<i32, ProcessId>,
    /// Those whose main process has ended and whose group may not be empty yet: few, whatever the number of children.
    draining: BTreeSet<ProcessId>,
    /// Adopted ones whose main process has ended: until when its parent may take to collect it.
    uncollected: BTreeMap<ProcessId, Instant>,
    /// There where memory is counted per group.
    oom: Option<OomWatch>,
    looks: Looks,
    /// Tells when a name is replaced that some agent must not change.
    replacements: Option<Replacements>,
    /// When to look for names that were removed.
    next_look_for_names: Option<Instant>,
    /// Tells when something appears that git may obey.
    appearances: Option<Appearances>,
    next_peer: u64,
    /// The connection that may ask for everything.
    daemon: Option<u64>,
    // Rust drops fields in this order. The daemon takes it for the keeper's end when these close, and the kernel needs milliseconds to
    // close what is above (inotify, namespaces).
    peers: BTreeMap<u64, Peer>,
    /// Sockets of those that went while the keeper ends.
    parked: Vec<OwnedFd>,
}

impl Server {
    fn new(preparer: Preparer) -> io::Result<Self> {
        let mask: SigSet =
            [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        let null = std::fs::File::open("/dev/null")?.into();
        let mut server = Self {
            stage: Stage::Keeping,
            listener: None,
            peers: BTreeMap::new(),
            next_peer: 0,
            daemon: None,
            parked: Vec::new(),
            signals,
            epoll,
            preparer,
            null,
            children: BTreeMap::new(),
            past: Past::new(),
            held: Held::default(),
            mains: HashMap::new(),
            draining: BTreeSet::new(),
            uncollected: BTreeMap::new(),
            oom: None,
            looks: Looks::default(),
            replacements: None,
            next_look_for_names: None,
            appearances: None,
        };
        server.begin_memory_watch();
        server.begin_watch_of_names();
        server.begin_watch_of_appearances();
        Ok(server)
    }

    fn run(&mut self) -> io::Result<()> {
        while self.has_work() {
            let mut events = [EpollEvent::empty(); BATCH];
            let count = match self.epoll.wait(&mut events, self.next_wake()) {
                Err(Errno::EINTR) => 0,
                other => other?,
            };
            for event in &events[..count] {
                match wake_of(event.data()) {
                    Wake::Peer(number) => self.on_peer(number),
                    Wake::Guests => self.on_guests(),
                    Wake::Signals => self.on_signals(),
                    Wake::Report(id) => self.on_report(id),
                    Wake::Watch(id) => self.on_watch(id),
                    Wake::Memory => self.on_memory(),
                    Wake::Names => self.on_names(),
                    Wake::Appearance => self.on_appearances(),
                }
            }
            self.on_time();
            if self.stage == Stage::Keeping {
                self.preparer.make_spare_network();
            }
        }
        // Before the last sockets close, since that is how others know that it has ended.
        self.listener = None;
        kill_orphans();
        self.preparer.cgroups().remove_empty();
        Ok(())
    }

    fn has_work(&self) -> bool {
        match self.stage {
            Stage::Keeping => true,
            Stage::Ending => !self.children.is_empty() || self.daemon.is_some() && !self.past.is_empty(),
        }
    }

    /// When to wake up although nothing happens: only while groups are being emptied or agents stopped, when kills for
    /// memory are to be told, or names that were removed are looked for.
    fn next_wake(&self) -> EpollTimeout {
        let now = Instant::now();
        let waits = !self.draining.is_empty() || !self.uncollected.is_empty();
        let draining = waits.then_some(DRAIN_INTERVAL);
        let deadline = match self.stage {
            Stage::Keeping => None,
            Stage::Ending => self.children.values().filter_map(|child| child.time_left(now)).min(),
        };
        let looks = self.daemon.and_then(|_| self.looks.time_left(now));
        let names = self.next_look_for_names.map(|due| due.saturating_duration_since(now));
        let next = draining.into_iter().chain(deadline).chain(looks).chain(names).min();
        next.and_then(|wait| EpollTimeout::try_from(wait + Duration::from_millis(1)).ok())
            .unwrap_or(EpollTimeout::NONE)
    }

    /// Every agent is asked to stop, and killed when its grace period is over; then the keeper ends.
    fn begin_end(&mut self) {
        if self.stage == Stage::Ending {
            return;
        }
        self.stage = Stage::Ending;
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
            self.begin_end();
        }
        self.reap();
    }

    /// Collects every dead child: main processes, and orphans of agents that became ours.
    fn reap(&mut self) {
        loop {
            let (pid, status) = match sys::collect(Patience::None) {
                Ok(Some((pid, Collected::Code(code)))) => (pid, Status::Code(code)),
                Ok(Some((pid, Collected::Signal(signal, core)))) => (pid, Status::Signal { signal, core }),
                Ok(None) | Err(_) => break,
            };
            if let Some(id) = self.mains.remove(&pid) {
                self.on_exit(id, pid, status);
            }
        }
        self.let_go();
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
            self.tell(Body::Exited { id, status });
        }
    }

    fn on_report(&mut self, id: ProcessId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let Phase::Starting { report, caller } = &child.phase else { return };
        let caller = *caller;
        if child.birth != Birth::Sharing {
            let _ = self.epoll.delete(report);
        }
        match child::read_report(report) {
            None => {
                let early = child.executed();
                child.take_terminal();
                child.take_listener();
                let start_time = child.begun();
                let enforcement = child.enforcement.clone();
                let (names, descriptors) = child.for_its_daemon();
                let body = Body::Started { pid: child.pid, enforcement, start_time, names };
                // It runs all the same; what there is no room for can be handed back later.
                self.answer(caller, body, descriptors.unwrap_or_default());
                self.protect_names_of(id);
                self.watch_appearances_of(id);
                if let Some(status) = early {
                    self.tell(Body::Exited { id, status });
                }
            }
            Some(error) => {
                child.failed(error, caller);
            }
        }
        if self.children.get(&id).is_some_and(Child::is_draining) {
            self.draining.insert(id);
        }
        self.let_go();
    }

    fn on_time(&mut self) {
        if self.stage == Stage::Ending {
            let now = Instant::now();
            self.children.values_mut().for_each(|child| child.on_time(now));
        }
        self.hear_of_collected();
        self.let_go();
        self.tell_kills(Instant::now());
        self.look_for_names(Instant::now());
    }

    /// Lets go of every child whose main process has ended and whose group is empty.
    fn let_go(&mut self) {
        let (children, draining) = (&mut self.children, &mut self.draining);
        let mut finished = |id: &ProcessId| children.get_mut(id).is_none_or(Child::try_finish);
        let ended: Vec<ProcessId> = draining.iter().copied().filter(|id| finished(id)).collect();
        for id in ended {
            self.draining.remove(&id);
            let Some(child) = self.children.remove(&id) else { continue };
            self.release_names(&child.protection);
            self.release_appearances_of(id);
            let host = child.beside.and_then(|host| self.children.get_mut(&host));
            if host.is_some_and(|host| host.remember_leaf(&child.usage)) {
                self.look_for_kills(Instant::now());
            }
            let failure = child.failure();
            let over = Over::ended(id, child);
            for news in over.last_words() {
                self.tell(news);
            }
            self.remember(over);
            if let Some((caller, error)) = failure {
                // Only now, so that its number and its group are free for another try.
                self.answer(caller, Body::NotStarted(error), Vec::new());
            }
        }
    }

    /// Keeps what is over for the next daemon, if there can be one.
    fn remember(&mut self, over: Over) {
        if self.outlives() {
            self.past.insert(over.entry.id, over);
        }
    }

    /// Whether it goes on when its daemon goes.
    fn outlives(&self) -> bool {
        self.listener.is_some()
    }
}

fn wake_of(data: u64) -> Wake {
    match data {
        SIGNALS => Wake::Signals,
        GUESTS => Wake::Guests,
        MEMORY => Wake::Memory,
        NAMES => Wake::Names,
        APPEARANCES => Wake::Appearance,
        number if number & PEER != 0 => Wake::Peer(number & !PEER),
        id if id & WATCH != 0 => Wake::Watch(ProcessId(id & !WATCH)),
        id => Wake::Report(ProcessId(id)),
    }
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
        if sys::collect(Patience::Waits).is_err() {
            return;
        }
    }
}
