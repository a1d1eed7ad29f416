//! Three columns on a terminal: a word, a text, and where it comes from. Long texts are wrapped, never cut: a plan that
//! hides a rule is worth nothing.

use toka_terminal::palette::{Paint, Palette};
use toka_terminal::text::columns;
use toka_terminal::wrap::wrap;

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

#[cfg(test)]
mod tests {
    use super::*;

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
