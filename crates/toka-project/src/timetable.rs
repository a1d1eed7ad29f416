//! When the agents of a project are due by their schedules. It reads no clock: what time it is, is told to it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use toka_core::{AgentName, Overlap};
use toka_workstream::Schedule;

/// How late a time may be noticed and still count as it came: a machine that is busy, a clock that was corrected. What is
/// later was missed.
const LATE: SignedDuration = SignedDuration::from_secs(60);

/// The next times of agents.
#[derive(Debug, Default)]
pub(crate) struct Timetable(BTreeMap<AgentName, Entry>);

#[derive(Debug)]
struct Entry {
    schedule: Schedule,
    next: Timestamp,
    last: Option<Timestamp>,
}

/// A time that has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) agent: AgentName,
    pub(crate) time: Timestamp,
    pub(crate) timing: Timing,
    pub(crate) overlap: Overlap,
    /// The next one; none when the schedule has no more.
    pub(crate) next: Option<Timestamp>,
}

/// Whether a time was noticed when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timing {
    /// It was, or is to be made up for.
    Now,
    /// Too late.
    Missed,
}

impl Timetable {
    pub(crate) fn has(&self, agent: &AgentName) -> bool {
        self.0.contains_key(agent)
    }

    /// Adds an agent, and tells its next time. When it is known that somebody was there at the moment `since`, what was
    /// missed from then on may be caught up with: then it is due now.
    pub(crate) fn add(
        &mut self,
        agent: &AgentName,
        schedule: &Schedule,
        since: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let missed = since.and_then(|since| schedule.to_catch_up(since, now));
        let next = missed.or_else(|| schedule.next_after(now))?;
        self.0.insert(agent.clone(), Entry { schedule: schedule.clone(), next, last: None });
        Some(next)
    }

    pub(crate) fn retain(&mut self, keeps: impl Fn(&AgentName) -> bool) {
        self.0.retain(|agent, _| keeps(agent));
    }

    /// When to look again.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.0.values().map(|entry| entry.next).min()
    }

    /// The times that have come up to `now`, one of each agent. One without a further time is in the table no more.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<Due> {
        let mut due = Vec::new();
        self.0.retain(|agent, entry| {
            if entry.next > now {
                return true;
            }
            let (time, timing) = entry.come(now);
            let next = entry.schedule.next_due(now, Some(time));
            due.push(Due { agent: agent.clone(), time, timing, overlap: entry.schedule.overlap, next });
            entry.last = Some(time);
            next.map(|next| entry.next = next).is_some()
        });
        due
    }

    /// Looks again at what is next by a clock that may have been set back, and tells of whom that is another time.
    pub(crate) fn review(&mut self, now: Timestamp) -> Vec<(AgentName, Timestamp)> {
        let mut changed = Vec::new();
        for (agent, entry) in &mut self.0 {
            if let Some(next) = entry.schedule.next_due(now, entry.last)
                && next != entry.next
                // What is to be made up for has not been taken yet.
                && entry.next > now
            {
                entry.next = next;
                changed.push((agent.clone(), next));
            }
        }
        changed
    }
}

impl Entry {
    /// The time that counts of those from the next one to `now`.
    fn come(&self, now: Timestamp) -> (Timestamp, Timing) {
        let punctual = now - LATE;
        if self.next >= punctual {
            return (self.next, Timing::Now);
        }
        if let Some(recent) = self.schedule.next_after(punctual).filter(|recent| *recent <= now) {
            return (recent, Timing::Now);
        }
        match self.schedule.to_catch_up(self.next - SignedDuration::from_secs(1), now) {
            Some(last) => (last, Timing::Now),
            None => (self.next, Timing::Missed),
        }
    }
}

