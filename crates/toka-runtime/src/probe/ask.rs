//! The checks that go over the network: a connection, or a GET request. Whoever asks sets the time within which the answer
//! must come; when these futures are dropped, the connection is closed.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use toka_core::probe::{HttpGet, HttpScheme, TcpSocket};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connect::Way;
use super::tls;

/// Bytes of a body that are read, so that a server that answers shortly can end in peace; as many as Kubernetes reads.
const BODY: usize = 10 * 1024;

/// Bytes of an answer's head; a longer one is a failure.
const HEAD: usize = 16 * 1024;

/// A connection that is accepted is success.
pub(super) async fn tcp_socket(way: &Way, asked: &TcpSocket) -> Result<(), String> {
    way.connect(&asked.host, asked.port).await.map(drop)
}

/// A status from 200 to 399 is success; where it leads to is not followed.
pub(super) async fn http_get(way: &Way, asked: &HttpGet) -> Result<(), String> {
    let request = request(asked)?;
    let stream = way.connect(&asked.host, asked.port).await?;
    match asked.scheme {
        HttpScheme::Http => exchange(stream, request).await,
        HttpScheme::Https => exchange(tls::wrap(stream, &asked.host).await?, request).await,
    }
}

/// The headers that were declared go before our own of the same name.
fn request(asked: &HttpGet) -> Result<Request<Empty<Bytes>>, String> {
    let bracketed = asked.host.contains(':') && !asked.host.starts_with('[');
    let host = if bracketed { format!("[{}]", asked.host) } else { asked.host.clone() };
    let mut request = Request::get(&asked.path)
        .header(HOST, format!("{host}:{}", asked.port))
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

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| format!("no answer over HTTP: {error}");
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answer = async { judge(sender.send_request(request).await.map_err(failed)?).await };
    // The connection is what moves the bytes. When it has ended, what it brought may still be unread.
    let moving = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = moving => never,
    }
}

async fn judge<B>(response: Response<B>) -> Result<(), String>
where
    B: hyper::body::Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let status = response.status();
    if !(StatusCode::OK.as_u16()..400).contains(&status.as_u16()) {
        return Err(format!("status {status}"));
    }
    let mut body = response.into_body();
    let mut room = BODY;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("status {status}, but the body broke off: {error}"))?;
        let length = frame.data_ref().map_or(0, Bytes::len);
        match room.checked_sub(length) {
            Some(rest) => room = rest,
            None => break,
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
