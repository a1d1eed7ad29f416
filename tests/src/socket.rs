//! Who listens at a socket, and one request to a control socket as curl would send it: by hand, so that the answer is
//! seen as it is.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};

/// The key of the example in RFC 6455, section 1.3, and the answer to it.
const KEY: (&str, &str) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

/// Asks for a WebSocket as a browser does, and gives the head of the answer and the connection.
///
/// # Panics
/// When nobody listens, or what comes is no HTTP, or the WebSocket of somebody else.
pub fn websocket(socket: &Path, path: &str) -> (String, UnixStream) {
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: toka\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-protocol: other, toka.v1\r\nsec-websocket-key: {}\r\n\r\n",
        KEY.0
    );
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if head.starts_with("HTTP/1.1 101 ") {
        let has = |line: &str| head.to_ascii_lowercase().contains(&line.to_ascii_lowercase());
        assert!(has(&format!("sec-websocket-accept: {}\r\n", KEY.1)), "{head}");
        assert!(has("sec-websocket-protocol: toka.v1\r\n"), "{head}");
    }
    (head, stream)
}

/// One message of a client: text is 1, binary 2 (RFC 6455, section 5.2).
///
/// # Panics
/// When it is longer than 125 bytes.
pub fn message(opcode: u8, content: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let length = u8::try_from(content.len()).ok().filter(|length| *length < 126).expect("a short one");
    let masked = content.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [0x80 | opcode, 0x80 | length].into_iter().chain(mask).chain(masked).collect()
}

/// Everything that a server says until it closes: the kind of each message, and its content.
///
/// # Panics
/// When a message is incomplete or longer than 64 KiB.
pub fn messages(stream: &mut UnixStream) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer and an end");
    let (mut found, mut rest) = (Vec::new(), bytes.as_slice());
    while let [head, length, after @ ..] = rest {
        let (length, after) = match (length, after) {
            (126, [high, low, after @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), after),
            (0..126, after) => (usize::from(*length), after),
            other => panic!("{other:?}"),
        };
        let (content, after) = after.split_at(length);
        found.push((head & 0x0f, content.to_vec()));
        rest = after;
    }
    found
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
