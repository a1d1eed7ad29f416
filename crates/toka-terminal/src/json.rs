//! Lines of JSON for programs: one event a line, and a summary as the last line.

use std::borrow::Cow;

use serde::Serialize;
use toka_core::escape;

/// One value as one line. Characters that control a terminal are written as `\u` escapes, also those that JSON allows
/// to stand raw, since a person may look at the stream.
///
/// # Panics
/// Never: what is written has string keys and no custom serializers that fail.
pub fn line(value: &impl Serialize) -> String {
    escaped(serde_json::to_string(value).expect("events and summaries have string keys"))
}

/// One value on several lines, for a person who reads it.
///
/// # Panics
/// As [`line()`].
pub fn pretty(value: &impl Serialize) -> String {
    escaped(serde_json::to_string_pretty(value).expect("events and summaries have string keys"))
}

/// JSON that somebody else made, safe for a terminal.
pub fn escaped(json: String) -> String {
    match escape::json_for_terminal(&json) {
        Cow::Borrowed(_) => json,
        Cow::Owned(escaped) => escaped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canned;

    #[test]
    fn a_whole_run() {
        let lines: Vec<String> = canned::events().iter().map(line).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_line_means_what_the_value_means() {
        for text in ["plain é", "\u{1b}[2J\u{7f}\u{9b}", "\u{202e}x\u{e0001}", "new\nline", "\u{2028}\u{61c}"]
        {
            let line = line(&text);
            assert!(line.chars().all(escape::is_harmless), "{line:?}");
            assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), text);
        }
    }
}
