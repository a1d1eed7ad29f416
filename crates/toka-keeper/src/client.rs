//! The daemon's side: a handle that starts, signals, freezes and asks, and a stream of what happened.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use thiserror::Error;
use toka_core::Enforcement;
use toka_core::Resources;
use toka_core::event::Usage;
use toka_sandbox::cgroup::Layout;
use toka_sandbox::{Cgroups, PrepareError, StepError};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot};

use crate::packet::{Inbox, Packet};
use crate::protocol::{Body, Call, Entry, Launch, Message, ProcessId, Request, Status};

/// How to start a keeper.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// The program to re-enter, with `__keeper NAME` as its arguments and the control socket as its standard input.
    pub program: PathBuf,
    /// Name of the control group that agents' groups lie in, such as `toka-1f2e3d4c`. Unique per state folder.
    pub cgroup_name: String,
    /// Folders that the keeper removes when it ends, in case that the daemon could not: sockets, secrets. Absolute.
    pub leftovers: Vec<PathBuf>,
}

/// Something that the keeper did not do.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// It could not be started.
    #[error("start the keeper {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// It is gone.
    #[error("the keeper is gone")]
    Gone,
    /// The process that it was to move is not the agent's.
    #[error("the process is not the agent's")]
    Stranger,
    /// It says why.
    #[error("{0}")]
    Refused(String),
}

/// Why a process was not started.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The host cannot enforce what the plan demands, or its parts could not be opened.
    #[error(transparent)]
    Prepare(PrepareError),
    /// A step in the child failed: which, on what path, with what error.
    #[error(transparent)]
    Step(StepError),
    /// The keeper itself failed.
    #[error(transparent)]
    Keeper(KeeperError),
}

/// A process that runs.
#[derive(Debug)]
pub struct Started {
    /// The pid of its main process.
    pub pid: i32,
    /// The read end of its output, non-blocking.
    pub stdout: OwnedFd,
    /// The read end of its errors, non-blocking.
    pub stderr: OwnedFd,
    /// The read end of the pipe at its [`Launch::notification_fd`], non-blocking.
    pub notification: Option<OwnedFd>,
    /// What confines it.
    pub enforcement: Enforcement,
}

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
    /// Its group is empty and removed: the last word about it, always after `Exited`.
    Gone {
        /// Which.
        id: ProcessId,
        /// What it used.
        usage: Usage,
    },
    /// The keeper itself is gone.
    Closed,
}

type Answer = (Body, Vec<OwnedFd>);

#[derive(Debug)]
struct Shared {
    next_call: AtomicU64,
    pending: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle on the keeper. When the last one is dropped, the keeper stops every agent and ends.
#[derive(Debug, Clone)]
pub struct Keeper {
    shared: Arc<Shared>,
    outgoing: mpsc::UnboundedSender<Packet>,
    process: Arc<Mutex<Option<Child>>>,
}

impl Keeper {
    /// Starts a keeper and connects to it. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the socket or the process cannot be made.
    pub async fn start(
        options: &KeeperOptions,
    ) -> Result<(Self, mpsc::UnboundedReceiver<KeeperEvent>), KeeperError> {
        let start = |source: io::Error| KeeperError::Start { program: options.program.clone(), source };
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|error| start(error.into()))?;
        let process = Command::new(&options.program)
            .args(["__keeper", &options.cgroup_name])
            .args(&options.leftovers)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(start)?;
        let (keeper, mut events, hello) =
            Self::connect(ours, Some(process), &options.cgroup_name).map_err(start)?;
        if hello.await.is_err() {
            let ended = events.recv().await;
            tracing::debug!(?ended, "the keeper ended before it said hello");
            return Err(start(io::Error::other("it ended at once")));
        }
        Ok((keeper, events))
    }

