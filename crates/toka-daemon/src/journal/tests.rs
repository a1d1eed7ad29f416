//! Journals on a real disk, on a full one, and after a crash.

use std::io::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};

use toka_core::Name;
use uuid::Uuid;

use super::*;

fn stamp() -> Stamp {
    Stamp { project: Name::new("project").expect("a label"), run: RunId::from_uuid(Uuid::nil()) }
}

fn warning(text: &str) -> EventKind {
    EventKind::Warning { message: text.into() }
}

#[tokio::test]
async fn numbers_have_no_gaps_across_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.jsonl");
    for _ in 0..2 {
        let journal = Journal::open(&path, stamp(), Vec::new()).expect("a journal");
        for _ in 0..100 {
            drop(journal.record(None, warning("x")));
        }
        journal.record(None, EventKind::RunEnded { exit_code: 0 }).await;
        // Durable means that it can be read, although the journal is still open.
        assert!(!replay(&path).expect("readable").events.is_empty());
    }
    let replay = replay(&path).expect("readable");
    let numbers: Vec<u64> = replay.events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=202).collect::<Vec<_>>());
    assert_eq!((replay.unreadable, replay.torn), (0, 0));
}

#[tokio::test]
async fn a_torn_line_is_cut_off_and_the_numbers_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.jsonl");
    let journal = Journal::open(&path, stamp(), Vec::new()).expect("a journal");
    journal.record(None, warning("whole")).await;
    drop(journal);
    let mut file = std::fs::File::options().append(true).open(&path).expect("the journal");
    file.write_all(b"{\"seq\":2,\"time").expect("room");
    assert_eq!(replay(&path).expect("readable").torn, 14);
    let journal = Journal::open(&path, stamp(), Vec::new()).expect("a journal");
    journal.record(None, warning("next")).await;
    drop(journal);
    let replay = replay(&path).expect("readable");
    assert_eq!(replay.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((replay.unreadable, replay.torn), (0, 0));
}

#[test]
fn the_end_of_a_long_journal_is_found_from_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.jsonl");
    let journal = Journal::open(&path, stamp(), Vec::new()).expect("a journal");
    drop(journal.record(None, warning("first")));
    drop(journal.record(None, warning(&"x".repeat(300_000))));
    drop(journal);
    let mut file = std::fs::File::open(&path).expect("the journal");
    let length = file.metadata().expect("there").len();
    assert_eq!(replay::end(&mut file).expect("readable"), replay::End { offset: length, seq: 2 });
}

#[test]
fn on_a_full_disk_events_are_seen_and_a_warning_is_given_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (seen, mut events) = mpsc::unbounded_channel();
    let writer = Writer::open(&folder.path().join("journal.jsonl"), stamp(), vec![seen]).expect("a journal");
    let writer = writer.on_full_disk();
    let (entries, receiver) = std_mpsc::channel();
    let thread = std::thread::spawn(move || writer.run(&receiver));
    for _ in 0..3 {
        let (kept, durable) = oneshot::channel();
        entries.send(Entry { agent: None, kind: EventKind::AgentReady, kept }).expect("it runs");
        durable.blocking_recv().expect("agents go on");
    }
    drop(entries);
    thread.join().expect("no panic");
    let (mut ready, mut warnings) = (0, 0);
    while let Ok(event) = events.try_recv() {
        match event.kind {
            EventKind::AgentReady => ready += 1,
            EventKind::Warning { message } => {
                assert!(message.contains("kept in memory"), "{message}");
                warnings += 1;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!((ready, warnings), (3, 1));
}

/// A wall clock that somebody sets back a minute each time it is looked at, from a minute after the epoch.
fn backward() -> i64 {
    static LOOKS: AtomicI64 = AtomicI64::new(1);
    60_000 * LOOKS.fetch_sub(1, Ordering::Relaxed)
}

#[test]
fn a_clock_that_jumps_back_changes_no_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.jsonl");
    // Twice, as two runs: the second finds the end of the first whatever their clocks said.
    for _ in 0..2 {
        let writer = Writer::open(&path, stamp(), Vec::new()).expect("a journal").by_clock(backward);
        let (entries, receiver) = std_mpsc::channel();
        for kind in [EventKind::AgentStarting, EventKind::AgentReady, EventKind::AgentPaused] {
            let (kept, _) = oneshot::channel();
            entries.send(Entry { agent: None, kind, kept }).expect("room");
        }
        drop(entries);
        writer.run(&receiver);
    }
    let replay = replay(&path).expect("readable");
    assert_eq!((replay.unreadable, replay.torn), (0, 0));
    let events: Vec<_> = replay.events.iter().map(|event| (event.seq, event.time_ms)).collect();
    assert_eq!(
        events,
        [(1, 60_000), (2, 0), (3, -60_000), (4, -120_000), (5, -180_000), (6, -240_000)],
        "in the order of what happened, and each with what the clock said"
    );
}
