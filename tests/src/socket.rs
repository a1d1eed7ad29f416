//! Who listens at a socket, and one request to a control socket as curl would send it: by hand, so that the answer is
//! seen as it is.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};

/// Asks for a stream, and gives the head of the answer and the connection.
///
/// # Panics
/// When nobody listens, or what comes is no HTTP.
pub fn upgrade(socket: &Path, request_line: &str, body: &str) -> (String, UnixStream) {
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    let length = body.len();
    let request = format!(
        "{request_line} HTTP/1.1\r\nhost: toka\r\nconnection: upgrade\r\nupgrade: toka-stream\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    (String::from_utf8_lossy(&head).into_owned(), stream)
}

/// The process that listens at a socket, of whatever kind of connection; `None` when nobody does.
pub fn listener_at(path: &Path) -> Option<i32> {
    // Through a descriptor of its folder, since an address has no room for a long path (unix(7)).
    let folder = std::fs::File::open(path.parent()?).ok()?;
    let short = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), path.file_name()?.to_str()?);
    let address = UnixAddr::new(short.as_str()).ok()?;
    [SockType::Stream, SockType::SeqPacket].into_iter().find_map(|kind| {
        let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).ok()?;
        connect(socket.as_raw_fd(), &address).ok()?;
        Some(getsockopt(&socket, PeerCredentials).ok()?.pid())
    })
}

/// The status and the body of the answer to a GET request.
///
/// # Panics
/// When nobody listens, or what comes is no HTTP.
pub fn get(socket: &Path, path: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: toka\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status in {head}")), body.to_owned())
}