    fn connect(
        socket: OwnedFd,
        process: Option<Child>,
        cgroup_name: &str,
    ) -> io::Result<(Self, mpsc::UnboundedReceiver<KeeperEvent>, oneshot::Receiver<()>)> {
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // The type is only a carrier for readiness: packets of any kind of Unix socket are sent and received by `packet`.
        let socket = Arc::new(UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(socket))?);
        let (outgoing, packets) = mpsc::unbounded_channel();
        let (events, received) = mpsc::unbounded_channel();
        let (greeted, hello) = oneshot::channel();
        let shared = Arc::new(Shared { next_call: AtomicU64::new(1), pending: Mutex::default() });
        tokio::spawn(write_packets(Arc::clone(&socket), packets));
        tokio::spawn(read_messages(socket, Arc::clone(&shared), events, greeted, cgroup_name.to_owned()));
        Ok((Self { shared, outgoing, process: Arc::new(Mutex::new(process)) }, received, hello))
    }

    /// Starts a process; returns when it executes its program, or with the step that failed.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn spawn(&self, launch: Launch) -> Result<Started, SpawnError> {
        let (body, descriptors) =
            self.call(Request::Spawn(Box::new(launch)), Vec::new()).await.map_err(SpawnError::Keeper)?;
        match body {
            Body::Started { pid, enforcement } => {
                let mut pipes = descriptors.into_iter();
                let (Some(stdout), Some(stderr)) = (pipes.next(), pipes.next()) else {
                    let reason = "started without its pipes".into();
                    return Err(SpawnError::Keeper(KeeperError::Refused(reason)));
                };
                Ok(Started { pid, stdout, stderr, notification: pipes.next(), enforcement })
            }
            Body::NotPrepared(error) => Err(SpawnError::Prepare(error)),
            Body::NotStarted(error) => Err(SpawnError::Step(error)),
            other => Err(SpawnError::Keeper(refusal(other))),
        }
    }

    /// Sends a signal to the main process, if it still runs.
    pub fn signal(&self, id: ProcessId, signal: i32) {
        self.tell(Request::Signal { id, signal });
    }

    /// Kills all its processes.
    pub fn kill(&self, id: ProcessId) {
        self.tell(Request::Kill { id });
    }

    /// Freezes all its processes.
    ///
    /// # Errors
    /// When the host has nothing to freeze with.
    pub async fn freeze(&self, id: ProcessId) -> Result<(), KeeperError> {
        self.done(Request::Freeze { id }).await
    }

    /// Lets frozen processes run again.
    ///
    /// # Errors
    /// As [`Keeper::freeze`].
    pub async fn thaw(&self, id: ProcessId) -> Result<(), KeeperError> {
        self.done(Request::Thaw { id }).await
    }

    /// Makes the leaf group `leaf` of an agent and moves one of its processes into it, with all its threads. `pid` is the
    /// number that the agent has for it, in its own process namespace if it has one.
    ///
    /// # Errors
    /// [`KeeperError::Stranger`] when the process is not the agent's; others when the kernel refuses.
    pub async fn make_leaf(&self, id: ProcessId, leaf: &str, pid: i32) -> Result<(), KeeperError> {
        self.done(Request::MakeLeaf { id, leaf: leaf.to_owned(), pid }).await
    }

    /// Removes a leaf group with what is left in it; says what it used.
    ///
    /// # Errors
    /// When it still has processes.
    pub async fn remove_leaf(&self, id: ProcessId, leaf: &str) -> Result<Usage, KeeperError> {
        match self.call(Request::RemoveLeaf { id, leaf: leaf.to_owned() }, Vec::new()).await?.0 {
            Body::Usage(usage) => Ok(usage),
            other => Err(refusal(other)),
        }
    }

    /// Makes another process of the agent its main one: it gets the signals, and where the keeper becomes its parent, its
    /// end is the agent's. `pid` is the number that the agent has for it, as in [`Keeper::make_leaf`]; returns the host's.
    ///
    /// # Errors
    /// [`KeeperError::Stranger`] when the process is not the agent's.
    pub async fn set_main(&self, id: ProcessId, pid: i32) -> Result<i32, KeeperError> {
        match self.call(Request::SetMain { id, pid }, Vec::new()).await?.0 {
            Body::Main { pid } => Ok(pid),
            other => Err(refusal(other)),
        }
    }

    /// What it and all that it started hold and use at this moment; `None` when it is gone.
    pub async fn resources(&self, id: ProcessId) -> Option<Resources> {
        match self.call(Request::Resources { id }, Vec::new()).await.ok()?.0 {
            Body::Resources(resources) => Some(resources),
            _ => None,
        }
    }

    /// What an agent has used so far.
    pub async fn usage(&self, id: ProcessId) -> Option<Usage> {
        match self.call(Request::Usage { id }, Vec::new()).await.ok()?.0 {
            Body::Usage(usage) => Some(usage),
            _ => None,
        }
    }

    /// Whose group the kernel says that a process is in.
    pub async fn owner_of(&self, pid: i32) -> Option<ProcessId> {
        match self.call(Request::Owner { pid }, Vec::new()).await.ok()?.0 {
            Body::Owner(owner) => owner,
            _ => None,
        }
    }

    /// Gives descriptors to hold until the process is gone.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn hold(
        &self,
        id: ProcessId,
        name: &str,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), KeeperError> {
        match self.call(Request::Hold { id, name: name.to_owned() }, descriptors).await?.0 {
            Body::Done => Ok(()),
            other => Err(refusal(other)),
        }
    }

    /// The processes that the keeper holds.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn list(&self) -> Result<Vec<Entry>, KeeperError> {
        match self.call(Request::List, Vec::new()).await?.0 {
            Body::List(entries) => Ok(entries),
            other => Err(refusal(other)),
        }
    }

    /// The descriptors of a process: its output and error pipes, then those that were held, each with its name.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn hand_back(&self, id: ProcessId) -> Result<Vec<(String, OwnedFd)>, KeeperError> {
        let (body, descriptors) = self.call(Request::HandBack { id }, Vec::new()).await?;
        match body {
            Body::HandBack { names } => {
                let names = ["stdout".to_owned(), "stderr".to_owned()].into_iter().chain(names);
                Ok(names.zip(descriptors).collect())
            }
            other => Err(refusal(other)),
        }
    }

    /// Lets the keeper end, and waits until it has: it stops what still runs, and removes its groups.
    pub async fn shutdown(self) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(self);
        if let Some(mut process) = process {
            // Waiting blocks a thread of the pool, not the runtime.
            let _ = tokio::task::spawn_blocking(move || process.wait()).await;
        }
    }

    async fn done(&self, request: Request) -> Result<(), KeeperError> {
        match self.call(request, Vec::new()).await?.0 {
            Body::Done => Ok(()),
            other => Err(refusal(other)),
        }
    }

    async fn call(&self, request: Request, descriptors: Vec<OwnedFd>) -> Result<Answer, KeeperError> {
        let call = self.shared.next_call.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.shared.pending().insert(call, sender);
        self.send(&Call { call, request }, descriptors)?;
        answer.await.map_err(|_| KeeperError::Gone)
    }

    fn tell(&self, request: Request) {
        // An answer to call 0 has nobody who waits for it; what became of the process is told by events.
        let _ = self.send(&Call { call: 0, request }, Vec::new());
    }

    fn send(&self, call: &Call, descriptors: Vec<OwnedFd>) -> Result<(), KeeperError> {
        let packet =
            Packet::new(call, descriptors).map_err(|error| KeeperError::Refused(error.to_string()))?;
        self.outgoing.send(packet).map_err(|_| KeeperError::Gone)
    }
}

