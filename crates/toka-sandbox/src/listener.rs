//! Ports inside an agent's network that its daemon listens on: the child makes the sockets there, before its program begins, and hands
//! them to its parent. So nothing of the agent ever holds one, no first connection comes too early, and they live as long as somebody outside
//! holds them.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};

use crate::StepError;
use crate::handover::hand_over;

/// Connections that may wait to be accepted. The kernel takes less where it is told so (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// What the child needs to make them.
#[derive(Debug, Clone, Copy)]
pub struct NewListener<'a> {
    /// Where its daemon serves models and its proxy.
    pub address: SocketAddrV4,
    /// Where it stands for hosts, each at an address of its own.
    pub hosts: &'a [SocketAddrV4],
    /// The child's end of a [`crate::handover::channel`].
    pub channel: BorrowedFd<'a>,
}

impl NewListener<'_> {
    /// In the child, in its own network: listens, and hands the sockets over, that of the daemon first.
    pub(crate) fn open(&self) -> Result<(), StepError> {
        let failed = |name: &'static str| move |error: io::Error| StepError::new(name, None, &error);
        for address in [&self.address].into_iter().chain(self.hosts) {
            let listener = listen_on(*address).map_err(|error| {
                let place = address.to_string();
                StepError::new("network: listen", Some(Path::new(&place)), &error)
            })?;
            hand_over(self.channel, listener.as_fd()).map_err(failed("network: hand over the listener"))?;
        }
        Ok(())
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
        let new = NewListener { address, hosts: &[], channel: theirs.as_fd() };
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
