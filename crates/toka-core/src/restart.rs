//! When an ended agent is started again, and when it is given up: one pure function of its earlier lives, its end, the
//! time and a random number.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::Exit;

/// `spec.restart`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Restart {
    /// After which ends.
    pub policy: RestartPolicy,
    /// Restarts within [`Restart::window`] before there is none any more.
    pub max_restarts: MaxRestarts,
    /// What becomes of it then.
    pub when_exhausted: WhenExhausted,
    /// The time over which restarts are counted.
    pub window: Duration,
    /// The wait before each restart.
    pub backoff: Backoff,
}

impl Restart {
    /// The given policy with every other value at its default.
    pub fn with_policy(policy: RestartPolicy) -> Self {
        Self {
            policy,
            max_restarts: MaxRestarts::Limited(5),
            when_exhausted: WhenExhausted::default(),
            window: Duration::from_secs(600),
            backoff: Backoff::default(),
        }
    }
}

/// How many restarts are made within the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxRestarts {
    /// So many.
    Limited(u32),
    /// As many as it takes.
    Unlimited,
}

impl Serialize for MaxRestarts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Limited(most) => serializer.serialize_u32(*most),
            Self::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

/// What becomes of an agent that was restarted as often as it may be, and has ended once more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenExhausted {
    /// It is quarantined: a failure, which somebody has to look into.
    #[default]
    Fail,
    /// Its last end is its end, and counts as what it is.
    Accept,
}

/// After which ends an agent is started again; the names are systemd's and Compose's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    No,
    /// After every end that nobody asked for.
    Always,
    /// After every end but a success.
    OnFailure,
    /// After a signal, a timeout, the watchdog, a probe or too much memory, not after an exit code or a failed start.
    OnAbnormal,
    /// After the watchdog or a probe only.
    OnWatchdog,
    /// Like always, and not after a stop that outlives the supervisor.
    UnlessStopped,
}

/// The wait before a restart, which grows from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Backoff {
    /// Before the first restart in a row.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// Growth, at least 1.
    pub multiplier: f64,
    /// Share of the wait that is drawn at random, 0 to 1.
    pub jitter: f64,
    /// After a life this long the next restart is immediate, and the waits begin anew.
    pub reset_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(60),
            multiplier: 2.0,
            jitter: 0.25,
            reset_after: Duration::from_secs(60),
        }
    }
}

/// What is to become of an agent that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its end is its end.
    Final,
    /// It is started again.
    Again {
        /// The wait before.
        after: Duration,
        /// Which restart it is, from 1.
        restarts: u32,
    },
    /// It was restarted too often.
    GiveUp {
        /// How often it was.
        restarts: u32,
    },
}

/// What counts of an agent's earlier lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lives {
    /// When it was restarted, within the window, the earliest first.
    recent: VecDeque<Duration>,
    /// How often it was restarted at all.
    restarts: u32,
    /// Ends in a row that came before [`Backoff::reset_after`].
    hasty: u32,
}

impl Lives {
    /// Those that somebody else has counted. `ago` tells for each restart how long ago it was, the earliest first, `now` is
    /// what [`Restart::decide`] is told next, and `hasty` how many of the last were not immediate, in a row.
    pub fn recalled(ago: &[Duration], now: Duration, restarts: u32, hasty: u32) -> Self {
        // What was before this clock began to run counts as its beginning: too early rather than too late.
        let recent = ago.iter().map(|ago| now.saturating_sub(*ago)).collect();
        Self { recent, restarts, hasty }
    }

    /// How often it was restarted.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }
}

impl RestartPolicy {
    /// Whether an agent that ended so is started again. What somebody stopped, what the policy refuses, and what has used up its budget,
    /// never is.
    pub fn wants(self, exit: &Exit) -> bool {
        if exit.is_asked_for()
            || exit.is_skipped()
            || matches!(exit, Exit::Denied { .. } | Exit::Budget { .. })
        {
            return false;
        }
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure => !exit.is_success(),
            Self::OnAbnormal => !matches!(
                exit,
                Exit::Code { .. } | Exit::Accepted { .. } | Exit::StartFailed { .. } | Exit::Undone { .. }
            ),
            Self::OnWatchdog => matches!(exit, Exit::Watchdog { .. } | Exit::Probe { .. }),
        }
    }
}

