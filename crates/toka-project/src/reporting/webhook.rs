//! Reports to a web server that a person has named. Certificates are verified; nothing is followed; what is at a link-local
//! address, where clouds keep the credentials of their machines, is never talked to. Of the URL only the host is ever
//! shown: many services keep a secret in the path.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use toka_http::{AddressRule, Client, HttpError, NetworkReach, Options, Pool, Trust, Versions, Way};
use toka_workstream::{Scheme, Webhook};

/// The longest that one try may take, name and handshake included.
const TRY: Duration = Duration::from_secs(10);
/// The waits between tries.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// How often a report is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// For a while, where that may help.
    Ordinary,
    /// Once: the one before did not arrive, and each try holds up those that come after.
    Exhausted,
}

impl Patience {
    fn further_tries(self) -> usize {
        match self {
            Self::Ordinary => AGAIN.len(),
            Self::Exhausted => 0,
        }
    }
}

/// Why a report did not arrive.
#[derive(Debug)]
struct Failure {
    reason: String,
    again: Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Try,
    /// It would be the same.
    Never,
}

fn lasting(reason: impl Into<String>) -> Failure {
    Failure { reason: reason.into(), again: Again::Never }
}

fn passing(reason: impl Into<String>) -> Failure {
    Failure { reason: reason.into(), again: Again::Try }
}

/// How reports reach a web server.
pub(super) struct Delivery<'a>(pub(super) &'a Webhook);

impl Delivery<'_> {
    /// What servers of several names go by: without a port that goes without saying.
    fn host_header(&self) -> String {
        if self.0.port == self.0.scheme.port() { self.0.host.clone() } else { self.0.authority() }
    }

    /// Sends a report.
    ///
    /// # Errors
    /// When it did not arrive: the last reason, without what only the receiver should know.
    pub(super) async fn deliver(&self, report: &Bytes, patience: Patience) -> Result<(), String> {
        let mut waits = AGAIN.into_iter().take(patience.further_tries());
        loop {
            let Err(Failure { reason, again }) = self.post(report.clone()).await else { return Ok(()) };
            match waits.next().filter(|_| again == Again::Try) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(reason),
            }
        }
    }

    async fn post(&self, report: Bytes) -> Result<(), Failure> {
        let client = Client::new(Options {
            way: Way::new(NetworkReach::Shared),
            rule: AddressRule::NoMetadata,
            trust: Trust::Host,
            versions: Versions::Http1,
            // The next report may be a day away.
            pool: Pool::None,
        });
        let answer = client.send(self.request(report)?, TRY).await.map_err(Failure::from)?;
        let status = answer.status();
        match status {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => {
                Err(lasting(format!("status {status}, which is not followed")))
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Err(passing(format!("status {status}")))
            }
            status if status.is_server_error() => Err(passing(format!("status {status}"))),
            status => Err(lasting(format!("status {status}"))),
        }
    }

    fn request(&self, report: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
        let scheme = match self.0.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        Request::post(format!("{scheme}://{}{}", self.0.authority(), self.0.target))
            .header(HOST, self.host_header())
            .header(USER_AGENT, concat!("toka/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .body(Full::new(report))
            .map_err(|_| lasting("the URL cannot be asked for"))
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let reason = match &error {
            HttpError::Forbidden { .. } => {
                "it is at an address where reports are never sent: link-local, metadata, or nobody's"
                    .to_owned()
            }
            other => other.to_string(),
        };
        if error.is_lasting() { lasting(reason) } else { passing(reason) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    /// A server that answers each request with the next of these, and tells what it was asked.
    async fn server(answers: &'static [&'static str]) -> (Webhook, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook?key=hunter2", listener.local_addr().expect("bound"));
        let served = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a caller");
                let mut text = vec![0; 4096];
                let mut length = 0;
                while !text[..length].ends_with(b"{}") {
                    length += stream.read(&mut text[length..]).await.expect("bytes");
                }
                asked.push(String::from_utf8_lossy(&text[..length]).into_owned());
                let head = format!(
                    "HTTP/1.1 {answer}\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.expect("a reader");
            }
            asked
        });
        (Webhook::parse(&url).expect("a URL"), served)
    }

    async fn deliver(
        answers: &'static [&'static str],
        patience: Patience,
    ) -> (Result<(), String>, Vec<String>) {
        let (hook, served) = server(answers).await;
        let outcome = Delivery(&hook).deliver(&Bytes::from_static(b"{}"), patience).await;
        (outcome, served.await.expect("no panic"))
    }

    #[tokio::test]
    async fn a_report_is_posted_as_json() {
        let (outcome, asked) = deliver(&["204 No Content"], Patience::Ordinary).await;
        assert_eq!(outcome, Ok(()));
        assert!(asked[0].starts_with("POST /hook?key=hunter2 HTTP/1.1\r\n"), "{asked:?}");
        assert!(asked[0].contains("content-type: application/json"), "{asked:?}");
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_and_what_does_not_is_not() {
        let (outcome, asked) = deliver(&["503 Busy", "200 OK"], Patience::Ordinary).await;
        assert_eq!((outcome, asked.len()), (Ok(()), 2));
        let (outcome, asked) = deliver(&["503 Busy"], Patience::Exhausted).await;
        assert_eq!((outcome, asked.len()), (Err("status 503 Service Unavailable".to_owned()), 1));
        let (outcome, asked) = deliver(&["404 Not Found"], Patience::Ordinary).await;
        assert_eq!((outcome, asked.len()), (Err("status 404 Not Found".to_owned()), 1));
        let (outcome, asked) = deliver(&["307 Elsewhere"], Patience::Ordinary).await;
        let why = outcome.expect_err("it is not followed");
        assert!(why.contains("not followed"), "{why}");
        assert_eq!(asked.len(), 1);
    }

    #[tokio::test]
    async fn a_server_that_nobody_vouches_for_gets_nothing() {
        // Signed by nobody, and too old; the handshake ends before anything is posted.
        let (certificate, key) = (
            include_bytes!("../../../toka-http/tests/fixtures/certificate.der").as_slice(),
            include_bytes!("../../../toka-http/tests/fixtures/key.der").as_slice(),
        );
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
        let served = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the versions that there are")
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(certificate)], key)
            .expect("a certificate and its key");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(served));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}/hunter2", listener.local_addr().expect("bound"));
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a caller");
            acceptor.accept(stream).await.is_err()
        });
        let hook = Webhook::parse(&url).expect("a URL");
        let why =
            Delivery(&hook).post(Bytes::from_static(b"{}")).await.expect_err("nobody vouches for it").reason;
        assert!(why.contains("TLS") || why.contains("certificates"), "{why}");
        if why.contains("TLS") {
            assert!(server.await.expect("no panic"), "the handshake failed");
        }
    }

    #[tokio::test]
    async fn a_place_without_a_server_and_a_server_without_a_certificate_are_told_without_the_url() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let hook = Webhook::parse(&format!("http://127.0.0.1:{port}/hunter2")).expect("a URL");
        let why = Delivery(&hook).post(Bytes::new()).await.expect_err("nobody listens");
        assert_eq!(why.again, Again::Try);
        assert!(why.reason.contains("cannot connect") && !why.reason.contains("hunter2"), "{why:?}");
        let metadata = Webhook::parse("http://169.254.169.254/latest/hunter2").expect("a URL");
        let why =
            Delivery(&metadata).deliver(&Bytes::new(), Patience::Ordinary).await.expect_err("forbidden");
        assert!(why.contains("never sent") && !why.contains("hunter2"), "{why}");
    }
}
