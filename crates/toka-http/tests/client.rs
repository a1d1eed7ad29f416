//! The client against real servers on loopback: connections that are kept or not, HTTP/2, deadlines, slow readers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use toka_http::{AddressRule, Client, HttpError, NetworkReach, Options, Pool, Trust, Versions, Way, skim};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Far above what anything here takes.
const SOON: Duration = Duration::from_secs(20);
const PIECE: usize = 64 * 1024;

fn client(pool: Pool, versions: Versions, rule: AddressRule) -> Client<Empty<Bytes>> {
    let way = Way::new(NetworkReach::Shared);
    Client::new(Options { way, rule, trust: Trust::Anybody, versions, pool })
}

fn get(url: &str) -> Request<Empty<Bytes>> {
    Request::get(url).body(Empty::new()).expect("a request")
}

const KEPT: Pool = Pool::Kept { most: 4, idle: SOON };

/// How much a server was asked for.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    pieces: AtomicUsize,
}

/// A body without end.
struct Endless(Arc<Seen>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.pieces.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; PIECE])))))
    }
}

type Answer = http_body_util::Either<http_body_util::Full<Bytes>, Endless>;

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> Result<Response<Answer>, Infallible> {
    Ok(Response::new(match request.uri().path() {
        "/endless" => Answer::Right(Endless(seen)),
        "/never" => std::future::pending().await,
        _ => Answer::Left(http_body_util::Full::new(Bytes::from_static(b"here"))),
    }))
}

/// A server over HTTP/1.1, and its URL.
async fn plain() -> (String, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let seen = Arc::new(Seen::default());
    let served = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a caller");
            served.connections.fetch_add(1, Ordering::Relaxed);
            let seen = Arc::clone(&served);
            let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (url, seen)
}

/// A server over TLS that speaks HTTP/2 alone.
async fn second() -> (String, Arc<Seen>) {
    let certificate = CertificateDer::from(include_bytes!("fixtures/certificate.der").as_slice());
    let key = PrivatePkcs8KeyDer::from(include_bytes!("fixtures/key.der").as_slice());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the versions that there are")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::from(key))
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    let seen = Arc::new(Seen::default());
    let served = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a caller");
            served.connections.fetch_add(1, Ordering::Relaxed);
            let stream = acceptor.accept(stream).await.expect("TLS");
            let seen = Arc::clone(&served);
            let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    (url, seen)
}

async fn text(answer: Response<Incoming>) -> Bytes {
    answer.into_body().collect().await.expect("a body").to_bytes()
}

#[tokio::test]
async fn connections_are_kept_where_that_is_wanted() {
    for (pool, connections) in [(Pool::None, 3), (KEPT, 1)] {
        let (url, seen) = plain().await;
        let client = client(pool, Versions::Http1, AddressRule::Any);
        for _ in 0..3 {
            let answer = client.send(get(&url), SOON).await.expect("an answer");
            assert_eq!(text(answer).await, "here");
        }
        assert_eq!(seen.connections.load(Ordering::Relaxed), connections, "{pool:?}");
    }
}

#[tokio::test]
async fn one_connection_of_http_2_carries_several_requests_at_once() {
    let (url, seen) = second().await;
    let client = client(KEPT, Versions::Http2Too, AddressRule::Any);
    let first = client.send(get(&url), SOON).await.expect("an answer");
    assert_eq!(first.version(), Version::HTTP_2);
    let (one, two) = tokio::join!(client.send(get(&url), SOON), client.send(get(&url), SOON));
    for answer in [one, two] {
        assert_eq!(text(answer.expect("an answer")).await, "here");
    }
    assert_eq!(seen.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_not_read_holds_the_server_up() {
    let (url, seen) = plain().await;
    let client = client(Pool::None, Versions::Http1, AddressRule::Any);
    let answer = client.send(get(&format!("{url}/endless")), SOON).await.expect("a head");
    let mut body = answer.into_body();
    let sent = || seen.pieces.load(Ordering::Relaxed);
    let mut read = 0;
    while read < 16 * PIECE {
        let frame = body.frame().await.expect("more").expect("bytes");
        read += frame.data_ref().map_or(0, Bytes::len);
    }
    // The kernel and both ends hold some megabytes at most; a client that read ahead would go on for ever.
    let mut before = usize::MAX;
    while before != sent() {
        before = sent();
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    }
    assert!(sent() * PIECE < read + (64 << 20), "{} pieces", sent());
    skim(body, 10).await.expect("it is let go");
}

#[tokio::test]
async fn who_does_not_answer_in_time_and_who_may_not_be_asked_are_told() {
    let (url, seen) = plain().await;
    let client = client(Pool::None, Versions::Http1, AddressRule::Any);
    let late = Duration::from_millis(20);
    let never = client.send(get(&format!("{url}/never")), late).await.expect_err("it never answers");
    assert_eq!(never, HttpError::Late(late));
    assert!(!never.is_lasting());
    let before = seen.connections.load(Ordering::Relaxed);
    let careful = self::client(Pool::None, Versions::Http1, AddressRule::NoMetadata);
    let metadata =
        careful.send(get("http://169.254.169.254/latest/hunter2"), SOON).await.expect_err("forbidden");
    assert!(metadata.is_lasting() && !metadata.to_string().contains("hunter2"), "{metadata}");
    assert_eq!(seen.connections.load(Ordering::Relaxed), before);
}
