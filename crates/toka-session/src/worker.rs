//! Works on the tasks of an agent: for each attempt a driver, which lives as long as the attempt.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use toka_core::rpc::TaskStep;
use toka_core::{Exit, FileOutcome, SessionKey};
use toka_runtime::{Attempt, Sent, Work, WorksOnTasks};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::driver;
use crate::shared::{Said, SessionConfig, Shared};
use crate::steps::Steps;

/// Works on the tasks of one agent.
#[derive(Debug, Clone)]
pub struct SessionWorker(Arc<Shared>);

impl SessionWorker {
    /// One that goes by this.
    pub fn new(config: SessionConfig) -> Self {
        Self(Arc::new(Shared {
            config,
            life: AtomicU64::new(0),
            session: Mutex::default(),
            inbox: Mutex::default(),
            lane: tokio::sync::Mutex::default(),
        }))
    }

    /// Tells the model something before it is asked next.
    pub fn steer(&self, text: String, by: String) {
        self.0.inbox.lock().unwrap_or_else(PoisonError::into_inner).push(Said { text, by });
    }

    /// The session that is under way, or was last.
    pub fn session(&self) -> Option<SessionKey> {
        self.0.session.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, key)| key.clone())
    }
}

impl WorksOnTasks for SessionWorker {
    fn begin_life(&self) {
        self.0.life.fetch_add(1, Ordering::Relaxed);
    }

    fn begin(&self, attempt: Attempt) -> Box<dyn Work> {
        let steps = Arc::new(Steps::default());
        let (paused, is_paused) = watch::channel(false);
        let work = driver::run(Arc::clone(&self.0), attempt, Arc::clone(&steps), is_paused);
        let task = tokio::spawn(work).abort_handle();
        Box::new(SessionWork { steps, paused, task })
    }
}

/// Work on one attempt.
struct SessionWork {
    steps: Arc<Steps>,
    paused: watch::Sender<bool>,
    task: AbortHandle,
}

impl Work for SessionWork {
    fn next(&mut self, outcome: Option<FileOutcome>, wait: Duration) -> Sent<TaskStep> {
        let steps = Arc::clone(&self.steps);
        Box::pin(async move { steps.next(outcome, wait).await })
    }

    fn verdict(&self) -> Option<Exit> {
        self.steps.verdict()
    }

    fn pause(&self) {
        self.paused.send_replace(true);
    }

    fn resume(&self) {
        self.paused.send_replace(false);
    }
}

impl Drop for SessionWork {
    fn drop(&mut self) {
        self.task.abort();
    }
}
