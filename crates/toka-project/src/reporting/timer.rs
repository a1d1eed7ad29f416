//! When a report of an agent is due. It reads no clock: what time it is, is told to it.
//!
//! Whatever the frequency, the end of an agent is reported. Reports come no closer than [`LEAST`]: of all that happens
//! in between, the next one shows the outcome.

use std::time::Duration;

use jiff::Timestamp;
use toka_core::event::Occasion;
use toka_core::{EventKind, Progress};
use toka_workstream::Frequency;
use tokio::time::Instant;

/// Least time between two reports of an agent.
pub(crate) const LEAST: Duration = Duration::from_secs(1);
/// Steps of progress that are milestones: quarters.
const STEPS: f64 = 4.0;

const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
/// The first Monday of the epoch, which began on a Thursday.
const MONDAY: i64 = 4 * DAY;

/// Keeps the times of one agent.
#[derive(Debug)]
pub(crate) struct ReportTimer {
    frequency: Frequency,
    /// Quarters of its progress that were seen in this life.
    quarters: u8,
    last: Option<Instant>,
    due: Option<(Instant, Occasion)>,
}

impl ReportTimer {
    pub(crate) fn new(frequency: Frequency) -> Self {
        Self { frequency, quarters: 0, last: None, due: None }
    }

    /// Takes an event of the agent.
    pub(crate) fn hear(&mut self, kind: &EventKind, now: Instant) {
        if let Some(occasion) = self.occasion(kind) {
            self.call(occasion, now);
        }
    }

    /// A report is to be made.
    pub(crate) fn call(&mut self, occasion: Occasion, now: Instant) {
        let soonest =
            self.last.and_then(|last| last.checked_add(LEAST)).map_or(now, |soonest| soonest.max(now));
        self.due = Some(match self.due {
            Some((when, before)) => (when.min(soonest), before.max(occasion)),
            None => (soonest, occasion),
        });
    }

    /// When to ask [`ReportTimer::take`].
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.map(|(when, _)| when)
    }

    /// The report that is due, if one is.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Occasion> {
        let (_, occasion) = self.due.take_if(|(when, _)| *when <= now)?;
        self.last = Some(now);
        Some(occasion)
    }

    /// The report that would be due later: there is no later.
    pub(crate) fn flush(&mut self) -> Option<Occasion> {
        self.due.take().map(|(_, occasion)| occasion)
    }

    fn occasion(&mut self, kind: &EventKind) -> Option<Occasion> {
        let milestone = self.is_milestone(kind);
        match (self.frequency, kind) {
            (
                _,
                EventKind::AgentEnded { .. }
                | EventKind::AgentQuarantined { .. }
                | EventKind::AgentBlocked { .. },
            ) => Some(Occasion::End),
            (Frequency::RealTime | Frequency::OnMilestone, _) if milestone => Some(Occasion::Milestone),
            (Frequency::RealTime, kind) if is_change(kind) => Some(Occasion::Change),
            _ => None,
        }
    }

    fn is_milestone(&mut self, kind: &EventKind) -> bool {
        match kind {
            EventKind::AgentStarting | EventKind::AgentRequeued { .. } => {
                self.quarters = 0;
                false
            }
            EventKind::TaskEnded { .. } | EventKind::ObjectiveChecked { met: true, .. } => true,
            EventKind::Progress(Progress { fraction: Some(fraction), .. }) => {
                // A fraction that is none becomes 0.
                let quarters = (fraction.clamp(0.0, 1.0) * STEPS) as u8;
                let seen = self.quarters;
                self.quarters = seen.max(quarters);
                quarters > seen
            }
            _ => false,
        }
    }
}

