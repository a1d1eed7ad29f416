//! What goes to and fro on the socket: calls out, answers and news in.
//!
//! What was asked is kept until it is answered, since the keeper may be killed before it has done it: then the next one is
//! asked (`client/succession.rs`).

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use toka_core::event::Usage;
use toka_core::{PlantedOutcome, ProtectionOutcome};
use toka_sandbox::Cgroups;
use toka_sandbox::cgroup::Layout;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot};

use super::options::KeeperOptions;
use crate::packet::{Inbox, Packet, Received};
use crate::process::start_time;
use crate::protocol::{Body, Message, Orphan, ProcessId, Status};

/// What happened to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeeperEvent {
    /// Its main process has ended; the keeper kills what is left of its group.
    Exited {
        /// Which.
        id: ProcessId,
        /// How.
        status: Status,
    },
    /// Something that a person should know about what it left; comes before `Gone`.
    Notice {
        /// Which.
        id: ProcessId,
        /// The text.
        text: String,
    },
    /// The kernel has killed processes of it for memory while it lives on. Told soon after the first, and then at longer and
    /// longer intervals; what was told may be told again by the next keeper.
    OomKilled {
        /// Which.
        id: ProcessId,
        /// How many in this life, those that were told before among them.
        kills: u64,
    },
    /// Somebody has replaced or removed what it must not change, while it ran.
    Uncovered {
        /// Which.
        id: ProcessId,
        /// The path.
        path: PathBuf,
        /// What became of its protection.
        outcome: ProtectionOutcome,
    },
    /// It made what it must not make.
    Planted {
        /// Which.
        id: ProcessId,
        /// The path.
        path: PathBuf,
        /// What became of it.
        outcome: PlantedOutcome,
    },
    /// Its group is empty and removed: the last word about it, always after `Exited`. A keeper that listens for the next
    /// daemon tells all three again to that, unless they were settled ([`crate::Keeper::settle`]).
    Gone {
        /// Which.
        id: ProcessId,
        /// What it used.
        usage: Usage,
    },
    /// The keeper was killed, and another has taken over what it left. Everything that was asked is done by that one.
    Succeeded {
        /// The pid of the new one.
        pid: i32,
    },
    /// The keeper itself is gone, and none comes after it. Nothing is left of its agents, unless it was attached to
    /// without saying what comes after it ([`crate::Keeper::succeed_with`]).
    Closed,
    /// Another daemon has taken over. The keeper and its agents go on; nothing more is heard of them here.
    Replaced,
}

/// What to do when the keeper has gone without having been asked to.
#[derive(Debug, Clone)]
pub(super) enum AfterLoss {
    /// Nothing may outlive us: kill what is in these groups.
    Kill {
        /// The name of the groups.
        cgroup_name: String,
    },
    /// Nothing: what it left is for somebody else to take over.
    Spare,
    /// Start the next one, which takes over what it left.
    Succeed(Box<KeeperOptions>),
}

/// How the keeper introduced itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u32,
    pub(super) oldest: u32,
    /// 0 when it does not say.
    pub(super) pid: i32,
}

pub(super) type Answer = (Body, Vec<OwnedFd>);

/// Something that was asked, until it is answered.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Who waits for the answer, if anybody does.
    pub(super) answer: Option<oneshot::Sender<Answer>>,
    /// What a start would leave behind if it succeeds.
    pub(super) start: Option<Box<Orphan>>,
    /// Whose pid the answer tells.
    pub(super) main_of: Option<ProcessId>,
    /// Whether the answer is all that the keeper has, so that nothing else is left behind by it.
    pub(super) is_stock: bool,
    packet: Arc<Packet>,
    /// The last connection on which it was sent, from 1, and how many there were.
    sent: u32,
    tries: u32,
}

impl Waiting {
    pub(super) fn new(packet: Packet) -> Self {
        let packet = Arc::new(packet);
        Self { answer: None, start: None, main_of: None, is_stock: false, packet, sent: 0, tries: 0 }
    }
}

/// Something that this many keepers were asked, and of which each was killed before it had answered, kills them.
const MAX_TRIES: u32 = 3;

