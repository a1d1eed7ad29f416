//! Looks after older logs: compresses them, removes what is too much, tidies up what a crash left. All in one thread of the
//! lowest priority, which is there once there is something to do, so that no agent's output waits for it.

mod cap;
mod compress;
mod upkeep;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use toka_core::{ByteSize, LogPolicy};

use upkeep::Step;
pub use upkeep::excess_of;

/// The niceness of the thread: the most (setpriority(2)).
const NICE: i32 = 19;

/// Finds the current logs of every agent whose older logs count towards the cap of all.
pub type EveryLog = Box<dyn Fn() -> Vec<PathBuf> + Send>;

/// Hands older logs to the thread that looks after them. Copies lead to the same thread; when the last is gone, it ends with
/// what it is at.
#[derive(Clone)]
pub struct Archivist(Arc<Mutex<Office>>);

enum Office {
    /// There was nothing to do yet.
    Closed { cap: ByteSize, every: EveryLog },
    /// It has begun.
    Open(mpsc::Sender<(PathBuf, LogPolicy)>),
    /// No thread could be had: older logs stay as they are.
    Unmanned,
}

impl std::fmt::Debug for Archivist {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archivist").finish_non_exhaustive()
    }
}

impl Archivist {
    /// Keeps all logs that `every` finds, current ones included, within `cap` as far as older ones can be removed.
    pub fn new(cap: ByteSize, every: EveryLog) -> Self {
        Self(Arc::new(Mutex::new(Office::Closed { cap, every })))
    }

    /// One that never begins, for tests that do its work themselves.
    #[cfg(test)]
    pub(crate) fn idle() -> Self {
        Self(Arc::new(Mutex::new(Office::Unmanned)))
    }

    /// Looks after the older logs of the agent whose current one is `log`, in its own time.
    pub fn tend(&self, log: &Path, policy: LogPolicy) {
        let mut office = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*office, Office::Closed { .. }) {
            *office = match std::mem::replace(&mut *office, Office::Unmanned) {
                Office::Closed { cap, every } => open(cap, every),
                other => other,
            };
        }
        if let Office::Open(jobs) = &*office {
            let _ = jobs.send((log.to_owned(), policy));
        }
    }
}

fn open(cap: ByteSize, every: EveryLog) -> Office {
    let (jobs, mailbox) = mpsc::channel();
    let work = move || {
        // Without it the work is done all the same.
        let _ = rustix::process::setpriority_process(None, NICE);
        attend(&mailbox, cap, &every);
    };
    match std::thread::Builder::new().name("archivist".to_owned()).spawn(work) {
        Ok(_) => Office::Open(jobs),
        Err(error) => {
            tracing::warn!(%error, "older logs are not looked after");
            Office::Unmanned
        }
    }
}

fn attend(mailbox: &mpsc::Receiver<(PathBuf, LogPolicy)>, cap: ByteSize, every: &EveryLog) {
    let mut agents = BTreeMap::new();
    while let Ok((log, policy)) = mailbox.recv() {
        agents.insert(log, policy);
        while !agents.is_empty() {
            // What has come meanwhile counts first: caps are for those who write faster than anybody compresses.
            agents.extend(mailbox.try_iter());
            agents.retain(|log, policy| match upkeep::step(log, policy) {
                Ok(step) => step == Step::More,
                Err(error) => {
                    let log = log.display();
                    tracing::warn!(%log, %error, "its older logs cannot be looked after");
                    false
                }
            });
        }
        upkeep::cap_all(&every(), cap);
    }
}

/// Does at once all that the thread would do.
#[cfg(test)]
pub(super) fn tend_now(log: &Path, policy: &LogPolicy) {
    while upkeep::step(log, policy).expect("readable") == Step::More {}
}