impl Restart {
    /// Decides at `now`, on any clock that only goes forward, about an agent that ended with `exit` after having `lived` so
    /// long. `draw` is a random number from 0 to 1. The first restart after a life of [`Backoff::reset_after`] is
    /// immediate; each further one in a row waits longer.
    pub fn decide(
        &self,
        lives: &mut Lives,
        exit: &Exit,
        lived: Duration,
        now: Duration,
        draw: f64,
    ) -> Verdict {
        if !self.policy.wants(exit) {
            return Verdict::Final;
        }
        while lives.recent.front().is_some_and(|at| now.saturating_sub(*at) >= self.window) {
            lives.recent.pop_front();
        }
        if let MaxRestarts::Limited(most) = self.max_restarts
            && lives.recent.len() >= most as usize
        {
            return match self.when_exhausted {
                WhenExhausted::Fail => Verdict::GiveUp { restarts: lives.restarts },
                WhenExhausted::Accept => Verdict::Final,
            };
        }
        if self.max_restarts == MaxRestarts::Unlimited {
            // Nobody counts them: a list of all would grow for ever.
            lives.recent.clear();
        }
        let after = if lived >= self.backoff.reset_after {
            lives.hasty = 0;
            Duration::ZERO
        } else {
            lives.hasty = lives.hasty.saturating_add(1);
            self.backoff.wait(lives.hasty, draw)
        };
        lives.recent.push_back(now + after);
        lives.restarts = lives.restarts.saturating_add(1);
        Verdict::Again { after, restarts: lives.restarts }
    }
}

