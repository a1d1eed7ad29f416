//! A lock that somebody holds, and a disk without room. The full disk is a bound on the database's pages, which SQLite
//! reports as it does a full disk; `tests/tests/run_disk.rs` has a real one.

use rusqlite::Connection;
use toka_core::EventKind;
use toka_store::{BACKLOG, Change, Health, Settings, StoreError, Trouble, Writer};

use crate::{Scene, warning};

fn impatient() -> Settings {
    Settings { patience: std::time::Duration::ZERO, ..Settings::default() }
}

/// Somebody who writes, or pretends to.
struct Rival(Connection);

impl Rival {
    fn lock(scene: &Scene) -> Self {
        let conn = Connection::open(scene.path()).expect("a database");
        conn.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        Self(conn)
    }

    fn unlock(self) {
        self.0.execute_batch("ROLLBACK").expect("it held it");
    }
}

#[test]
fn while_another_holds_the_lock_events_wait_in_their_order() {
    let mut scene = Scene::new(impatient());
    assert_eq!(scene.warn(1), None);
    let rival = Rival::lock(&scene);
    assert_eq!(scene.warn(2), Some(Change::Waits(Trouble::Locked)));
    assert_eq!(scene.warn(2), None, "said once");
    scene.later();
    assert_eq!(scene.warn(1), None, "also when it was tried again");
    assert_eq!(scene.writer().health(), &Health::Waiting(Trouble::Locked));
    assert_eq!((scene.writer().last_seq(), scene.writer().written()), (6, 1));
    assert_eq!(scene.numbers(), [1]);
    rival.unlock();
    assert_eq!(scene.warn(1), None, "it is not tried for every event");
    assert_eq!(scene.numbers(), [1]);
    scene.later();
    let now = scene.now;
    assert_eq!(scene.writer().retry(now), Some(Change::WellAgain { lost: 0 }));
    assert_eq!(scene.writer().health(), &Health::Well);
    assert_eq!(scene.numbers(), (1..=7).collect::<Vec<_>>());
    assert_eq!(scene.writer().due(), None);
}

#[test]
fn what_is_too_much_to_wait_is_lost_and_counted() {
    let mut scene = Scene::new(impatient());
    let rival = Rival::lock(&scene);
    let large = || warning(&"x".repeat(BACKLOG / 8));
    assert_eq!(scene.write((0..7).map(|_| large())), Some(Change::Waits(Trouble::Locked)));
    assert_eq!(scene.write([large()]), Some(Change::Loses(Trouble::Locked)));
    assert_eq!(scene.write([large(), large()]), None, "said once");
    assert_eq!(scene.writer().health(), &Health::Losing(Trouble::Locked, 3));
    rival.unlock();
    scene.later();
    assert_eq!(scene.write([EventKind::AgentReady]), Some(Change::WellAgain { lost: 3 }));
    assert_eq!(scene.numbers(), [1, 2, 3, 4, 5, 6, 7, 11], "what is lost leaves its numbers");
}

#[test]
fn a_full_disk_is_told_and_what_fits_is_kept() {
    let mut scene = Scene::new(Settings { max_pages: Some(40), ..impatient() });
    let mut changes = Vec::new();
    for _ in 0..40 {
        changes.extend(scene.write([warning(&"x".repeat(4000))]));
        scene.later();
    }
    assert_eq!(changes, [Change::Waits(Trouble::Full)], "once, though it was tried forty times");
    let kept = scene.numbers();
    assert_eq!(kept, (1..=kept.len() as u64).collect::<Vec<_>>());
    assert!(kept.len() > 10 && kept.len() < 40, "{}", kept.len());
    // With room again, as if somebody had made some, the rest follows.
    let waiting = scene.writer.take().expect("it is open");
    let Err((lost, StoreError::Full)) = waiting.close() else { panic!("there is no room yet") };
    assert_eq!(lost + kept.len(), 40);
    scene.open(Settings::default());
    scene.warn(1);
    assert_eq!(scene.numbers().len(), kept.len() + 1);
}

#[test]
fn a_lock_at_the_start_is_an_error_that_says_so() {
    let mut scene = Scene::new(impatient());
    scene.close();
    // To take the lock needs no write, but to change the version does.
    let other = Connection::open(scene.path()).expect("a database");
    other
        .execute_batch("PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE; DELETE FROM events")
        .expect("a lock");
    let Err(error) = Writer::open(&scene.path(), impatient(), 0) else { panic!("it is locked") };
    assert!(matches!(error, StoreError::Locked), "{error}");
    assert_eq!(error.to_string(), "another process holds its lock");
}

#[test]
fn sentences_name_the_file_and_what_becomes_of_events() {
    let path = std::path::Path::new("/state/journal.db");
    let sentences = [
        Change::Waits(Trouble::Full),
        Change::Loses(Trouble::Locked),
        Change::WellAgain { lost: 0 },
        Change::WellAgain { lost: 7 },
    ];
    assert_eq!(
        sentences.map(|change| change.sentence(path)),
        [
            "the journal /state/journal.db cannot be written: no space is left; events are kept in memory",
            "the journal /state/journal.db loses events: another process holds its lock",
            "the journal /state/journal.db is written again; nothing was lost",
            "the journal /state/journal.db is written again; 7 events were lost",
        ]
    );
}
