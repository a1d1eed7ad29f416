//! Journals with their thread: what listeners and readers see, and when.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc as std_mpsc;

use toka_core::{Name, Progress};
use toka_store::{Filter, Reader, Trouble};
use uuid::Uuid;

use super::*;

fn stamp() -> Stamp {
    Stamp { project: Name::new("project").expect("a label"), run: RunId::from_uuid(Uuid::nil()) }
}

fn warning(text: &str) -> EventKind {
    EventKind::Warning { message: text.into() }
}

fn progress() -> EventKind {
    EventKind::Progress(Progress { fraction: Some(0.5), ..Progress::default() })
}

fn read(path: &Path) -> Vec<Event> {
    Reader::new(path).events(0, &Filter::default(), usize::MAX).expect("a journal")
}

fn numbers(path: &Path) -> Vec<u64> {
    read(path).iter().map(|event| event.seq).collect()
}

#[tokio::test]
async fn numbers_have_no_gaps_across_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.db");
    for _ in 0..2 {
        let journal = Journal::open(&path, stamp(), Vec::new()).expect("a journal");
        for _ in 0..100 {
            drop(journal.record(None, warning("x")));
        }
        journal.record(None, EventKind::RunEnded { exit_code: 0 }).await;
        // Durable means that it can be read, although the journal is still open.
        assert!(!read(&path).is_empty());
    }
    assert_eq!(numbers(&path), (1..=202).collect::<Vec<_>>());
}

#[tokio::test]
async fn whoever_hears_of_a_number_can_read_up_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&path, stamp(), Vec::new()).expect("a journal");
    let mut latest = journal.latest();
    let agent = Name::new("a").expect("a label");
    let (mut reader, mut seen) = (Reader::new(&path), 0);
    for round in 1..=50 {
        // Nobody waits for these, and they are there all the same.
        for _ in 0..3 {
            drop(journal.emit(&agent, progress()));
        }
        let heard = *latest.wait_for(|latest| *latest >= round * 3).await.expect("it is open");
        let page = reader.events(seen, &Filter::default(), usize::MAX).expect("a page");
        let page: Vec<u64> = page.iter().map(|event| event.seq).collect();
        assert_eq!(page, (seen + 1..=heard).collect::<Vec<_>>());
        seen = heard;
    }
}

#[tokio::test]
async fn a_listener_that_has_gone_is_no_matter() {
    let folder = tempfile::tempdir().expect("a folder");
    let (gone, receiver) = mpsc::unbounded_channel();
    drop(receiver);
    let (seen, mut events) = mpsc::unbounded_channel();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&path, stamp(), vec![gone.clone(), seen, gone]).expect("a journal");
    journal.record(None, EventKind::AgentReady).await;
    assert_eq!(events.recv().await.expect("the other one hears").seq, 1);
}

/// The bound of the database's size stands for a full disk.
#[tokio::test]
async fn on_a_full_disk_agents_go_on_and_it_is_said_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.db");
    let (seen, mut events) = mpsc::unbounded_channel();
    let settings = Settings { max_pages: Some(20), ..Settings::default() };
    let journal = Journal::open_with(&path, stamp(), vec![seen], settings).expect("a journal");
    assert_eq!(journal.health(), Health::Well);
    let text = "x".repeat(5000);
    for _ in 0..30 {
        let kind = EventKind::AgentNotReady { reason: text.clone() };
        journal.record(None, kind).await;
    }
    assert_eq!(journal.health(), Health::Waiting(Trouble::Full));
    let visible = *journal.latest().borrow();
    assert!(visible < 30, "{visible}");
    assert_eq!(numbers(&path), (1..=visible).collect::<Vec<_>>());
    drop(journal);
    let (mut others, mut warnings, mut last) = (0, Vec::new(), 0);
    while let Some(event) = events.recv().await {
        assert_eq!(event.seq, last + 1, "listeners see all of them in their order");
        last = event.seq;
        match event.kind {
            EventKind::Warning { message } => warnings.push(message),
            _ => others += 1,
        }
    }
    let expected = format!(
        "the journal {} cannot be written: no space is left; events are kept in memory",
        path.display()
    );
    assert_eq!((others, warnings), (30, vec![expected]));
}

#[tokio::test]
async fn a_damaged_journal_is_the_first_thing_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.db");
    std::fs::write(&path, "no database ".repeat(1000)).expect("a file");
    let (seen, mut events) = mpsc::unbounded_channel();
    let journal = Journal::open(&path, stamp(), vec![seen]).expect("a journal");
    journal.record(None, EventKind::AgentReady).await;
    let first = events.recv().await.expect("an event");
    let EventKind::Warning { message } = &first.kind else { panic!("unexpected {first:?}") };
    assert!(message.contains("the file is damaged") && message.contains("journal.db.damaged-"), "{message}");
    assert_eq!((first.seq, numbers(&path)), (1, vec![1, 2]));
}

/// A wall clock that somebody sets back a minute each time it is looked at, from a minute after the epoch.
fn backward() -> i64 {
    static LOOKS: AtomicI64 = AtomicI64::new(1);
    60_000 * LOOKS.fetch_sub(1, Ordering::Relaxed)
}

#[test]
fn a_clock_that_jumps_back_changes_no_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.db");
    // Twice, as two runs: the second finds the end of the first whatever their clocks said.
    for _ in 0..2 {
        let writer = Writer::open(&path, stamp(), Vec::new(), Settings::default()).expect("a journal");
        let (entries, receiver) = std_mpsc::channel();
        for kind in
            [EventKind::AgentStarting, EventKind::AgentReady, EventKind::AgentPaused { by: String::new() }]
        {
            let (kept, _) = oneshot::channel();
            entries.send(Entry { agent: None, kind, kept }).expect("room");
        }
        drop(entries);
        writer.by_clock(backward).run(&receiver);
    }
    let events: Vec<_> = read(&path).iter().map(|event| (event.seq, event.time_ms)).collect();
    assert_eq!(
        events,
        [(1, 60_000), (2, 0), (3, -60_000), (4, -120_000), (5, -180_000), (6, -240_000)],
        "in the order of what happened, and each with what the clock said"
    );
}
