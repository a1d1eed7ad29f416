//! A moment as people write it.

use jiff::civil::{DateTime, Time};
use jiff::{Span, Timestamp, Zoned};
use toka_core::units::parse_duration;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(Timestamp);

impl Moment {
    /// In milliseconds since the Unix epoch.
    pub(crate) fn as_millis(self) -> i64 {
        self.0.as_millisecond()
    }
}

/// Reads a moment, as seen from now.
pub(crate) fn parse(text: &str) -> Result<Moment, String> {
    parse_at(text, &Zoned::now())
}

fn parse_at(text: &str, now: &Zoned) -> Result<Moment, String> {
    let text = text.trim();
    let day = |zoned: &Zoned| zoned.start_of_day().ok().map(|day| day.timestamp());
    let found = match text {
        "now" => Some(now.timestamp()),
        "today" => day(now),
        "yesterday" => now.checked_sub(Span::new().days(1)).ok().as_ref().and_then(day),
        _ => written(text, now).or_else(|| span_before(text, now)),
    };
    let expected = "a time such as 2026-11-21T10:00:00Z, \"2026-11-21 10:00\" or 10:00, a span such as 10m or \
        \"2h ago\", or now, today, yesterday";
    found.map(Moment).ok_or_else(|| format!("expected {expected}"))
}

/// A date, a time of today, or both; of the own time zone where none is written.
fn written(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(exact) = text.parse::<Timestamp>() {
        return Some(exact);
    }
    let here = |local: DateTime| local.to_zoned(now.time_zone().clone()).ok().map(|zoned| zoned.timestamp());
    if let Ok(local) = text.parse::<DateTime>() {
        return here(local);
    }
    let time = text.contains(':').then(|| text.parse::<Time>().ok()).flatten()?;
    here(now.date().to_datetime(time))
}

fn span_before(text: &str, now: &Zoned) -> Option<Timestamp> {
    let span = text.strip_suffix("ago").unwrap_or(text).trim_end();
    let span = parse_duration(span).ok()?;
    now.timestamp().checked_sub(jiff::SignedDuration::try_from(span).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        let now: Zoned = "2026-11-21T12:00:00+01:00[+01:00]".parse().expect("a time");
        for (text, expected) in [
            ("now", "2026-11-21T11:00:00Z"),
            ("today", "2026-11-20T23:00:00Z"),
            ("yesterday", "2026-11-19T23:00:00Z"),
            ("10m", "2026-11-21T10:50:00Z"),
            ("2h ago", "2026-11-21T09:00:00Z"),
            ("1h30m", "2026-11-21T09:30:00Z"),
            ("90", "2026-11-21T10:58:30Z"),
            ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00Z"),
            ("2026-11-20T10:00:00.5+02:00", "2026-11-20T08:00:00.5Z"),
            ("2026-11-20 10:00", "2026-11-20T09:00:00Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("08:15", "2026-11-21T07:15:00Z"),
        ] {
            let expected = Moment(expected.parse().expect("a time"));
            assert_eq!(parse_at(text, &now), Ok(expected), "{text}");
        }
        for bad in ["", "soon", "2026-13-01", "25:00", "-5m", "ago", "tomorrow"] {
            assert!(parse_at(bad, &now).is_err(), "{bad}");
        }
    }
}
