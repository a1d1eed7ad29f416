//! The one writer of a journal. Whatever is wrong with the disk, whoever gives it events goes on: they wait here, in
//! their order, and it says once that they do and once when all is well again.
//!
//! ```text
//! Well ─▶ Waiting ─▶ Losing        by an error; by more events than can wait
//!   ▲        │          │
//!   └────────┴──────────┘          by a write that succeeds, tried every second
//! ```

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::aside::set_aside;
use crate::backlog::Backlog;
use crate::store::Store;
use crate::{Change, Durability, Health, Record, SetAside, Settings, StoreError, Tended, Trouble};

/// How long after a failure the next try is; meanwhile events come and go without waiting for the disk.
const RETRY: Duration = Duration::from_secs(1);
/// Most events in a transaction, so that on a disk with little room some get in.
const CHUNK: usize = 1024;

/// The writing end of a journal.
pub struct Writer {
    path: PathBuf,
    settings: Settings,
    /// None while a damaged one is gone and no other could be begun.
    store: Option<Store>,
    /// A damaged one of which nobody has been told yet.
    set_aside: Option<SetAside>,
    backlog: Backlog,
    /// What those that wait need.
    owed: Durability,
    /// The highest number that was taken, and that was written.
    taken: u64,
    written: u64,
    /// When the last event was, for the name of a file that is set aside.
    time_ms: i64,
    health: Health,
    next_try: Option<Instant>,
}

/// A journal that was opened.
pub struct Opened {
    /// Its writing end.
    pub writer: Writer,
    /// The damaged one that it takes the place of.
    pub set_aside: Option<SetAside>,
}

impl Writer {
    /// Opens the journal at `path`, or begins it. A damaged one is set aside under a name with the time, which is `now_ms`
    /// in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// When another process holds its lock for longer than the settings have patience, is a newer program's or another's, or cannot be
    /// made, read or written.
    pub fn open(path: &Path, settings: Settings, now_ms: i64) -> Result<Opened, StoreError> {
        let (store, last, set_aside) = match Store::open(path, &settings) {
            Ok((store, last)) => (store, last, None),
            Err(error) if error.wants_another_file() => {
                let last = crate::reader::last_seq_of_a_damaged(path);
                let aside = set_aside(path, &error, last, now_ms)?;
                let (store, other) = Store::open(path, &settings)?;
                store.begin_after(last.unwrap_or(0))?;
                (store, last.unwrap_or(other), Some(aside))
            }
            Err(error) => return Err(error),
        };
        let writer = Self {
            path: path.to_owned(),
            settings,
            store: Some(store),
            set_aside: None,
            backlog: Backlog::default(),
            owed: Durability::Later,
            taken: last,
            written: last,
            time_ms: now_ms,
            health: Health::Well,
            next_try: None,
        };
        Ok(Opened { writer, set_aside })
    }

    /// The number of the last event that it took: the next one's is one more.
    pub fn last_seq(&self) -> u64 {
        self.taken
    }

    /// The number of the last event that readers can see.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// How it is doing.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// When [`Writer::retry`] is due.
    pub fn due(&self) -> Option<Instant> {
        self.next_try
    }

    /// Takes events, and writes them if it can. When it returns and is well, they are as durable as asked for.
    pub fn write(&mut self, records: Vec<Record>, durability: Durability, now: Instant) -> Option<Change> {
        if let Some(last) = records.last() {
            (self.taken, self.time_ms) = (last.seq.max(self.taken), last.time_ms);
        }
        self.owed = self.owed.max(durability);
        let lost = match self.next_try {
            None => {
                self.backlog.take_all(records);
                0
            }
            Some(_) => self.backlog.take(records),
        };
        match self.next_try {
            Some(next) if now < next => self.lose(lost),
            _ => self.attempt(lost, now),
        }
    }

    /// Tries again to write what waits.
    pub fn retry(&mut self, now: Instant) -> Option<Change> {
        if self.next_try.is_some() { self.attempt(0, now) } else { None }
    }

    /// Removes a little of what need not be kept: work for when nobody waits. Nobody's lock is waited for.
    ///
    /// # Errors
    /// When the database cannot be read or written. The next write goes into another file when this one is damaged.
    pub fn tend(&mut self, now_ms: i64) -> Result<Tended, StoreError> {
        let (Some(store), Health::Well) = (&mut self.store, &self.health) else { return Ok(Tended::Done) };
        store.set_patience(Duration::ZERO)?;
        let tended = store.tend(&self.settings.retention, now_ms);
        store.set_patience(self.settings.patience)?;
        if let Err(error) = &tended
            && error.wants_another_file()
        {
            // Closed before its files are renamed.
            self.store = None;
            self.set_aside = Some(set_aside(&self.path, error, Some(self.taken), self.time_ms)?);
        }
        tended
    }

