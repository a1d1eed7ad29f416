//! What retention removes, and what it never does.

use std::time::Duration;

use toka_core::{EventKind, RunId};
use toka_store::{Retention, Settings, Tended};
use uuid::Uuid;

use crate::{Scene, started, warning};

const DAY: i64 = 24 * 60 * 60 * 1000;

fn keeping(max_events: u64, days: u64) -> Settings {
    let max_age = Duration::from_secs(days * 24 * 60 * 60);
    Settings { retention: Retention { max_age, max_events }, ..Settings::default() }
}

impl Scene {
    /// A run of so many events between its first and its last.
    fn run_of(&mut self, run: u128, events: usize) {
        self.run = RunId::from_uuid(Uuid::from_u128(run));
        self.write([started()]);
        self.write((0..events).map(|_| warning("some text that takes a little room")));
        self.write([EventKind::RunEnded { exit_code: 0 }]);
    }

    /// Tends the journal until nothing is left to do, and says how often that was.
    fn tend(&mut self, now_ms: i64) -> usize {
        (1..).find(|_| self.writer().tend(now_ms).expect("a disk") == Tended::Done).expect("it ends")
    }

    fn runs(&self) -> usize {
        self.reader().runs(100).expect("runs").len()
    }
}

#[test]
fn the_oldest_beyond_the_count_go_and_the_file_shrinks() {
    let mut scene = Scene::new(keeping(100, 30));
    for run in 1..=5 {
        scene.run_of(run, 998);
    }
    let size = |scene: &mut Scene| {
        scene.close();
        let size = scene.path().metadata().expect("the file").len();
        scene.open(keeping(100, 30));
        size
    };
    let before = size(&mut scene);
    let batches = scene.tend(0);
    assert!(batches > 5, "in small batches, not {batches}");
    assert_eq!(scene.numbers(), (4901..=5000).collect::<Vec<_>>());
    assert_eq!(scene.runs(), 1, "a run without events is gone");
    let after = size(&mut scene);
    assert!(after * 4 < before, "{before} to {after} bytes");
    scene.warn(1);
    assert_eq!(scene.numbers().last(), Some(&5001), "numbers go on");
}

#[test]
fn what_is_too_old_goes_up_to_the_first_that_is_not() {
    let mut scene = Scene::new(keeping(1_000_000, 30));
    for (run, day) in [(1, 0), (2, 20), (3, 40)] {
        scene.time_ms = day * DAY;
        scene.run_of(run, 8);
    }
    scene.tend(29 * DAY);
    assert_eq!(scene.numbers(), (1..=30).collect::<Vec<_>>());
    scene.tend(31 * DAY);
    assert_eq!((scene.numbers(), scene.runs()), ((11..=30).collect::<Vec<_>>(), 2));
    scene.tend(100 * DAY);
    assert_eq!((scene.numbers(), scene.runs()), (vec![], 0));
    // Nothing is left, and yet no number comes twice: neither now nor for the next daemon.
    assert_eq!(scene.reader().last_seq().expect("a journal"), 30);
    scene.warn(1);
    scene.tend(100 * DAY);
    scene.open(keeping(1_000_000, 30));
    scene.time_ms = 100 * DAY;
    scene.warn(1);
    let numbers = scene.numbers();
    assert_eq!(numbers.last(), Some(&32), "{numbers:?}");
    assert_eq!(scene.reader().events_of_run(scene.run).expect("its row is there again").len(), numbers.len());
}

#[test]
fn the_run_that_goes_on_is_kept_whole() {
    let mut scene = Scene::new(keeping(5, 1));
    scene.run_of(1, 8);
    scene.run = RunId::from_uuid(Uuid::from_u128(2));
    scene.write([started()]);
    scene.warn(50);
    scene.tend(100 * DAY);
    assert_eq!(scene.numbers(), (11..=61).collect::<Vec<_>>());
    scene.write([EventKind::RunEnded { exit_code: 0 }]);
    scene.tend(0);
    assert_eq!(scene.numbers(), (58..=62).collect::<Vec<_>>());
}