/// What the handles and the connection have in common.
#[derive(Debug)]
pub(super) struct Shared {
    next_call: AtomicU64,
    hello: Mutex<Option<Hello>>,
    after_loss: Mutex<AfterLoss>,
    process: Mutex<Option<Child>>,
    /// By their numbers, in the order in which they were asked.
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    /// What a keeper that is killed now leaves behind. Whatever it says of that is entered where it is heard, in its order:
    /// else an end could be heard before what it is the end of is known.
    roster: Mutex<BTreeMap<ProcessId, Orphan>>,
    /// Whether the last handle was dropped, so that the end of the connection is no news.
    is_left: AtomicBool,
    /// Whether the keeper was asked to end, so that none comes after it.
    is_ending: AtomicBool,
    /// Whether nothing will be answered any more.
    is_over: AtomicBool,
}

/// A panic elsewhere has not broken what is behind the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(process: Option<Child>, after_loss: AfterLoss) -> Self {
        Self {
            next_call: AtomicU64::new(1),
            hello: Mutex::default(),
            after_loss: Mutex::new(after_loss),
            process: Mutex::new(process),
            waiting: Mutex::default(),
            roster: Mutex::default(),
            is_left: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }
    }

    pub(super) fn hello(&self) -> Option<Hello> {
        *lock(&self.hello)
    }

    pub(super) fn next_call(&self) -> u64 {
        self.next_call.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes what is asked under a number; false when there will be no answer.
    pub(super) fn await_answer(&self, call: u64, waiting: Waiting) -> bool {
        let mut all = lock(&self.waiting);
        // Looked at under the lock, so that nobody is added after all were told.
        let is_over = self.is_over.load(Ordering::Relaxed);
        if !is_over {
            all.insert(call, waiting);
        }
        !is_over
    }

    /// What was asked under a number, to be sent on a connection; `None` when it was sent there or is answered.
    fn packet(&self, call: u64, connection: u32) -> Option<Arc<Packet>> {
        let mut all = lock(&self.waiting);
        let waiting = all.get_mut(&call).filter(|waiting| waiting.sent < connection)?;
        waiting.sent = connection;
        waiting.tries += 1;
        Some(Arc::clone(&waiting.packet))
    }

    /// The numbers of all that is not answered. What no keeper survives is not asked again.
    fn unanswered(&self) -> VecDeque<u64> {
        let mut all = lock(&self.waiting);
        all.retain(|_, waiting| waiting.tries < MAX_TRIES);
        all.keys().copied().collect()
    }

    /// Tells all who wait that there will be no answer.
    pub(super) fn give_up(&self) {
        let mut all = lock(&self.waiting);
        self.is_over.store(true, Ordering::Relaxed);
        all.clear();
    }

    pub(super) fn roster(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Orphan>> {
        lock(&self.roster)
    }

    pub(super) fn set_process(&self, process: Child) {
        *lock(&self.process) = Some(process);
    }

    pub(super) fn take_process(&self) -> Option<Child> {
        lock(&self.process).take()
    }

    /// From now on another keeper takes over when this one is killed.
    pub(super) fn succeed_with(&self, options: &KeeperOptions) {
        // What is adopted then is what there is then, and so is the host.
        let heir = KeeperOptions { adopt: Vec::new(), host: None, ..options.clone() };
        *lock(&self.after_loss) = AfterLoss::Succeed(Box::new(heir));
    }

    fn is_succeeded(&self) -> bool {
        matches!(*lock(&self.after_loss), AfterLoss::Succeed(_))
    }

    pub(super) fn begin_end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    fn on_answer(&self, call: u64, body: Body, descriptors: Vec<OwnedFd>) {
        let Some(waiting) = lock(&self.waiting).remove(&call) else { return };
        let Waiting { answer, start, main_of, is_stock, .. } = waiting;
        match (&body, start, main_of) {
            // One that has ended already has no time, and the next keeper tells its end.
            (Body::Started { pid, start_time, enforcement, .. }, Some(orphan), _) if self.is_succeeded() => {
                let (pid, start_time, enforcement) = (*pid, start_time.unwrap_or(0), enforcement.clone());
                self.roster().insert(orphan.id, Orphan { pid, start_time, enforcement, ..*orphan });
            }
            (Body::Main { pid }, _, Some(id)) => self.on_main(id, *pid),
            (Body::List(entries), ..) if is_stock => {
                *self.roster() =
                    entries.iter().filter_map(Orphan::of).map(|orphan| (orphan.id, orphan)).collect();
            }
            _ => {}
        }
        if let Some(answer) = answer {
            // Whoever asked may be gone.
            let _ = answer.send((body, descriptors));
        }
    }

    /// Another of its processes is its main one.
    fn on_main(&self, id: ProcessId, pid: i32) {
        if let (Some(orphan), Some(start_time)) = (self.roster().get_mut(&id), start_time(pid)) {
            (orphan.pid, orphan.start_time) = (pid, start_time);
        }
    }

    /// News of a process: what others get to know of it.
    fn on_news(&self, body: Body) -> Option<KeeperEvent> {
        Some(match body {
            Body::Exited { id, status } => {
                if let Some(orphan) = self.roster().get_mut(&id) {
                    orphan.status = Some(status);
                }
                KeeperEvent::Exited { id, status }
            }
            Body::Notice { id, text } => KeeperEvent::Notice { id, text },
            Body::OomKilled { id, kills } => {
                if let Some(orphan) = self.roster().get_mut(&id) {
                    orphan.oom_kills = kills;
                }
                KeeperEvent::OomKilled { id, kills }
            }
            Body::Uncovered { id, path, outcome } => KeeperEvent::Uncovered { id, path, outcome },
            Body::Planted { id, path, outcome } => KeeperEvent::Planted { id, path, outcome },
            Body::Gone { id, usage } => {
                self.roster().remove(&id);
                KeeperEvent::Gone { id, usage }
            }
            other => {
                tracing::warn!(?other, "the keeper said something unexpected");
                return None;
            }
        })
    }
}

/// One connection: sends what is asked, and hears what is said.
pub(super) struct Conversation<'a> {
    pub(super) socket: &'a UnixDatagram,
    /// Which it is, from 1.
    pub(super) number: u32,
    pub(super) shared: &'a Shared,
}

