//! One packet of the socket between daemon and keeper: a JSON text and descriptors.
//!
//! The socket keeps packets apart (`SOCK_SEQPACKET`, unix(7)). A text too long for one packet travels as a sealed file in
//! memory, whose descriptor comes last, behind a packet that holds only [`IN_MEMORY`].

use std::fs::File;
use std::io::{self, IoSlice, Read, Seek};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toka_sandbox::sys;

/// Longest text within a packet: well below the default send buffer of a Unix socket (212,992 bytes).
const MAX_INLINE: usize = 64 * 1024;
/// Longest text at all: what there is to know of ten thousand agents is about a third of it.
const MAX_TEXT: u64 = 64 * 1024 * 1024;
/// Most descriptors that go with one message: one less than a packet may bring, for the memory of a long text.
pub(crate) const MAX_DESCRIPTORS: usize = sys::MAX_RECEIVED - 1;
// What a start hands over: two pipes, the notification, the port of the daemon, and those at which that stands for hosts.
const _: () = assert!(4 + toka_core::network::MOST_STAND_INS <= MAX_DESCRIPTORS);
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
    ///
    /// # Errors
    /// `InvalidInput` with more than [`MAX_DESCRIPTORS`]; as memfd_create(2) for a long text.
    pub(crate) fn new(message: &impl Serialize, mut descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        if descriptors.len() > MAX_DESCRIPTORS {
            let reason = format!("more than {MAX_DESCRIPTORS} descriptors in one message");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
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

/// What a packet turned out to be.
#[derive(Debug)]
pub(crate) enum Received<T> {
    /// A message, and the descriptors that came with it. When this process has no room for more, they are fewer than
    /// were sent: the first of them.
    Message(T, Vec<OwnedFd>),
    /// Something that this version does not know, under this number if it is a call or an answer.
    Strange {
        /// The number.
        call: Option<u64>,
        /// What was not understood.
        reason: String,
    },
}

/// The part of every message that never changes.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    call: Option<u64>,
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
    /// `WouldBlock` when there is none; others as recvmsg(2).
    pub(crate) fn receive<T: DeserializeOwned>(
        &mut self,
        socket: BorrowedFd<'_>,
    ) -> io::Result<Option<Received<T>>> {
        let sys::Received { length, mut descriptors, cut } = sys::receive_packet(socket, &mut self.0)?;
        Ok(match &self.0[..length] {
            [] => None,
            // The memory comes last, so it is what is missing when the packet was cut.
            text if text == IN_MEMORY => match descriptors.pop().filter(|_| !cut).map(read_memory) {
                Some(Ok(text)) => Some(understand(&text, descriptors)),
                Some(Err(error)) => Some(strange(None, &format!("a long message: {error}"))),
                None => Some(strange(None, "a long message without its memory: too many open files")),
            },
            text => Some(understand(text, descriptors)),
        })
    }
}

fn understand<T: DeserializeOwned>(text: &[u8], descriptors: Vec<OwnedFd>) -> Received<T> {
    match serde_json::from_slice(text) {
        Ok(message) => Received::Message(message, descriptors),
        Err(error) => {
            let envelope: Option<Envelope> = serde_json::from_slice(text).ok();
            strange(envelope.and_then(|envelope| envelope.call), &error.to_string())
        }
    }
}

fn strange<T>(call: Option<u64>, reason: &str) -> Received<T> {
    Received::Strange { call, reason: reason.to_owned() }
}

fn read_memory(memory: OwnedFd) -> io::Result<Vec<u8>> {
    let (mut file, mut text) = (File::from(memory), Vec::new());
    file.rewind()?;
    file.take(MAX_TEXT).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .expect("a socket pair")
    }

    fn received<T: DeserializeOwned>(socket: &OwnedFd) -> Received<T> {
        Inbox::new().receive(socket.as_fd()).expect("received").expect("open")
    }

    #[test]
    fn short_and_long_messages_arrive_with_their_descriptors() {
        let (here, there) = pair();
        for length in [3, MAX_INLINE * 3] {
            for count in [0, 1, MAX_DESCRIPTORS] {
                let null = || File::open("/dev/null").expect("null").into();
                let descriptors = std::iter::repeat_with(null).take(count).collect();
                let packet = Packet::new(&"x".repeat(length), descriptors).expect("a packet");
                packet.send(here.as_fd()).expect("sent");
                let Received::Message(text, descriptors) = received::<String>(&there) else {
                    panic!("not understood")
                };
                assert_eq!((text.len(), descriptors.len()), (length, count));
            }
        }
    }

    #[test]
    fn too_many_descriptors_are_refused_before_they_are_sent() {
        let null = || File::open("/dev/null").expect("null").into();
        let many = std::iter::repeat_with(null).take(MAX_DESCRIPTORS + 1).collect();
        let error = Packet::new(&1, many).expect_err("too many");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_closed_side_is_the_end_and_silence_is_not() {
        let (here, there) = pair();
        let silence = Inbox::new().receive::<String>(there.as_fd()).expect_err("nothing sent");
        assert_eq!(silence.kind(), io::ErrorKind::WouldBlock);
        drop(here);
        // What another test forks just now has a copy until it executes its program.
        let mut closed = [PollFd::new(there.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut closed, PollTimeout::from(20_000u16)), Ok(1));
        assert!(Inbox::new().receive::<String>(there.as_fd()).expect("the end").is_none());
    }

    #[test]
    fn what_is_not_known_keeps_its_number() {
        let (here, there) = pair();
        for (text, number) in
            [(&b"{nonsense"[..], None), (b"{\"call\":7,\"request\":\"dance\"}", Some(7)), (IN_MEMORY, None)]
        {
            nix::unistd::write(&here, text).expect("written");
            let Received::Strange { call, reason } = received::<u64>(&there) else { panic!("understood") };
            assert_eq!(call, number);
            assert!(!reason.is_empty());
        }
    }
}
