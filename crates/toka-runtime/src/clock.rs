//! The time of one agent: it begins when the agent runs and stands still while the agent is paused.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How much of the time since `born` does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    born: Instant,
    held: Duration,
    since: Option<Instant>,
}

impl Clock {
    pub(crate) fn start(now: Instant) -> Self {
        Self { born: now, held: Duration::ZERO, since: None }
    }

    /// Stands still from `now` on.
    pub(crate) fn hold(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Goes on.
    pub(crate) fn resume(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.held += now.saturating_duration_since(since);
        }
    }

    /// Whether it stands still.
    pub(crate) fn is_held(&self) -> bool {
        self.since.is_some()
    }

    /// The time that has counted.
    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        self.since.unwrap_or(now).saturating_duration_since(self.born).saturating_sub(self.held)
    }

    /// When so much will have counted; `None` while it stands still, and where no clock reaches.
    pub(crate) fn when(&self, elapsed: Duration) -> Option<Instant> {
        if self.since.is_some() {
            return None;
        }
        self.born.checked_add(self.held)?.checked_add(elapsed)
    }
}

/// Reads a clock that somebody else holds and resumes.
#[derive(Debug, Clone)]
pub(crate) struct Time(pub(crate) watch::Receiver<Clock>);

impl Time {
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.borrow().elapsed(Instant::now())
    }

    /// Returns when so much time has counted since the agent began; never when whoever held the clock is gone while it
    /// stood still.
    pub(crate) async fn until(&mut self, elapsed: Duration) {
        loop {
            let when = self.0.borrow_and_update().when(elapsed);
            tokio::select! {
                biased;
                changed = self.0.changed() => match changed {
                    Ok(()) => {}
                    Err(_) => return at(when).await,
                },
                () = at(when) => return,
            }
        }
    }

    /// What `work` comes to, or `None` when it takes longer than `limit`.
    pub(crate) async fn within<T>(&mut self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let end = self.elapsed().saturating_add(limit);
        tokio::select! {
            biased;
            result = work => Some(result),
            () = self.until(end) => None,
        }
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn only_the_time_in_which_it_runs_counts(
            steps in prop::collection::vec((0u64..100, any::<bool>()), 0..20)
        ) {
            let mut now = Instant::now();
            let (mut clock, mut ran, mut runs) = (Clock::start(now), Duration::ZERO, true);
            for (millis, pause) in steps {
                let step = Duration::from_millis(millis);
                now += step;
                if runs {
                    ran += step;
                }
                if pause { clock.hold(now) } else { clock.resume(now) }
                runs = !pause;
                prop_assert_eq!(clock.elapsed(now), ran);
                let ahead = Duration::from_secs(1);
                prop_assert_eq!(clock.when(ran + ahead), runs.then_some(now + ahead));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_nobody_saw_counts_as_one() {
        let (held, watched) = watch::channel(Clock::start(Instant::now()));
        let begin = Instant::now();
        let mut time = Time(watched);
        let wait = tokio::spawn(async move {
            time.until(Duration::from_secs(10)).await;
            Instant::now() - begin
        });
        tokio::time::advance(Duration::from_secs(4)).await;
        // Both before the waiting task is polled again.
        held.send_modify(|clock| clock.hold(Instant::now() - Duration::from_secs(3)));
        held.send_modify(|clock| clock.resume(Instant::now()));
        assert_eq!(wait.await.expect("no panic"), Duration::from_secs(13));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_beyond_the_clock_is_none() {
        let (_held, watched) = watch::channel(Clock::start(Instant::now()));
        assert_eq!(Time(watched).within(Duration::MAX, async { 1 }).await, Some(1));
    }
}
