//! The journal's thread.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::{SystemTime, UNIX_EPOCH};

use toka_core::{Event, EventKind};
use tokio::sync::{mpsc, oneshot};

use super::{BACKLOG, Entry, Stamp, changes_state, replay};

/// Most events in one write: a burst of a thousand agents that start at once.
const GROUP: usize = 1024;

/// What must survive the next write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sync {
    Later,
    Now,
}

/// How the disk is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    Full,
    /// Events are lost, and nobody knows yet.
    Losing,
    /// Events are lost, and it was told.
    Lost,
}

pub(super) struct Writer {
    path: PathBuf,
    file: File,
    offset: u64,
    seq: u64,
    stamp: Stamp,
    listeners: Vec<mpsc::UnboundedSender<Event>>,
    unwritten: Vec<u8>,
    health: Health,
    /// The wall clock in milliseconds since the Unix epoch: for people. Order is the numbers'.
    clock: fn() -> i64,
}

impl Writer {
    pub(super) fn open(
        path: &Path,
        stamp: Stamp,
        listeners: Vec<mpsc::UnboundedSender<Event>>,
    ) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let replay::End { offset, seq } = replay::end(&mut file)?;
        file.set_len(offset)?;
        let (path, unwritten, health) = (path.to_owned(), Vec::new(), Health::Well);
        let clock = now_ms;
        Ok(Self { path, file, offset, seq, stamp, listeners, unwritten, health, clock })
    }

    /// Writes until nobody can send any more.
    pub(super) fn run(mut self, entries: &Receiver<Entry>) {
        while let Ok(first) = entries.recv() {
            let mut group = vec![first];
            group.extend(entries.try_iter().take(GROUP - 1));
            self.write_group(group);
        }
        if let Err(error) = self.flush(Sync::Now) {
            tracing::error!(journal = %self.path.display(), %error, "the last events were not written");
        }
    }

    fn write_group(&mut self, group: Vec<Entry>) {
        let mut seen: Vec<(Event, oneshot::Sender<()>)> = Vec::with_capacity(group.len());
        let mut sync = Sync::Later;
        for Entry { agent, kind, kept } in group {
            if changes_state(&kind) {
                sync = Sync::Now;
            }
            let event = self.number(agent, kind);
            self.queue(&event);
            seen.push((event, kept));
        }
        let outcome = self.flush(sync);
        for (event, kept) in seen {
            self.show(event);
            // Whoever does not wait has dropped the other end.
            let _ = kept.send(());
        }
        self.judge(outcome);
    }

    fn number(&mut self, agent: Option<toka_core::AgentName>, kind: EventKind) -> Event {
        self.seq += 1;
        let Stamp { project, run } = self.stamp.clone();
        Event { seq: self.seq, time_ms: (self.clock)(), project, run, agent, kind }
    }

    /// Adds the event's line to what is to be written. When that is too much, the event is lost for the file.
    fn queue(&mut self, event: &Event) {
        let Ok(line) = serde_json::to_vec(event) else { return };
        if self.unwritten.len() + line.len() < BACKLOG {
            self.unwritten.extend_from_slice(&line);
            self.unwritten.push(b'\n');
        } else if self.health != Health::Lost {
            self.health = Health::Losing;
        }
    }

    /// Writes what is to be written. A piece that was written only in part is written again from its beginning, so
    /// that no line is ever torn but by a crash.
    fn flush(&mut self, sync: Sync) -> io::Result<()> {
        self.file.write_all_at(&self.unwritten, self.offset)?;
        self.offset += self.unwritten.len() as u64;
        self.unwritten.clear();
        match sync {
            Sync::Now => self.file.sync_data(),
            Sync::Later => Ok(()),
        }
    }

    fn show(&mut self, event: Event) {
        let Some((last, others)) = self.listeners.split_last() else { return };
        for listener in others {
            let _ = listener.send(event.clone());
        }
        let _ = last.send(event);
    }

    /// Tells once that the disk is full, once that events are lost, and once that all is well again.
    fn judge(&mut self, outcome: io::Result<()>) {
        let (health, message) = match (outcome, self.health) {
            (Ok(()), Health::Well) | (Err(_), Health::Full | Health::Lost) => return,
            (Ok(()), _) => (Health::Well, format!("the journal {} is written again", self.path.display())),
            (Err(error), Health::Well) => (
                Health::Full,
                format!(
                    "the journal {} cannot be written: {error}; events are kept in memory",
                    self.path.display()
                ),
            ),
            (Err(_), Health::Losing) => {
                (Health::Lost, format!("the journal {} loses events", self.path.display()))
            }
        };
        self.health = health;
        let event = self.number(None, EventKind::Warning { message });
        self.queue(&event);
        self.show(event);
    }

    #[cfg(test)]
    pub(super) fn by_clock(self, clock: fn() -> i64) -> Self {
        Self { clock, ..self }
    }

    #[cfg(test)]
    pub(super) fn on_full_disk(mut self) -> Self {
        self.file = OpenOptions::new().write(true).open("/dev/full").expect("the device");
        self
    }
}

/// The wall clock in milliseconds since the Unix epoch; a clock before 1970 counts as 1970.
fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
