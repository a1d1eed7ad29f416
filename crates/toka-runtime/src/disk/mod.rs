//! How much storage an agent holds while it runs, for those that declare a limit on it: there is no limit on the sum of what a
//! tree of processes writes that would work on every file system.
//!
//! One thread with the least priority measures for all agents, one after the other; each is looked at so seldom that its walks
//! take no more than a hundredth of a CPU.

mod walk;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use toka_core::ByteSize;
use tokio::sync::oneshot;

pub(crate) use walk::Holding;

/// The least time between two walks: what an agent can write meanwhile is what its disk takes in a second.
const SOONEST: Duration = Duration::from_secs(1);
/// Walks take one part of so many of the time.
const SHARE: u32 = 100;
/// The least priority that there is (setpriority(2)).
const NICE: i32 = 19;

/// How much an agent may hold, and where it is counted.
#[derive(Debug, Clone)]
pub struct DiskLimit {
    /// The most.
    pub limit: ByteSize,
    /// The folders that count.
    pub places: Vec<PathBuf>,
    /// Where others see the last figure.
    pub gauge: DiskGauge,
}

/// What an agent holds by the last walk.
#[derive(Debug, Clone)]
pub struct DiskGauge(Arc<AtomicU64>);

/// Nothing was measured yet.
const UNKNOWN: u64 = u64::MAX;

impl Default for DiskGauge {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(UNKNOWN)))
    }
}

impl DiskGauge {
    /// In bytes; none before the first walk.
    pub fn bytes(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|bytes| *bytes != UNKNOWN)
    }
}

/// What a walk found, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) held: Holding,
    pub(crate) took: Duration,
}

/// How long to wait after a walk that took so long: so that it was a hundredth of the time.
pub(crate) fn rest(took: Duration) -> Duration {
    took.saturating_mul(SHARE - 1).max(SOONEST)
}

/// Measures for all agents of a runtime.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surveyor(Arc<Mutex<Option<mpsc::Sender<Job>>>>);

type Job = (DiskLimit, oneshot::Sender<Measured>);

impl Surveyor {
    /// Measures, when it is its turn; the answer never comes when there are no threads any more.
    pub(crate) fn measure(&self, limit: &DiskLimit) -> oneshot::Receiver<Measured> {
        let (answer, measured) = oneshot::channel();
        let mut office = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if office.is_none() {
            *office = open();
        }
        if let Some(jobs) = &*office {
            // The thread ends with the last of those who could ask.
            let _ = jobs.send((limit.clone(), answer));
        }
        measured
    }
}

fn open() -> Option<mpsc::Sender<Job>> {
    let (jobs, mailbox) = mpsc::channel::<Job>();
    let work = move || {
        // Without it the work is done all the same.
        let _ = rustix::process::setpriority_process(None, NICE);
        while let Ok((limit, answer)) = mailbox.recv() {
            let begun = Instant::now();
            let held = walk::walk(&limit.places, limit.limit.0);
            limit.gauge.0.store(held.bytes, Ordering::Relaxed);
            // Whoever asked may have ended.
            let _ = answer.send(Measured { held, took: begun.elapsed() });
        }
    };
    let made = std::thread::Builder::new().name("surveyor".to_owned()).spawn(work);
    made.inspect_err(|error| tracing::warn!(%error, "what agents hold on disk is not measured")).ok()?;
    Some(jobs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn walks_take_a_hundredth_of_the_time_at_most(micros in 0u64..100_000_000) {
            let took = Duration::from_micros(micros);
            let rest = rest(took);
            prop_assert!(rest >= SOONEST);
            prop_assert!(took.saturating_mul(SHARE) <= took + rest);
            prop_assert!(took < Duration::from_millis(10) || rest < took * SHARE);
        }
    }

    #[tokio::test]
    async fn what_was_measured_shows() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::write(root.path().join("file"), vec![1; 100_000]).expect("room");
        let gauge = DiskGauge::default();
        let places = vec![root.path().to_owned()];
        let limit = DiskLimit { limit: ByteSize(1 << 30), places, gauge: gauge.clone() };
        assert_eq!(gauge.bytes(), None);
        let measured = Surveyor::default().measure(&limit).await.expect("measured");
        assert!(measured.held.bytes >= 100_000);
        assert_eq!(gauge.bytes(), Some(measured.held.bytes));
    }
}
