//! The output of the chosen agent: the end of it, or where a person went back to.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;
use toka_logs::Stream;
use unicode_width::UnicodeWidthChar as _;

use super::columns::doing;
use super::{put, span, width_of};
use crate::top::keys::matches;
use crate::top::layout::Zoom;
use crate::top::log_line::LogLine;
use crate::top::model::{Below, Model, Pane};
use crate::top::theme::Theme;
use toka_terminal::text::{fit, safe};

/// Columns before the text: the time and a bar.
const CLOCK: &str = "00:00:00";
/// From this width on there is room for the time.
const WITH_CLOCK: u16 = 100;

/// The line above: whose it is, and how far back.
pub(super) fn title(model: &Model, theme: Theme, area: Rect, cells: &mut Buffer) {
    let Some(id) = &model.selected else { return };
    let is_focused = model.pane == Pane::Log;
    let line = if is_focused { theme.accent } else { theme.faint };
    cells.set_string(area.x, area.y, "─".repeat(usize::from(area.width)), line);
    let name = if is_focused { theme.accent.patch(theme.strong) } else { theme.strong };
    let what = if model.below == Below::Events { "events of " } else { "" };
    let mut spans = vec![span(format!(" {what}{id} "), name)];
    if let Some((_, agent)) = model.agent(id) {
        let doing = doing(model, id, agent);
        let says_more = |text: &&str| !text.is_empty() && *text != id.agent.as_str();
        let texts = [safe(&agent.title), doing];
        let texts: Vec<&str> = texts.iter().map(String::as_str).filter(says_more).collect();
        if !texts.is_empty() {
            spans.push(span(format!("{} ", texts.join(" · ")), theme.faint));
        }
    }
    put(cells, Rect { x: area.x + 1, width: area.width - 2, ..area }, spans);
    if model.log.back > 0 {
        let text = format!(" {} lines back; End follows again ", model.log.back);
        let x = area.right().saturating_sub(width_of(&text) + 1);
        cells.set_stringn(x, area.y, text, usize::from(area.width), theme.warn);
    }
}

/// The lines: cut where there are few rows, wrapped where there is nothing else on the screen.
pub(super) fn draw(model: &Model, theme: Theme, area: Rect, cells: &mut Buffer) {
    let lines = model.below();
    if lines.is_empty() {
        let text = match model.below {
            Below::Events => " nothing happened to it yet",
            Below::Log if model.log.agent.is_some() => " it wrote nothing yet",
            Below::Log => "",
        };
        cells.set_stringn(area.x, area.y, text, usize::from(area.width), theme.faint);
        return;
    }
    let has_clock = area.width >= WITH_CLOCK || model.zoom == Zoom::Log || model.below == Below::Events;
    let before = if has_clock { width_of(CLOCK) + 4 } else { 3 };
    let width = usize::from(area.width - before);
    let height = usize::from(area.height);
    let last = lines.len() - model.log.back.min(lines.len() - 1);
    let mut rows = Vec::new();
    for line in lines[..last].iter().rev() {
        let parts = match model.zoom {
            Zoom::Split => vec![fit(&line.text, width)],
            Zoom::Log => wrapped(&line.text, width),
        };
        for (at, part) in parts.into_iter().enumerate().rev() {
            rows.push((line, at, part));
        }
        if rows.len() >= height {
            break;
        }
    }
    rows.truncate(height);
    for ((line, at, part), y) in rows.into_iter().rev().zip(area.y..) {
        let row = Rect { x: area.x + 1, y, width: area.width - 1, height: 1 };
        let clock = if at == 0 { time(line) } else { " ".repeat(CLOCK.len()) };
        let clock = if has_clock { format!("{clock} ") } else { String::new() };
        let bar = if line.stream == Stream::Stderr { theme.warn } else { theme.faint };
        let mut spans = vec![span(clock, theme.faint), span("│ ", bar)];
        spans.extend(marked(&part, &model.search, theme));
        put(cells, row, spans);
    }
}

/// The text with what is looked for marked.
fn marked(text: &str, wanted: &str, theme: Theme) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    let mut from = 0;
    for found in matches(text, wanted) {
        spans.push(span(&text[from..found.start], Style::new()));
        spans.push(span(&text[found.clone()], theme.chosen));
        from = found.end;
    }
    spans.push(span(&text[from..], Style::new()));
    spans
}

fn time(line: &LogLine) -> String {
    let at = line.time_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let zone = if cfg!(test) { TimeZone::UTC } else { TimeZone::system() };
    at.map_or_else(|| " ".repeat(CLOCK.len()), |at| at.to_zoned(zone).strftime("%H:%M:%S").to_string())
}

/// The text in pieces of at most `width` columns.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut taken = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if taken + wide > width {
            parts.push(String::new());
            taken = 0;
        }
        taken += wide;
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_wrapped_at_columns() {
        assert_eq!(wrapped("abcdef", 4), ["abcd", "ef"]);
        assert_eq!(wrapped("日本語", 5), ["日本", "語"]);
        assert_eq!(wrapped("", 5), [""]);
    }
}
