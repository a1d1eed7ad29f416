//! The way to hosts: an HTTP proxy at the agent's port. The agent has no other way out, so that whatever it connects to is named here, looked
//! at, looked up by us, and recorded.
//!
//! ```text
//!  CONNECT host:port ─┐                                                   ┌─▶ tunnel: bytes both ways, counted, held to its rate
//!  GET http://host/ ──┴─▶ rule? ─▶ intent (durable) ─▶ lookup, address? ─▶ connect ─┴─▶ request and answer, likewise
//! ```
//!
//! A program that knows no proxy connects to an address of the agent's own network at which Toka stands for a host ([`stand_in`]): then the
//! address names the host, and the rest is as with CONNECT.
//!
//! What goes through a tunnel is not looked into: with TLS it could not be, and no certificate of ours is put into an agent.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::HeaderMap;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use toka_core::{EventKind, HostOutcome, HostRule, Kept};
use toka_http::{AddressRule, HttpError};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::headers;
use crate::host_record::HostRecord;
use crate::inspection::Inspection;
use crate::log::{RECORDS_WITHIN, REFUSED_FOR, next_number};
use crate::outgoing::Outgoing;
use crate::patient::Patient;
use crate::port::PortState;
use crate::shaped::{CountedBody, Direction, Shaped, Shaper};

/// How long a connection may take to be there.
const CONNECTS_WITHIN: Duration = Duration::from_secs(30);
/// How long an answer may take to begin.
const ANSWERS_WITHIN: Duration = Duration::from_secs(600);
/// Bytes of a tunnel that are on their way, in each direction.
const BUFFER: usize = 64 * 1024;

/// A tunnel that is to be carried out when the connection has been handed over.
pub(crate) struct Tunnel {
    client: OnUpgrade,
    way: ToHost,
}

/// A connection to a host, and what is taken note of on it.
struct ToHost {
    host: TcpStream,
    shaper: Arc<Shaper>,
    record: HostRecord,
    inspection: Inspection,
    _place: OwnedSemaphorePermit,
}

/// Where the tunnel of a connection is left for whoever serves it.
pub(crate) type TunnelPlace = Arc<Mutex<Option<Tunnel>>>;

impl Tunnel {
    /// Hands bytes on until both sides have ended, or one breaks off. An agent that is paused may take as long as it is: its side is not waited
    /// for by the clock.
    pub(crate) async fn run(self) {
        let Self { client, way } = self;
        let parts = match client.await.map(Upgraded::downcast::<TokioIo<Patient>>) {
            Ok(Ok(parts)) => parts,
            // It is what `server.rs` has made of the connection.
            Ok(Err(_)) => {
                return way.record.end(HostOutcome::Cut { reason: "it cannot be handed over".to_owned() });
            }
            Err(error) => return way.record.end(HostOutcome::Cut { reason: error.to_string() }),
        };
        let mut client = parts.io.into_inner().into_inner();
        // What the client sent behind its request comes first.
        way.carry(&mut client, &parts.read_buf).await;
    }
}

impl ToHost {
    /// Hands bytes on between a client and the host, what the client has sent already before all others.
    async fn carry(self, client: &mut TcpStream, sent: &[u8]) {
        let Self { host, shaper, record, inspection, _place } = self;
        let mut host = Shaped::new(host, shaper, Arc::clone(&record.counts), inspection);
        let copied = async {
            host.write_all(sent).await?;
            tokio::io::copy_bidirectional_with_sizes(client, &mut host, BUFFER, BUFFER).await
        };
        record.end(match copied.await {
            Ok(_) => HostOutcome::Closed,
            Err(error) => HostOutcome::Cut { reason: error.to_string() },
        });
    }
}

/// Why a host is not reached, as the agent hears it.
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    fn response(self) -> Response<Outgoing> {
        let mut response =
            Response::new(Outgoing::Whole(Full::new(Bytes::from(format!("toka: {}\n", self.message)))));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
        // Where a client shows no body of a refused CONNECT, it may show this.
        if let Ok(message) = HeaderValue::from_str(&self.message) {
            headers.insert("x-toka-refused", message);
        }
        response
    }
}

/// Whether a request is for a proxy, and not for this server itself.
pub(crate) fn is_for_proxy(port: &PortState, request: &Request<Incoming>) -> bool {
    let is_own = |authority: &Authority| {
        authority.host().parse().is_ok_and(|host: std::net::IpAddr| host == port.address.ip())
            && authority.port_u16() == Some(port.address.port())
    };
    request.method() == Method::CONNECT
        || request.uri().authority().is_some_and(|authority| !is_own(authority))
}

