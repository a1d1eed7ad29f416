//! Files that were overwritten, cut, removed or never were a database.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use toka_core::EventKind;
use toka_store::{Change, Filter, Health, Retention, Settings, StoreError};

use crate::{Scene, warning};

const PAGE: u64 = 4096;

impl Scene {
    /// Overwrites a page of the file, from 0, and all after it if so wanted.
    fn overwrite(&self, pages: impl Iterator<Item = u64>) {
        let file = File::options().write(true).open(self.path()).expect("the file");
        for page in pages {
            file.write_all_at(&[0xa5; PAGE as usize], page * PAGE).expect("room");
        }
    }

    fn pages(&self) -> u64 {
        self.path().metadata().expect("the file").len() / PAGE
    }
}

#[test]
fn a_file_that_is_no_database_is_set_aside() {
    let mut scene = Scene::new(Settings::default());
    scene.warn(10);
    scene.close();
    scene.overwrite(0..1);
    let before = std::fs::read(scene.path()).expect("the file");
    let aside = scene.open(Settings::default()).expect("it is said");
    let kept = aside.kept.clone().expect("a name");
    assert_eq!(std::fs::read(&kept).expect("it is kept"), before);
    assert_eq!(aside.last_seq, None);
    let said = aside.to_string();
    assert!(
        said.ends_with("; numbers begin anew") && said.contains("damaged (file is not a database)"),
        "{said}"
    );
    scene.warn(2);
    assert_eq!(scene.numbers(), [1, 2]);
}

/// An index whose pages are damaged: the numbers can still be read.
#[test]
fn numbers_go_on_when_the_last_can_be_read() {
    let mut scene = Scene::new(Settings::default());
    for _ in 0..40 {
        scene.warn(100);
    }
    scene.close();
    let root: i64 = {
        let conn = rusqlite::Connection::open(scene.path()).expect("a database");
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'events_by_type'";
        conn.query_row(sql, (), |row| row.get(0)).expect("an index")
    };
    scene.overwrite(std::iter::once(u64::try_from(root).expect("a page") - 1));
    // It is found when the index is written.
    assert_eq!(scene.open(Settings::default()), None);
    let Some(Change::BegunAnew { aside, lost: 0 }) = scene.warn(5) else { panic!("it was damaged") };
    assert_eq!(aside.last_seq, Some(4000));
    assert_eq!(scene.numbers(), [4001, 4002, 4003, 4004, 4005]);
    assert!(aside.to_string().ends_with("; numbers go on after 4000"), "{aside}");
    assert_eq!(scene.writer().health(), &Health::Well);
    scene.open(Settings::default());
    assert_eq!(scene.writer().last_seq(), 4005);
}

#[test]
fn tables_that_were_overwritten_are_found_at_the_start() {
    let mut scene = Scene::new(Settings::default());
    scene.write((0..2000).map(|_| warning("some text that fills pages")));
    scene.close();
    scene.overwrite(2..scene.pages());
    let aside = scene.open(Settings::default()).expect("it is said");
    assert!(aside.kept.expect("a name").exists());
    scene.warn(1);
    assert_eq!(scene.numbers().len(), 1);
}

#[test]
fn a_file_that_was_cut_is_set_aside() {
    let mut scene = Scene::new(Settings::default());
    scene.write((0..2000).map(|_| warning("some text that fills pages")));
    scene.close();
    File::options().write(true).open(scene.path()).expect("the file").set_len(3 * PAGE).expect("cut");
    assert!(scene.open(Settings::default()).is_some());
    assert_eq!(scene.warn(1), None);
}

#[test]
fn a_file_that_is_removed_while_it_is_written_is_begun_anew_and_readers_find_it() {
    let mut scene = Scene::new(Settings::default());
    scene.warn(3);
    let mut reader = scene.reader();
    assert_eq!(reader.last_seq().expect("a journal"), 3);
    for end in ["", "-wal", "-shm"] {
        std::fs::remove_file(scene.folder.path().join(format!("journal.db{end}"))).expect("it was there");
    }
    assert_eq!(reader.last_seq().expect("no journal"), 0);
    let Some(Change::BegunAnew { aside, lost: 0 }) = scene.warn(2) else { panic!("it was removed") };
    assert_eq!((aside.kept, aside.last_seq), (None, Some(3)));
    let events = reader.events(0, &Filter::default(), 10).expect("a journal");
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [4, 5]);
}

/// What retention reads is not what is written: it finds damage that no write does.
#[test]
fn damage_that_retention_finds_is_no_end_of_the_journal() {
    let retention = Retention { max_events: 10, ..Retention::default() };
    let mut scene = Scene::new(Settings { retention, ..Settings::default() });
    scene.write((0..2000).map(|_| warning("some text that fills pages")));
    scene.write([EventKind::RunEnded { exit_code: 0 }]);
    scene.close();
    // The oldest events are in the first pages after those of the schema.
    scene.overwrite(9..20);
    assert_eq!(scene.open(Settings { retention, ..Settings::default() }), None, "nobody has noticed yet");
    let error = (0..100).find_map(|_| scene.writer().tend(0).err()).expect("it is noticed");
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    let Some(Change::BegunAnew { aside, lost: 0 }) = scene.warn(1) else { panic!("it is said") };
    assert_eq!((aside.last_seq, scene.numbers()), (Some(2001), vec![2002]));
    assert!(aside.kept.expect("a name").exists());
}

/// The damaged one is out of the way, and no other can be made: events wait, and nothing is set aside again and again.
#[test]
fn events_wait_until_another_file_can_be_begun() {
    let mut scene = Scene::new(Settings::default());
    scene.warn(3);
    for end in ["", "-wal", "-shm"] {
        std::fs::remove_file(scene.folder.path().join(format!("journal.db{end}"))).expect("it was there");
    }
    // What cannot be a database's place.
    std::fs::create_dir(scene.path()).expect("a folder");
    assert!(matches!(scene.warn(2), Some(Change::Waits(_))));
    for _ in 0..5 {
        scene.later();
        assert_eq!(scene.warn(1), None);
    }
    std::fs::remove_dir(scene.path()).expect("an empty folder");
    scene.later();
    let Some(Change::BegunAnew { aside, lost: 0 }) = scene.warn(1) else { panic!("it can be begun") };
    assert_eq!((aside.last_seq, scene.numbers()), (Some(3), (4..=11).collect::<Vec<_>>()));
    let names = scene.folder.path().read_dir().expect("the folder").flatten();
    let aside: Vec<_> = names.filter(|name| name.file_name().to_string_lossy().contains("damaged")).collect();
    assert!(aside.is_empty(), "{aside:?}");
}
