//! What an agent uses, made from counters that are read every second: shares of a CPU, and a history to draw.

use std::collections::VecDeque;
use std::time::Duration;

use toka_core::Resources;

/// Samples that are kept of an agent: at one a second, four minutes.
const MOST_SAMPLES: usize = 240;
/// Samples closer together than this say nothing about a share of CPU.
const LEAST_APART: Duration = Duration::from_millis(200);

/// What is known of an agent's use.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Figures {
    /// What it used when it was looked at last; `None` when it had no process.
    pub(crate) now: Option<Resources>,
    /// Share of one CPU since the look before, in percent.
    pub(crate) cpu: Option<f64>,
    /// Shares of one CPU in tenths of a percent, oldest first.
    cpu_history: VecDeque<u64>,
    /// Memory in bytes, oldest first.
    memory_history: VecDeque<u64>,
    /// The counter of CPU time that the next share is reckoned from, and when it was read.
    before: Option<(Duration, u64)>,
}

impl Figures {
    /// Takes what was read `at` a time of a clock that only goes forward.
    pub(crate) fn sample(&mut self, at: Duration, resources: Option<Resources>) {
        self.now = resources;
        let counter = resources.and_then(|resources| resources.cpu_us);
        self.cpu = match (self.before, counter) {
            (Some((then, before)), Some(counter)) => share(before, counter, at.saturating_sub(then)),
            _ => None,
        };
        self.before = counter.map(|counter| (at, counter));
        let memory = resources.and_then(|resources| resources.memory_current);
        push(&mut self.cpu_history, (self.cpu.unwrap_or(0.0) * 10.0).round() as u64);
        push(&mut self.memory_history, memory.unwrap_or(0));
    }

    /// Memory that it holds, in bytes.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.now.and_then(|now| now.memory_current)
    }

    /// The last `count` shares of CPU in tenths of a percent, newest first.
    pub(crate) fn cpu_history(&self, count: usize) -> Vec<u64> {
        self.cpu_history.iter().rev().take(count).copied().collect()
    }

    /// The last `count` amounts of memory in bytes, newest first.
    pub(crate) fn memory_history(&self, count: usize) -> Vec<u64> {
        self.memory_history.iter().rev().take(count).copied().collect()
    }
}

fn push(history: &mut VecDeque<u64>, value: u64) {
    if history.len() == MOST_SAMPLES {
        history.pop_front();
    }
    history.push_back(value);
}

/// Percent of one CPU; none when the counter went back, as it does with a new life, or the looks are too close.
fn share(before_us: u64, counter_us: u64, apart: Duration) -> Option<f64> {
    if apart < LEAST_APART {
        return None;
    }
    let used = counter_us.checked_sub(before_us)?;
    Some(used as f64 * 100.0 / apart.as_micros() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(cpu_us: u64) -> Option<Resources> {
        Some(Resources { cpu_us: Some(cpu_us), memory_current: Some(7), ..Resources::default() })
    }

    #[test]
    fn a_share_is_what_was_used_between_two_looks() {
        let mut figures = Figures::default();
        let mut seen = Vec::new();
        for (at_ms, resources) in [
            (0, used(1_000_000)),
            (1000, used(1_500_000)),
            (3000, used(5_500_000)),
            // A new life counts from the beginning.
            (4000, used(10)),
            (5000, used(10)),
            (6000, None),
            (7000, used(500)),
        ] {
            figures.sample(Duration::from_millis(at_ms), resources);
            seen.push(figures.cpu);
        }
        assert_eq!(seen, [None, Some(50.0), Some(200.0), None, Some(0.0), None, None]);
        assert_eq!(figures.cpu_history(3), [0, 0, 0]);
        assert_eq!(figures.cpu_history(99), [0, 0, 0, 0, 2000, 500, 0]);
        assert_eq!(figures.memory_history(2), [7, 0]);
    }

    #[test]
    fn the_history_does_not_grow_without_end() {
        let mut figures = Figures::default();
        for second in 0..1000 {
            figures.sample(Duration::from_secs(second), used(second));
        }
        assert_eq!(figures.cpu_history(usize::MAX).len(), MOST_SAMPLES);
    }
}
