//! The journal's thread.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use toka_core::{Event, EventKind, Kept};
use toka_store::{Durability, Health, Opened, Record, Settings, Tended};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Entry, Stamp, changes_state};

/// Most events in one transaction: a burst of a thousand agents that start at once.
const GROUP: usize = 1024;
/// How often what need not be kept is looked for, after the first time, at the start.
const TEND: Duration = Duration::from_secs(60 * 60);

pub(super) struct Writer {
    path: PathBuf,
    store: toka_store::Writer,
    stamp: Stamp,
    listeners: Vec<mpsc::UnboundedSender<Event>>,
    latest: watch::Sender<u64>,
    health: watch::Sender<Health>,
    /// Said before anything else.
    first: Option<String>,
    tend_at: Instant,
    /// The wall clock in milliseconds since the Unix epoch: for people. Order is the numbers'.
    clock: fn() -> i64,
}

/// Everything that can wake the thread.
enum Wake {
    Entry(Entry),
    Retry,
    Tend,
    Gone,
}

impl Writer {
    pub(super) fn open(
        path: &Path,
        stamp: Stamp,
        listeners: Vec<mpsc::UnboundedSender<Event>>,
        settings: Settings,
    ) -> io::Result<Self> {
        let Opened { writer: store, set_aside } = toka_store::Writer::open(path, settings, now_ms())?;
        let first = set_aside.map(|aside| aside.to_string());
        let (latest, health) = (watch::Sender::new(store.written()), watch::Sender::new(Health::Well));
        let (path, clock, tend_at) = (path.to_owned(), now_ms as fn() -> i64, Instant::now());
        Ok(Self { path, store, stamp, listeners, latest, health, first, tend_at, clock })
    }

    pub(super) fn latest(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Writes until nobody can send any more.
    pub(super) fn run(mut self, entries: &Receiver<Entry>) {
        if let Some(message) = self.first.take() {
            self.warn(message);
        }
        loop {
            match self.wait(entries) {
                Wake::Entry(first) => {
                    let mut group = vec![first];
                    group.extend(entries.try_iter().take(GROUP - 1));
                    self.write_group(group);
                }
                Wake::Retry => {
                    let change = self.store.retry(Instant::now());
                    self.publish();
                    self.tell(change);
                }
                Wake::Tend => self.tend(),
                Wake::Gone => break,
            }
        }
        if let Err((lost, error)) = self.store.close() {
            tracing::error!(journal = %self.path.display(), %error, lost, "the last events were not written");
        }
    }

    /// Waits for the next thing to do. Events go before everything else.
    fn wait(&self, entries: &Receiver<Entry>) -> Wake {
        let (at, wake) = match self.store.due() {
            // With such trouble nothing is removed.
            Some(retry) => (retry, Wake::Retry),
            None => (self.tend_at, Wake::Tend),
        };
        match entries.recv_timeout(at.saturating_duration_since(Instant::now())) {
            Ok(entry) => Wake::Entry(entry),
            Err(RecvTimeoutError::Timeout) => wake,
            Err(RecvTimeoutError::Disconnected) => Wake::Gone,
        }
    }

    fn write_group(&mut self, group: Vec<Entry>) {
        let mut seen: Vec<(Event, oneshot::Sender<Kept>)> = Vec::with_capacity(group.len());
        let mut records = Vec::with_capacity(group.len());
        let mut durability = Durability::Later;
        let first = self.store.last_seq() + 1;
        for (seq, Entry { agent, kind, kept }) in (first..).zip(group) {
            if changes_state(&kind) {
                durability = Durability::Now;
            }
            let Stamp { project, run } = self.stamp.clone();
            let event = Event { seq, time_ms: (self.clock)(), project, run, agent, kind };
            records.push(Record::of(&event));
            seen.push((event, kept));
        }
        let change = self.store.write(records, durability, Instant::now());
        self.publish();
        let written = self.store.written();
        for (event, kept) in seen {
            let place = if event.seq <= written { Kept::OnDisk } else { Kept::InMemory };
            self.show(event);
            // Whoever does not wait has dropped the other end.
            let _ = kept.send(place);
        }
        self.store.checkpoint();
        self.tell(change);
    }

    /// Lets those who read know up to where they can.
    fn publish(&self) {
        let written = self.store.written();
        self.latest.send_if_modified(|latest| std::mem::replace(latest, written) != written);
    }

    fn show(&mut self, event: Event) {
        let Some((last, others)) = self.listeners.split_last() else { return };
        for listener in others {
            let _ = listener.send(event.clone());
        }
        let _ = last.send(event);
    }

    /// Tells what changed about writing, to those who ask and to those who listen.
    fn tell(&mut self, change: Option<toka_store::Change>) {
        self.health.send_if_modified(|health| {
            let now = self.store.health();
            let modified = health != now;
            if modified {
                health.clone_from(now);
            }
            modified
        });
        if let Some(change) = change {
            self.warn(change.sentence(&self.path));
        }
    }

    fn warn(&mut self, message: String) {
        let (kept, _) = oneshot::channel();
        self.write_group(vec![Entry { agent: None, kind: EventKind::Warning { message }, kept }]);
    }

    fn tend(&mut self) {
        let tended = self.store.tend((self.clock)());
        self.tend_at = match tended {
            Ok(Tended::More) => Instant::now(),
            Ok(Tended::Done) => Instant::now() + TEND,
            Err(error) => {
                tracing::warn!(journal = %self.path.display(), %error, "old events were not removed");
                Instant::now() + TEND
            }
        };
    }

    #[cfg(test)]
    pub(super) fn by_clock(self, clock: fn() -> i64) -> Self {
        Self { clock, ..self }
    }
}

/// The wall clock in milliseconds since the Unix epoch; a clock before 1970 counts as 1970.
fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
