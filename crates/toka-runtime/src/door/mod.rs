//! An agent's door: the two sockets in a folder of its own through which it speaks to the daemon.
//!
//! `notify` takes sd_notify(3) datagrams, `agent` takes JSON-RPC lines ([`toka_core::rpc`]). Who is calling is decided
//! by the kernel, never by what a message says: the sender's process id comes from the socket, and its control group
//! must be the agent's. A sender that has already exited has no control group any more; it is let in only where the
//! sandbox hides the door from everybody else (`Peer::Vanished`).

mod connection;
mod datagram;
mod folder;
mod notify;
mod passed;
mod peer;

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use folder::{DoorFolder, MAX_SOCKET_PATH};
pub use notify::{Flaw, Notice, parse_notices};
pub(crate) use passed::Passed;
pub(crate) use peer::{Gate, Peer};

use toka_core::rpc::{Call, RpcError, TaskEnded, TaskList, TaskStep};

use crate::processes::Processes;
use crate::turns::timed;
use datagram::NotifySocket;

/// Messages that may wait for the agent's actor. More than one burst of a runner; when they are used up the sockets
/// are not read, and the kernel makes the agent wait.
const WAITING: usize = 64;
/// Connections that one agent may hold at a time: a runner and a few reports.
const CONNECTIONS: usize = 32;

/// Something that came through a door.
#[derive(Debug)]
pub(crate) enum Message {
    /// A datagram.
    Notices {
        /// Who sent it.
        peer: Peer,
        /// What it says.
        notices: Vec<Notice>,
        /// Descriptors that came along: closed when the message has been dealt with, and with it all that came before, so
        /// that a sender of `BARRIER=1` knows as much when it sees its own closed.
        passed: Passed,
    },
    /// A call, and where its answer goes.
    Call {
        /// Who asks.
        peer: Peer,
        /// What.
        call: Call,
        /// Where to.
        answer: oneshot::Sender<Result<Answer, RpcError>>,
    },
}

/// What a call may be answered with.
#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    /// Done; goes over the wire as `{}`.
    Done,
    /// The tasks.
    Tasks(TaskList),
    /// What is to be done next.
    Step(Box<TaskStep>),
    /// What a task used.
    TaskEnded(TaskEnded),
}

/// The reading side of a door.
pub(crate) struct Door {
    messages: mpsc::Receiver<Box<Message>>,
    closing: watch::Sender<Stage>,
}

/// Whether new messages are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// They are.
    Open,
    /// Only what has already been sent is read.
    Closing,
}

impl Door {
    /// Makes the sockets in `folder`, for the user whom it belongs to, and begins to read them.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub(crate) fn open<P: Processes>(folder: &Path, gate: Gate<P>) -> io::Result<Self> {
        let notify = NotifySocket::bind(&folder.join("notify"))?;
        let agent_path = folder.join("agent");
        remove_stale(&agent_path)?;
        let listener = UnixListener::bind(&agent_path)?;
        close_to_others(&agent_path)?;
        let (tx, messages) = mpsc::channel(WAITING);
        let (closing, stage) = watch::channel(Stage::Open);
        tokio::spawn(timed(read_notices(notify, gate.clone(), tx.clone(), stage.clone())));
        tokio::spawn(timed(accept(listener, gate, tx, stage)));
        Ok(Self { messages, closing })
    }

    /// The next message; `None` once the door is closed and everything was read.
    pub(crate) async fn next(&mut self) -> Option<Box<Message>> {
        self.messages.recv().await
    }

    /// Reads what has already been sent, and then no more.
    pub(crate) fn close(&self) {
        // Nobody reads any more when every task has ended by itself.
        let _ = self.closing.send(Stage::Closing);
    }
}

async fn read_notices<P: Processes>(
    socket: NotifySocket,
    gate: Gate<P>,
    tx: mpsc::Sender<Box<Message>>,
    mut stage: watch::Receiver<Stage>,
) {
    loop {
        let received = tokio::select! {
            biased;
            () = closing(&mut stage) => match socket.try_receive() {
                Some(datagram) => Ok(datagram),
                None => return,
            },
            received = socket.receive() => received,
        };
        let Ok(datagram) = received else {
            // Out of descriptors or of memory, as a rule; one bad message must not end the reader.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let Some(peer) = gate.admit(datagram.pid, datagram.uid).await else { continue };
        let notices = match &datagram.bytes {
            Ok(bytes) => parse_notices(bytes),
            Err(_) => vec![Notice::Unreadable(Flaw::TooLong)],
        };
        let waits = notices.contains(&Notice::Barrier);
        let passed = if waits { datagram.passed } else { Passed::default() };
        if tx.send(Box::new(Message::Notices { peer, notices, passed })).await.is_err() {
            return;
        }
    }
}

async fn accept<P: Processes>(
    listener: UnixListener,
    gate: Gate<P>,
    tx: mpsc::Sender<Box<Message>>,
    mut stage: watch::Receiver<Stage>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = closing(&mut stage) => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, as a rule: the backlog keeps until some are free.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (gate, tx, stage) = (gate.clone(), tx.clone(), stage.clone());
        tokio::spawn(timed(async move {
            connection::serve(stream, gate, tx, stage).await;
            drop(permit);
        }));
    }
}

/// Waits until the door closes, or until nobody is left who could close it.
async fn closing(stage: &mut watch::Receiver<Stage>) {
    let _ = stage.wait_for(|stage| *stage == Stage::Closing).await;
}

/// Leaves a socket to the user whom its folder belongs to, and to nobody else.
fn close_to_others(socket: &Path) -> io::Result<()> {
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    let (own, folder) = (socket.metadata()?, socket.parent().unwrap_or(socket).metadata()?);
    if own.uid() == folder.uid() { Ok(()) } else { lchown(socket, Some(folder.uid()), Some(folder.gid())) }
}

/// A socket of a run that ended badly; nothing else may be in the way.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
