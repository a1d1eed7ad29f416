//! The gate that starts go through while the host is under pressure: whoever comes then waits in a row, and the row moves when
//! the pressure is gone, first one, then two, then four at a time.
//!
//! The kernel can wake a program when pressure rises above a threshold, not when it falls below one. So somebody looks, once a
//! second, and only while anybody waits; else nothing ever wakes for this.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use toka_core::pressure::{Admittance, allowed};
use toka_core::{Hold, PressureLimits};
use toka_sandbox::cgroup::PressureFiles;
use tokio::sync::oneshot;

/// Between two looks. The kernel averages anew every two seconds.
const LOOK: Duration = Duration::from_secs(1);

/// The gate of a project.
#[derive(Debug, Clone, Default)]
pub struct Admission(Arc<Gate>);

#[derive(Debug, Default)]
struct Gate {
    files: PressureFiles,
    row: Mutex<Row>,
}

#[derive(Debug, Default)]
struct Row {
    limits: PressureLimits,
    waiting: VecDeque<oneshot::Sender<()>>,
    /// Why the last look moved nobody, and what the first of the row waits for.
    hold: Option<Hold>,
    /// Looks in a row that found no pressure.
    calm: u32,
    /// Whether somebody looks.
    watched: bool,
}

/// What becomes of a start.
#[derive(Debug)]
pub enum Entry {
    /// It may be made.
    Go,
    /// It has to wait.
    Wait {
        /// Why.
        hold: Hold,
        /// Until when.
        turn: Turn,
    },
}

/// A place in the row; dropped, it is given up.
#[derive(Debug)]
pub struct Turn(oneshot::Receiver<()>);

impl Turn {
    /// Until the start may be made.
    pub async fn come(&mut self) {
        // A gate that is gone holds nobody.
        let _ = (&mut self.0).await;
    }
}

impl Admission {
    /// A gate that goes by these files. One without any is always open.
    pub fn new(files: PressureFiles, limits: PressureLimits) -> Self {
        let row = Mutex::new(Row { limits, ..Row::default() });
        Self(Arc::new(Gate { files, row }))
    }

    /// Goes by other limits from now on; those that wait hear of it at the next look.
    pub fn set_limits(&self, limits: PressureLimits) {
        self.row().limits = limits;
    }

    /// Asks for a start. Nobody overtakes those that wait. Must be called within a tokio runtime.
    pub fn enter(&self) -> Entry {
        if self.0.files.is_empty() {
            return Entry::Go;
        }
        let mut row = self.row();
        row.waiting.retain(|waiting| !waiting.is_closed());
        let hold = match (row.waiting.is_empty(), row.limits.decide(self.0.files.read()), row.hold) {
            (true, Admittance::Go, _) => return Entry::Go,
            (false, Admittance::Go, Some(hold)) | (_, Admittance::Wait(hold), _) => hold,
            (false, Admittance::Go, None) => return Entry::Go,
        };
        row.hold = Some(hold);
        let (turn, come) = oneshot::channel();
        row.waiting.push_back(turn);
        if !std::mem::replace(&mut row.watched, true) {
            row.calm = 0;
            tokio::spawn(self.clone().look());
        }
        Entry::Wait { hold, turn: Turn(come) }
    }

    async fn look(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let mut row = self.row();
            row.move_on(|limits| limits.decide(self.0.files.read()));
            if row.waiting.is_empty() {
                row.watched = false;
                return;
            }
        }
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        self.0.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn move_on(&mut self, decide: impl FnOnce(&PressureLimits) -> Admittance) {
        self.waiting.retain(|waiting| !waiting.is_closed());
        match decide(&self.limits) {
            Admittance::Wait(hold) => (self.hold, self.calm) = (Some(hold), 0),
            Admittance::Go => {
                let first = allowed(self.calm).min(self.waiting.len());
                // Whoever gave up meanwhile leaves a place for the next look.
                self.waiting.drain(..first).for_each(|waiting| {
                    let _ = waiting.send(());
                });
                self.calm += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gate whose host is a folder, and that folder.
    fn gate() -> (Admission, tempfile::TempDir) {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(root.path().join("proc/pressure")).expect("a folder");
        press(&root, "0.00");
        let files = PressureFiles::probe(root.path());
        (Admission::new(files, PressureLimits::default()), root)
    }

    fn press(root: &tempfile::TempDir, percent: &str) {
        let text = format!("some avg10={percent} avg60=0.00 avg300=0.00 total=0\n");
        for name in ["memory", "io"] {
            std::fs::write(root.path().join("proc/pressure").join(name), &text).expect("a file");
        }
    }

    fn waits(entry: Entry) -> (Hold, Turn) {
        match entry {
            Entry::Wait { hold, turn } => (hold, turn),
            Entry::Go => panic!("it should wait"),
        }
    }

    async fn has_come(turn: &mut Turn) -> bool {
        tokio::time::timeout(Duration::ZERO, turn.come()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_row_moves_in_growing_groups_when_the_pressure_is_gone() {
        let (gate, root) = gate();
        assert!(matches!(gate.enter(), Entry::Go));
        press(&root, "70.00");
        let mut turns: Vec<Turn> = (0..6).map(|_| waits(gate.enter()).1).collect();
        tokio::time::sleep(LOOK * 30).await;
        for turn in &mut turns {
            assert!(!has_come(turn).await, "there is pressure");
        }
        press(&root, "0.00");
        let mut late = waits(gate.enter()).1;
        for expected in [1, 3, 6] {
            tokio::time::sleep(LOOK).await;
            for (place, turn) in turns.iter_mut().enumerate() {
                // A turn that has come is not asked twice.
                let came = turn.0.is_terminated() || has_come(turn).await;
                assert_eq!(came, place < expected, "{place} of {expected}");
            }
        }
        late.come().await;
        assert!(matches!(gate.enter(), Entry::Go), "nobody waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_given_up_holds_nobody_and_other_limits_let_in() {
        let (gate, root) = gate();
        press(&root, "70.00");
        let (hold, first) = waits(gate.enter());
        assert_eq!((hold.percent, hold.limit), (70, 20));
        let mut second = waits(gate.enter()).1;
        drop(first);
        gate.set_limits(PressureLimits { memory: Some(100), io: Some(100) });
        tokio::time::sleep(LOOK + Duration::from_millis(1)).await;
        assert!(has_come(&mut second).await);
        gate.set_limits(PressureLimits::default());
        drop(waits(gate.enter()));
        press(&root, "0.00");
        assert!(matches!(gate.enter(), Entry::Go), "the only one that waited has left");
    }

    #[tokio::test]
    async fn without_figures_nothing_waits() {
        let root = tempfile::tempdir().expect("a folder");
        let nothing = PressureLimits { memory: Some(0), io: Some(0) };
        let gate = Admission::new(PressureFiles::probe(root.path()), nothing);
        assert!(matches!(gate.enter(), Entry::Go));
    }
}
