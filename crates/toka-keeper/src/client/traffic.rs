//! What goes to and fro on the socket: calls out, answers and news in, one task each way.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use toka_core::event::Usage;
use toka_sandbox::Cgroups;
use toka_sandbox::cgroup::Layout;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot, watch};

use crate::packet::{Inbox, Packet, Received};
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
    /// Its group is empty and removed: the last word about it, always after `Exited`. A keeper that listens for the next
    /// daemon tells all three again to that, unless they were settled ([`crate::Keeper::settle`]).
    Gone {
        /// Which.
        id: ProcessId,
        /// What it used.
        usage: Usage,
    },
    /// The keeper itself is gone. Of one that ends with its daemon nothing is left; of one that listens for the next, agents
    /// may run on ([`crate::Keeper::orphans`]).
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
    /// Another keeper may take its agents over.
    Spare,
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

/// Somebody who waits for an answer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) answer: oneshot::Sender<Answer>,
    /// What a start would leave behind if it succeeds.
    pub(super) start: Option<Box<Orphan>>,
}

/// What the handles and the two tasks have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) next_call: AtomicU64,
    pub(super) hello: OnceLock<Hello>,
    pub(super) after_loss: AfterLoss,
    pub(super) process: Mutex<Option<Child>>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    /// What a keeper that is killed now leaves behind.
    roster: Mutex<BTreeMap<ProcessId, Orphan>>,
    /// Whether the last handle was dropped, so that the end of the connection is no news.
    is_left: AtomicBool,
    /// Whether nothing will be answered any more.
    is_over: AtomicBool,
}

impl Shared {
    pub(super) fn new(process: Option<Child>, after_loss: AfterLoss) -> Self {
        Self {
            next_call: AtomicU64::new(1),
            hello: OnceLock::new(),
            after_loss,
            process: Mutex::new(process),
            waiting: Mutex::default(),
            roster: Mutex::default(),
            is_left: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes who waits for the answer to a call; false when there will be none.
    pub(super) fn await_answer(&self, call: u64, waiting: Waiting) -> bool {
        let mut all = self.waiting();
        // Looked at under the lock, so that nobody is added after all were told.
        let is_over = self.is_over.load(Ordering::Relaxed);
        if !is_over {
            all.insert(call, waiting);
        }
        !is_over
    }

    /// Tells all who wait that there will be no answer.
    fn give_up(&self) {
        let mut all = self.waiting();
        self.is_over.store(true, Ordering::Relaxed);
        all.clear();
    }

    pub(super) fn roster(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Orphan>> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_process(&self) -> Option<Child> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn on_answer(&self, call: u64, body: Body, descriptors: Vec<OwnedFd>) {
        let Some(Waiting { answer, start }) = self.waiting().remove(&call) else { return };
        if let (Some(orphan), Body::Started { pid, start_time: Some(start_time), enforcement }) =
            (start, &body)
        {
            let (pid, start_time, enforcement) = (*pid, *start_time, enforcement.clone());
            self.roster().insert(orphan.id, Orphan { pid, start_time, enforcement, ..*orphan });
        }
        let _ = answer.send((body, descriptors));
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

/// Sends what is queued, in order, as fast as the keeper takes it. Ends when the last handle is dropped.
pub(super) async fn write_packets(
    socket: Arc<UnixDatagram>,
    shared: Arc<Shared>,
    mut packets: mpsc::UnboundedReceiver<Packet>,
) {
    while let Some(packet) = packets.recv().await {
        let sent = socket.async_io(Interest::WRITABLE, || packet.send(socket.as_fd())).await;
        if sent.is_err() {
            return;
        }
    }
    shared.is_left.store(true, Ordering::Relaxed);
    // The reading half still holds the socket; closing our direction tells the keeper that nobody is left.
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

/// The ends of the reading task.
pub(super) struct Reader {
    pub(super) socket: Arc<UnixDatagram>,
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::UnboundedSender<KeeperEvent>,
    /// Told once, with the reason when the keeper turned us away.
    pub(super) greeted: Option<oneshot::Sender<Result<Hello, String>>>,
    /// Dropped when the connection is over.
    pub(super) open: watch::Sender<()>,
}

impl Reader {
    /// Reads until the connection is over, and says what that means.
    pub(super) async fn run(mut self) {
        let last = self.read().await;
        self.shared.give_up();
        drop(self.greeted.take());
        match (last, &self.shared.after_loss) {
            (Last::Replaced, _) => drop(self.events.send(KeeperEvent::Replaced)),
            (Last::Closed, AfterLoss::Spare) if self.shared.is_left.load(Ordering::Relaxed) => {}
            (Last::Closed, AfterLoss::Spare) => {
                self.reap().await;
                let _ = self.events.send(KeeperEvent::Closed);
            }
            (Last::Closed, AfterLoss::Kill { cgroup_name }) => {
                kill_groups(cgroup_name.clone()).await;
                let _ = self.events.send(KeeperEvent::Closed);
            }
        }
        drop(self.open);
    }

    async fn read(&mut self) -> Last {
        let mut inbox = Inbox::new();
        loop {
            let received = self
                .socket
                .async_io(Interest::READABLE, || inbox.receive::<Message>(self.socket.as_fd()))
                .await;
            match received {
                Ok(Some(Received::Message(Message { call: Some(call), body }, descriptors))) => {
                    self.shared.on_answer(call, body, descriptors);
                }
                Ok(Some(Received::Message(Message { call: None, body }, _))) => match body {
                    Body::Replaced => return Last::Replaced,
                    other => self.on_news(other),
                },
                Ok(Some(Received::Strange { call, reason })) => {
                    tracing::warn!(%reason, "the keeper said something that this version does not know");
                    let failed =
                        Body::Failed { reason: format!("an answer that is not understood: {reason}") };
                    call.into_iter().for_each(|call| self.shared.on_answer(call, failed.clone(), Vec::new()));
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
                Ok(None) | Err(_) => return Last::Closed,
            }
        }
    }

    fn on_news(&mut self, body: Body) {
        match (body, self.greeted.take()) {
            (Body::Hello { version, oldest, pid }, Some(greeted)) => {
                let hello = Hello { version, oldest, pid };
                let _ = self.shared.hello.set(hello);
                let _ = greeted.send(Ok(hello));
            }
            (Body::Failed { reason }, Some(greeted)) => drop(greeted.send(Err(reason))),
            (other, greeted) => {
                self.greeted = greeted;
                self.shared.on_news(other).into_iter().for_each(|event| drop(self.events.send(event)));
            }
        }
    }

    /// Collects the status of a keeper that we started, which has closed its side by ending.
    async fn reap(&self) {
        if let Some(mut process) = self.shared.take_process() {
            let _ = tokio::task::spawn_blocking(move || process.wait()).await;
        }
    }
}

/// How a connection ends.
enum Last {
    Closed,
    Replaced,
}

/// A keeper that ended by itself has left nothing; of one that was killed, nothing may outlive us either.
/// Kills what is in the groups of a keeper that is gone, and removes them.
pub async fn kill_groups(cgroup_name: String) {
    let cleared = tokio::task::spawn_blocking(move || {
        Cgroups::new(Layout::probe(Path::new("/")), &cgroup_name).clear()
    });
    if !matches!(cleared.await, Ok(true)) {
        tracing::warn!("the keeper is gone, and some of its processes cannot be killed");
    }
}
