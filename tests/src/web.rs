//! A web server of a test's, on a port of its own of the loopback: it takes what is posted, or hangs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::Value;

/// What a server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// It answers with this status.
    Status(u16),
    /// It reads, and never answers.
    Nothing,
}

/// A request that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Posted {
    /// The first line.
    pub request: String,
    /// The lines after it.
    pub headers: Vec<String>,
    /// What was posted.
    pub body: Value,
}

/// A server; it takes connections as long as the test lives.
pub struct WebServer {
    address: SocketAddr,
    posted: Arc<Mutex<Vec<Posted>>>,
}

impl WebServer {
    /// Begins to serve.
    ///
    /// # Panics
    /// When there is no port.
    pub fn new(serves: Serves) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let posted = Arc::<Mutex<Vec<Posted>>>::default();
        let kept = Arc::clone(&posted);
        thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming().flatten() {
                let Some(request) = read(&stream) else { continue };
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                match serves {
                    Serves::Nothing => hanging.push(stream),
                    Serves::Status(status) => answer(stream, status),
                }
            }
        });
        Self { address, posted }
    }

    /// Its host and port.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// What was posted so far.
    pub fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(stream: &TcpStream) -> Option<Posted> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_ascii_lowercase()),
        }
    }
    let length = lines.iter().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = lines.first()?.clone();
    Some(Posted { request, headers: lines.split_off(1), body: serde_json::from_slice(&body).ok()? })
}

fn answer(mut stream: TcpStream, status: u16) {
    // Whoever asked may be gone.
    let _ = write!(stream, "HTTP/1.1 {status} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}
