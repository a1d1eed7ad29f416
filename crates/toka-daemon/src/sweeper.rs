//! Removes what agents must not leave, beside everything else that goes on: one folder after the other, by one thread,
//! however many agents end at once.

use std::path::PathBuf;

use toka_sandbox::AgentFolders;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::workplace::empty;

/// Folders that must not keep anything of an agent that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Private {
    /// Its secrets.
    pub(crate) credentials: PathBuf,
    /// Its temporary files.
    pub(crate) tmp: PathBuf,
}

impl Private {
    pub(crate) fn of(folders: &AgentFolders) -> Self {
        Self { credentials: folders.credentials.clone(), tmp: folders.tmp.clone() }
    }

    fn clear(&self) {
        for folder in [&self.credentials, &self.tmp] {
            if let Err(error) = empty(folder) {
                tracing::warn!(%error, source = %error.source, "not everything of an agent was removed");
            }
        }
    }
}

/// The thread, while there is something to remove.
#[derive(Debug, Default)]
pub(crate) struct Sweeper {
    at_work: Option<(mpsc::UnboundedSender<Private>, JoinHandle<()>)>,
}

impl Sweeper {
    /// Empties the folders soon.
    pub(crate) fn sweep(&mut self, folders: Private) {
        let (queue, _) = self.at_work.get_or_insert_with(start);
        // It takes until its queue is closed.
        let _ = queue.send(folders);
    }

    /// Waits until everything is done.
    pub(crate) async fn finish(&mut self) {
        if let Some((queue, thread)) = self.at_work.take() {
            drop(queue);
            // A panic of it has been told.
            let _ = thread.await;
        }
    }
}

fn start() -> (mpsc::UnboundedSender<Private>, JoinHandle<()>) {
    let (queue, mut folders) = mpsc::unbounded_channel::<Private>();
    let thread = tokio::task::spawn_blocking(move || {
        while let Some(folders) = folders.blocking_recv() {
            folders.clear();
        }
    });
    (queue, thread)
}
