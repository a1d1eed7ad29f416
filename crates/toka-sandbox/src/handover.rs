//! A way for a descriptor from a child that confines itself to its parent: what is made inside a namespace, and held outside of it.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use crate::sys;

/// The parent's end and the child's.
///
/// # Errors
/// As socketpair(2).
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// In the parent, when the child executes its program: what it handed over.
///
/// # Errors
/// When the child sent nothing, or there is no room for it (`EMFILE`).
pub fn receive(channel: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let received = sys::receive_packet(channel, &mut [0])?;
    received.descriptors.into_iter().next().ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))
}

/// In the child: hands a descriptor to the parent.
///
/// # Errors
/// As sendmsg(2).
pub(crate) fn hand_over(channel: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let rights = [descriptor.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&rights)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(b"d")], &control, flags, None)?;
    Ok(())
}
