//! The `notify` socket: datagrams with the sender's credentials, which the kernel vouches for (SCM_CREDENTIALS, unix(7)).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Longest datagram in bytes: four times of what systemd takes. Of a longer one the end is missing, so that nothing of it
/// counts.
const MAX_DATAGRAM: usize = 16 * 1024;
/// Descriptors taken from one datagram; the kernel closes those beyond.
const MAX_DESCRIPTORS: usize = 4;

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

/// Descriptors that came along. None is of use to us; closing them is the answer to `BARRIER=1`, and dropping this does.
#[derive(Debug, Default)]
pub(crate) struct Passed(Vec<RawFd>);

impl Drop for Passed {
    fn drop(&mut self) {
        for fd in &self.0 {
            let _ = nix::unistd::close(*fd);
        }
    }
}

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
    let mut control = nix::cmsg_space!(nix::sys::socket::UnixCredentials, [RawFd; MAX_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let (mut passed, mut sender) = (Passed(Vec::new()), None);
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::ScmRights(fds) => passed.0.extend(fds),
            ControlMessageOwned::ScmCredentials(credentials) => sender = Some(credentials),
            _ => {}
        }
    }
    let (length, cut) = (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC));
    let Some(sender) = sender else { return Ok(None) };
    bytes.truncate(length);
    let bytes = if cut { Err(TooLong) } else { Ok(bytes) };
    Ok(Some(Datagram { pid: sender.pid(), uid: sender.uid(), bytes, passed }))
}