    /// Copies the log into the database when it is long, after those who waited for a write have been told.
    pub fn checkpoint(&self) {
        // One that fails is tried after the next write, and one that must not fail is a write.
        if let (Some(store), Health::Well) = (&self.store, &self.health) {
            let _ = store.checkpoint();
        }
    }

    /// Writes what is left, durably, and closes the database.
    ///
    /// # Errors
    /// When it cannot be written; so many events are then lost.
    pub fn close(mut self) -> Result<(), (usize, StoreError)> {
        self.owed = Durability::Now;
        if self.backlog.is_empty() {
            return Ok(());
        }
        self.flush().map_err(|error| (self.backlog.len(), error))
    }

    fn attempt(&mut self, lost: u64, now: Instant) -> Option<Change> {
        match self.flush() {
            Ok(()) => {
                let change = self.recover(lost);
                let lost = if let Some(Change::WellAgain { lost }) = change { lost } else { 0 };
                self.set_aside.take().map(|aside| Change::BegunAnew { aside, lost }).or(change)
            }
            Err(error) => {
                self.next_try = Some(now + RETRY);
                let trouble = Trouble::of(&error);
                match &mut self.health {
                    Health::Well => {
                        self.be_patient(Duration::ZERO);
                        self.health = Health::Waiting(trouble.clone());
                        Some(Change::Waits(trouble))
                    }
                    Health::Waiting(why) | Health::Losing(why, _) => {
                        *why = trouble;
                        self.lose(lost)
                    }
                }
            }
        }
    }

    fn recover(&mut self, lost: u64) -> Option<Change> {
        self.next_try = None;
        let before = std::mem::take(&mut self.health);
        if before == Health::Well {
            return None;
        }
        self.be_patient(self.settings.patience);
        let lost_before = if let Health::Losing(_, lost) = before { lost } else { 0 };
        Some(Change::WellAgain { lost: lost + lost_before })
    }

    fn lose(&mut self, more: u64) -> Option<Change> {
        match &mut self.health {
            Health::Losing(_, lost) => {
                *lost += more;
                None
            }
            Health::Waiting(trouble) if more > 0 => {
                let trouble = trouble.clone();
                self.health = Health::Losing(trouble.clone(), more);
                Some(Change::Loses(trouble))
            }
            Health::Well | Health::Waiting(_) => None,
        }
    }

    /// While there is trouble a try must not keep events waiting.
    fn be_patient(&self, patience: Duration) {
        if let Some(store) = &self.store {
            // It fails only for a connection that is none.
            let _ = store.set_patience(patience);
        }
    }

    /// Writes everything that waits, into another file if need be.
    fn flush(&mut self) -> Result<(), StoreError> {
        match self.append() {
            Err(error) if error.wants_another_file() => {
                self.begin_anew(&error)?;
                self.append()
            }
            outcome => outcome,
        }
    }

    fn append(&mut self) -> Result<(), StoreError> {
        let Some(store) = &mut self.store else { return Err(StoreError::Moved) };
        while !self.backlog.is_empty() {
            // The last one makes all of them durable.
            let durability = if self.backlog.len() > CHUNK { Durability::Later } else { self.owed };
            store.append(self.backlog.first(CHUNK), durability)?;
            self.written = self.backlog.written(CHUNK).unwrap_or(self.written);
        }
        self.owed = Durability::Later;
        Ok(())
    }

    /// Another file in the place of this one. When that fails it is tried again, and nothing more is set aside.
    fn begin_anew(&mut self, why: &StoreError) -> Result<(), StoreError> {
        // Closed before its files are renamed.
        if self.store.take().is_some() || self.set_aside.is_none() {
            let before = self.backlog.first_seq().map_or(self.written, |seq| seq - 1).max(self.written);
            self.set_aside = Some(set_aside(&self.path, why, Some(before), self.time_ms)?);
        }
        make_folder(&self.path)?;
        let (store, _) = Store::open(&self.path, &self.settings)?;
        let last = self.set_aside.as_ref().and_then(|aside| aside.last_seq);
        store.begin_after(last.unwrap_or(0))?;
        self.store = Some(store);
        Ok(())
    }
}

/// The folder of the journal at `path`, which somebody may have removed with it.
fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)
        }
        _ => Ok(()),
    }
}