#[cfg(test)]
mod tests {
    use toka_workstream::LoadOptions;

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-21T{text}Z").parse().expect("a timestamp")
    }

    fn name() -> AgentName {
        toka_core::Name::new("nightly").expect("a label")
    }

    fn schedule(text: &str) -> Schedule {
        let yaml =
            format!("metadata: {{name: nightly}}\nspec: {{process: {{command: [x]}}, schedule: {text}}}\n");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("nightly.yaml");
        std::fs::write(&file, yaml).expect("written");
        let loaded = toka_workstream::load(&[file], &LoadOptions::default());
        loaded.set.and_then(|set| set.agents.into_iter().next()?.schedule).expect("a schedule")
    }

    fn hourly(catch_up: &str) -> Schedule {
        schedule(&format!("{{cron: '0 * * * *', timezone: UTC, catch_up: {catch_up}}}"))
    }

    fn table(schedule: &Schedule, now: &str) -> Timetable {
        let mut table = Timetable::default();
        table.add(&name(), schedule, None, at(now)).expect("a time");
        table
    }

    /// What comes, as `time timing next`.
    fn come(table: &mut Timetable, now: &str) -> Vec<String> {
        let show = |due: Due| {
            let next = due.next.map(|next| next.strftime("%T").to_string()).unwrap_or_default();
            format!("{} {:?} {next}", due.time.strftime("%T"), due.timing)
        };
        table.take_due(at(now)).into_iter().map(show).collect()
    }

    #[test]
    fn each_time_comes_once_and_not_before() {
        let mut table = table(&hourly("none"), "12:10:00");
        assert_eq!(table.wake_at(), Some(at("13:00:00")));
        assert!(come(&mut table, "12:59:59").is_empty());
        assert_eq!(come(&mut table, "13:00:00"), ["13:00:00 Now 14:00:00"]);
        assert!(come(&mut table, "13:00:00").is_empty());
        assert_eq!(come(&mut table, "14:00:40"), ["14:00:00 Now 15:00:00"], "a little late");
    }

    #[test]
    fn what_a_sleep_left_out_is_missed_or_caught_up_with_once() {
        let mut careless = table(&hourly("none"), "12:10:00");
        assert_eq!(come(&mut careless, "15:30:00"), ["13:00:00 Missed 16:00:00"]);
        let mut careful = table(&hourly("last"), "12:10:00");
        assert_eq!(come(&mut careful, "15:30:00"), ["15:00:00 Now 16:00:00"]);
        let mut lucky = table(&hourly("none"), "12:10:00");
        assert_eq!(
            come(&mut lucky, "15:00:20"),
            ["15:00:00 Now 16:00:00"],
            "it woke up in time for the last"
        );
    }

    #[test]
    fn what_came_while_no_toka_ran_is_due_at_once_if_that_is_wanted() {
        for (catch_up, expected) in [("none", "17:00:00"), ("last", "16:00:00")] {
            let mut table = Timetable::default();
            let next = table.add(&name(), &hourly(catch_up), Some(at("12:10:00")), at("16:30:00"));
            assert_eq!(next, Some(at(expected)), "{catch_up}");
        }
        let mut table = Timetable::default();
        table.add(&name(), &hourly("last"), Some(at("12:10:00")), at("16:30:00")).expect("a time");
        assert_eq!(come(&mut table, "16:30:00"), ["16:00:00 Now 17:00:00"]);
        let mut on_time = Timetable::default();
        let next = on_time.add(&name(), &hourly("last"), Some(at("16:00:00")), at("16:30:00"));
        assert_eq!(next, Some(at("17:00:00")), "nothing was missed");
    }

    #[test]
    fn a_clock_that_is_set_back_repeats_nothing_unless_it_was_wrong() {
        let mut table = table(&hourly("none"), "12:10:00");
        come(&mut table, "13:00:00");
        assert!(table.review(at("12:30:00")).is_empty(), "13:00 has been");
        assert_eq!(table.review(at("05:30:00")), [(name(), at("06:00:00"))]);
        assert_eq!(table.wake_at(), Some(at("06:00:00")));
    }

    #[test]
    fn a_schedule_may_come_to_its_end() {
        let last = schedule("{cron: '0 0 13 21 11 * 2026', timezone: UTC}");
        let mut table = table(&last, "12:10:00");
        assert_eq!(come(&mut table, "13:00:00"), ["13:00:00 Now "]);
        assert!(!table.has(&name()));
        assert_eq!(table.wake_at(), None);
        assert_eq!(table.add(&name(), &last, None, at("14:00:00")), None);
    }
}
