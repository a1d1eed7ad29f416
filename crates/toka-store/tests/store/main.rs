//! Journals in real files: what is written is read again, whatever happens to the file, its lock or its disk in between.

mod chained;
mod damage;
mod numbers;
mod reading;
mod removal;
mod trouble;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use toka_core::{Event, EventKind, Name, RunId};
use toka_store::{Change, Durability, Filter, Reader, Record, Settings, Writer};
use uuid::Uuid;

/// A journal in a folder of its own, and one who writes it.
struct Scene {
    folder: TempDir,
    writer: Option<Writer>,
    run: RunId,
    time_ms: i64,
    /// The instant that the writer is told.
    now: Instant,
}

impl Scene {
    fn new(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (run, now) = (RunId::from_uuid(Uuid::from_u128(1)), Instant::now());
        let mut scene = Self { folder, writer: None, run, time_ms: 0, now };
        scene.open(settings);
        scene
    }

    /// Opens the journal again, and says what is said about a damaged one.
    fn open(&mut self, settings: Settings) -> Option<toka_store::SetAside> {
        self.close();
        let opened = Writer::open(&self.path(), settings, 1_000).expect("a journal");
        self.writer = Some(opened.writer);
        opened.set_aside
    }

    fn close(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.close().map_err(|(_, error)| error).expect("a disk");
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    fn reader(&self) -> Reader {
        Reader::new(self.path())
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("it is open")
    }

    /// Writes these in one group, numbered as a journal does.
    fn write(&mut self, kinds: impl IntoIterator<Item = EventKind>) -> Option<Change> {
        self.write_about(None, kinds)
    }

    fn write_about(
        &mut self,
        agent: Option<&str>,
        kinds: impl IntoIterator<Item = EventKind>,
    ) -> Option<Change> {
        let first = self.writer().last_seq() + 1;
        let agent = agent.map(|agent| Name::new(agent).expect("a label"));
        let project = Name::new("project").expect("a label");
        let (time_ms, run, now) = (self.time_ms, self.run, self.now);
        let event =
            |(seq, kind)| Event { seq, time_ms, project: project.clone(), run, agent: agent.clone(), kind };
        let records = (first..).zip(kinds).map(|numbered| Record::of(&event(numbered))).collect();
        self.writer().write(records, Durability::Now, now)
    }

    /// Writes so many warnings in one group.
    fn warn(&mut self, count: usize) -> Option<Change> {
        self.write((0..count).map(|number| warning(&number.to_string())))
    }

    /// Everything that can be read.
    fn numbers(&self) -> Vec<u64> {
        let events = self.reader().events(0, &Filter::default(), usize::MAX).expect("a journal");
        events.iter().map(|event| event.seq).collect()
    }

    /// A time at which a writer in trouble tries again.
    fn later(&mut self) {
        self.now += Duration::from_secs(2);
    }
}

fn warning(text: &str) -> EventKind {
    EventKind::Warning { message: text.into() }
}

fn started() -> EventKind {
    EventKind::RunStarted { workspace: "/workspace".into(), agents: Vec::new(), detached: false }
}
