//! Readers beside a writer.

use std::os::unix::fs::PermissionsExt as _;

use rusqlite::Connection;
use toka_core::{EventKind, Name, RunId};
use toka_store::{Ending, Filter, Reader, Run, Settings, StoreError};
use uuid::Uuid;

use crate::{Scene, started, warning};

#[test]
fn what_was_written_is_read_while_the_writer_goes_on() {
    let mut scene = Scene::new(Settings::default());
    let mut reader = scene.reader();
    assert_eq!(reader.last_seq().expect("empty"), 0);
    for round in 1..=3 {
        scene.warn(10);
        assert_eq!(reader.last_seq().expect("a journal"), round * 10);
        let page = reader.events(round * 10 - 5, &Filter::default(), 3).expect("a page");
        let numbers: Vec<u64> = page.iter().map(|event| event.seq).collect();
        assert_eq!(numbers, [round * 10 - 4, round * 10 - 3, round * 10 - 2]);
        assert_eq!(page[0].kind, warning("5"));
        assert_eq!((page[0].project.as_str(), page[0].run), ("project", scene.run));
    }
}

#[test]
fn a_reader_of_nothing_makes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut reader = Reader::new(folder.path().join("journal.db"));
    assert_eq!(reader.last_seq().expect("empty"), 0);
    assert_eq!(reader.events(0, &Filter::default(), 10).expect("empty"), []);
    assert_eq!(reader.runs(10).expect("empty"), []);
    assert_eq!(folder.path().read_dir().expect("the folder").count(), 0);
    // A file that another process has just made.
    std::fs::write(folder.path().join("journal.db"), "").expect("a file");
    assert_eq!(reader.last_seq().expect("empty"), 0);
}

#[test]
fn a_filter_takes_agent_type_and_run_together() {
    let mut scene = Scene::new(Settings::default());
    for run in 1..=2 {
        scene.run = RunId::from_uuid(Uuid::from_u128(run));
        for agent in ["one", "two"] {
            scene.write_about(Some(agent), [EventKind::AgentStarting, EventKind::AgentReady, warning("x")]);
        }
        scene.write([warning("nobody's")]);
    }
    let agent = Some(Name::new("two").expect("a label"));
    let run = Some(RunId::from_uuid(Uuid::from_u128(1)));
    let types = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (filter, expected) in [
        (Filter { agent: agent.clone(), ..Filter::default() }, vec![4, 5, 6, 11, 12, 13]),
        (Filter { types: types(&["warning"]), ..Filter::default() }, vec![3, 6, 7, 10, 13, 14]),
        (Filter { types: types(&["warning", "progress"]), ..Filter::default() }, vec![3, 6, 7, 10, 13, 14]),
        (Filter { run, ..Filter::default() }, (1..=7).collect()),
        (Filter { agent: agent.clone(), types: types(&["agent_ready", "warning"]), run }, vec![5, 6]),
        (Filter { agent, types: types(&["progress"]), run }, vec![]),
        (Filter { run: Some(RunId::from_uuid(Uuid::from_u128(3))), ..Filter::default() }, vec![]),
    ] {
        let events = scene.reader().events(0, &filter, 100).expect("a page");
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), expected, "{filter:?}");
    }
    let of_run = scene.reader().events_of_run(RunId::from_uuid(Uuid::from_u128(2))).expect("a run");
    assert_eq!(of_run.iter().map(|event| event.seq).collect::<Vec<_>>(), (8..=14).collect::<Vec<_>>());
}

#[test]
fn runs_are_kept_with_their_events() {
    let mut scene = Scene::new(Settings::default());
    let project = Name::new("project").expect("a label");
    let id = |run| RunId::from_uuid(Uuid::from_u128(run));
    scene.time_ms = 5;
    scene.write([started()]);
    scene.time_ms = 9;
    scene.write([warning("x"), EventKind::RunEnded { exit_code: 3 }]);
    scene.run = id(2);
    scene.write([warning("it got no further")]);
    let ended = Some(Ending { time_ms: 9, exit_code: 3 });
    let first = Run {
        id: id(1),
        project: project.clone(),
        first_seq: 1,
        started_ms: 5,
        ended,
        workspace: Some("/workspace".into()),
    };
    let second = Run { id: id(2), project, first_seq: 4, started_ms: 9, ended: None, workspace: None };
    assert_eq!(scene.reader().runs(10).expect("runs"), [second.clone(), first]);
    assert_eq!(scene.reader().runs(1).expect("runs"), [second]);
}

#[test]
fn a_row_of_a_newer_program_is_passed_over_and_counted() {
    let mut scene = Scene::new(Settings::default());
    scene.warn(3);
    let other = Connection::open(scene.path()).expect("a database");
    let changed = other.execute("UPDATE events SET body = '{\"type\":\"agent_dreams\"}' WHERE seq = 2", ());
    assert_eq!(changed.expect("a row"), 1);
    let mut reader = scene.reader();
    let page = reader.events(0, &Filter::default(), 2).expect("a page");
    assert_eq!(
        page.iter().map(|event| event.seq).collect::<Vec<_>>(),
        [1, 3],
        "the page is full all the same"
    );
    assert_eq!(reader.unreadable(), 1);
}

#[test]
fn a_newer_database_is_refused_by_both_ends() {
    let mut scene = Scene::new(Settings::default());
    scene.warn(1);
    scene.close();
    let other = Connection::open(scene.path()).expect("a database");
    other.pragma_update(None, "user_version", 99).expect("a version");
    drop(other);
    let newer = |error: StoreError| matches!(error, StoreError::Newer { found: 99, .. });
    assert!(newer(scene.reader().last_seq().expect_err("it is newer")));
    let Err(error) = toka_store::Writer::open(&scene.path(), Settings::default(), 0) else {
        panic!("it is newer")
    };
    assert!(newer(error), "and it is not set aside");
}

#[test]
fn nobody_else_may_read_it() {
    let mut scene = Scene::new(Settings::default());
    scene.warn(1);
    for entry in scene.folder.path().read_dir().expect("the folder").flatten() {
        let mode = entry.metadata().expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
}

#[test]
fn a_reader_of_a_page_holds_no_writer_up() {
    let mut scene = Scene::new(Settings::default());
    scene.warn(5);
    let other = Connection::open(scene.path()).expect("a database");
    // In the middle of a query.
    let mut statement = other.prepare("SELECT seq FROM events").expect("a query");
    let mut rows = statement.query(()).expect("rows");
    assert!(rows.next().expect("a row").is_some());
    assert_eq!(scene.warn(5), None);
    assert_eq!(scene.numbers().len(), 10);
}
