//! How often something that git would obey has appeared for an agent.

use std::time::{Duration, Instant};

/// How often something may appear in [`LATELY`] before the keeper ends the agent: each time git could obey it for a moment.
pub(in crate::server) const MOST_APPEARANCES: u32 = 10;
const LATELY: Duration = Duration::from_secs(60);

/// What has appeared for one agent.
#[derive(Debug, Default)]
pub(in crate::server) struct Appeared {
    /// How often since then.
    count: u32,
    since: Option<Instant>,
    /// Whether it was told that no more can be watched.
    pub(in crate::server) is_told: bool,
}

impl Appeared {
    /// Once more. Whether that is once too often.
    pub(in crate::server) fn again(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) > LATELY) {
            (self.count, self.since) = (0, Some(now));
        }
        self.count += 1;
        self.count == MOST_APPEARANCES
    }
}
