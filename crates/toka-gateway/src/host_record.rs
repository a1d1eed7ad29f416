//! What is told of a connection to a host when it is over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use toka_core::{EventKind, HostOutcome};

use crate::CallLog;
use crate::log::record_beside;
use crate::port_end::PortEnd;

/// Bytes sent and received over one connection.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

impl Counts {
    pub(crate) fn get(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

/// What is told of a connection when it is over. Dropped, it says that the agent left it.
pub(crate) struct HostRecord {
    pub(crate) log: Arc<dyn CallLog>,
    /// Why the port is closed, once it is.
    pub(crate) end: Arc<OnceLock<PortEnd>>,
    pub(crate) connection: u64,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) begun: Instant,
    pub(crate) counts: Arc<Counts>,
    /// How it has ended, once that is known.
    pub(crate) outcome: Mutex<Option<HostOutcome>>,
}

impl HostRecord {
    /// Says how it ended; the first word counts. It is told when nobody holds this any more: what still goes the other way is counted.
    pub(crate) fn end(&self, outcome: HostOutcome) {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(outcome);
    }
}

impl Drop for HostRecord {
    fn drop(&mut self) {
        let reason = self.end.get().map_or("the agent left it", |end| end.reason());
        let known = self.outcome.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let (sent, received) = self.counts.get();
        let kind = EventKind::HostClosed {
            connection: self.connection,
            host: std::mem::take(&mut self.host),
            port: self.port,
            outcome: known.unwrap_or_else(|| HostOutcome::Cut { reason: reason.to_owned() }),
            sent: Some(sent),
            received: Some(received),
            duration_ms: Some(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)),
        };
        record_beside(&*self.log, kind);
    }
}
