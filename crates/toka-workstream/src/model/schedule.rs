//! When an agent is started by the clock.
//!
//! The times are those of a calendar in a time zone, so they follow its daylight saving time as Vixie's cron(8) does. Times
//! are fixed where neither the minutes nor the hours begin with `*`: single values, lists, ranges, of any day. A fixed time that a
//! spring change leaves out comes right after the gap, and one that happens twice in autumn comes the first time only. What
//! follows the clock (`*`, `*/30`) comes whenever the clock shows it.

use croner::Cron;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use toka_core::Origin;
use toka_core::schedule::{CatchUp, Overlap};

/// A clock that is set back by less than this repeats no time; one that is set back further was wrong before. As Vixie's
/// cron(8) has it.
const SMALL_STEP: SignedDuration = SignedDuration::from_hours(3);

/// No clock was ever changed by more than a day.
const LARGEST_SHIFT: SignedDuration = SignedDuration::from_hours(25);

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
        if !self.is_fixed() {
            let from = moment.to_zoned(self.zone.clone());
            return self.pattern.find_next_occurrence(&from, false).ok().map(|zoned| zoned.timestamp());
        }
        let begin = moment.to_zoned(self.zone.clone()).datetime().checked_sub(LARGEST_SHIFT).ok()?;
        let mut cursor = begin.to_zoned(TimeZone::UTC).ok()?;
        loop {
            cursor = self.pattern.find_next_occurrence(&cursor, false).ok()?;
            let instant = self.instant_of(cursor.datetime())?;
            if instant > moment {
                return Some(instant);
            }
        }
    }

    /// The times after `moment`, the next one first.
    pub fn times(&self, moment: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.next_after(moment), |time| self.next_after(*time))
    }

    /// A time as its own calendar has it.
    pub fn shown(&self, time: Timestamp) -> String {
        time.to_zoned(self.zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %:z").to_string()
    }

    /// The last time up to `moment`.
    fn last_until(&self, moment: Timestamp) -> Option<Timestamp> {
        if !self.is_fixed() {
            let until = moment.to_zoned(self.zone.clone());
            return Some(self.pattern.find_previous_occurrence(&until, true).ok()?.timestamp());
        }
        let end = moment.to_zoned(self.zone.clone()).datetime().checked_add(LARGEST_SHIFT).ok()?;
        let mut cursor = end.to_zoned(TimeZone::UTC).ok()?;
        loop {
            cursor = self.pattern.find_previous_occurrence(&cursor, false).ok()?;
            let instant = self.instant_of(cursor.datetime())?;
            if instant <= moment {
                return Some(instant);
            }
        }
    }

    /// Whether its times are fixed times of a day, rather than what a clock shows again and again.
    fn is_fixed(&self) -> bool {
        let fields: Vec<&str> = self.cron.split_whitespace().collect();
        let (minutes, hours) = match fields.as_slice() {
            [name] => return !name.eq_ignore_ascii_case("@hourly"),
            [minutes, hours, _, _, _] | [_, minutes, hours, ..] => (minutes, hours),
            _ => return false,
        };
        ![minutes, hours].iter().any(|field| field.starts_with(['*', '?']))
    }

    /// When a fixed time of the calendar is: of two moments the earlier, and in a gap the moment at which the gap ends.
    fn instant_of(&self, time: DateTime) -> Option<Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(time);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(time).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(time).ok(),
            AmbiguousOffset::Gap { before, .. } => {
                // By the offset of before, the time would be after the change.
                let after =
                    before.to_timestamp(time).ok()?.checked_add(SignedDuration::from_nanos(1)).ok()?;
                Some(self.zone.preceding(after).next()?.timestamp())
            }
        }
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
        self.last_until(now).filter(|last| *last > since)
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
    fn lists_ranges_and_weekly_times_are_fixed_too() {
        let listed = schedule("30 2,14 * * *", BERLIN);
        let autumn = ["2026-10-25T00:30:00Z", "2026-10-25T13:30:00Z"];
        assert_eq!(times(&listed, "2026-10-25T00:25:00Z", 2), autumn);
        assert_eq!(times(&listed, "2026-10-25T00:31:00Z", 1), autumn[1..], "not a second time");
        let spring = ["2027-03-28T01:00:00Z", "2027-03-28T12:30:00Z"];
        assert_eq!(times(&listed, "2027-03-28T00:00:00Z", 2), spring, "not left out");
        let weekly = schedule("15,45 2 * * 0", BERLIN);
        let once = ["2027-03-28T01:00:00Z", "2027-04-04T00:15:00Z"];
        assert_eq!(times(&weekly, "2027-03-27T00:00:00Z", 2), once, "two times of one gap are one moment");
        let range = schedule("30 1-3 * * *", "America/New_York");
        let expected = ["2026-11-01T05:30:00Z", "2026-11-01T07:30:00Z", "2026-11-01T08:30:00Z"];
        assert_eq!(times(&range, "2026-11-01T00:00:00Z", 3), expected);
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

    const ZONES: [&str; 10] = [
        "UTC",
        BERLIN,
        "America/New_York",
        "Australia/Lord_Howe",
        "Australia/Sydney",
        "America/St_Johns",
        "Africa/Casablanca",
        "Asia/Kathmandu",
        "Pacific/Apia",
        "America/Santiago",
    ];

    /// The slow way: every minute of the clock, one after the other. A fixed time is the first minute that shows it, or, when
    /// none does, the first that shows a later one.
    fn reference(
        minutes: &[i8],
        hours: &[i8],
        zone: &TimeZone,
        from: Timestamp,
        until: Timestamp,
    ) -> Vec<Timestamp> {
        let minute = |at: i64| Timestamp::from_second(at * 60).expect("a timestamp");
        let shown: Vec<(Timestamp, DateTime)> = (from.as_second() / 60..=until.as_second() / 60)
            .map(|at| (minute(at), minute(at).to_zoned(zone.clone()).datetime()))
            .collect();
        let mut found = std::collections::BTreeSet::new();
        let mut latest = shown[0].1;
        for pair in shown.windows(2) {
            let (at, now) = pair[1];
            // The clock shows each minute after the latest that it ever showed, or leaves some out.
            let mut time = latest;
            while time < now {
                time = time.checked_add(SignedDuration::from_mins(1)).expect("a time");
                if minutes.contains(&time.minute()) && hours.contains(&time.hour()) {
                    found.insert(at);
                }
            }
            latest = latest.max(now);
        }
        found.into_iter().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn fixed_times_are_those_that_a_clock_shows_first(
            minutes in prop::collection::btree_set(0i8..60, 1..4), hours in prop::collection::btree_set(0i8..24, 1..5),
            year in 1990i16..2040, zone in prop::sample::select(ZONES.to_vec()), change in 0usize..4,
        ) {
            let list = |set: &std::collections::BTreeSet<i8>| {
                set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            };
            let schedule = schedule(&format!("{} {} * * *", list(&minutes), list(&hours)), zone);
            let begin = jiff::civil::date(year, 1, 1).to_zoned(TimeZone::UTC).expect("a date").timestamp();
            // A change of the clocks in that year, if the zone has so many.
            let change = schedule.zone.following(begin).nth(change).map_or(begin, |change| change.timestamp());
            let (from, until) = (change - SignedDuration::from_hours(30), change + SignedDuration::from_hours(30));
            let (minutes, hours): (Vec<i8>, Vec<i8>) = (minutes.into_iter().collect(), hours.into_iter().collect());
            let expected = reference(&minutes, &hours, &schedule.zone, from, until);
            let found: Vec<Timestamp> = schedule.times(from).take_while(|time| *time <= until).collect();
            prop_assert_eq!(&found, &expected, "{} in {}", &schedule.cron, zone);
            for pair in expected.windows(2) {
                let between = pair[1] - SignedDuration::from_secs(1);
                prop_assert_eq!(schedule.last_until(between), Some(pair[0]));
                prop_assert_eq!(schedule.last_until(pair[1]), Some(pair[1]));
            }
        }

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
