//! Checks over the network against servers that are a few lines each.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use toka_http::NetworkReach;

fn way() -> Way {
    Way::new(NetworkReach::Shared)
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// A request without a body.
async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.expect("a whole request"));
    }
    String::from_utf8(request).expect("text")
}

/// Hears a request, answers, and hands the request back.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &str) -> String {
    let request = hear(&mut stream).await;
    // A client that has read enough is allowed to go.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    request
}

/// A server that answers once.
async fn serve(answer: impl Into<String>) -> (u16, JoinHandle<String>) {
    let (listener, port) = listen().await;
    let answer = answer.into();
    let request = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        talk(stream, &answer).await
    });
    (port, request)
}

fn get(port: u16) -> HttpGet {
    HttpGet {
        host: "127.0.0.1".to_owned(),
        port,
        path: "/ready?deep=1".to_owned(),
        scheme: HttpScheme::Http,
        headers: BTreeMap::new(),
    }
}

fn socket(port: u16) -> TcpSocket {
    TcpSocket { host: "localhost".to_owned(), port }
}

#[tokio::test]
async fn a_connection_that_is_accepted_is_success() {
    let (listener, port) = listen().await;
    assert_eq!(tcp_socket(&way(), &socket(port)).await, Ok(()));
    drop(listener);
    let reason = tcp_socket(&way(), &socket(port)).await.expect_err("nobody listens");
    assert!(reason.starts_with("cannot connect to ") && reason.ends_with("connection refused"), "{reason}");
}

#[tokio::test]
async fn the_status_decides_and_nothing_is_followed() {
    for (head, expected) in [
        ("200 OK", Ok(())),
        ("204 No Content", Ok(())),
        ("302 Found\r\nLocation: http://127.0.0.1:1/", Ok(())),
        ("399 Odd", Ok(())),
        ("404 Not Found", Err("status 404 Not Found")),
        ("503 Service Unavailable", Err("status 503 Service Unavailable")),
    ] {
        let (port, request) = serve(format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n")).await;
        let answer = http_get(&way(), &get(port)).await;
        assert_eq!(answer.as_ref().map_err(String::as_str), expected.as_ref().map_err(|reason| *reason));
        request.await.expect("one request");
    }
}

#[tokio::test]
async fn the_request_carries_what_was_declared() {
    let (port, request) = serve("HTTP/1.1 200 OK\r\n\r\nbody to the end").await;
    let mut asked = get(port);
    asked.headers.insert("X-Probe".to_owned(), "ä b".to_owned());
    asked.headers.insert("host".to_owned(), "example.org".to_owned());
    assert_eq!(http_get(&way(), &asked).await, Ok(()));
    let request = request.await.expect("one request").to_lowercase();
    assert!(request.starts_with("get /ready?deep=1 http/1.1\r\n"), "{request}");
    for line in ["x-probe: ä b", "host: example.org", "user-agent: toka-probe", "connection: close"] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{line}: {request}");
    }
    assert!(!request.contains("127.0.0.1"), "the declared host only: {request}");
}

#[tokio::test]
async fn what_is_no_http_is_a_failure() {
    for answer in ["", "hello\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"] {
        let (port, request) = serve(answer).await;
        let reason = http_get(&way(), &get(port)).await.expect_err(answer);
        assert!(reason.contains("over HTTP") || reason.contains("broke off"), "{reason}");
        request.await.expect("one request");
    }
    let (port, _request) =
        serve(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(2 * toka_http::HEAD))).await;
    http_get(&way(), &get(port)).await.expect_err("a head without end");
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_is_told_without_asking() {
    let mut asked = get(1);
    asked.headers.insert("X-Probe".to_owned(), "a\u{1}".to_owned());
    assert_eq!(http_get(&way(), &asked).await, Err("cannot send the header \"X-Probe\"".to_owned()));
}

#[tokio::test]
async fn a_body_without_end_is_not_read_to_it() {
    let (listener, port) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        hear(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("a head");
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    assert_eq!(http_get(&way(), &get(port)).await, Ok(()));
    server.await.expect("the client has gone");
}

#[tokio::test]
async fn a_certificate_is_not_verified() {
    // Made for this test: of another name, signed by nobody, and valid for two days only.
    let certificate =
        CertificateDer::from(include_bytes!("../../../toka-http/tests/fixtures/certificate.der").as_slice());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(
        include_bytes!("../../../toka-http/tests/fixtures/key.der").as_slice(),
    ));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the versions that there are")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listen().await;
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let stream = acceptor.accept(stream).await.expect("a handshake");
        talk(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await
    });
    let asked = HttpGet { scheme: HttpScheme::Https, ..get(port) };
    assert_eq!(http_get(&way(), &asked).await, Ok(()));
    assert!(server.await.expect("no panic").starts_with("GET /ready"));
}

#[tokio::test]
async fn https_of_a_plain_server_is_a_failure() {
    let (listener, port) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        stream
    });
    let asked = HttpGet { scheme: HttpScheme::Https, ..get(port) };
    let reason = http_get(&way(), &asked).await.expect_err("no TLS");
    assert!(reason.starts_with("no TLS at 127.0.0.1: "), "{reason}");
    drop(server.await);
}

/// A server in a network namespace of its own, as long as `over` is there: its thread and port, or why there is none.
fn apart(over: mpsc::Receiver<()>) -> Result<(i32, u16), String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let listener = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(std::io::Error::from)
            .and_then(|()| toka_sandbox::sys::loopback_up())
            .and_then(|()| std::net::TcpListener::bind(("127.0.0.1", 0)))
            .and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
        let thread = nix::unistd::gettid().as_raw();
        let word = listener.as_ref().map(|(port, _)| (thread, *port)).map_err(ToString::to_string);
        tell.send(word).expect("the test waits");
        let _ = over.recv();
    });
    told.recv().expect("a word of the other thread")
}

#[tokio::test]
async fn an_agent_with_a_network_of_its_own_is_asked_there() {
    let (_listens, over) = mpsc::channel();
    let (thread, port) = match apart(over) {
        Ok(found) => found,
        Err(reason) => {
            assert!(std::env::var_os("TOKA_REQUIRE_PRIVILEGED").is_none(), "{reason}");
            return eprintln!("skipped: no network namespace here: {reason}");
        }
    };
    let inside = Way::new(NetworkReach::Own { pid: thread });
    assert_eq!(tcp_socket(&inside, &socket(port)).await, Ok(()));
    let (_listener, ours) = listen().await;
    tcp_socket(&inside, &socket(ours)).await.expect_err("our own servers are not there");
}
