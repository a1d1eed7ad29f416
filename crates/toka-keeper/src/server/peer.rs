//! One connection to the keeper: a guest until it has attached, the daemon, or a daemon that was replaced.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use toka_sandbox::HostFacts;

use crate::packet::{Inbox, Packet, Received};
use crate::protocol::{Body, Call, Message, OLDEST, VERSION};

/// Who asked, and under which number the answer is awaited. The daemon of a later connection is somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) peer: u64,
    pub(super) call: u64,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It may only attach.
    Guest,
    /// It may ask everything, and hears the news.
    Daemon,
    /// It is told that it was replaced, and not heard any more.
    Leaving,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) role: Role,
    /// Who connected; 0 when the kernel does not tell.
    pub(super) pid: i32,
    socket: OwnedFd,
    inbox: Inbox,
    outgoing: VecDeque<Packet>,
}

/// What was read from a connection.
#[derive(Debug)]
pub(super) enum Heard {
    Call(Call, Vec<OwnedFd>),
    /// A call that this version does not know.
    Strange {
        call: Option<u64>,
        reason: String,
    },
    /// Nothing more at the moment.
    Silence,
    /// Nothing more, ever.
    End,
}

impl Peer {
    pub(super) fn new(role: Role, pid: i32, socket: OwnedFd) -> Self {
        Self { role, pid, socket, inbox: Inbox::new(), outgoing: VecDeque::new() }
    }

    /// Says who we are, the first thing that is said on a connection.
    pub(super) fn greet(&mut self) {
        let pid = nix::unistd::getpid().as_raw();
        self.say(None, Body::Hello { version: VERSION, oldest: OLDEST, pid }, Vec::new());
    }

    /// Waits for the packet that comes before all others, which says what is known of the host; `None` when there is none, or this
    /// version does not understand it.
    pub(super) fn told(&mut self) -> Option<HostFacts> {
        loop {
            match self.inbox.receive(self.socket.as_fd()) {
                Ok(Some(Received::Message(facts, _))) => return Some(facts),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                    // Whatever it is, the next try tells.
                    let _ = poll(&mut waiting, PollTimeout::NONE);
                }
                _ => return None,
            }
        }
    }

    pub(super) fn hear(&mut self) -> Heard {
        loop {
            match self.inbox.receive::<Call>(self.socket.as_fd()) {
                Ok(Some(Received::Message(call, descriptors))) => return Heard::Call(call, descriptors),
                Ok(Some(Received::Strange { call, reason })) => return Heard::Strange { call, reason },
                Ok(None) => return Heard::End,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Heard::Silence,
                    // It died with something of ours unread; what it had sent before is still there (unix(7)).
                    io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {}
                    _ => return Heard::End,
                },
            }
        }
    }

    /// Queues a message; what is too large to send becomes an answer that says so.
    pub(super) fn say(&mut self, call: Option<u64>, body: Body, descriptors: Vec<OwnedFd>) {
        let packet = Packet::new(&Message { call, body }, descriptors).or_else(|error| {
            let body = Body::Failed { reason: format!("cannot answer: {error}") };
            Packet::new(&Message { call, body }, Vec::new())
        });
        self.outgoing.extend(packet);
    }

    /// Sends what the other side takes.
    ///
    /// # Errors
    /// When the other side is gone.
    pub(super) fn flush(&mut self, epoll: &Epoll, data: u64) -> io::Result<()> {
        self.send()?;
        let mut interest = EpollFlags::EPOLLIN;
        if !self.outgoing.is_empty() {
            interest |= EpollFlags::EPOLLOUT;
        }
        epoll.modify(&self.socket, &mut EpollEvent::new(interest, data))?;
        Ok(())
    }

    /// The same while nothing is waited for yet.
    ///
    /// # Errors
    /// When the other side is gone.
    pub(super) fn send(&mut self) -> io::Result<()> {
        while let Some(packet) = self.outgoing.front() {
            match packet.send(self.socket.as_fd()) {
                Ok(()) => drop(self.outgoing.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether all was sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.outgoing.is_empty()
    }

    pub(super) fn watch(&self, epoll: &Epoll, data: u64) -> nix::Result<()> {
        epoll.add(&self.socket, EpollEvent::new(EpollFlags::EPOLLIN, data))
    }

    /// Its socket, no longer watched.
    pub(super) fn leave(self, epoll: &Epoll) -> OwnedFd {
        let _ = epoll.delete(&self.socket);
        self.socket
    }
}
