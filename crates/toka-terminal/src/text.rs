//! Text measured in the columns that it takes on a terminal, and made safe before it gets there.

use std::time::Duration;

use toka_core::escape;
use toka_core::units::format_duration;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Most characters kept of a text that an agent sends to be shown on one line.
const MAX_SHOWN: usize = 400;

/// Most characters of a text on which a person decides: more than such texts have, also when each character is escaped.
const MAX_DECIDED: usize = 64 * 1024;

/// An agent's text, safe for a terminal and on one line.
pub fn safe(text: &str) -> String {
    escape::for_terminal(text.trim().as_bytes(), MAX_SHOWN)
}

/// The same of a text on which a person decides: nothing that may be in it is left out.
pub fn whole(text: &str) -> String {
    escape::for_terminal(text.trim().as_bytes(), MAX_DECIDED)
}

/// Columns that the text takes.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// Cuts the text to `limit` columns, with `…` at the cut.
pub fn fit(text: &str, limit: usize) -> String {
    if columns(text) <= limit {
        return text.to_owned();
    }
    let mut left = limit.saturating_sub(1);
    let mut out: String = text
        .chars()
        .take_while(|c| {
            let width = c.width().unwrap_or(0);
            let fits = width <= left;
            left = left.saturating_sub(width);
            fits
        })
        .collect();
    if limit > 0 {
        out.push('…');
    }
    out
}

/// Cuts or fills the text to exactly `width` columns.
pub fn cell(text: &str, width: usize) -> String {
    let mut text = fit(text, width);
    text.push_str(&" ".repeat(width - columns(&text)));
    text
}

/// A running clock: whole seconds, so that it changes once a second.
pub fn clock(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds => format_duration(Duration::from_secs(seconds)),
    }
}

/// `1 agent`, `2 agents`.
pub fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A time to the second, in the time zone of the host.
pub fn moment(time_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(time_ms).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%F %T %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_columns_not_characters() {
        for (text, limit, expected) in [
            ("short", 8, "short"),
            ("too long", 4, "too…"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("x", 0, ""),
        ] {
            assert_eq!(fit(text, limit), expected, "{text} in {limit}");
        }
        assert_eq!(cell("日本語", 4), "日… ");
        assert_eq!(cell("ab", 4), "ab  ");
    }

    #[test]
    fn clocks_tick_in_seconds() {
        for (millis, expected) in [(340, "0s"), (59_900, "59s"), (61_000, "1m01s"), (3_700_000, "1h01m")] {
            assert_eq!(clock(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn an_agents_text_stays_on_its_line() {
        assert_eq!(safe(" one\ntwo\u{1b}[2J "), "one\\x0atwo\\x1b[2J");
    }
}
