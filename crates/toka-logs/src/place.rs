//! Where an agent's output goes, and what is kept of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use toka_core::{LogPolicy, RunId};

use super::LogRetention;

/// The place of one agent's log. Copies are the same place.
#[derive(Debug, Clone)]
pub struct LogPlace {
    path: PathBuf,
    pub(super) kept: Option<Box<Kept>>,
    written: Arc<AtomicU64>,
}

/// What is known where output of earlier runs is kept.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) run: RunId,
    /// One for all copies of the place.
    policy: Arc<Mutex<LogPolicy>>,
    pub(super) retention: LogRetention,
}

impl Kept {
    /// What is kept.
    pub(super) fn policy(&self) -> LogPolicy {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogPlace {
    /// A log that holds the output of one life alone, and grows as it may.
    pub fn alone(path: PathBuf) -> Self {
        Self { path, kept: None, written: Arc::default() }
    }

    /// The log of a run, which goes on where the same run left it; what was there of another becomes an older log.
    pub fn of_run(path: PathBuf, run: RunId, policy: LogPolicy, retention: &LogRetention) -> Self {
        let kept = Kept { run, policy: Arc::new(Mutex::new(policy)), retention: retention.clone() };
        Self { kept: Some(Box::new(kept)), ..Self::alone(path) }
    }

    /// The current log.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of output so far in this process, also those that were lost: it only grows.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// What is kept of the output is another from now on, also for a log that is being written.
    pub fn set_policy(&self, policy: LogPolicy) {
        if let Some(kept) = &self.kept {
            *kept.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
        }
    }

    pub(super) fn count(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Hands what became older to whoever looks after it.
    pub(super) fn hand_over(&self) {
        if let Some(kept) = &self.kept {
            kept.retention.look_after(&self.path, kept.policy());
        }
    }
}

/// Whether the error is that there is no such file.
pub(super) fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
