//! A stopwatch that stands still while the agent is paused.
//!
//! A pause freezes the runner together with its tasks, so nothing tells it how long it was frozen; but a frozen process
//! does not look at its watch. Whoever looks at least once a [`TICK`] has been frozen (or the host was suspended) when
//! much more than that lies between two looks, and the gap then counts as one tick.

use std::time::{Duration, Instant};

/// The longest time between two looks while the process runs.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// A gap beyond this is a pause: a process that is merely short of CPU looks again within it.
const PAUSE: Duration = Duration::from_secs(5);

/// Time that was spent running.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    spent: Duration,
    looked: Instant,
}

impl Stopwatch {
    /// Starts at zero.
    pub(crate) fn start(now: Instant) -> Self {
        Self { spent: Duration::ZERO, looked: now }
    }

    /// Counts work that took so long until `now`, however long that is.
    pub(crate) fn add(&mut self, took: Duration, now: Instant) {
        (self.spent, self.looked) = (self.spent + took, now);
    }

    /// The time spent until `now`.
    pub(crate) fn look(&mut self, now: Instant) -> Duration {
        let gap = now.saturating_duration_since(self.looked);
        self.looked = now;
        self.spent += if gap > PAUSE { TICK } else { gap };
        self.spent
    }
}

/// How long to wait until the next look, when `spent` of `limit` has passed.
pub(crate) fn next_look(spent: Duration, limit: Option<Duration>) -> Duration {
    limit.map_or(TICK, |limit| limit.saturating_sub(spent).min(TICK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_counts_as_one_tick() {
        let start = Instant::now();
        let mut watch = Stopwatch::start(start);
        assert_eq!(watch.look(start + Duration::from_millis(900)), Duration::from_millis(900));
        assert_eq!(watch.look(start + Duration::from_secs(3600)), Duration::from_millis(1900));
        assert_eq!(watch.look(start + Duration::from_secs(3601)), Duration::from_millis(2900));
        assert_eq!(
            watch.look(start),
            Duration::from_millis(2900),
            "a clock that jumps back takes nothing away"
        );
    }

    #[test]
    fn it_looks_often_enough_and_not_beyond_the_limit() {
        let second = Duration::from_secs(1);
        assert_eq!(next_look(Duration::ZERO, None), TICK);
        assert_eq!(next_look(second, Some(second * 100)), TICK);
        assert_eq!(next_look(second * 9, Some(second * 9 + second / 4)), second / 4);
        assert_eq!(next_look(second * 9, Some(second)), Duration::ZERO);
    }
}
