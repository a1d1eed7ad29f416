//! The journal: everything that happened, numbered without gaps, in a database ([`toka_store`]) that readers may ask
//! while it is written.
//!
//! One thread writes. It takes what has gathered, writes it in one transaction, and makes it durable when anything in it
//! changes a state; only then do others see the events, and only then may their causes be acted on. Progress and metrics
//! wait for nobody.
//!
//! While the database cannot be written (a full disk, somebody's lock), agents go on: events are kept in memory up to
//! [`BACKLOG`] bytes and written as soon as they can be, and a warning says so. Beyond that they are lost, and a warning
//! says that too. [`Journal::health`] is for those who ask.
//!
//! A listener is sent every event. Whoever may be slow listens to [`Journal::latest`] instead and reads what it has not
//! seen with a [`toka_store::Reader`]: then nothing gathers for it.

mod writer;

use std::io;
use std::path::Path;
use std::sync::mpsc as std_mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use toka_core::{AgentName, Event, EventKind, Kept, ProjectName, RunId};
use toka_runtime::{Durable, EventSink};
use toka_store::{Health, Settings};
use tokio::sync::{mpsc, oneshot, watch};

pub use toka_store::BACKLOG;
use writer::Writer;

/// One event on its way to the database.
struct Entry {
    agent: Option<AgentName>,
    kind: EventKind,
    kept: oneshot::Sender<Kept>,
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
    latest: watch::Receiver<u64>,
    health: watch::Receiver<Health>,
}

impl Journal {
    /// Opens the journal at `path`, or begins it. Every event goes to all `listeners` once it is durable. A damaged one
    /// is set aside, and the first event says so.
    ///
    /// # Errors
    /// When the database cannot be opened or made, or the thread cannot be started.
    pub fn open(path: &Path, stamp: Stamp, listeners: Vec<mpsc::UnboundedSender<Event>>) -> io::Result<Self> {
        Self::open_with(path, stamp, listeners, Settings::default())
    }

    /// The same with settings of one's own.
    ///
    /// # Errors
    /// The same.
    pub fn open_with(
        path: &Path,
        stamp: Stamp,
        listeners: Vec<mpsc::UnboundedSender<Event>>,
        settings: Settings,
    ) -> io::Result<Self> {
        let writer = Writer::open(path, stamp, listeners, settings)?;
        let (latest, health) = (writer.latest(), writer.health());
        let (entries, receiver) = std_mpsc::channel();
        let thread =
            std::thread::Builder::new().name("journal".into()).spawn(move || writer.run(&receiver))?;
        Ok(Self { entries: Some(entries), thread: Mutex::new(Some(thread)), latest, health })
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

    /// The number of the last event that readers can see. It moves after the transaction, so that whoever hears of a
    /// number can read up to it.
    pub fn latest(&self) -> watch::Receiver<u64> {
        self.latest.clone()
    }

    /// How writing is going: whoever tells others that all is ready asks this before.
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
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
    !matches!(
        kind,
        EventKind::Progress(_)
            | EventKind::Metrics { .. }
            | EventKind::Warning { .. }
            | EventKind::AgentWaiting { .. }
            | EventKind::AgentReport { .. }
            | EventKind::ReportUndelivered { .. }
    )
}

#[cfg(test)]
mod tests;
