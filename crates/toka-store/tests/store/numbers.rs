//! Numbers have no gaps, whatever happens between groups.

use std::time::Duration;

use proptest::prelude::*;
use rusqlite::Connection;
use toka_core::EventKind;
use toka_store::{Durability, Retention, Settings};

use crate::Scene;

/// What may happen to a journal.
#[derive(Debug, Clone)]
enum Step {
    /// A group of so many events.
    Write(usize),
    /// Somebody takes the lock, or lets it go.
    Lock,
    Unlock,
    /// Time for another try.
    Wait,
    /// The writer ends in good order, and another begins.
    Reopen,
    Tend,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..40_usize).prop_map(Step::Write),
        1 => Just(Step::Lock),
        2 => Just(Step::Unlock),
        2 => Just(Step::Wait),
        1 => Just(Step::Reopen),
        2 => Just(Step::Tend),
    ];
    prop::collection::vec(step, 1..40)
}

fn settings() -> Settings {
    let retention = Retention { max_age: Duration::from_secs(1 << 30), max_events: 60 };
    Settings { retention, patience: Duration::ZERO, max_pages: None }
}

fn take(scene: &mut Scene, rival: &Connection, locked: &mut bool, step: &Step) {
    match step {
        Step::Write(count) => drop(scene.warn(*count)),
        Step::Lock if !*locked => {
            rival.execute_batch("BEGIN IMMEDIATE").expect("the lock");
            *locked = true;
        }
        Step::Unlock if *locked => {
            rival.execute_batch("ROLLBACK").expect("it held it");
            *locked = false;
        }
        Step::Wait => {
            scene.later();
            let now = scene.now;
            scene.writer().retry(now);
        }
        Step::Reopen if !*locked => drop(scene.open(settings())),
        // A lock is in the way, which is no matter.
        Step::Tend => drop(scene.writer().tend(0)),
        Step::Lock | Step::Unlock | Step::Reopen => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn no_interleaving_leaves_a_gap(steps in steps()) {
        let mut scene = Scene::new(settings());
        // So that there is a run that has ended, from which something may be removed.
        scene.write([EventKind::RunEnded { exit_code: 0 }]);
        let rival = Connection::open(scene.path()).expect("a database");
        let mut locked = false;
        let mut expected = 1;
        for step in &steps {
            if let Step::Write(count) = step {
                expected += *count as u64;
            }
            take(&mut scene, &rival, &mut locked, step);
            let numbers = scene.numbers();
            let gap = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]);
            prop_assert!(gap.is_none(), "{gap:?} after {step:?}");
            prop_assert_eq!(scene.reader().last_seq().expect("a journal"), scene.writer().written());
            prop_assert_eq!(scene.writer().last_seq(), expected);
        }
        take(&mut scene, &rival, &mut locked, &Step::Unlock);
        take(&mut scene, &rival, &mut locked, &Step::Wait);
        scene.writer().write(Vec::new(), Durability::Now, std::time::Instant::now());
        prop_assert_eq!(scene.writer().written(), expected, "nothing is lost");
    }
}