/// Whether the agent is in another state, or somebody thinks otherwise of it.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::AgentRequeued { .. }
        | EventKind::AgentWaiting { .. }
        | EventKind::AgentStarting
        | EventKind::AgentStarted { .. }
        | EventKind::AgentReady
        | EventKind::AgentNotReady { .. }
        | EventKind::AgentPaused { .. }
        | EventKind::ApprovalAsked(_)
        | EventKind::ApprovalAnswered { .. }
        | EventKind::AgentResumed
        | EventKind::AgentStopping { .. }
        | EventKind::AgentRestarting { .. }
        | EventKind::ProbeChanged { .. }
        | EventKind::AgentWedged { .. }
        | EventKind::AgentSpinning { .. }
        | EventKind::AgentRecovered { .. }
        | EventKind::AgentOomKilled { .. }
        | EventKind::AgentUncovered { .. }
        | EventKind::AgentPlanted { .. } => true,
        EventKind::RunStarted { .. }
        | EventKind::RunEnded { .. }
        | EventKind::RunEnding { .. }
        | EventKind::RunInterrupted { .. }
        | EventKind::RunAdopted { .. }
        | EventKind::KeeperSucceeded { .. }
        | EventKind::RunChanged { .. }
        | EventKind::AgentReturns { .. }
        | EventKind::AgentAwaits { .. }
        | EventKind::AgentMainProcess { .. }
        | EventKind::RequestFailed { .. }
        | EventKind::AgentEnded { .. }
        | EventKind::AgentQuarantined { .. }
        | EventKind::AgentHint { .. }
        | EventKind::ModelAsked { .. }
        | EventKind::ModelAnswered { .. }
        | EventKind::ModelJoined { .. }
        | EventKind::ModelBatched { .. }
        | EventKind::CacheBroken { .. }
        | EventKind::SecretSent { .. }
        | EventKind::AgentBlocked { .. }
        | EventKind::Progress(_)
        | EventKind::Metrics { .. }
        | EventKind::TaskStarted { .. }
        | EventKind::TaskEnded { .. }
        | EventKind::ObjectiveChecked { .. }
        | EventKind::ExecStarted { .. }
        | EventKind::SessionStarted { .. }
        | EventKind::StateChange { .. }
        | EventKind::SessionSteered { .. }
        | EventKind::SessionCompacted { .. }
        | EventKind::PlanCreated { .. }
        | EventKind::PlanStepUpdate { .. }
        | EventKind::ToolCallStart { .. }
        | EventKind::ToolCallComplete { .. }
        | EventKind::ToolCallFailed { .. }
        | EventKind::ResponseComplete { .. }
        | EventKind::ExecEnded { .. }
        | EventKind::LogLineSeen { .. }
        | EventKind::ScheduleFired { .. }
        | EventKind::ScheduleSkipped { .. }
        | EventKind::ScheduleArmed { .. }
        | EventKind::AgentReport { .. }
        | EventKind::ReportUndelivered { .. }
        | EventKind::BudgetNearing { .. }
        | EventKind::HostAsked { .. }
        | EventKind::HostClosed { .. }
        | EventKind::HostDenied { .. }
        | EventKind::Warning { .. } => false,
    }
}