impl Backoff {
    /// The wait before the restart of this number in a row, from 1: never more than [`Backoff::max`], and less by at most
    /// the share of [`Backoff::jitter`].
    fn wait(&self, number: u32, draw: f64) -> Duration {
        let exponent = i32::try_from(number.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial.as_secs_f64() * self.multiplier.max(1.0).powi(exponent);
        let capped = grown.min(self.max.as_secs_f64());
        let share = 1.0 - self.jitter.clamp(0.0, 1.0) * draw.clamp(0.0, 1.0);
        Duration::try_from_secs_f64(capped * share).unwrap_or(self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILED: Exit = Exit::Code { code: 1 };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn policies_want_what_their_names_say() {
        let signal = Exit::Signal { signal: 11, core: false };
        let watchdog = Exit::Watchdog { limit: seconds(1) };
        let exits = [Exit::Code { code: 0 }, FAILED, signal, watchdog, Exit::stopped("me")];
        let check = |policy: RestartPolicy, expected: [bool; 5]| {
            assert_eq!(exits.each_ref().map(|exit| policy.wants(exit)), expected, "{policy:?}");
        };
        check(RestartPolicy::No, [false; 5]);
        check(RestartPolicy::Always, [true, true, true, true, false]);
        check(RestartPolicy::UnlessStopped, [true, true, true, true, false]);
        check(RestartPolicy::OnFailure, [false, true, true, true, false]);
        check(RestartPolicy::OnAbnormal, [false, false, true, true, false]);
        check(RestartPolicy::OnWatchdog, [false, false, false, true, false]);
    }

    #[test]
    fn waits_double_to_the_cap_and_then_it_is_given_up() {
        let mut restart = Restart::with_policy(RestartPolicy::OnFailure);
        restart.backoff.max = seconds(6);
        let mut lives = Lives::default();
        let mut now = Duration::ZERO;
        for expected in [1, 2, 4, 6, 6] {
            now += seconds(1);
            let verdict = restart.decide(&mut lives, &FAILED, seconds(1), now, 0.0);
            assert!(
                matches!(verdict, Verdict::Again { after, .. } if after == seconds(expected)),
                "{verdict:?}"
            );
        }
        let verdict = restart.decide(&mut lives, &FAILED, seconds(1), now, 0.0);
        assert_eq!(verdict, Verdict::GiveUp { restarts: 5 });
    }

    #[test]
    fn a_stable_life_is_followed_by_the_next_at_once_and_forgets_the_hasty_ones() {
        let restart = Restart::with_policy(RestartPolicy::Always);
        let mut lives = Lives::default();
        let mut after = |lived| match restart.decide(&mut lives, &FAILED, lived, Duration::ZERO, 0.0) {
            Verdict::Again { after, .. } => after,
            other => panic!("{other:?}"),
        };
        let waits = [seconds(0), seconds(60), seconds(0)].map(&mut after);
        assert_eq!(waits, [seconds(1), seconds(0), seconds(1)]);
    }

    #[test]
    fn an_agent_may_be_restarted_without_a_limit_or_end_as_it_ended_last() {
        let mut restart = Restart::with_policy(RestartPolicy::OnFailure);
        let mut lives = Lives::default();
        restart.max_restarts = MaxRestarts::Unlimited;
        for _ in 0..1000 {
            let verdict = restart.decide(&mut lives, &FAILED, seconds(1), seconds(1), 0.0);
            assert!(matches!(verdict, Verdict::Again { .. }), "{verdict:?}");
        }
        assert!(lives.recent.len() <= 1, "nothing grows with the number of restarts");
        (restart.max_restarts, restart.when_exhausted) = (MaxRestarts::Limited(0), WhenExhausted::Accept);
        assert_eq!(
            restart.decide(&mut Lives::default(), &FAILED, seconds(1), seconds(1), 0.0),
            Verdict::Final
        );
    }

    #[test]
    fn restarts_outside_the_window_do_not_count() {
        let mut restart = Restart::with_policy(RestartPolicy::Always);
        (restart.max_restarts, restart.window) = (MaxRestarts::Limited(1), seconds(10));
        let mut lives = Lives::default();
        let mut at = |now| restart.decide(&mut lives, &FAILED, seconds(60), seconds(now), 0.0);
        let again = |restarts| Verdict::Again { after: Duration::ZERO, restarts };
        assert_eq!([0, 9, 10].map(&mut at), [again(1), Verdict::GiveUp { restarts: 1 }, again(2)]);
    }

    proptest! {
        #[test]
        fn a_wait_keeps_its_bounds(
            initial in 0.0..100.0f64, max in 0.0..1e4f64, multiplier in 1.0..1e6f64, jitter in 0.0..1.0f64,
            number in 1u32.., draw in 0.0..1.0f64,
        ) {
            let seconds = Duration::from_secs_f64;
            let backoff = Backoff {
                initial: seconds(initial), max: seconds(max), multiplier, jitter, reset_after: Duration::ZERO,
            };
            let wait = backoff.wait(number, draw).as_secs_f64();
            prop_assert!(wait <= max + 1e-6);
            prop_assert!(wait >= initial.min(max) * (1.0 - jitter) - 1e-6);
        }

        #[test]
        fn never_more_restarts_in_a_window_than_declared(
            most in 0u32..5, steps in prop::collection::vec((0u64..30, 0u64..90), 1..60),
        ) {
            let mut restart = Restart::with_policy(RestartPolicy::Always);
            (restart.max_restarts, restart.window) = (MaxRestarts::Limited(most), seconds(100));
            let (mut lives, mut now, mut done) = (Lives::default(), Duration::ZERO, Vec::new());
            for (pause, lived) in steps {
                now += seconds(pause + lived);
                match restart.decide(&mut lives, &FAILED, seconds(lived), now, 0.5) {
                    Verdict::Again { after, .. } => {
                        now += after;
                        done.push(now);
                        let recent = done.iter().filter(|at| now - **at < restart.window).count();
                        prop_assert!(recent <= most as usize);
                    }
                    Verdict::GiveUp { .. } => {}
                    Verdict::Final => prop_assert!(false),
                }
            }
        }
    }
}
