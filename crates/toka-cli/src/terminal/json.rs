//! Lines of JSON for programs: one event a line, and a summary as the last line.

use std::fmt::Write as _;

use serde::Serialize;
use toka_core::escape;

/// One value as one line. Characters that control a terminal are written as `\u` escapes, also those that JSON allows
/// to stand raw, since a person may look at the stream.
///
/// # Panics
/// Never: what is written has string keys and no custom serializers that fail.
pub(crate) fn line(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("events and summaries have string keys");
    if text.chars().all(escape::is_harmless) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if escape::is_harmless(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::canned;
    use super::*;

    #[test]
    fn a_whole_run() {
        let lines: Vec<String> = canned::events().iter().map(line).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_line_means_what_the_value_means() {
        for text in ["plain é", "\u{1b}[2J\u{7f}\u{9b}", "\u{202e}x\u{e0001}", "new\nline"] {
            let line = line(&text);
            assert!(line.chars().all(escape::is_harmless), "{line:?}");
            assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), text);
        }
    }
}
