//! Who calls, as the kernel says.

use std::io;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use nix::errno::Errno;
use tokio::net::UnixStream;

use super::post::Post;

/// The process at the other end when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    /// 0 when it is in no process namespace that we see into.
    pub(super) pid: i32,
}

/// Takes connections, each with its peer.
pub(super) struct Gate(pub(super) Post);

impl Listener for Gate {
    type Io = UnixStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (UnixStream, Peer) {
        loop {
            let accepted = self.0.accept().await.and_then(|stream| Ok((peer(&stream)?, stream)));
            match accepted {
                Ok((peer, stream)) => return (stream, peer),
                // Too many open files, mostly: others end meanwhile.
                Err(error) => {
                    tracing::warn!(%error, "a connection to the control socket was not taken");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { uid: nix::unistd::geteuid().as_raw(), pid: nix::unistd::getpid().as_raw() })
    }
}

fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    Ok(Peer { uid: credentials.uid(), pid: credentials.pid().unwrap_or(0) })
}

impl Connected<IncomingStream<'_, Gate>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Gate>) -> Self {
        *stream.remote_addr()
    }
}

impl Peer {
    /// Whether its user may call at all.
    pub(super) fn is_permitted(self) -> bool {
        self.uid == 0 || self.uid == nix::unistd::geteuid().as_raw()
    }

    /// Whether the process that connected is still there: only then can be said whose it is.
    pub(super) fn is_there(self) -> bool {
        let signalled = || nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid), None);
        // One of root's is there, though a user may not signal it.
        self.pid > 0 && matches!(signalled(), Ok(()) | Err(Errno::EPERM))
    }
}
