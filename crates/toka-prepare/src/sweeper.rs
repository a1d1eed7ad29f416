//! Removes the secrets of an agent and its temporary files when it has ended, in a thread of its own: one folder after the other, however
//! many agents end at once.

use std::path::PathBuf;

use toka_sandbox::AgentFolders;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::workplace::empty;

/// Folders that must not keep anything of an agent that has ended.
#[derive(Debug, Clone)]
pub struct Private {
    /// Its secrets.
    pub credentials: PathBuf,
    /// Its temporary files.
    pub tmp: PathBuf,
}

impl Private {
    /// Those of an agent.
    pub fn of(folders: &AgentFolders) -> Self {
        Self { credentials: folders.credentials.clone(), tmp: folders.tmp.clone() }
    }

    fn clear(&self) {
        for folder in [&self.credentials, &self.tmp] {
            // Of what somebody removed nothing is left.
            if let Err(error) = empty(folder)
                && error.source.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, source = %error.source, "not everything of an agent was removed");
            }
        }
    }
}

/// What the thread does next.
enum Job {
    Clear(Private),
    /// Says that everything before is done.
    Tell(oneshot::Sender<()>),
}

/// The thread, while there is something to remove.
#[derive(Debug, Default)]
pub struct Sweeper {
    at_work: Option<(mpsc::UnboundedSender<Job>, JoinHandle<()>)>,
}

impl Sweeper {
    /// Empties the folders soon.
    pub fn sweep(&mut self, folders: Private) {
        let (queue, _) = self.at_work.get_or_insert_with(start);
        // It takes until its queue is closed.
        let _ = queue.send(Job::Clear(folders));
    }

    /// Becomes ready when everything is removed that was to be so far; `None` when nothing was.
    pub fn done(&self) -> Option<oneshot::Receiver<()>> {
        let (queue, _) = self.at_work.as_ref()?;
        let (told, done) = oneshot::channel();
        queue.send(Job::Tell(told)).ok()?;
        Some(done)
    }

    /// Waits until everything is done.
    pub async fn finish(&mut self) {
        if let Some((queue, thread)) = self.at_work.take() {
            drop(queue);
            // A panic of it has been told.
            let _ = thread.await;
        }
    }
}

fn start() -> (mpsc::UnboundedSender<Job>, JoinHandle<()>) {
    let (queue, mut jobs) = mpsc::unbounded_channel();
    let thread = tokio::task::spawn_blocking(move || {
        while let Some(job) = jobs.blocking_recv() {
            match job {
                Job::Clear(folders) => folders.clear(),
                // Whoever waited may be gone.
                Job::Tell(done) => drop(done.send(())),
            }
        }
    });
    (queue, thread)
}