/// Answers a request for another host.
pub(crate) async fn handle(
    port: Arc<PortState>,
    request: Request<Incoming>,
    place: &TunnelPlace,
) -> Response<Outgoing> {
    let answered = match request.method() == Method::CONNECT {
        true => connect(&port, request, place).await,
        false => pass_on(&port, request).await,
    };
    answered.unwrap_or_else(Refusal::response)
}

async fn connect(
    port: &Arc<PortState>,
    mut request: Request<Incoming>,
    place: &TunnelPlace,
) -> Result<Response<Outgoing>, Refusal> {
    let authority = request.uri().authority().cloned();
    let no_host = || {
        Refusal::new(StatusCode::BAD_REQUEST, "CONNECT names a host and a port, such as a.example.org:443")
    };
    let authority = authority.filter(|authority| !authority.as_str().contains('@')).ok_or_else(no_host)?;
    let (host, at) = (authority.host().to_owned(), authority.port_u16().ok_or_else(no_host)?);
    let way = reach(port, &host, at).await?;
    let client = hyper::upgrade::on(&mut request);
    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tunnel { client, way });
    Ok(Response::new(Outgoing::Whole(Full::default())))
}

/// Connects to a host for whoever waits at an agent's own address for it.
pub(crate) async fn stand_in(port: Arc<PortState>, mut client: TcpStream, host: &str, at: u16) {
    let _ = client.set_nodelay(true);
    match reach(&port, host, at).await {
        Ok(way) => way.carry(&mut client, &[]).await,
        // There is no language in which the reason could be told. A client that comes again at once would keep the thread of all agents busy.
        Err(refusal) => {
            tracing::debug!(host, at, reason = refusal.message, "a connection is refused");
            tokio::time::sleep(REFUSED_FOR).await;
        }
    }
}

/// Connects to a host that may be reached.
async fn reach(port: &Arc<PortState>, host: &str, at: u16) -> Result<ToHost, Refusal> {
    let rule = decide(port, host, at).await?;
    let permit = Arc::clone(&port.hosts.tunnels).try_acquire_owned();
    let place = permit.map_err(|_| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "this agent has as many tunnels as it may have already")
    })?;
    let record = begin(port, host, at).await?;
    let connecting = port.hosts.way.connect(host, at, rule);
    let stream = match tokio::time::timeout(CONNECTS_WITHIN, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(&record, &error)),
        Err(_) => return Err(failed(&record, &HttpError::Late(CONNECTS_WITHIN))),
    };
    let _ = stream.set_nodelay(true);
    let shaper = Arc::clone(&port.hosts.shaper);
    let inspection = Inspection::of_tunnel(&port.alarm, host, at, rule == AddressRule::Public);
    Ok(ToHost { host: stream, shaper, record, inspection, _place: place })
}

async fn pass_on(port: &Arc<PortState>, request: Request<Incoming>) -> Result<Response<Outgoing>, Refusal> {
    let (head, body) = request.into_parts();
    if head.uri.scheme_str() != Some("http") {
        let message = "a proxy is asked for http:// or with CONNECT";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let authority = head.uri.authority().filter(|authority| !authority.as_str().contains('@'));
    let authority =
        authority.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "the URL names no host"))?;
    let (host, at) = (authority.host().to_owned(), authority.port_u16().unwrap_or(80));
    let rule = decide(port, &host, at).await?;
    let record = Arc::new(begin(port, &host, at).await?);
    let counted =
        |body, way| CountedBody::new(body, Arc::clone(&port.hosts.shaper), Arc::clone(&record), way);
    let size = size_of_head(&head);
    record.counts.sent.fetch_add(size as u64, Ordering::Relaxed);
    tokio::time::sleep(port.hosts.shaper.spend(size, Instant::now())).await;
    let is_head = head.method == Method::HEAD;
    let mut inspection = Inspection::of_request(&port.alarm, &host, at);
    let _ = inspection.look(&written(&head));
    let body = counted(body, Direction::Sent).inspected(inspection);
    let mut request = Request::new(body);
    (*request.method_mut(), *request.uri_mut()) = (head.method.clone(), head.uri.clone());
    *request.headers_mut() = of_request(&head.headers, authority);
    let client = match rule {
        AddressRule::Any => &port.hosts.by_address,
        _ => &port.hosts.by_name,
    };
    let answer = match client.send(request, ANSWERS_WITHIN).await {
        Ok(answer) => answer,
        Err(error) => return Err(failed(&record, &error)),
    };
    let (head, body) = answer.into_parts();
    let body = counted(body, Direction::Received);
    let mut response = Response::new(Outgoing::Through(Box::new(body)));
    *response.status_mut() = head.status;
    *response.headers_mut() = headers::of_hop(&head.headers);
    // Of an answer without a body it is what the body would be (RFC 9110, 8.6).
    if let (true, Some(length)) = (is_head, head.headers.get("content-length")) {
        response.headers_mut().insert("content-length", length.clone());
    }
    Ok(response)
}

