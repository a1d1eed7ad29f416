//! The chain through a journal, in a real file that somebody else writes to.

use rusqlite::Connection;
use toka_store::{Broken, Retention, Settings, Tended, Verified};

use crate::{Scene, warning};

fn of_rows(many: u64) -> Scene {
    let mut scene = Scene::new(Settings::default());
    for group in 0..many / 5 {
        scene.write((0..5).map(|at| warning(&format!("{group} {at}"))));
    }
    scene
}

fn verified(scene: &Scene) -> Verified {
    scene.reader().verify(None).expect("a journal")
}

/// What is found when somebody has done this to the file.
fn after(sql: &str) -> Vec<Broken> {
    let mut scene = of_rows(20);
    scene.close();
    Connection::open(scene.path()).and_then(|conn| conn.execute_batch(sql)).expect("a database");
    verified(&scene).broken
}

#[test]
fn a_journal_is_whole_over_groups_and_openings() {
    let mut scene = of_rows(20);
    scene.open(Settings::default());
    scene.write_about(Some("a"), [warning("and so on")]);
    let found = verified(&scene);
    assert_eq!((found.rows, found.without_link, found.broken.as_slice()), (21, 0, [].as_slice()));
    let head = found.head.expect("rows");
    scene.write([warning("more")]);
    assert_eq!(scene.reader().verify(Some(head)).expect("a journal").broken, []);
}

#[test]
fn whatever_somebody_does_to_a_row_is_found() {
    let changed = |seq| vec![Broken::Changed { seq }];
    assert_eq!(after("UPDATE events SET body = replace(body, '1', '2') WHERE seq = 7"), changed(7));
    assert_eq!(after("UPDATE events SET time_ms = time_ms + 1 WHERE seq = 7"), changed(7));
    assert_eq!(after("UPDATE events SET agent = 'other' WHERE seq = 7"), changed(7));
    assert_eq!(after("UPDATE events SET type = 'progress' WHERE seq = 7"), changed(7));
    assert_eq!(after("UPDATE events SET link = NULL WHERE seq = 7"), changed(7));
    assert_eq!(after("DELETE FROM events WHERE seq BETWEEN 7 AND 9"), [Broken::Missing { from: 7, to: 9 }]);
    assert_eq!(after("DELETE FROM events WHERE seq < 3"), [Broken::Missing { from: 1, to: 2 }]);
    let swap = "UPDATE events SET seq = 100 WHERE seq = 7; UPDATE events SET seq = 7 WHERE seq = 8; UPDATE events SET seq = 8 WHERE seq = 100";
    assert!(!after(swap).is_empty());
    assert!(!after("UPDATE runs SET id = '00000000-0000-0000-0000-000000000009'").is_empty());
    assert_eq!(after("UPDATE events SET link = NULL").len(), 20, "an older program wrote none of these");
}

#[test]
fn what_retention_removes_leaves_a_chain() {
    let retention = Retention { max_events: 8, ..Retention::default() };
    let mut scene = Scene::new(Settings { retention, ..Settings::default() });
    scene.write([crate::started()]);
    scene.write((0..20).map(|at| warning(&at.to_string())));
    scene.run = toka_core::RunId::from_uuid(uuid::Uuid::from_u128(2));
    scene.write([crate::started(), warning("the last")]);
    while scene.writer().tend(0).expect("a disk") == Tended::More {}
    let found = verified(&scene);
    assert!(found.removed > 0 && found.rows < 22, "{found:?}");
    assert_eq!(found.broken, []);
    scene.open(Settings::default());
    scene.write([warning("goes on")]);
    assert_eq!(verified(&scene).broken, []);
}

#[test]
fn a_journal_of_an_older_program_is_gone_on_with() {
    let scene = of_rows(5);
    let path = scene.path();
    drop(scene.reader());
    let mut scene = scene;
    scene.close();
    let older = "ALTER TABLE events DROP COLUMN link; ALTER TABLE removed DROP COLUMN link; ALTER TABLE removed DROP COLUMN unlinked; PRAGMA user_version = 1";
    Connection::open(&path).and_then(|conn| conn.execute_batch(older)).expect("a database");
    let found = verified(&scene);
    assert_eq!((found.rows, found.without_link, found.head), (5, 5, None));
    scene.open(Settings::default());
    scene.write([warning("goes on"), warning("with a chain")]);
    let found = verified(&scene);
    assert_eq!((found.rows, found.without_link, found.broken.as_slice()), (7, 5, [].as_slice()));
    assert_eq!(found.head.map(|head| head.seq), Some(7));
}
