//! When an agent is started by the clock.
//!
//! The times are those of a calendar in a time zone, so they follow its daylight saving time as cron(8) does: what is due at
//! a fixed time that a spring change leaves out comes right after the gap, what is due at one that happens twice in autumn
//! comes the first time only, and what is due at intervals goes on at its intervals.

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use toka_core::Origin;
use toka_core::schedule::{CatchUp, Overlap};

/// A clock that is set back by less than this repeats no time; one that is set back further was wrong before. As Vixie's
/// cron(8) has it.
const SMALL_STEP: SignedDuration = SignedDuration::from_hours(3);

/// `spec.schedule`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Schedule {
    /// The expression as it was written.
    pub cron: String,
    /// The name of the time zone; absent for that of the host.
    pub timezone: Option<String>,
    /// What to do when a time comes and the agent still runs.
    pub overlap: Overlap,
    /// What to do about times that came while nobody was there.
    pub catch_up: CatchUp,
    /// Where it stands.
    pub origin: Origin,
    #[serde(skip)]
    pub(crate) pattern: Cron,
    #[serde(skip)]
    pub(crate) zone: TimeZone,
}

impl Schedule {
    /// The first time after `moment`, which is a whole second; `None` when there is none that a calendar knows.
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        let from = moment.to_zoned(self.zone.clone());
        self.pattern.find_next_occurrence(&from, false).ok().map(|zoned| zoned.timestamp())
    }

    /// The next time to wait for at `now`, when `last` was the last one that came. When the clock has been set back a
    /// little, none comes a second time; when it has been set back far, the times of the new clock count.
    pub fn next_due(&self, now: Timestamp, last: Option<Timestamp>) -> Option<Timestamp> {
        let repeated = last.filter(|last| *last > now && last.duration_since(now) < SMALL_STEP);
        self.next_after(repeated.unwrap_or(now))
    }

    /// Of the times after `since` and up to `now`, the last one, if the agent is to be started for it now.
    pub fn to_catch_up(&self, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if self.catch_up == CatchUp::None {
            return None;
        }
        let until = now.to_zoned(self.zone.clone());
        let last = self.pattern.find_previous_occurrence(&until, true).ok()?.timestamp();
        (last > since).then_some(last)
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use proptest::prelude::*;

    use super::*;

    fn schedule(cron: &str, zone: &str) -> Schedule {
        Schedule {
            cron: cron.to_owned(),
            timezone: Some(zone.to_owned()),
            overlap: Overlap::Skip,
            catch_up: CatchUp::Last,
            origin: Origin::default_of("test"),
            pattern: Cron::from_str(cron).expect("an expression"),
            zone: TimeZone::get(zone).expect("a time zone"),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    fn times(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
        let next = |moment: &Timestamp| schedule.next_after(*moment);
        let times = std::iter::successors(next(&at(from)), next);
        times.take(count).map(|time| time.to_string()).collect()
    }

    const BERLIN: &str = "Europe/Berlin";

    #[test]
    fn a_time_that_spring_leaves_out_comes_right_after_the_gap() {
        // On 2026-03-29 the clocks go from 02:00 to 03:00, which is 01:00 UTC.
        let daily = schedule("30 2 * * *", BERLIN);
        let expected = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
        assert_eq!(times(&daily, "2026-03-27T12:00:00Z", 3), expected);
        let often = schedule("*/30 * * * *", BERLIN);
        let expected = ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"];
        assert_eq!(times(&often, "2026-03-29T00:00:00Z", 3), expected);
    }

    #[test]
    fn a_time_that_autumn_has_twice_comes_once_and_intervals_go_on() {
        // On 2026-10-25 the clocks go from 03:00 back to 02:00, which is 01:00 UTC.
        let daily = schedule("30 2 * * *", BERLIN);
        let expected = ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
        assert_eq!(times(&daily, "2026-10-24T12:00:00Z", 2), expected);
        let often = schedule("*/30 * * * *", BERLIN);
        let expected =
            ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"];
        assert_eq!(times(&often, "2026-10-25T00:00:00Z", 4), expected);
    }

    #[test]
    fn a_clock_that_is_set_back_a_little_repeats_nothing() {
        let hourly = schedule("0 * * * *", "UTC");
        let last = Some(at("2026-11-21T12:00:00Z"));
        let due = |now: &str| hourly.next_due(at(now), last).map(|time| time.to_string());
        assert_eq!(due("2026-11-21T12:00:00.2Z").as_deref(), Some("2026-11-21T13:00:00Z"));
        assert_eq!(due("2026-11-21T10:30:00Z").as_deref(), Some("2026-11-21T13:00:00Z"), "two hours back");
        assert_eq!(due("2026-11-20T10:30:00Z").as_deref(), Some("2026-11-20T11:00:00Z"), "a day back");
        assert_eq!(due("2027-01-01T00:30:00Z").as_deref(), Some("2027-01-01T01:00:00Z"), "forward");
    }

    #[test]
    fn of_the_times_that_were_missed_the_last_one_is_caught_up_with() {
        let mut hourly = schedule("0 * * * *", "UTC");
        let missed = |schedule: &Schedule, now: &str| {
            schedule.to_catch_up(at("2026-11-21T12:00:00Z"), at(now)).map(|time| time.to_string())
        };
        assert_eq!(missed(&hourly, "2026-11-21T12:59:59Z"), None);
        assert_eq!(missed(&hourly, "2026-11-21T13:00:00Z").as_deref(), Some("2026-11-21T13:00:00Z"));
        assert_eq!(missed(&hourly, "2026-11-22T09:30:00Z").as_deref(), Some("2026-11-22T09:00:00Z"));
        hourly.catch_up = CatchUp::None;
        assert_eq!(missed(&hourly, "2026-11-22T09:30:00Z"), None);
    }

    proptest! {
        #[test]
        fn the_next_time_is_later_and_nothing_is_due_in_between(
            minute in 0u32..60, step in 1u32..30, seconds in 1_700_000_000i64..1_900_000_000,
            zone in prop::sample::select(vec!["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe"]),
        ) {
            let moment = Timestamp::from_second(seconds).expect("a timestamp");
            for cron in [format!("{minute} * * * *"), format!("*/{step} * * * *"), format!("{minute} 2 * * *")] {
                let schedule = schedule(&cron, zone);
                let next = schedule.next_after(moment).expect("there is always one");
                prop_assert!(next > moment, "{cron} in {zone}: {next} after {moment}");
                let later = Timestamp::from_second((moment.as_second() + next.as_second()) / 2).expect("one");
                if later > moment {
                    prop_assert_eq!(schedule.next_after(later), Some(next), "{} in {}", cron, zone);
                }
            }
        }
    }
}
