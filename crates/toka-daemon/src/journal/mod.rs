//! The journal: everything that happened, one JSON object a line, numbered without gaps, in a file that only grows.
//!
//! One thread writes. It takes what has gathered, writes it in one piece, and makes it durable (fdatasync(2)) when
//! anything in it changes a state; only then do others see the events, and only then may their causes be acted on.
//! Progress and metrics wait for nobody.
//!
//! When the disk is full, agents go on: events are kept in memory up to [`BACKLOG`] bytes and written as soon as there
//! is room, and a warning says so. Beyond that they are lost, and the warning says that too.

mod replay;
mod writer;

use std::io;
use std::path::Path;
use std::sync::mpsc as std_mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use toka_core::{AgentName, Event, EventKind, ProjectName, RunId};
use toka_runtime::{Durable, EventSink};
use tokio::sync::{mpsc, oneshot};

pub use replay::{Replay, replay};
use writer::Writer;

/// Most bytes of events that are kept while they cannot be written: hours of an ordinary run.
pub const BACKLOG: usize = 8 * 1024 * 1024;

/// One event on its way to the file.
struct Entry {
    agent: Option<AgentName>,
    kind: EventKind,
    kept: oneshot::Sender<()>,
}

/// What every event of a run carries.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// The project.
    pub project: ProjectName,
    /// The run.
    pub run: RunId,
}

/// The writing end. Dropping it writes what is left, and waits for that.
pub struct Journal {
    entries: Option<std_mpsc::Sender<Entry>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the journal at `path`, or begins it; a last line that a crash tore is cut off. Every event goes to all
    /// `listeners` once it is durable.
    ///
    /// # Errors
    /// When the file cannot be opened, read or cut, or the thread cannot be started.
    pub fn open(path: &Path, stamp: Stamp, listeners: Vec<mpsc::UnboundedSender<Event>>) -> io::Result<Self> {
        let writer = Writer::open(path, stamp, listeners)?;
        let (entries, receiver) = std_mpsc::channel();
        let thread =
            std::thread::Builder::new().name("journal".into()).spawn(move || writer.run(&receiver))?;
        Ok(Self { entries: Some(entries), thread: Mutex::new(Some(thread)) })
    }

    /// Takes an event, about an agent or about the run.
    pub fn record(&self, agent: Option<AgentName>, kind: EventKind) -> Durable {
        let (kept, durable) = Durable::pair();
        if let Some(entries) = &self.entries {
            // Without its thread there is no journal any more; then nobody must wait for it.
            let _ = entries.send(Entry { agent, kind, kept });
        }
        durable
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.entries = None;
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It ends with its channel; a panic of it has been told.
            let _ = thread.join();
        }
    }
}

impl EventSink for Journal {
    fn emit(&self, agent: &AgentName, kind: EventKind) -> Durable {
        self.record(Some(agent.clone()), kind)
    }
}

/// Whether somebody acts on such an event, so that it must be durable before.
fn changes_state(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::Progress { .. } | EventKind::Metrics { .. } | EventKind::Warning { .. })
}

#[cfg(test)]
mod tests;
