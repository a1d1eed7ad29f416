//! A deadline that can stand still: the timeout of an agent, which does not run while the agent is paused.

use std::time::Duration;

use tokio::time::Instant;

/// Time left, on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Countdown {
    /// There is no end.
    Never,
    /// Ends then.
    Running {
        /// When.
        until: Instant,
    },
    /// Stands still.
    Held {
        /// With so much left.
        left: Duration,
    },
}

impl Countdown {
    /// Begins to run.
    pub(crate) fn start(length: Option<Duration>, now: Instant) -> Self {
        match length.and_then(|length| now.checked_add(length)) {
            Some(until) => Self::Running { until },
            None => Self::Never,
        }
    }

    /// Stands still from `now` on.
    pub(crate) fn hold(self, now: Instant) -> Self {
        match self {
            Self::Running { until } => Self::Held { left: until.saturating_duration_since(now) },
            other => other,
        }
    }

    /// Goes on.
    pub(crate) fn resume(self, now: Instant) -> Self {
        match self {
            Self::Held { left } => Self::start(Some(left), now),
            other => other,
        }
    }

    /// Ends no earlier than `length` after `now`; while it stands still, no less than that is left.
    pub(crate) fn extend(self, length: Duration, now: Instant) -> Self {
        match self {
            Self::Never => Self::Never,
            Self::Running { until } => match now.checked_add(length) {
                Some(later) => Self::Running { until: until.max(later) },
                None => Self::Never,
            },
            Self::Held { left } => Self::Held { left: left.max(length) },
        }
    }

    /// When it ends, if it runs.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Running { until } => Some(until),
            Self::Never | Self::Held { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn only_the_time_in_which_it_runs_counts(
            length in 1u64..1000, steps in prop::collection::vec((0u64..100, any::<bool>()), 0..20)
        ) {
            let begin = Instant::now();
            let (mut now, mut ran) = (begin, Duration::ZERO);
            let mut countdown = Countdown::start(Some(Duration::from_millis(length)), now);
            for (millis, pause) in steps {
                let step = Duration::from_millis(millis);
                if countdown.deadline().is_some() {
                    ran += step;
                }
                now += step;
                countdown = if pause { countdown.hold(now) } else { countdown.resume(now) };
                let left = Duration::from_millis(length).saturating_sub(ran);
                match countdown {
                    Countdown::Running { until } if ran.as_millis() < u128::from(length) => {
                        prop_assert_eq!(until - now, left);
                    }
                    Countdown::Running { until } => prop_assert!(until <= now),
                    Countdown::Held { left: held } => prop_assert_eq!(held, left),
                    Countdown::Never => prop_assert!(false),
                }
            }
        }
    }

    #[test]
    fn an_extension_never_shortens() {
        let now = Instant::now();
        let ten = Countdown::start(Some(Duration::from_secs(10)), now);
        assert_eq!(ten.extend(Duration::from_secs(5), now), ten);
        assert_eq!(ten.extend(Duration::from_secs(15), now).deadline(), Some(now + Duration::from_secs(15)));
        let held = ten.hold(now).extend(Duration::from_secs(15), now);
        assert_eq!(held, Countdown::Held { left: Duration::from_secs(15) });
        assert_eq!(Countdown::Never.extend(Duration::from_secs(1), now), Countdown::Never);
        assert_eq!(ten.extend(Duration::MAX, now), Countdown::Never);
    }

    #[test]
    fn a_timeout_beyond_the_clock_is_none() {
        assert_eq!(Countdown::start(Some(Duration::MAX), Instant::now()), Countdown::Never);
    }
}