fn refusal(body: Body) -> KeeperError {
    match body {
        Body::Failed { reason } => KeeperError::Refused(reason),
        Body::Stranger => KeeperError::Stranger,
        other => KeeperError::Refused(format!("an answer to something else: {other:?}")),
    }
}

/// Sends what is queued, in order, as fast as the keeper takes it. Ends when the last handle is dropped.
async fn write_packets(socket: Arc<UnixDatagram>, mut packets: mpsc::UnboundedReceiver<Packet>) {
    while let Some(packet) = packets.recv().await {
        let sent = socket.async_io(Interest::WRITABLE, || packet.send(socket.as_fd())).await;
        if sent.is_err() {
            return;
        }
    }
    // The reading half still holds the socket; closing our direction tells the keeper that nobody is left.
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

async fn read_messages(
    socket: Arc<UnixDatagram>,
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<KeeperEvent>,
    greeted: oneshot::Sender<()>,
    cgroup_name: String,
) {
    let mut greeted = Some(greeted);
    let mut inbox = Inbox::new();
    while let Ok(Some((message, descriptors))) =
        socket.async_io(Interest::READABLE, || inbox.receive::<Message>(socket.as_fd())).await
    {
        match (message.call, message.body) {
            (Some(call), body) => {
                if let Some(sender) = shared.pending().remove(&call) {
                    let _ = sender.send((body, descriptors));
                }
            }
            (None, Body::Hello { .. }) => drop(greeted.take().map(|greeted| greeted.send(()))),
            (None, Body::Exited { id, status }) => drop(events.send(KeeperEvent::Exited { id, status })),
            (None, Body::Notice { id, text }) => drop(events.send(KeeperEvent::Notice { id, text })),
            (None, Body::Gone { id, usage }) => drop(events.send(KeeperEvent::Gone { id, usage })),
            (None, other) => tracing::warn!(?other, "the keeper said something unexpected"),
        }
    }
    shared.pending().clear();
    // A keeper that ended by itself has left nothing; of one that was killed, nothing may outlive us either.
    let cleared = tokio::task::spawn_blocking(move || {
        Cgroups::new(Layout::probe(Path::new("/")), &cgroup_name).clear()
    });
    if !matches!(cleared.await, Ok(true)) {
        tracing::warn!("the keeper is gone, and some of its processes cannot be killed");
    }
    let _ = events.send(KeeperEvent::Closed);
}
