//! Long texts on a terminal: broken at spaces, so that the terminal does not break them within words.

use toka_core::escape;

use super::text::columns;

/// Breaks a text, made safe for a terminal, at spaces; a word that is too long after `/` or `,`, or anywhere.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let safe = escape::for_terminal(text.trim().as_bytes(), usize::MAX);
    let mut lines = vec![String::new()];
    for word in safe.split(' ').filter(|word| !word.is_empty()) {
        if columns(word) <= width {
            push(&mut lines, word, " ", width);
            continue;
        }
        let mut gap = " ";
        for part in word.split_inclusive(['/', ',']) {
            if columns(part) <= width {
                push(&mut lines, part, gap, width);
            } else {
                part.chars().for_each(|c| push(&mut lines, c.encode_utf8(&mut [0; 4]), "", width));
            }
            gap = "";
        }
    }
    lines
}

/// Adds to the last line, behind `gap` when it is not the first there, or begins a new one.
fn push(lines: &mut Vec<String>, piece: &str, gap: &str, width: usize) {
    match lines.last_mut() {
        Some(line) if line.is_empty() => line.push_str(piece),
        Some(line) if columns(line) + gap.len() + columns(piece) <= width => {
            line.push_str(gap);
            line.push_str(piece);
        }
        _ => lines.push(piece.to_owned()),
    }
}

/// A line for a terminal of `width` columns, which may hold colours and is safe already, broken at spaces where it is longer;
/// what follows the first line begins two columns further right.
pub fn reflow(line: &str, width: usize) -> String {
    let indent = line.len() - line.trim_start_matches(' ').len() + 2;
    let (mut out, mut taken, mut is_blank) = (String::new(), 0, true);
    for (at, word) in line.split(' ').enumerate() {
        let long = shown(word);
        if at > 0 && taken + 1 + long > width && long > 0 && !is_blank {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            taken = indent;
        } else if at > 0 {
            out.push(' ');
            taken += 1;
        }
        out.push_str(word);
        (taken, is_blank) = (taken + long, is_blank && long == 0);
    }
    out
}

/// Columns that a text takes, but for the sequences that colour it (ECMA-48, SGR).
fn shown(text: &str) -> usize {
    let mut parts = text.split("\x1b[");
    let first = parts.next().map_or(0, columns);
    first + parts.map(|part| columns(part.split_once('m').map_or(part, |(_, rest)| rest))).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_by_wrapping() {
        for (text, width, lines) in [
            ("", 5, &[""][..]),
            ("one two", 7, &["one two"]),
            ("one two", 6, &["one", "two"]),
            ("read /srv/state/home", 11, &["read /srv/", "state/home"]),
            ("abcdefgh", 3, &["abc", "def", "gh"]),
            ("a\u{1b}[2Jb", 20, &["a\\x1b[2Jb"]),
        ] {
            assert_eq!(wrap(text, width), lines, "{text:?}");
        }
    }

    #[test]
    fn a_line_is_broken_at_spaces_alone() {
        for (line, expected) in [
            ("short", "short"),
            ("one two three four", "one two\n  three\n  four"),
            ("  a bcdefghij k", "  a\n    bcdefghij\n    k"),
            ("\x1b[31merror:\x1b[0m ab cd", "\x1b[31merror:\x1b[0m ab\n  cd"),
            ("averylongwordindeed x", "averylongwordindeed\n  x"),
        ] {
            assert_eq!(reflow(line, 10), expected, "{line:?}");
        }
    }
}
