//! Where calls are recorded.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use toka_core::{EventKind, Kept};

/// How long it may take until an intent is durable.
pub(crate) const RECORDS_WITHIN: Duration = Duration::from_secs(10);
/// How long whoever cannot be recorded waits for the refusal.
pub(crate) const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Takes what becomes of an agent's calls.
pub trait CallLog: Debug + Send + Sync + 'static {
    /// Records an event of the agent. The future is ready when it can no longer be lost, or waits in memory since nothing can be written now; it is recorded also
    /// when nobody waits.
    fn record(&self, kind: EventKind) -> Pin<Box<dyn Future<Output = Kept> + Send + 'static>>;
}

/// Receipts that are on their way to where they cannot be lost.
static ON_THEIR_WAY: AtomicUsize = AtomicUsize::new(0);

/// Records what nobody waits for, but the end of this program ([`are_recorded`]).
pub(crate) fn record_beside(log: &dyn CallLog, kind: EventKind) {
    let recorded = log.record(kind);
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    ON_THEIR_WAY.fetch_add(1, Ordering::SeqCst);
    runtime.spawn(async move {
        recorded.await;
        ON_THEIR_WAY.fetch_sub(1, Ordering::SeqCst);
    });
}

/// Whether nothing is on its way.
pub(crate) fn are_recorded() -> bool {
    ON_THEIR_WAY.load(Ordering::SeqCst) == 0
}

/// A number that no call had before, in this process or in one before it: those begin with the time, in thousandths of a
/// millisecond, and stay below 2⁵³, so that every reader of JSON takes them for what they are.
pub(crate) fn next_number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let now = u64::try_from(now).unwrap_or(0);
    let next = |last: u64| Some(last.saturating_add(1).max(now));
    match LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
        Ok(last) => last.saturating_add(1).max(now),
        Err(last) => last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_used_twice() {
        let mut numbers: Vec<u64> = (0..10_000).map(|_| next_number()).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), 10_000);
        assert!(numbers.is_sorted() && numbers[9_999] < 1 << 53);
    }
}
