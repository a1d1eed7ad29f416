//! Attacks through sockets: other people's Unix sockets, the network, and the kernel's own families.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use nix::errno::Errno;

use crate::{Attack, Attempt, argument, done, io, number, sys};

pub(crate) const ATTACKS: &[Attack] = &[
    ("connect-unix", |a| done(io(UnixStream::connect(argument(a, 0))))),
    ("send-unix", |a| {
        let socket = io(UnixDatagram::unbound())?;
        done(io(socket.send_to(b"STATUS=attacked", argument(a, 0))))
    }),
    ("connect-abstract", |a| {
        let address = io(SocketAddr::from_abstract_name(argument(a, 0)))?;
        done(io(UnixStream::connect_addr(&address)))
    }),
    ("send-abstract", |a| {
        let address = io(SocketAddr::from_abstract_name(argument(a, 0)))?;
        done(io(UnixDatagram::unbound()).and_then(|socket| io(socket.send_to_addr(b"attacked", &address))))
    }),
    ("serve-unix", |a| {
        let listener = io(UnixListener::bind(argument(a, 0)))?;
        let _client = io(UnixStream::connect(argument(a, 0)))?;
        done(io(listener.accept()))
    }),
    ("serve-abstract", |a| {
        let address = io(SocketAddr::from_abstract_name(argument(a, 0)))?;
        let listener = io(UnixListener::bind_addr(&address))?;
        let _client = io(UnixStream::connect_addr(&address))?;
        done(io(listener.accept()))
    }),
    ("tcp", |a| {
        // A refused connection got as far as the network.
        match io(TcpStream::connect(argument(a, 0))) {
            Err(errno @ (Errno::ECONNREFUSED | Errno::ETIMEDOUT)) => Ok(format!("{errno:?}")),
            other => done(other),
        }
    }),
    ("tcp-listen", |a| done(io(TcpListener::bind(argument(a, 0))))),
    ("tcp-self", |_| {
        let listener = io(TcpListener::bind("127.0.0.1:0"))?;
        let address = io(listener.local_addr())?;
        let _client = io(TcpStream::connect(address))?;
        done(io(listener.accept()))
    }),
    ("udp", |a| {
        let socket = io(UdpSocket::bind("0.0.0.0:0"))?;
        done(io(socket.send_to(b"attacked", argument(a, 0))))
    }),
    // socket FAMILY TYPE PROTOCOL, by number.
    ("socket", |a| socket(number(a, 0), number(a, 1), number(a, 2))),
    ("socketpair", |a| {
        let mut pair = [0i32; 2];
        let family: usize = number(a, 0);
        let kind = libc::SOCK_STREAM as usize;
        done(sys::call(libc::SYS_socketpair, &[family, kind, 0, sys::at_mut(&mut pair)]))
    }),
    ("socket-ia32", socket_ia32),
    ("socket-x32", |_| {
        let family = libc::AF_INET as usize;
        done(sys::call(0x4000_0000 | libc::SYS_socket, &[family, libc::SOCK_STREAM as usize, 0]))
    }),
];

fn socket(family: usize, kind: usize, protocol: usize) -> Attempt {
    done(sys::call(libc::SYS_socket, &[family, kind, protocol]))
}

/// A socket by the door of 32-bit programs, where `socket` has another number.
#[cfg(target_arch = "x86_64")]
fn socket_ia32(_: &[String]) -> Attempt {
    const SOCKET: u32 = 359;
    done(sys::call_ia32(SOCKET, [libc::AF_INET as u32, libc::SOCK_STREAM as u32, 0]))
}

#[cfg(not(target_arch = "x86_64"))]
fn socket_ia32(_: &[String]) -> Attempt {
    Err(Errno::ENOSYS)
}
