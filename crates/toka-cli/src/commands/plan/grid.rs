//! Three columns on a terminal: a word, a text, and where it comes from. Long texts are wrapped, never cut: a plan that
//! hides a rule is worth nothing.

use toka_core::escape;

use crate::terminal::palette::{Paint, Palette};
use crate::terminal::text::columns;

/// Columns of the first word, with the space behind it.
const LABEL: usize = 11;
const INDENT: usize = 2;
/// Below this nothing can be arranged; the terminal may wrap as it likes.
pub(crate) const LEAST: usize = 60;

/// One line, before it is wrapped.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) label: String,
    pub(super) text: String,
    pub(super) from: String,
    pub(super) paint: Option<Paint>,
}

impl Row {
    pub(super) fn new(label: &str, text: impl Into<String>, from: impl Into<String>) -> Self {
        Self { label: label.to_owned(), text: text.into(), from: from.into(), paint: None }
    }

    pub(super) fn painted(mut self, paint: Paint) -> Self {
        self.paint = Some(paint);
        self
    }
}

/// The rows as text, a label only where it changes.
pub(super) fn grid(rows: &[Row], width: usize, palette: Palette) -> String {
    let width = width.max(LEAST);
    let from_width = (width / 3).min(40);
    let text_width = width - INDENT - LABEL - from_width - 2;
    let mut out = String::new();
    let mut last = "";
    for row in rows {
        let label = if row.label == last { "" } else { &row.label };
        last = &row.label;
        let text = wrap(&row.text, text_width);
        let from = wrap(&row.from, from_width);
        for at in 0..text.len().max(from.len()) {
            let word = if at == 0 { label } else { "" };
            let (text, from) = (text.get(at).map_or("", |t| t), from.get(at).map_or("", |f| f));
            let line = [
                palette.accent.paint(pad(word, LABEL)),
                row.paint.map_or_else(|| pad(text, text_width), |paint| paint.paint(pad(text, text_width))),
                palette.faint.paint(from),
            ];
            let line = format!("{:INDENT$}{}{}  {}", "", line[0], line[1], line[2]);
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// Breaks a text, made safe for a terminal, at spaces; a word that is too long after `/` or `,`, or anywhere.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
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
    fn rows_stay_within_the_width() {
        let rows = [
            Row::new(
                "landlock",
                "execute /usr, /bin, /lib, /lib64, /opt/very/long/path/indeed",
                "default: system",
            ),
            Row::new("landlock", "read docs", "a-file-with-a-long-name.yaml:123"),
        ];
        let text = grid(&rows, 60, Palette::PLAIN);
        assert!(text.lines().all(|line| columns(line) <= 60), "{text}");
        assert_eq!(text.matches("landlock").count(), 1);
    }
}
