//! Works on the tasks of an agent: for each attempt a driver, which lives as long as the attempt.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use toka_core::error::with_causes;
use toka_core::rpc::TaskStep;
use toka_core::transcript::EntryKind;
use toka_core::{Exit, FileOutcome, SessionKey, SessionMode, SessionNews, SessionState};
use toka_runtime::{Attempt, Sent, Work, WorksOnTasks};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::driver;
use crate::feed::feed;
use crate::shared::{SessionConfig, Shared};
use crate::steps::Steps;
use crate::transcript::TranscriptError;

/// Why a model cannot be told something.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SteerError {
    /// No model is at work.
    #[error("no model works on its tasks now")]
    Idle,
    /// There is nothing else to do but the task.
    #[error("its task would be asked for again: say what it is to do instead")]
    NothingElse,
    /// The transcript cannot be written.
    #[error("it cannot be put on record, and the model is not told: {0}")]
    NotRecorded(String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Works on the tasks of one agent.
#[derive(Debug, Clone)]
pub struct SessionWorker(Arc<Shared>);

impl SessionWorker {
    /// One that goes by this.
    pub fn new(config: SessionConfig) -> Self {
        Self(Arc::new(Shared::new(config)))
    }

    /// Tells the model something before it is asked next. It is on record when this is ready. With `interrupts`, what is under way ends now; then
    /// the text may be empty where a person talks to the model.
    ///
    /// # Errors
    /// When nothing is under way, or it cannot be written.
    pub async fn steer(&self, text: String, by: String, interrupts: bool) -> Result<SessionKey, SteerError> {
        let transcript = lock(&self.0.transcript).clone().ok_or(SteerError::Idle)?;
        let key = self.session().ok_or(SteerError::Idle)?;
        let asker = lock(&self.0.asker).clone();
        let text = asker.map_or_else(|| text.clone(), |asker| asker.masked(text.clone()));
        let is_at_work = *self.0.state.borrow() != SessionState::Idle;
        if text.is_empty() && !(interrupts && is_at_work) {
            return Err(SteerError::Idle);
        }
        if text.is_empty() && key.mode == SessionMode::Task {
            return Err(SteerError::NothingElse);
        }
        let mut kinds = Vec::new();
        let interrupts = interrupts && is_at_work;
        if interrupts {
            kinds.push(EntryKind::Interrupted { by: by.clone() });
        }
        if !text.is_empty() {
            kinds.push(EntryKind::Person { text, by });
        }
        let shared = Arc::clone(&self.0);
        let write = move || shared.append(&transcript, kinds, true);
        let written = tokio::task::spawn_blocking(write).await.map_err(|_| SteerError::Idle)?;
        written.map_err(|error: TranscriptError| SteerError::NotRecorded(with_causes(&error)))?;
        if interrupts {
            self.0.interrupts.send_modify(|count| *count += 1);
        }
        self.0.said.notify_one();
        Ok(key)
    }

    /// Tells what is on record of the session that is under way, after the line `after`, and then what happens, until nobody reads or the agent is no more.
    pub fn look_on(&self, after: u64) -> mpsc::Receiver<SessionNews> {
        // Before anything is read, so that nothing is missed in between.
        let news = self.0.look_on();
        let now = self.session().map(|key| (key, self.0.now()));
        feed(self.0.config.folder.clone(), (news, now), after)
    }

    /// The session that is under way, or was last.
    pub fn session(&self) -> Option<SessionKey> {
        lock(&self.0.session).as_ref().map(|(_, key)| key.clone())
    }
}

impl WorksOnTasks for SessionWorker {
    fn begin(&self, attempt: Attempt) -> Box<dyn Work> {
        let steps = Arc::new(Steps::default());
        let (paused, is_paused) = watch::channel(false);
        let (cut, is_cut) = watch::channel(None);
        let work = driver::work(Arc::clone(&self.0), attempt, Arc::clone(&steps), (is_paused, is_cut));
        let task = Some(tokio::spawn(work).abort_handle());
        Box::new(SessionWork { steps, paused, cut, task })
    }
}

/// Work on one attempt.
struct SessionWork {
    steps: Arc<Steps>,
    paused: watch::Sender<bool>,
    /// How the attempt is to end before its time.
    cut: watch::Sender<Option<Exit>>,
    /// Until it was asked to end.
    task: Option<AbortHandle>,
}

impl Work for SessionWork {
    fn next(&mut self, outcome: Option<FileOutcome>, wait: Duration) -> Sent<TaskStep> {
        let steps = Arc::clone(&self.steps);
        Box::pin(async move { steps.next(outcome, wait).await })
    }

    fn verdict(&self) -> Option<Exit> {
        self.steps.verdict()
    }

    fn end(mut self: Box<Self>, exit: &Exit) {
        self.task = None;
        self.cut.send_replace(Some(exit.clone()));
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
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
