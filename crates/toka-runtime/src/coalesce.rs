//! Thins out what an agent reports of itself: at most one event per [`INTERVAL`], the last word never lost, and no
//! timer while there is nothing to wait for.

use std::time::Duration;

use toka_core::Progress;
use toka_core::rpc::{MAX_METRICS, Metrics};
use tokio::time::Instant;

/// Least time between two events of one kind of one agent: twenty a second are more than a person sees.
pub(crate) const INTERVAL: Duration = Duration::from_millis(50);

/// A report that a later one can be merged into.
pub(crate) trait Merge {
    /// Takes over what `later` says.
    fn merge(&mut self, later: Self);
}

impl Merge for Progress {
    fn merge(&mut self, later: Self) {
        Progress::merge(self, later);
    }
}

impl Merge for Metrics {
    fn merge(&mut self, later: Self) {
        for (name, value) in later.values {
            // An agent that invents ever new names cannot make us hold them all.
            if self.values.len() < MAX_METRICS || self.values.contains_key(&name) {
                self.values.insert(name, value);
            }
        }
    }
}

/// Holds back at most one report.
#[derive(Debug)]
pub(crate) struct Coalescer<T> {
    last: Option<Instant>,
    held: Option<T>,
}

impl<T> Default for Coalescer<T> {
    fn default() -> Self {
        Self { last: None, held: None }
    }
}

impl<T: Merge> Coalescer<T> {
    /// Takes a report; gives back what is to be told at once.
    pub(crate) fn offer(&mut self, report: T, now: Instant) -> Option<T> {
        match &mut self.held {
            Some(held) => held.merge(report),
            None => self.held = Some(report),
        }
        self.take_due(now)
    }

    /// When [`Coalescer::take_due`] will give something, if anything is held.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.held.as_ref()?;
        self.last.map(|last| last + INTERVAL)
    }

    /// What is held, if its time has come.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<T> {
        if self.last.is_some_and(|last| now < last + INTERVAL) {
            return None;
        }
        let report = self.held.take()?;
        self.last = Some(now);
        Some(report)
    }

    /// What is held, whether or not its time has come: for the end.
    pub(crate) fn flush(&mut self) -> Option<T> {
        self.held.take()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(fraction: f64) -> Progress {
        Progress { fraction: Some(fraction), ..Progress::default() }
    }

    proptest! {
        #[test]
        fn few_events_and_never_a_lost_last_word(gaps in prop::collection::vec(0u64..80, 1..60)) {
            let mut coalescer = Coalescer::<Progress>::default();
            let mut now = Instant::now();
            let mut told: Vec<(Instant, f64)> = Vec::new();
            let total = gaps.len();
            for (number, gap) in gaps.into_iter().enumerate() {
                let next = now + Duration::from_millis(gap);
                if let Some(due) = coalescer.due().filter(|due| *due <= next) {
                    told.extend(coalescer.take_due(due).map(|p| (due, p.fraction.expect("a fraction"))));
                }
                now = next;
                told.extend(coalescer.offer(at(number as f64 / 100.0), now).map(|p| (now, p.fraction.expect("a fraction"))));
            }
            told.extend(coalescer.flush().map(|p| (now + INTERVAL, p.fraction.expect("a fraction"))));
            prop_assert_eq!(told.last().map(|(_, fraction)| *fraction), Some((total - 1) as f64 / 100.0));
            prop_assert!(told.windows(2).all(|pair| pair[1].0 - pair[0].0 >= INTERVAL));
            prop_assert_eq!(coalescer.due(), None);
        }
    }

    #[test]
    fn metrics_are_bounded() {
        let mut all = Metrics::default();
        for number in 0..2 * MAX_METRICS {
            all.merge(Metrics { values: [(format!("m{number}"), 1.0)].into() });
        }
        assert_eq!(all.values.len(), MAX_METRICS);
    }
}
