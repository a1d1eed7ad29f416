//! Who calls, as the kernel says.

use std::io;

use nix::errno::Errno;
use tokio::net::UnixStream;

use super::rebinding_listener::RebindingListener;

/// The process at the other end when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    /// 0 when it is in no process namespace that we see into.
    pub(super) pid: i32,
}

/// The next connection, with its peer.
pub(super) async fn accept(post: &mut RebindingListener) -> (UnixStream, Peer) {
    loop {
        let accepted = post.accept().await.and_then(|stream| Ok((peer(&stream)?, stream)));
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

fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    Ok(Peer { uid: credentials.uid(), pid: credentials.pid().unwrap_or(0) })
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