/// Whether nothing more can be sent on a connection.
fn is_over(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected)
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// The keeper is gone.
    Closed,
    /// Another daemon has taken our place.
    Replaced,
}

/// What is heard goes here.
pub(super) struct Ears {
    pub(super) events: mpsc::UnboundedSender<KeeperEvent>,
    /// Told once, with the reason when the keeper turned us away.
    pub(super) greeted: Option<oneshot::Sender<Result<Hello, String>>>,
}

impl Conversation<'_> {
    /// Sends and hears until the connection is over.
    pub(super) async fn hold(&self, calls: &mut mpsc::UnboundedReceiver<u64>, ears: &mut Ears) -> Last {
        let (writing, reading) = (self.write(calls), self.read(ears));
        tokio::pin!(writing, reading);
        let mut is_writing = true;
        loop {
            tokio::select! {
                last = &mut reading => return last,
                () = &mut writing, if is_writing => is_writing = false,
            }
        }
    }

    /// Sends what an earlier keeper has not answered, then what is queued, in order, as fast as the keeper takes it. Ends
    /// when the last handle is dropped.
    async fn write(&self, calls: &mut mpsc::UnboundedReceiver<u64>) {
        let mut backlog = if self.number > 1 { self.shared.unanswered() } else { VecDeque::new() };
        loop {
            let next = match backlog.pop_front() {
                Some(call) => Some(call),
                None => calls.recv().await,
            };
            let Some(call) = next else { break };
            let Some(packet) = self.shared.packet(call, self.number) else { continue };
            match self.send(&packet).await {
                Ok(()) => {}
                // The other half hears it.
                Err(error) if is_over(&error) => return,
                Err(error) => {
                    let reason = format!("the keeper could not be asked: {error}");
                    self.shared.on_answer(call, Body::Failed { reason }, Vec::new());
                }
            }
        }
        self.shared.is_left.store(true, Ordering::Relaxed);
        // The reading half still holds the socket; closing our direction tells the keeper that nobody is left.
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }

    pub(super) async fn send(&self, packet: &Packet) -> std::io::Result<()> {
        self.socket.async_io(Interest::WRITABLE, || packet.send(self.socket.as_fd())).await
    }

    async fn read(&self, ears: &mut Ears) -> Last {
        let mut inbox = Inbox::new();
        while let Some((message, descriptors)) = self.next(&mut inbox).await {
            match message {
                Message { call: Some(call), body } => self.shared.on_answer(call, body, descriptors),
                Message { call: None, body: Body::Replaced } => return Last::Replaced,
                Message { call: None, body } => self.on_news(body, ears),
            }
        }
        Last::Closed
    }

    /// The next thing that it says; `None` when the connection is over. What is not understood is an answer that says so.
    pub(super) async fn next(&self, inbox: &mut Inbox) -> Option<(Message, Vec<OwnedFd>)> {
        loop {
            let received = self
                .socket
                .async_io(Interest::READABLE, || inbox.receive::<Message>(self.socket.as_fd()))
                .await;
            match received {
                Ok(Some(Received::Message(message, descriptors))) => return Some((message, descriptors)),
                Ok(Some(Received::Strange { call, reason })) => {
                    tracing::warn!(%reason, "the keeper said something that this version does not know");
                    let reason = format!("an answer that is not understood: {reason}");
                    if call.is_some() {
                        return Some((Message { call, body: Body::Failed { reason } }, Vec::new()));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    pub(super) fn on_news(&self, body: Body, ears: &mut Ears) {
        match (body, ears.greeted.take()) {
            (Body::Hello { version, oldest, pid }, greeted) => {
                let hello = Hello { version, oldest, pid };
                *lock(&self.shared.hello) = Some(hello);
                greeted.into_iter().for_each(|greeted| drop(greeted.send(Ok(hello))));
            }
            (Body::Failed { reason }, Some(greeted)) => drop(greeted.send(Err(reason))),
            (other, greeted) => {
                ears.greeted = greeted;
                self.shared.on_news(other).into_iter().for_each(|event| drop(ears.events.send(event)));
            }
        }
    }
}

impl Shared {
    /// What is to be done about the end of a connection.
    pub(super) fn after(&self, last: Last) -> Aftermath {
        let is_left = self.is_left.load(Ordering::Relaxed);
        let is_ending = self.is_ending.load(Ordering::Relaxed);
        match (last, lock(&self.after_loss).clone()) {
            (Last::Replaced, _) => Aftermath::Tell(KeeperEvent::Replaced),
            (Last::Closed, AfterLoss::Kill { cgroup_name }) => Aftermath::Kill { cgroup_name },
            (Last::Closed, _) if is_left => Aftermath::Nothing,
            (Last::Closed, AfterLoss::Spare) => Aftermath::Tell(KeeperEvent::Closed),
            (Last::Closed, AfterLoss::Succeed(heir)) if is_ending => {
                Aftermath::Kill { cgroup_name: heir.cgroup_name }
            }
            (Last::Closed, AfterLoss::Succeed(heir)) => Aftermath::Succeed(heir),
        }
    }

    /// Ends a keeper that we have started, whatever it does.
    pub(super) async fn kill(&self) {
        if let Some(mut process) = self.take_process() {
            let killed = move || process.kill().and_then(|()| process.wait());
            let _ = tokio::task::spawn_blocking(killed).await;
        }
    }

    /// Collects the status of a keeper that is gone, if it was our child.
    pub(super) async fn reap(&self) {
        if let Some(mut process) = self.take_process() {
            let _ = tokio::task::spawn_blocking(move || process.wait()).await;
        }
    }
}

/// What follows the end of a connection.
#[derive(Debug)]
pub(super) enum Aftermath {
    /// Nobody wants to know.
    Nothing,
    Tell(KeeperEvent),
    /// Nothing of its agents may stay; then it is told that it is gone.
    Kill {
        cgroup_name: String,
    },
    /// Another keeper takes over.
    Succeed(Box<KeeperOptions>),
}

/// Kills what is in the groups of a keeper that is gone, and removes them.
pub async fn kill_groups(cgroup_name: String) {
    let cleared = tokio::task::spawn_blocking(move || {
        Cgroups::new(Layout::probe(Path::new("/")), &cgroup_name).clear()
    });
    if !matches!(cleared.await, Ok(true)) {
        tracing::warn!("the keeper is gone, and some of its processes cannot be killed");
    }
}