/// About what the first line and the headers of a request take.
fn size_of_head(head: &Parts) -> usize {
    let headers = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    head.method.as_str().len() + head.uri.to_string().len() + 12 + headers.sum::<usize>()
}

/// The first line and the headers of a request, as far as secrets are looked for in them.
fn written(head: &Parts) -> Vec<u8> {
    let mut written = head.uri.to_string().into_bytes();
    for value in head.headers.values() {
        written.push(b'\n');
        written.extend_from_slice(value.as_bytes());
    }
    written.push(b'\n');
    written
}

/// The headers of a request as it goes on: those of the connection to us are taken off (RFC 9110, 7.6.1), and the host is that of the URL.
fn of_request(headers: &HeaderMap, authority: &Authority) -> HeaderMap {
    let mut kept = headers::of_hop(headers);
    kept.remove("expect");
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        kept.insert("host", host);
    }
    kept
}

/// Which addresses the host may have, when it may be reached; a person may have to be asked about that.
async fn decide(port: &PortState, host: &str, at: u16) -> Result<AddressRule, Refusal> {
    let of = |rule: &HostRule| if rule.is_address() { AddressRule::Any } else { AddressRule::Public };
    if let Some(rule) = port.hosts.rule(host, at) {
        return Ok(of(rule));
    }
    let reason = match (port.hosts.asks, format!("{host}:{at}").parse::<HostRule>()) {
        (true, Ok(rule)) if !host.contains('*') => match port.gate.admit_host(rule.host(), at).await {
            Ok(()) => return Ok(of(&rule)),
            Err(reason) => reason,
        },
        (true, _) => "it is no name of a host, and no address".to_owned(),
        (false, _) if port.hosts.rules.is_empty() => {
            "it reaches no hosts: `security.network: {allow: [\"host:port\"]}` names some".to_owned()
        }
        (false, _) => "it is none of the hosts that `security.network` names".to_owned(),
    };
    port.denied(host, at, &reason);
    Err(Refusal::new(StatusCode::FORBIDDEN, format!("{}:{at} is not reached: {reason}", shown(host))))
}

/// A host as far as it may stand in a header and a log.
fn shown(host: &str) -> String {
    host.chars().filter(char::is_ascii_graphic).take(255).collect()
}

/// Records that a host is about to be reached.
async fn begin(port: &Arc<PortState>, host: &str, at: u16) -> Result<HostRecord, Refusal> {
    // Also what fails is on disk: nobody may fill that.
    tokio::time::sleep(port.hosts.pace.spend(1, Instant::now())).await;
    let connection = next_number();
    let intent = EventKind::HostAsked { connection, host: host.to_owned(), port: at };
    let record = HostRecord {
        log: Arc::clone(&port.log),
        end: Arc::clone(&port.end),
        connection,
        host: host.to_owned(),
        port: at,
        begun: Instant::now(),
        counts: Arc::default(),
        outcome: Mutex::default(),
    };
    match tokio::time::timeout(RECORDS_WITHIN, port.log.record(intent)).await {
        Ok(Kept::OnDisk) => Ok(record),
        Ok(Kept::InMemory) | Err(_) => {
            tokio::time::sleep(REFUSED_FOR).await;
            let message =
                "the journal cannot be written, so nothing was sent: the disk may be full (`toka health`)";
            record.end(HostOutcome::Failed { reason: message.to_owned() });
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
    }
}

fn failed(record: &HostRecord, error: &HttpError) -> Refusal {
    let reason = error.to_string();
    let status = match error {
        HttpError::Forbidden { .. } => StatusCode::FORBIDDEN,
        HttpError::Late(_) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    let help = match error {
        HttpError::Forbidden { .. } => {
            "; a name never leads to an address of this host or of a private network: allow the address itself"
        }
        _ => "",
    };
    let message = format!("{}:{} is not reached: {reason}{help}", shown(&record.host), record.port);
    record.end(HostOutcome::Failed { reason });
    Refusal::new(status, message)
}
