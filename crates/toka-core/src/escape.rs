//! Text from outside, made safe for a terminal: no byte of an agent's output can move the cursor, change a colour or
//! retitle the window (ledger T15).

use std::borrow::Cow;
use std::fmt::Write as _;

/// Shows untrusted bytes on one line: control characters, invalid UTF-8, bidirectional overrides and other invisible
/// format characters become `\x1b`-like escapes; a tab becomes a space. Never longer than `limit` characters, with `…` at the cut.
pub fn for_terminal(bytes: &[u8], limit: usize) -> String {
    let mut out = String::with_capacity(bytes.len().min(limit));
    let mut width = 0;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            width += push_char(&mut out, c);
            if width > limit {
                return cut(out, limit);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
            width += 4;
        }
        if width > limit {
            return cut(out, limit);
        }
    }
    out
}

fn push_char(out: &mut String, c: char) -> usize {
    match c {
        '\t' => out.push(' '),
        c if c.is_control() => {
            let before = out.len();
            let _ = write!(out, "\\x{:02x}", u32::from(c));
            return out.len() - before;
        }
        c if is_invisible_format(c) => {
            let before = out.len();
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            return out.len() - before;
        }
        c => out.push(c),
    }
    1
}

/// Whether the character shows itself and nothing else: no control character, no invisible format character.
pub fn is_harmless(c: char) -> bool {
    !c.is_control() && !is_invisible_format(c)
}

/// Characters that change how others are shown: bidirectional controls (UAX #9, with the Arabic letter mark), zero-width,
/// soft-hyphen and tag characters, the Mongolian vowel separator, and what begins a line or a paragraph of its own.
fn is_invisible_format(c: char) -> bool {
    matches!(
        u32::from(c),
        0xad | 0x61c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff | 0xe0000..=0xe007f
    )
}

/// JSON in which no character of a string controls a terminal: those that JSON allows to stand raw become `\\u` escapes, so
/// that it means the same.
pub fn json_for_terminal(json: &str) -> Cow<'_, str> {
    // Line feeds are the layout of JSON itself; in a string they are escaped already.
    let is_fine = |c: char| is_harmless(c) || c == '\n';
    if json.chars().all(is_fine) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_fine(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(out)
}

fn cut(text: String, limit: usize) -> String {
    let mut out: String = text.chars().take(limit.saturating_sub(1)).collect();
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_lose_their_power() {
        for (bytes, text) in [
            (&b"plain \xc3\xa9"[..], "plain é"),
            (b"\x1b[31mred\x07", "\\x1b[31mred\\x07"),
            (b"a\tb\r", "a b\\x0d"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("\u{202e}evil".as_bytes(), "\\u{202e}evil"),
            ("\u{9b}31m".as_bytes(), "\\x9b31m"),
            ("a\u{2028}b\u{ad}\u{61c}\u{180e}".as_bytes(), "a\\u{2028}b\\u{ad}\\u{61c}\\u{180e}"),
        ] {
            assert_eq!(for_terminal(bytes, 80), text);
        }
        assert_eq!(for_terminal(b"0123456789", 5), "0123…");
    }

    proptest! {
        #[test]
        fn nothing_that_controls_a_terminal_comes_through(bytes: Vec<u8>, limit in 1usize..200) {
            let text = for_terminal(&bytes, limit);
            prop_assert!(text.chars().all(is_harmless));
            prop_assert!(text.chars().count() <= limit);
        }
    }
}
