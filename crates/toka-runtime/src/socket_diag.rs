//! Asks the kernel for one TCP socket by both of its ends (sock_diag(7)): whose it is, and the number by which processes hold it. It looks it up as it
//! looks up a packet's, so that it takes the same time however many there are.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

/// A socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Socket {
    /// The user that it belongs to.
    pub(crate) uid: u32,
    /// The number that `/proc/PID/fd` shows (proc_pid_fd(5)); 0 when no process holds it.
    pub(crate) inode: u64,
}

/// Of linux/sock_diag.h and linux/netlink.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const HEADER: usize = 16;
/// `inet_diag_req_v2` and `inet_diag_msg` of linux/inet_diag.h: bytes, and where user and number are.
const REQUEST: usize = 56;
const ANSWER: usize = 72;
const UID: usize = 64;
const INODE: usize = 68;

/// The socket of this network that is at `at` and is connected to `to`.
///
/// # Errors
/// As socket(2) and recv(2): where the kernel has no such interface, others have to be asked.
pub(crate) fn find(at: SocketAddrV4, to: SocketAddrV4) -> io::Result<Option<Socket>> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    // It answers at once.
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(1, 0))?;
    sendto(netlink.as_raw_fd(), &request(at, to), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let count = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    read(&answer[..count])
}

fn request(at: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(u32::try_from(HEADER + REQUEST).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and sender.
    bytes.extend([0; 8]);
    // Family, protocol, no extensions, padding; every state.
    bytes.extend([libc::AF_INET as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    // Its own end and the other one, in the order of the network; each address has room for IPv6.
    bytes.extend(at.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    for end in [at, to] {
        bytes.extend(end.ip().octets());
        bytes.extend([0; 12]);
    }
    // No interface, no cookie.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}

fn read(answer: &[u8]) -> io::Result<Option<Socket>> {
    let short = || io::Error::new(io::ErrorKind::UnexpectedEof, "a short answer of sock_diag");
    let kind =
        answer.get(4..6).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(short)?;
    let body = answer.get(HEADER..).ok_or_else(short)?;
    let word = |at: usize| body.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_ne_bytes);
    if kind == NLMSG_ERROR {
        let error = word(0).ok_or_else(short)?.cast_signed().wrapping_neg();
        return if error == libc::ENOENT { Ok(None) } else { Err(io::Error::from_raw_os_error(error)) };
    }
    if kind != SOCK_DIAG_BY_FAMILY || body.len() < ANSWER {
        return Err(short());
    }
    let (uid, inode) = (word(UID).ok_or_else(short)?, word(INODE).ok_or_else(short)?);
    Ok(Some(Socket { uid, inode: u64::from(inode) }))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    fn v4(address: SocketAddr) -> SocketAddrV4 {
        match address {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => panic!("IPv4"),
        }
    }

    #[test]
    fn each_end_of_a_connection_is_found_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        let (ours, theirs) =
            (v4(listener.local_addr().expect("bound")), v4(client.local_addr().expect("connected")));
        let shown = |fd: i32| {
            let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("ours");
            link.to_string_lossy()
                .trim_matches(|c: char| !c.is_ascii_digit())
                .parse::<u64>()
                .expect("a number")
        };
        let found = find(theirs, ours).expect("an answer").expect("a socket");
        assert_eq!(found, Socket { uid: nix::unistd::getuid().as_raw(), inode: shown(client.as_raw_fd()) });
        let (accepted, _) = listener.accept().expect("a connection");
        let other = find(ours, theirs).expect("an answer").expect("a socket");
        assert_eq!(other.inode, shown(accepted.as_raw_fd()));
        let nobody = SocketAddrV4::new(*theirs.ip(), theirs.port().wrapping_add(1).max(1));
        assert_eq!(find(nobody, ours).expect("an answer"), None);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for bytes in [&[][..], &[0; 15], &[0; 40], &[0xff; 20]] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }
}
