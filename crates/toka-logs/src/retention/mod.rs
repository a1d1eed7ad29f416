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
pub struct LogRetention(Arc<Mutex<Worker>>);

/// The thread that does the work.
enum Worker {
    /// There was nothing to do yet.
    NotStarted { cap: ByteSize, every: EveryLog },
    /// It waits for logs, or works.
    Running(mpsc::Sender<(PathBuf, LogPolicy)>),
    /// There is none, and older logs stay as they are.
    Absent,
}

impl std::fmt::Debug for LogRetention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogRetention").finish_non_exhaustive()
    }
}

impl LogRetention {
    /// Keeps all logs that `every` finds, current ones included, within `cap` as far as older ones can be removed.
    pub fn new(cap: ByteSize, every: EveryLog) -> Self {
        Self(Arc::new(Mutex::new(Worker::NotStarted { cap, every })))
    }

    /// One that leaves older logs as they are, for logs that are not kept.
    pub fn disabled() -> Self {
        Self(Arc::new(Mutex::new(Worker::Absent)))
    }

    /// Has the thread look after the older logs of the agent whose current one is `log`; returns at once.
    pub fn look_after(&self, log: &Path, policy: LogPolicy) {
        let mut worker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*worker, Worker::NotStarted { .. }) {
            *worker = match std::mem::replace(&mut *worker, Worker::Absent) {
                Worker::NotStarted { cap, every } => start(cap, every),
                other => other,
            };
        }
        if let Worker::Running(logs) = &*worker {
            let _ = logs.send((log.to_owned(), policy));
        }
    }
}

fn start(cap: ByteSize, every: EveryLog) -> Worker {
    let (sender, logs) = mpsc::channel();
    let work = move || {
        // Without it the work is done all the same.
        let _ = rustix::process::setpriority_process(None, NICE);
        run(&logs, cap, &every);
    };
    match std::thread::Builder::new().name("log-retention".to_owned()).spawn(work) {
        Ok(_) => Worker::Running(sender),
        Err(error) => {
            tracing::warn!(%error, "older logs are not looked after");
            Worker::Absent
        }
    }
}

fn run(logs: &mpsc::Receiver<(PathBuf, LogPolicy)>, cap: ByteSize, every: &EveryLog) {
    let mut agents = BTreeMap::new();
    while let Ok((log, policy)) = logs.recv() {
        agents.insert(log, policy);
        while !agents.is_empty() {
            // What has come meanwhile counts first: caps are for those who write faster than anybody compresses.
            agents.extend(logs.try_iter());
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
pub(super) fn run_now(log: &Path, policy: &LogPolicy) {
    while upkeep::step(log, policy).expect("readable") == Step::More {}
}
