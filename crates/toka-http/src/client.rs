//! Asks over HTTP, over connections of its own or such that are kept for the next request.

use std::error::Error as _;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::connector::Connector;
use crate::{AddressRule, HttpError, Trust, Versions, Way};

/// Bytes of an answer's head; a longer one is no answer.
pub const HEAD: usize = 16 * 1024;

/// Whether connections are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Each request has a connection of its own.
    None,
    /// So many connections to one host wait for the next request, each for so long.
    Kept {
        /// How many.
        most: usize,
        /// How long.
        idle: Duration,
    },
}

/// How a client reaches servers.
pub struct Options {
    /// In which network.
    pub way: Way,
    /// Which addresses it talks to.
    pub rule: AddressRule,
    /// Whom it believes.
    pub trust: Trust,
    /// Which versions of HTTP it offers.
    pub versions: Versions,
    /// Whether it keeps connections.
    pub pool: Pool,
}

/// Asks servers. Requests have a body of type `B`; one that is streamed is read as fast as the server takes it.
pub struct Client<B> {
    inner: legacy::Client<Connector, B>,
}

impl<B> Client<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A client. Must be used within a Tokio runtime with a clock.
    pub fn new(options: Options) -> Self {
        let Options { way, rule, trust, versions, pool } = options;
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.http1_max_buf_size(HEAD).http2_max_header_list_size(HEAD as u32).timer(TokioTimer::new());
        match pool {
            Pool::None => builder.pool_max_idle_per_host(0),
            Pool::Kept { most, idle } => {
                builder.pool_timer(TokioTimer::new()).pool_max_idle_per_host(most).pool_idle_timeout(idle)
            }
        };
        Self { inner: builder.build(Connector { way, rule, trust, versions }) }
    }

    /// Sends a request to the absolute URL that it names; the answer comes with its head. Its body is read as it is wanted: what is not
    /// read holds the server up. When the future or the answer is dropped, a connection that cannot be used again is closed.
    ///
    /// # Errors
    /// When there is no answer, whatever its status, within the time.
    pub async fn send(&self, request: Request<B>, within: Duration) -> Result<Response<Incoming>, HttpError> {
        match tokio::time::timeout(within, self.inner.request(request)).await {
            Ok(answer) => answer.map_err(|error| reason(&error)),
            Err(_) => Err(HttpError::Late(within)),
        }
    }
}

/// Reads at most `most` bytes of a body and drops them, so that a server that answers shortly can end in peace.
///
/// # Errors
/// When the body breaks off before.
pub async fn skim(mut body: Incoming, most: usize) -> Result<(), HttpError> {
    let mut room = most;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| HttpError::NoAnswer(deepest(&error)))?;
        match room.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => room = rest,
            None => break,
        }
    }
    Ok(())
}

/// What the connector found out, or else what HTTP says.
fn reason(error: &legacy::Error) -> HttpError {
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(known) = found.downcast_ref::<HttpError>() {
            return known.clone();
        }
        cause = found.source();
    }
    HttpError::NoAnswer(error.source().map_or_else(|| error.to_string(), deepest_of))
}

fn deepest(error: &hyper::Error) -> String {
    deepest_of(error)
}

/// The error in its own words, with what it consists of where that says more.
fn deepest_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        let more = found.to_string();
        if !text.contains(&more) {
            text.push_str(&format!(": {more}"));
        }
        cause = found.source();
    }
    text
}
