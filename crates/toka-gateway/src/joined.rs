//! Requests of one agent that are the same, byte for byte, and in flight at the same time: one call is made, and all of them get its answer.
//!
//! ```text
//!  first  ─▶ call ─▶ Stream ─┬─▶ first    each with its own place in what has come
//!  second ─▶ waits ──────────┴─▶ second   ([`crate::shared_stream`])
//! ```
//!
//! Until its answer begins, the call is that of who asked first; then it lives as long as somebody reads it. An answer that is whole is kept for nobody: this is no cache.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use sha2::{Digest as _, Sha256};
use toka_wire::Problem;
use tokio::sync::watch;

use crate::outgoing::Outgoing;
use crate::shared_stream::{Reader, Stream};

/// Headers that are others each time, whatever is asked.
const OF_ONE_TRY: [&str; 7] = [
    "traceparent",
    "tracestate",
    "x-request-id",
    "x-client-request-id",
    "x-stainless-retry-count",
    "date",
    "content-length",
];

/// What makes two requests the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(());
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(drop)?;
        }
        Ok(Self(bytes))
    }
}

impl Fingerprint {
    /// Of a request to `target` (path and query) with the headers that go on.
    pub(crate) fn of(target: &str, headers: &HeaderMap, body: &[u8]) -> Self {
        let mut listed: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .filter(|(name, _)| !OF_ONE_TRY.contains(name))
            .collect();
        // Of a name that is there twice, the order counts.
        listed.sort_by_key(|(name, _)| *name);
        let mut hasher = Sha256::new();
        // With its length before each part, no two lists are written alike.
        let mut add = |part: &[u8]| {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        add(target.as_bytes());
        listed.into_iter().for_each(|(name, value)| {
            add(name.as_bytes());
            add(value);
        });
        add(body);
        Self(hasher.finalize().into())
    }
}

/// What is in flight of one agent.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Fingerprint, Weak<Flight>>>);

/// A call that others may join.
#[derive(Debug)]
struct Flight {
    call: u64,
    answer: watch::Sender<Option<Shared>>,
}

/// An answer that several requests get.
#[derive(Debug, Clone)]
struct Shared {
    status: StatusCode,
    headers: HeaderMap,
    body: SharedBody,
}

#[derive(Debug, Clone)]
enum SharedBody {
    Whole(Full<Bytes>),
    Stream(Weak<Stream>),
}

enum Role {
    /// It makes the call.
    First(Arc<Flight>),
    /// It waits for the answer of this call.
    Later(u64, watch::Receiver<Option<Shared>>),
}

impl Flights {
    fn role(&self, print: Fingerprint, call: u64) -> Role {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&print).and_then(Weak::upgrade) {
            return Role::Later(flight.call, flight.answer.subscribe());
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(Flight { call, answer: watch::Sender::new(None) });
        flights.insert(print, Arc::downgrade(&flight));
        Role::First(flight)
    }

    /// Makes a call of this number, or waits for the answer of one that is in flight and the same: then `joined` hears of its number.
    ///
    /// # Errors
    /// Those of the call.
    pub(crate) async fn join<F>(
        &self,
        print: Fingerprint,
        call: u64,
        make: impl FnOnce() -> F,
        joined: impl Fn(u64),
    ) -> Result<Response<Outgoing>, Problem>
    where
        F: Future<Output = Result<Response<Outgoing>, Problem>>,
    {
        loop {
            match self.role(print, call) {
                Role::First(flight) => {
                    let (answer, stream) = share(make().await?, &flight);
                    if flight.answer.receiver_count() > 0 {
                        // Those who wait take their places before the first one may have read all of it.
                        tokio::task::yield_now().await;
                    }
                    drop(stream);
                    return Ok(answer);
                }
                Role::Later(first, mut answer) => {
                    // Who made the call may have gone before its answer: then the next one makes it.
                    let Ok(shared) = answer.wait_for(Option::is_some).await.map(|shared| shared.clone())
                    else {
                        continue;
                    };
                    match shared.map(Shared::response) {
                        Some(Joins::Gets(response)) => {
                            joined(first);
                            return Ok(response);
                        }
                        // The next one makes the call, and those who come after it join that.
                        Some(Joins::IsOver) | None => {}
                        Some(Joins::IsTooLate) => return make().await,
                    }
                }
            }
        }
    }
}

/// Lets others have an answer, too. The stream is returned beside it: as long as somebody has it, others can join.
fn share(answer: Response<Outgoing>, flight: &Arc<Flight>) -> (Response<Outgoing>, Option<Arc<Stream>>) {
    let (head, body) = answer.into_parts();
    let (body, shared, stream) = match body {
        Outgoing::Whole(body) => (Outgoing::Whole(body.clone()), SharedBody::Whole(body), None),
        Outgoing::Stream(pipe) => {
            let kept: Arc<Flight> = Arc::clone(flight);
            let stream = Arc::new(Stream::new(pipe, kept));
            let body = SharedBody::Stream(Arc::downgrade(&stream));
            let Some(reader) = Reader::of(Arc::clone(&stream)) else {
                unreachable!("a stream that nobody has read")
            };
            (Outgoing::Joined(reader), body, Some(stream))
        }
        other => return (Response::from_parts(head, other), None),
    };
    let shared = Shared { status: head.status, headers: head.headers.clone(), body: shared };
    flight.answer.send_replace(Some(shared));
    (Response::from_parts(head, body), stream)
}

/// What becomes of a request that would join a call.
enum Joins {
    Gets(Response<Outgoing>),
    /// Everybody has read the answer, and it is kept for nobody.
    IsOver,
    /// Too much of it has gone, or too many read it already.
    IsTooLate,
}

impl Shared {
    /// The answer for one more request.
    fn response(self) -> Joins {
        let body = match self.body {
            SharedBody::Whole(body) => Outgoing::Whole(body),
            SharedBody::Stream(stream) => {
                let Some(stream) = stream.upgrade() else { return Joins::IsOver };
                match Reader::of(stream) {
                    Some(reader) => Outgoing::Joined(reader),
                    None => return Joins::IsTooLate,
                }
            }
        };
        let mut response = Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (self.status, self.headers);
        Joins::Gets(response)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_differs_in_each_try_makes_no_other_request() {
        let of = |list: &[(&'static str, &'static str)], body: &[u8]| {
            let headers = list
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            Fingerprint::of("/v1/messages?beta=true", &headers.collect(), body)
        };
        let one = of(&[("anthropic-beta", "a"), ("x-stainless-retry-count", "0")], b"{}");
        assert_eq!(one, of(&[("x-stainless-retry-count", "1"), ("anthropic-beta", "a")], b"{}"));
        assert_ne!(one, of(&[("anthropic-beta", "b")], b"{}"));
        assert_ne!(one, of(&[("anthropic-beta", "a")], b"{ }"));
    }
}
