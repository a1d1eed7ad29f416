//! Receiving from an agent's sockets with what may come along: descriptors (SCM_RIGHTS, unix(7)).
//!
//! A descriptor that arrives is owned before anything can fail, whatever else is wrong with its message. None is of use to us,
//! and closing one can take as long as its sender likes: a socket that lingers waits for a peer that reads nothing. So they are
//! closed by a thread of its own, after lingering was switched off, and never by the thread that the daemon's loop runs on.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, UCred, recvmsg, sockopt,
};

/// Most descriptors in one message (`SCM_MAX_FD`, unix(7)).
const MOST: usize = 253;

/// Descriptors that came along. Dropping it has them closed soon.
#[derive(Debug, Default)]
pub(crate) struct Passed(Vec<OwnedFd>);

/// What was received.
pub(super) struct Received {
    /// Bytes that were put into the buffer.
    pub(super) length: usize,
    /// Whether it was longer than the buffer.
    pub(super) is_cut: bool,
    /// The sender as the kernel names it, where the socket asks for that.
    pub(super) sender: Option<UCred>,
    /// What came along.
    pub(super) passed: Passed,
}

/// Receives once, without waiting.
///
/// # Errors
/// As recvmsg(2).
pub(super) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let (mut passed, mut sender) = (Passed(Vec::new()), None);
    for part in control.drain() {
        match part {
            RecvAncillaryMessage::ScmRights(descriptors) => passed.0.extend(descriptors),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials),
            _ => {}
        }
    }
    let is_cut = message.flags.contains(ReturnFlags::TRUNC);
    Ok(Received { length: message.bytes, is_cut, sender, passed })
}

impl Drop for Passed {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        // A thread that cannot be had leaves nothing but to close them here.
        let descriptors = std::mem::take(&mut self.0);
        match closer() {
            Some(closer) => drop(closer.send(descriptors)),
            None => close(descriptors),
        }
    }
}

fn close(descriptors: Vec<OwnedFd>) {
    for descriptor in descriptors {
        // What is no socket has no such option.
        let _ = sockopt::set_socket_linger(&descriptor, None);
        drop(descriptor);
    }
}

/// The way to the thread that closes, started with the first descriptor; `None` when it cannot be.
fn closer() -> Option<&'static Sender<Vec<OwnedFd>>> {
    static CLOSER: OnceLock<Option<Sender<Vec<OwnedFd>>>> = OnceLock::new();
    let start = || {
        let (queue, waiting) = channel::<Vec<OwnedFd>>();
        let work = move || waiting.into_iter().for_each(close);
        std::thread::Builder::new().name("closer".into()).spawn(work).ok().map(|_| queue)
    };
    CLOSER.get_or_init(start).as_ref()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixDatagram;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !is_so() {
            assert!(std::time::Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }

    /// How many descriptors of this process lead to the same file as `file`.
    fn open(file: &std::fs::File) -> usize {
        let link = |fd: std::path::PathBuf| std::fs::read_link(fd).ok();
        let own = link(format!("/proc/self/fd/{}", file.as_raw_fd()).into());
        let all = std::fs::read_dir("/proc/self/fd").expect("proc").flatten();
        all.filter(|entry| link(entry.path()) == own).count()
    }

    #[test]
    fn as_many_as_can_come_are_owned_and_closed() {
        let (ours, theirs) = UnixDatagram::pair().expect("sockets");
        let file = tempfile::tempfile().expect("a file");
        let descriptors = vec![file.as_fd(); MOST];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&theirs, &[io::IoSlice::new(b"STATUS=x")], &mut control, SendFlags::empty()).expect("room");
        let mut buffer = [0; 4];
        let received = receive(&ours, &mut buffer).expect("it is there");
        assert_eq!((received.length, received.is_cut, received.passed.0.len()), (4, true, MOST));
        drop(received);
        eventually("all are closed", || open(&file) == 1);
    }
}
