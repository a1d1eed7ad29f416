//! When a provider that refused is asked again. Pure but for what is drawn: the time is given.

use crate::log::next_number;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What rests: everything behind one key, or one model of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    provider: String,
    /// `None` for all of them.
    model: Option<String>,
}

/// A place that rests, as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// The provider.
    pub provider: String,
    /// The model; `None` for all of the provider.
    pub model: Option<String>,
    /// How long it still rests.
    pub left: Duration,
    /// Why.
    pub reason: String,
}

/// Why somebody is not to be asked for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Too many requests for this model; the provider says for how long, or nothing.
    Busy(Option<Duration>),
    /// The key is refused, or has no money.
    Key,
    /// There is no connection.
    Transport,
}

/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait that we choose ourselves.
const LONGEST: Duration = Duration::from_secs(60);
/// How long after a rest it is forgotten that there was one.
const FORGETS_AFTER: Duration = Duration::from_secs(600);
/// The longest wait that a provider may impose.
const LONGEST_TOLD: Duration = Duration::from_secs(3600);

/// From 0 to 1, another each time.
pub(crate) fn draw() -> f64 {
    f64::from(next_number() as u32 % 1000) / 1000.0
}

/// How long somebody is left alone who has failed `times` times before. `draw` is from 0 to 1: those who wait together do not come
/// back together.
pub(crate) fn back_off(times: u32, draw: f64) -> Duration {
    let own = FIRST.saturating_mul(1 << times.min(6)).min(LONGEST);
    own.mul_f64(0.75 + draw.clamp(0.0, 1.0) / 2.0)
}

#[derive(Debug)]
struct Resting {
    until: Instant,
    times: u32,
    reason: String,
}

/// Who rests until when.
#[derive(Debug, Default)]
pub(crate) struct Cooldowns(BTreeMap<Place, Resting>);

impl Cooldowns {
    /// Notes a refusal; `draw` as in [`back_off`].
    pub(crate) fn refused(
        &mut self,
        provider: &str,
        model: &str,
        cause: Cause,
        reason: &str,
        draw: f64,
        now: Instant,
    ) {
        let model = matches!(cause, Cause::Busy(_)).then(|| model.to_owned());
        // Who has not been refused for long begins anew.
        self.0.retain(|_, resting| resting.until + FORGETS_AFTER > now);
        let place = Place { provider: provider.to_owned(), model };
        let resting = self.0.entry(place).or_insert(Resting { until: now, times: 0, reason: String::new() });
        let wait = match cause {
            Cause::Busy(Some(told)) => told.min(LONGEST_TOLD),
            // Somebody has to change something first.
            Cause::Key => LONGEST,
            Cause::Busy(None) | Cause::Transport => back_off(resting.times, draw),
        };
        resting.until = now + wait;
        resting.times = resting.times.saturating_add(1);
        resting.reason = reason.to_owned();
    }

    /// Notes an answer: nothing of it rests any more.
    pub(crate) fn answered(&mut self, provider: &str, model: &str) {
        self.0.retain(|place, _| {
            place.provider != provider || place.model.as_deref().is_some_and(|resting| resting != model)
        });
    }

    /// How long a model still rests, and why; `None` when it may be asked.
    pub(crate) fn left(&self, provider: &str, model: &str, now: Instant) -> Option<(Duration, &str)> {
        let of = |(place, resting): (&Place, &'_ Resting)| {
            let is_it = place.provider == provider && place.model.as_deref().is_none_or(|of| of == model);
            (is_it && resting.until > now).then_some(resting.until)
        };
        let longest = self.0.iter().filter_map(|(place, resting)| Some((of((place, resting))?, resting)));
        let (until, resting) = longest.max_by_key(|(until, _)| *until)?;
        Some((until - now, &resting.reason))
    }

    /// Nobody rests any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// All that rest.
    pub(crate) fn all(&self, now: Instant) -> Vec<Rest> {
        let resting = self.0.iter().filter(|(_, resting)| resting.until > now);
        resting
            .map(|(place, resting)| Rest {
                provider: place.provider.clone(),
                model: place.model.clone(),
                left: resting.until - now,
                reason: resting.reason.clone(),
            })
            .collect()
    }
}

/// The time that a `Retry-After` header tells in seconds (RFC 9110, 10.2.3). Dates are passed over: our clock is not theirs.
pub(crate) fn retry_after(value: &str) -> Option<Duration> {
    let seconds: f64 = value.trim().parse().ok()?;
    (0.0..1e9).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_busy_model_rests_alone_and_a_refused_key_with_all_its_models() {
        let (mut cooldowns, now) = (Cooldowns::default(), Instant::now());
        cooldowns.refused("lab", "m", Cause::Busy(Some(Duration::from_secs(7))), "busy", 0.5, now);
        assert_eq!(cooldowns.left("lab", "m", now), Some((Duration::from_secs(7), "busy")));
        assert_eq!(cooldowns.left("lab", "other", now), None);
        assert_eq!(cooldowns.left("lab", "m", now + Duration::from_secs(8)), None);
        cooldowns.refused("lab", "m", Cause::Key, "no money", 0.5, now);
        assert_eq!(cooldowns.left("lab", "other", now).map(|(left, _)| left), Some(LONGEST));
        assert_eq!(cooldowns.left("other", "m", now), None);
        assert_eq!(cooldowns.all(now).len(), 2);
        cooldowns.answered("lab", "m");
        assert_eq!(cooldowns.all(now), []);
    }

    #[test]
    fn headers_are_read_as_seconds_or_not_at_all() {
        for (text, seconds) in [
            ("3", Some(3.0)),
            (" 0.5 ", Some(0.5)),
            ("-1", None),
            ("soon", None),
            ("1e300", None),
            ("NaN", None),
        ] {
            assert_eq!(retry_after(text), seconds.map(Duration::from_secs_f64), "{text}");
        }
    }

    proptest! {
        /// However often somebody is refused, they are asked again within bounds.
        #[test]
        fn no_rest_is_longer_than_its_bound(
            times in 1usize..100, draw in 0.0f64..1.0, told in prop::option::of(0u64..1_000_000),
        ) {
            let (mut cooldowns, now) = (Cooldowns::default(), Instant::now());
            let cause = Cause::Busy(told.map(Duration::from_secs));
            for _ in 0..times {
                cooldowns.refused("p", "m", cause, "busy", draw, now);
            }
            let left = cooldowns.left("p", "m", now).map_or(Duration::ZERO, |(left, _)| left);
            let bound = if told.is_some() { LONGEST_TOLD } else { LONGEST.mul_f64(1.25) };
            prop_assert!(left <= bound);
        }
    }
}