/// The end of the period that `now` is in, for frequencies that have any: full hours, midnights and the beginnings of
/// Mondays, all in UTC, so that nobody has to remember which were reported.
pub(crate) fn period_end(frequency: Frequency, now: Timestamp) -> Option<Timestamp> {
    let (length, offset) = match frequency {
        Frequency::Hourly => (HOUR, 0),
        Frequency::Daily => (DAY, 0),
        Frequency::Weekly => (WEEK, MONDAY),
        Frequency::RealTime | Frequency::OnMilestone | Frequency::OnCompletion => return None,
    };
    // Rounded down, as division of negative numbers is not.
    let past = (now.as_second() - i64::from(now.subsec_nanosecond() < 0) - offset).div_euclid(length);
    Timestamp::from_second((past + 1) * length + offset).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toka_core::Exit;
    use toka_core::event::Usage;

    use super::*;

    const PERIODS: [Frequency; 3] = [Frequency::Hourly, Frequency::Daily, Frequency::Weekly];

    fn progress(fraction: f64) -> EventKind {
        EventKind::Progress(Progress { fraction: Some(fraction), ..Progress::default() })
    }

    fn ended() -> EventKind {
        EventKind::AgentEnded { exit: Exit::Code { code: 0 }, duration_ms: 1, usage: Usage::default() }
    }

    fn task_ended() -> EventKind {
        EventKind::TaskEnded {
            index: 0,
            exit: Exit::Code { code: 0 },
            duration_ms: 1,
            usage: Usage::default(),
        }
    }

    #[test]
    fn each_frequency_has_its_occasions() {
        use Frequency::{Hourly, OnCompletion, OnMilestone, RealTime};
        use Occasion::{Change, End, Milestone};
        for (frequency, kind, expected) in [
            (RealTime, EventKind::AgentReady, Some(Change)),
            (RealTime, task_ended(), Some(Milestone)),
            (RealTime, progress(0.1), None),
            (OnMilestone, EventKind::AgentReady, None),
            (OnMilestone, task_ended(), Some(Milestone)),
            (OnMilestone, progress(0.3), Some(Milestone)),
            (Hourly, task_ended(), None),
            (OnCompletion, EventKind::AgentReady, None),
            (OnCompletion, ended(), Some(End)),
            (OnMilestone, ended(), Some(End)),
            (Hourly, ended(), Some(End)),
        ] {
            let mut timer = ReportTimer::new(frequency);
            let now = Instant::now();
            timer.hear(&kind, now);
            assert_eq!(timer.take(now), expected, "{frequency:?} {kind:?}");
        }
    }

    #[test]
    fn a_quarter_is_a_milestone_once_in_a_life() {
        let mut timer = ReportTimer::new(Frequency::OnMilestone);
        let mut now = Instant::now();
        let mut told = |fraction: Option<f64>| {
            now += LEAST;
            timer.hear(&fraction.map_or(EventKind::AgentStarting, progress), now);
            timer.take(now).is_some()
        };
        let steps = [0.0, 0.24, 0.25, 0.26, 0.1, 0.3, 0.8, 0.5, 1.0, 7.0, f64::NAN].map(Some);
        let expected = [false, false, true, false, false, false, true, false, true, false, false];
        assert_eq!(steps.map(&mut told), expected);
        assert_eq!([None, Some(0.25)].map(&mut told), [false, true]);
    }

    #[test]
    fn periods_end_where_people_think_that_they_do() {
        for (frequency, now, end) in [
            (Frequency::Hourly, "2026-11-21T15:20:30.5Z", "2026-11-21T16:00:00Z"),
            (Frequency::Hourly, "2026-11-21T16:00:00Z", "2026-11-21T17:00:00Z"),
            (Frequency::Daily, "2026-11-21T15:20:30Z", "2026-11-22T00:00:00Z"),
            // A Saturday.
            (Frequency::Weekly, "2026-11-21T15:20:30Z", "2026-11-23T00:00:00Z"),
            (Frequency::Weekly, "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
            (Frequency::Hourly, "1969-12-31T23:59:59.5Z", "1970-01-01T00:00:00Z"),
        ] {
            let now: Timestamp = now.parse().expect("a time");
            assert_eq!(period_end(frequency, now).expect("an end").to_string(), end, "{frequency:?} {now}");
        }
        assert_eq!(period_end(Frequency::OnCompletion, Timestamp::UNIX_EPOCH), None);
    }

    proptest! {
        #[test]
        fn a_period_ends_after_now_and_within_its_length(second in -4_000_000_000i64..4_000_000_000, nano in 0i32..1_000_000_000) {
            let now = Timestamp::new(second, 0).expect("in range") + jiff::SignedDuration::new(0, nano);
            for (frequency, length) in PERIODS.into_iter().zip([HOUR, DAY, WEEK]) {
                let end = period_end(frequency, now).expect("an end");
                prop_assert!(end > now && end.duration_since(now) <= jiff::SignedDuration::from_secs(length));
                // Whoever begins anew at any moment before comes to the same end: none is reported twice.
                let later = now + jiff::SignedDuration::from_secs(end.duration_since(now).as_secs() / 2);
                prop_assert_eq!(period_end(frequency, later), Some(end));
                prop_assert_eq!(period_end(frequency, end), Some(end + jiff::SignedDuration::from_secs(length)));
            }
        }

        #[test]
        fn reports_keep_their_distance_and_the_last_word_is_told(gaps in prop::collection::vec(0u64..3000, 1..200)) {
            let mut timer = ReportTimer::new(Frequency::RealTime);
            let begin = Instant::now();
            let (mut now, mut told) = (begin, Vec::new());
            for gap in &gaps {
                let next = now + Duration::from_millis(*gap);
                // Whoever asks does so when something is due.
                while let Some(due) = timer.due().filter(|due| *due <= next) {
                    prop_assert!(timer.take(due).is_some());
                    told.push(due);
                }
                now = next;
                timer.hear(&EventKind::AgentReady, now);
                if timer.take(now).is_some() {
                    told.push(now);
                }
            }
            prop_assert!(told.windows(2).all(|pair| pair[1] - pair[0] >= LEAST));
            let seconds = (now - begin).as_secs();
            prop_assert!(told.len() as u64 <= seconds + 1);
            // What happened last is either told or due within the least time.
            match timer.due() {
                Some(due) => prop_assert!(due > now && due <= now + LEAST),
                None => prop_assert_eq!(told.last(), Some(&now)),
            }
        }
    }

    #[test]
    fn ten_thousand_changes_at_once_are_two_reports() {
        let mut timer = ReportTimer::new(Frequency::RealTime);
        let now = Instant::now();
        let mut told = 0;
        for _ in 0..10_000 {
            timer.hear(&EventKind::AgentReady, now);
            told += usize::from(timer.take(now).is_some());
        }
        timer.hear(&ended(), now);
        assert_eq!((told, timer.take(now), timer.take(now + LEAST)), (1, None, Some(Occasion::End)));
    }
}
