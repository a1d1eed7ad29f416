//! The checks that go over the network: a connection, or a GET request. Whoever asks sets the time within which the answer
//! must come; when these futures are dropped, the connection is closed.

use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use toka_core::probe::{HttpGet, HttpScheme, TcpSocket};
use toka_http::{AddressRule, Client, HttpError, Options, Pool, Trust, Versions, Way, skim};

/// Bytes of a body that are read, so that a server that answers shortly can end in peace; as many as Kubernetes reads.
const BODY: usize = 10 * 1024;

/// The prober has a deadline of its own, which is never later.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A connection that is accepted is success.
pub(super) async fn tcp_socket(way: &Way, asked: &TcpSocket) -> Result<(), String> {
    let connected = way.connect(&asked.host, asked.port, AddressRule::Any).await;
    connected.map(drop).map_err(|error| error.to_string())
}

/// A status from 200 to 399 is success; where it leads to is not followed.
pub(super) async fn http_get(way: &Way, asked: &HttpGet) -> Result<(), String> {
    let client = Client::new(Options {
        way: way.clone(),
        rule: AddressRule::Any,
        trust: Trust::Anybody,
        versions: Versions::Http1,
        pool: Pool::None,
    });
    let answer = client.send(request(asked)?, LONGEST).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    if !(StatusCode::OK.as_u16()..400).contains(&status.as_u16()) {
        return Err(format!("status {status}"));
    }
    skim(answer.into_body(), BODY).await.map_err(|error| match error {
        HttpError::NoAnswer(why) => format!("status {status}, but the body broke off: {why}"),
        other => other.to_string(),
    })
}

/// The headers that were declared go before our own of the same name.
fn request(asked: &HttpGet) -> Result<Request<Empty<Bytes>>, String> {
    let bracketed = asked.host.contains(':') && !asked.host.starts_with('[');
    let host = if bracketed { format!("[{}]", asked.host) } else { asked.host.clone() };
    let authority = format!("{host}:{}", asked.port);
    let scheme = match asked.scheme {
        HttpScheme::Http => "http",
        HttpScheme::Https => "https",
    };
    let mut request = Request::get(format!("{scheme}://{authority}{}", asked.path))
        .header(HOST, authority)
        .header(USER_AGENT, "toka-probe")
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| format!("cannot ask for {}: {error}", asked.path))?;
    for (name, value) in &asked.headers {
        let refused = || format!("cannot send the header {name:?}");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| refused())?;
        request.headers_mut().insert(key, value);
    }
    Ok(request)
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
