//! What the proxy to hosts costs: bytes through a tunnel, and connections, against the same server asked directly.
//!
//! `cargo bench -p toka-tests --bench egress [-- ROUNDS]`. Rounds alternate; ratios are of medians. The server writes what it has in memory
//! over loopback, which no network is as fast as.

mod journal_log;

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use journal_log::InJournal;
use toka_core::{Amounts, Name, RunId};
use toka_gateway::{CallLog, Current, Gate, Gateway, Port, Serving};
use toka_project::{Journal, Stamp};
use toka_tests::measure::{Samples, Table, rounds};
use uuid::Uuid;

const ROUNDS: usize = 5;
/// Bytes of one transfer.
const LARGE: u64 = 1 << 30;
/// Connections of one round, each with a byte.
const SMALL: usize = 200;

/// A gate that lets everything through.
impl Gate for InJournal {
    fn admit(
        &self,
        _: u64,
        _: Amounts,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'static>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn admit_host(
        &self,
        _: String,
        _: u16,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'static>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn main() {
    let rounds = rounds(ROUNDS);
    let folder = tempfile::tempdir().expect("a folder");
    let server = serve();
    let (port, _serving) = serve_gateway(server, folder.path());
    let mut table = Table::new(format!("Hosts through an agent's port, {rounds} rounds in turn"));
    let mut rows = [(); 4].map(|()| Samples::default());
    for round in 0..=rounds {
        let took = [
            fetch(connect(server), LARGE),
            fetch(tunnel(port, server), LARGE),
            (0..SMALL).map(|_| fetch(connect(server), 1)).sum::<Duration>() / SMALL as u32,
            (0..SMALL).map(|_| fetch(tunnel(port, server), 1)).sum::<Duration>() / SMALL as u32,
        ];
        // The first round warms up.
        if round > 0 {
            rows.iter_mut().zip(took).for_each(|(row, took)| row.add_time(took));
        }
    }
    let [large, large_through, small, small_through] = rows;
    table.row("1 GiB, direct", &large, "ms", None, "");
    table.row("1 GiB, through a tunnel", &large_through, "ms", Some(&large), "≤ 1.25×");
    table.row("a connection with one byte, direct", &small, "ms", None, "");
    table.row("the same through a tunnel, intent durable", &small_through, "ms", Some(&small), "");
    table.print();
}

/// Writes as many bytes as it is asked for in eight bytes.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || write(stream));
        }
    });
    address
}

fn write(mut stream: TcpStream) {
    let mut many = [0; 8];
    if stream.read_exact(&mut many).is_err() {
        return;
    }
    let (mut left, piece) = (u64::from_le_bytes(many), vec![7; 256 * 1024]);
    while left > 0 {
        let next = left.min(piece.len() as u64);
        if stream.write_all(&piece[..next as usize]).is_err() {
            return;
        }
        left -= next;
    }
    let _ = stream.shutdown(Shutdown::Write);
}

fn serve_gateway(server: SocketAddr, folder: &std::path::Path) -> (SocketAddr, Serving) {
    let name = Name::new("bench").expect("a label");
    let stamp = Stamp { project: name.clone(), run: RunId::from_uuid(Uuid::now_v7()) };
    let journal = Journal::open(&folder.join("journal.db"), stamp, Vec::new()).expect("a journal");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("ours");
    let address = listener.local_addr().expect("bound");
    let log = Arc::new(InJournal(journal, name.clone()));
    let port = Port {
        callers: None,
        batches: None,
        left: Vec::new(),
        stand_ins: Vec::new(),
        agent: name,
        joins: false,
        secrets: Arc::default(),
        listener,
        key: None,
        declared: Vec::new(),
        providers: Arc::new(Current::default()),
        log: Arc::clone(&log) as Arc<dyn CallLog>,
        gate: log,
        hosts: vec![server.to_string().parse().expect("a host")],
        asks_hosts: false,
        rate: None,
    };
    let serving = Gateway::of_this_process().and_then(|gateway| gateway.serve(port)).expect("a gateway");
    (address, serving)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_nodelay(true).expect("ours");
    stream
}

fn tunnel(port: SocketAddr, server: SocketAddr) -> TcpStream {
    let mut stream = connect(port);
    write!(stream, "CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n").expect("a reader");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// Reads so many bytes; the time is from the request on, or with the connection where there is hardly any.
fn fetch(mut stream: TcpStream, many: u64) -> Duration {
    let begun = Instant::now();
    stream.write_all(&many.to_le_bytes()).expect("a reader");
    let (mut buffer, mut read) = (vec![0; 256 * 1024], 0);
    loop {
        match stream.read(&mut buffer).expect("bytes") {
            0 => break,
            more => read += more as u64,
        }
    }
    assert_eq!(read, many);
    begun.elapsed()
}
