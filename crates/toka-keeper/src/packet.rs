//! One packet of the socket between daemon and keeper: a JSON text and descriptors.
//!
//! The socket keeps packets apart (`SOCK_SEQPACKET`, unix(7)). A text too long for one packet travels as a sealed file in
//! memory, whose descriptor comes last, behind a packet that holds only [`IN_MEMORY`].

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toka_sandbox::sys;

/// Longest text within a packet: well below the default send buffer of a Unix socket (212,992 bytes).
const MAX_INLINE: usize = 64 * 1024;
/// Longest text at all; a plan with a large environment is about a tenth of it.
const MAX_TEXT: u64 = 16 * 1024 * 1024;
/// Most descriptors that travel with one packet.
const MAX_DESCRIPTORS: usize = 16;
/// Stands for the text when it travels in memory.
const IN_MEMORY: &[u8] = b"@";

/// A message that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Packet {
    text: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Packet {
    /// Makes a packet of a message and the descriptors that go with it.
    pub(crate) fn new(message: &impl Serialize, mut descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let mut text = serde_json::to_vec(message)?;
        if text.len() > MAX_INLINE {
            descriptors.push(sys::sealed_memory(&text)?);
            text = IN_MEMORY.to_vec();
        }
        Ok(Self { text, descriptors })
    }

    /// Sends it without waiting; `WouldBlock` when the other side does not keep up.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let raw: Vec<RawFd> = self.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&self.text)], control, flags, None)?;
        Ok(())
    }
}

/// Where packets arrive: one piece of memory, used again for each.
#[derive(Debug)]
pub(crate) struct Inbox(Box<[u8]>);

impl Inbox {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self(vec![0; MAX_INLINE].into())
    }

    /// Receives one message without waiting: `None` when the other side is closed.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; `InvalidData` when it is no message of ours.
    pub(crate) fn receive<T: DeserializeOwned>(
        &mut self,
        socket: BorrowedFd<'_>,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let (length, mut descriptors) = self.receive_raw(socket)?;
        let message = match &self.0[..length] {
            [] => return Ok(None),
            text if text == IN_MEMORY => {
                let memory = descriptors.pop().ok_or_else(|| invalid("a long message without its memory"))?;
                serde_json::from_slice(&read_memory(File::from(memory))?)
            }
            text => serde_json::from_slice(text),
        };
        Ok(Some((message.map_err(|error| invalid(&error.to_string()))?, descriptors)))
    }

    fn receive_raw(&mut self, socket: BorrowedFd<'_>) -> io::Result<(usize, Vec<OwnedFd>)> {
        let mut control = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let mut slices = [IoSliceMut::new(&mut self.0)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
        let mut descriptors = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                for fd in raw {
                    descriptors.push(sys::inherited_descriptor(fd)?);
                }
            }
        }
        Ok((received.bytes, descriptors))
    }
}

fn read_memory(mut file: File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(MAX_TEXT).read_to_end(&mut text)?;
    Ok(text)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .expect("a socket pair")
    }

    #[test]
    fn short_and_long_messages_arrive_with_their_descriptors() {
        let (here, there) = pair();
        for length in [3, MAX_INLINE * 3] {
            let message = "x".repeat(length);
            let file = File::open("/dev/null").expect("null");
            Packet::new(&message, vec![file.into()]).expect("a packet").send(here.as_fd()).expect("sent");
            let (text, descriptors) =
                Inbox::new().receive::<String>(there.as_fd()).expect("received").expect("open");
            assert_eq!((text.len(), descriptors.len()), (length, 1));
        }
    }

    #[test]
    fn a_closed_side_is_the_end_and_silence_is_not() {
        let (here, there) = pair();
        let silence = Inbox::new().receive::<String>(there.as_fd()).expect_err("nothing sent");
        assert_eq!(silence.kind(), io::ErrorKind::WouldBlock);
        drop(here);
        assert!(Inbox::new().receive::<String>(there.as_fd()).expect("the end").is_none());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let (here, there) = pair();
        nix::unistd::write(&here, b"{nonsense").expect("written");
        let error = Inbox::new().receive::<u64>(there.as_fd()).expect_err("nonsense");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
