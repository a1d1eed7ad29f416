//! How much storage an agent holds while it runs, for those that declare a limit on it: there is no limit on the sum of what a
//! tree of processes writes that would work on every file system.
//!
//! One thread with the least priority measures for all agents, one after the other; each is looked at so seldom that its walks
//! take no more than a hundredth of a CPU, but never so seldom that an agent could hide behind the length of a walk: the time
//! between two is bounded, and so is the number of files that may have to be looked at.

mod walk;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use toka_core::{ByteSize, Exit};
use tokio::sync::oneshot;

pub(crate) use walk::Holding;
use walk::Most;

/// The least time between two walks: what an agent can write meanwhile is what its disk takes in a second.
const SOONEST: Duration = Duration::from_secs(1);
/// The most time between two walks, unless they take more than a tenth of it: without it, whoever makes files by the million
/// would be looked at once in many minutes.
const LATEST: Duration = Duration::from_secs(30);
/// The most files that an agent with a limit may keep, of any size: as many as are looked through in a few seconds when the
/// kernel has them in memory. A walk ends beyond it, and keeps at most so many names in memory.
const MOST_FILES: u64 = 1 << 21;
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

/// How long to wait after a walk that took so long: so that it was a hundredth of the time, within bounds; but it is never
/// more than a tenth of it, as others wait for the same thread.
pub(crate) fn rest(took: Duration) -> Duration {
    took.saturating_mul(SHARE - 1).clamp(SOONEST, LATEST.max(took.saturating_mul(9)))
}

/// How an agent ends that holds so much; `None` when it may.
pub(crate) fn verdict(held: Holding, limit: ByteSize) -> Option<Exit> {
    let used = ByteSize(held.bytes);
    if used > limit {
        return Some(Exit::Disk { used, limit });
    }
    (held.files > MOST_FILES).then_some(Exit::Files { found: held.files, limit: MOST_FILES })
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
            let most = Most { bytes: limit.limit.0, files: MOST_FILES };
            let held = walk::walk(&limit.places, most);
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
        fn walks_take_a_hundredth_of_the_time_unless_nobody_would_look_then(micros in any::<u64>()) {
            let took = Duration::from_micros(micros);
            let rest = rest(took);
            let latest = LATEST.max(took.saturating_mul(9));
            prop_assert!((SOONEST..=latest).contains(&rest));
            prop_assert!(rest == latest || took.saturating_mul(SHARE) <= took + rest);
            prop_assert!(rest == SOONEST || rest < took.saturating_mul(SHARE));
        }

        #[test]
        fn an_agent_is_ended_exactly_when_it_holds_too_much(
            bytes in 0u64..100, files in MOST_FILES - 3..MOST_FILES + 3, limit in 0u64..100, unseen in 0u64..3,
        ) {
            match verdict(Holding { bytes, files, unseen }, ByteSize(limit)) {
                None => prop_assert!(bytes <= limit && files <= MOST_FILES),
                Some(Exit::Disk { used, limit: told }) => {
                    prop_assert!(bytes > limit && (used, told) == (ByteSize(bytes), ByteSize(limit)));
                }
                Some(Exit::Files { found, .. }) => {
                    prop_assert!(bytes <= limit && files > MOST_FILES && found == files);
                }
                Some(other) => prop_assert!(false, "{other:?}"),
            }
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
