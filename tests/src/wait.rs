//! Waiting for a condition, with a deadline and without a fixed sleep.

use std::time::{Duration, Instant};

/// How long between two looks: short beside any deadline, long beside the look.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `condition` gives something.
///
/// # Panics
/// When it gave nothing within `deadline`; the message says `what` was awaited.
pub fn until<T>(deadline: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begun.elapsed() < deadline, "waited {deadline:?} in vain for: {what}");
        std::thread::sleep(PAUSE);
    }
}
