//! The `notify` socket: datagrams with the sender's credentials, which the kernel vouches for (SCM_CREDENTIALS, unix(7)).

use std::io;
use std::path::Path;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::passed::{self, Passed, Received};

/// Longest datagram in bytes: four times of what systemd takes. Of a longer one the end is missing, so that nothing of it
/// counts.
const MAX_DATAGRAM: usize = 16 * 1024;

/// The receiving end.
pub(super) struct NotifySocket {
    socket: UnixDatagram,
}

/// One datagram, with the sender as the kernel names it.
pub(super) struct Datagram {
    /// Process id, as seen from our pid namespace.
    pub(super) pid: i32,
    /// Real user id.
    pub(super) uid: u32,
    /// What it says, or that it was too long to be taken.
    pub(super) bytes: Result<Vec<u8>, TooLong>,
    pub(super) passed: Passed,
}

/// It was longer than [`MAX_DATAGRAM`].
pub(super) struct TooLong;

impl NotifySocket {
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        super::remove_stale(path)?;
        let socket = UnixDatagram::bind(path)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        super::close_to_others(path)?;
        Ok(Self { socket })
    }

    /// Waits for a datagram that says who sent it.
    pub(super) async fn receive(&self) -> io::Result<Datagram> {
        loop {
            if let Some(datagram) =
                self.socket.async_io(Interest::READABLE, || receive_now(&self.socket)).await?
            {
                return Ok(datagram);
            }
        }
    }

    /// A datagram that is there already.
    pub(super) fn try_receive(&self) -> Option<Datagram> {
        loop {
            if let Some(datagram) = receive_now(&self.socket).ok()? {
                return Some(datagram);
            }
        }
    }
}

/// One datagram; `None` for one that cannot be used.
fn receive_now(socket: &UnixDatagram) -> io::Result<Option<Datagram>> {
    let mut bytes = vec![0; MAX_DATAGRAM];
    let Received { length, is_cut, sender, passed } = passed::receive(socket, &mut bytes)?;
    let Some(sender) = sender else { return Ok(None) };
    bytes.truncate(length);
    let bytes = if is_cut { Err(TooLong) } else { Ok(bytes) };
    let (pid, uid) = (sender.pid.as_raw_nonzero().get(), sender.uid.as_raw());
    Ok(Some(Datagram { pid, uid, bytes, passed }))
}
