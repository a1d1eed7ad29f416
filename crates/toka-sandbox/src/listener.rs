//! A port inside an agent's network that its daemon listens on: the child makes the socket there, before its program begins, and hands
//! it to its parent. So nothing of the agent ever holds it, no first connection comes too early, and it lives as long as somebody outside
//! holds it.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};

use crate::StepError;
use crate::handover::hand_over;

/// Connections that may wait to be accepted. The kernel takes less where it is told so (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// What the child needs to make it.
#[derive(Debug, Clone, Copy)]
pub struct NewListener<'a> {
    /// Where.
    pub address: SocketAddrV4,
    /// The child's end of a [`crate::handover::channel`].
    pub channel: BorrowedFd<'a>,
}

impl NewListener<'_> {
    /// In the child, in its own network: listens, and hands the socket over.
    pub(crate) fn open(&self) -> Result<(), StepError> {
        let failed = |name: &'static str| move |error: io::Error| StepError::new(name, None, &error);
        let listener = listen_on(self.address).map_err(failed("network: listen"))?;
        hand_over(self.channel, listener.as_fd()).map_err(failed("network: hand over the listener"))
    }
}

fn listen_on(address: SocketAddrV4) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    // Connections of an earlier life may still be in their last state (tcp(7)).
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    bind(listener.as_raw_fd(), &SockaddrIn::from(address))?;
    listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::handover::{channel, receive};

    #[test]
    fn the_socket_arrives_and_takes_connections() {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
        let address = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, free);
        let (ours, theirs) = channel().expect("a channel");
        assert!(receive(ours.as_fd()).is_err(), "nothing was sent yet");
        let new = NewListener { address, channel: theirs.as_fd() };
        if new.open().is_err() {
            eprintln!("skipped: somebody took the port {free} meanwhile");
            return;
        }
        let listener = TcpListener::from(receive(ours.as_fd()).expect("the socket"));
        let _client = TcpStream::connect(("127.0.0.1", free)).expect("a connection");
        listener.set_nonblocking(false).expect("ours");
        assert!(listener.accept().is_ok());
    }
}
