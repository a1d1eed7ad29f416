//! A web server of a test's, on a port of its own of the loopback: it takes what is posted, or hangs. With a certificate it
//! speaks TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::Value;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::Certificate;

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
        Self::serve(serves, |stream| Box::new(stream))
    }

    /// The same over TLS, as whom the certificate says.
    ///
    /// # Panics
    /// When the certificate is none.
    pub fn secured(serves: Serves, certificate: &Certificate) -> Self {
        let chain = vec![CertificateDer::from_pem_file(&certificate.chain).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("its key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the versions that there are")
            .with_no_client_auth()
            .with_single_cert(chain, key);
        let config = Arc::new(config.expect("a certificate and its key"));
        Self::serve(serves, move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a server");
            Box::new(StreamOwned::new(connection, stream))
        })
    }

    fn serve(serves: Serves, wrap: impl Fn(TcpStream) -> Box<dyn Stream> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let posted = Arc::<Mutex<Vec<Posted>>>::default();
        let kept = Arc::clone(&posted);
        thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming().flatten() {
                let mut stream = wrap(stream);
                let Some(request) = read(&mut stream) else { continue };
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

/// What bytes come and go through.
trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

fn read(stream: &mut dyn Stream) -> Option<Posted> {
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

fn answer(mut stream: Box<dyn Stream>, status: u16) {
    // Whoever asked may be gone.
    let _ = write!(stream, "HTTP/1.1 {status} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}
