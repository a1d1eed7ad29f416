//! Bytes on their way to and from a host: counted, and held to the rate that the agent declares.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use toka_core::HostOutcome;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::body::BodyError;
use crate::host_record::{Counts, HostRecord};
use crate::inspection::Inspection;

/// How much may go at once after a rest: a tenth of a second's bytes, and no less than this.
const LEAST_BURST: f64 = 64.0 * 1024.0;

/// A token bucket (RFC 2697 has the idea) for all connections of an agent.
#[derive(Debug)]
pub(crate) struct Shaper {
    rate: Option<f64>,
    burst: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Bytes that may go; below nothing while it is owed.
    room: f64,
    at: Instant,
}

impl Shaper {
    /// So many bytes a second, or as many as come.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        let rate = rate.map(|rate| rate as f64);
        Self::with_burst(rate, LEAST_BURST)
    }

    /// The same of anything, with so much at once after a rest.
    pub(crate) fn with_burst(rate: Option<f64>, burst: f64) -> Self {
        Self { rate, burst, bucket: Mutex::new(Bucket { room: burst, at: Instant::now() }) }
    }

    /// Takes note of bytes that went, or are about to; how long the next ones wait.
    pub(crate) fn spend(&self, bytes: usize, now: Instant) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * rate;
        bucket.room = (bucket.room + gained).min((rate / 10.0).max(self.burst)) - bytes as f64;
        bucket.at = now;
        Duration::from_secs_f64((-bucket.room / rate).max(0.0))
    }
}

/// Waits as long as a shaper says.
#[derive(Debug, Default)]
struct Rest(Option<Pin<Box<Sleep>>>);

impl Rest {
    fn begin(&mut self, wait: Duration) {
        self.0 = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
    }

    /// Ready when something may go: also what others of the agent have spent counts.
    fn poll(&mut self, shaper: &Shaper, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.is_none() {
            self.begin(shaper.spend(0, Instant::now()));
        }
        if let Some(sleep) = &mut self.0 {
            ready!(sleep.as_mut().poll(cx));
            self.0 = None;
        }
        Poll::Ready(())
    }
}

/// A connection to a host.
pub(crate) struct Shaped {
    stream: TcpStream,
    shaper: Arc<Shaper>,
    counts: Arc<Counts>,
    reading: Rest,
    writing: Rest,
    inspection: Inspection,
    /// Bytes of the next write that were looked at.
    looked_at: usize,
}

impl Shaped {
    pub(crate) fn new(
        stream: TcpStream,
        shaper: Arc<Shaper>,
        counts: Arc<Counts>,
        inspection: Inspection,
    ) -> Self {
        Self {
            stream,
            shaper,
            counts,
            reading: Rest::default(),
            writing: Rest::default(),
            inspection,
            looked_at: 0,
        }
    }
}

impl AsyncRead for Shaped {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        ready!(own.reading.poll(&own.shaper, cx));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut own.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        own.counts.received.fetch_add(read as u64, Ordering::Relaxed);
        own.reading.begin(own.shaper.spend(read, Instant::now()));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Shaped {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let own = self.get_mut();
        ready!(own.writing.poll(&own.shaper, cx));
        // Before anything of it goes: what does not go at once is offered again.
        if let Some(new) = bytes.get(own.looked_at..).filter(|new| !new.is_empty()) {
            own.inspection.look(new).map_err(io::Error::other)?;
            own.looked_at = bytes.len();
        }
        let written = ready!(Pin::new(&mut own.stream).poll_write(cx, bytes))?;
        own.looked_at = own.looked_at.saturating_sub(written);
        own.counts.sent.fetch_add(written as u64, Ordering::Relaxed);
        own.writing.begin(own.shaper.spend(written, Instant::now()));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The body of a plain request or of its answer.
pub(crate) struct CountedBody {
    body: Incoming,
    shaper: Arc<Shaper>,
    record: Arc<HostRecord>,
    way: Direction,
    rest: Rest,
    /// Of what is sent.
    inspection: Option<Inspection>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Sent,
    /// Its end is that of the connection.
    Received,
}

impl CountedBody {
    pub(crate) fn new(body: Incoming, shaper: Arc<Shaper>, record: Arc<HostRecord>, way: Direction) -> Self {
        // Nobody asks a body for more that has nothing.
        if way == Direction::Received && body.is_end_stream() {
            record.end(HostOutcome::Closed);
        }
        Self { body, shaper, record, way, rest: Rest::default(), inspection: None }
    }

    /// The same, looked at on its way.
    pub(crate) fn inspected(self, inspection: Inspection) -> Self {
        Self { inspection: Some(inspection), ..self }
    }

    fn count(&mut self, bytes: usize) {
        let counts = &self.record.counts;
        let count = if self.way == Direction::Sent { &counts.sent } else { &counts.received };
        count.fetch_add(bytes as u64, Ordering::Relaxed);
        self.rest.begin(self.shaper.spend(bytes, Instant::now()));
    }

    fn end(&self, outcome: HostOutcome) {
        if self.way == Direction::Received {
            self.record.end(outcome);
        }
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let own = self.get_mut();
        ready!(own.rest.poll(&own.shaper, cx));
        match ready!(Pin::new(&mut own.body).poll_frame(cx)) {
            None => {
                own.end(HostOutcome::Closed);
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                own.count(frame.data_ref().map_or(0, Bytes::len));
                if let (Some(inspection), Some(data)) = (&mut own.inspection, frame.data_ref()) {
                    inspection.look(data).map_err(BodyError)?;
                }
                if own.body.is_end_stream() {
                    own.end(HostOutcome::Closed);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                own.end(HostOutcome::Cut { reason: error.to_string() });
                Poll::Ready(Some(Err(BodyError(error.to_string()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_over_time_and_a_rest_gives_no_more_than_a_burst() {
        let begun = Instant::now();
        let shaper = Shaper::new(Some(1_000_000));
        let (mut now, mut sent) = (begun, 0);
        while sent < 10_000_000 {
            now += shaper.spend(50_000, now);
            sent += 50_000;
        }
        let took = (now - begun).as_secs_f64();
        assert!((9.8..=10.1).contains(&took), "{took}");
        now += Duration::from_secs(3600);
        assert_eq!(shaper.spend(100_000, now), Duration::ZERO);
        assert!(shaper.spend(100_000, now) > Duration::from_millis(90));
        assert_eq!(Shaper::new(None).spend(usize::MAX, now), Duration::ZERO);
    }
}
