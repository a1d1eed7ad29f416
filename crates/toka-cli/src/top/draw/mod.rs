//! The model as cells: a pure function, one file for each part of the terminal.

mod bottom;
mod charts;
mod columns;
mod details;
mod header;
mod help;
mod log;
mod popup;
mod signals;
mod table;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::layout::LEAST;
use super::model::{Mode, Model};
use super::rows::Order;
use super::theme::Theme;
use toka_terminal::failure::Failure;
use toka_terminal::text::{columns, fit};

/// Draws everything.
pub(crate) fn draw(model: &Model, theme: Theme, frame: &mut Frame<'_>) {
    let whole = frame.area();
    if whole.as_size() != model.size {
        // The terminal has another size than the model knows: it will hear, and draw then.
        return;
    }
    let cells = frame.buffer_mut();
    let Some(areas) = model.areas() else {
        let text = format!("toka top needs {} × {}", LEAST.width, LEAST.height);
        return centred(cells, whole, &[(text, Style::new())]);
    };
    header::draw(model, theme, areas.header, cells);
    bottom::draw(model, theme, areas.bottom, cells);
    if model.agents().next().is_none() {
        let middle = Rect { y: areas.header.height, height: whole.height - areas.header.height - 1, ..whole };
        empty(model, theme, middle, cells);
    } else {
        table::draw(model, theme, areas, cells);
        log::title(model, theme, areas.title, cells);
        charts::draw(model, theme, areas.charts, cells);
        log::draw(model, theme, areas.log, cells);
    }
    match &model.mode {
        Mode::Help => help::draw(theme, whole, cells),
        Mode::Signal(agent, at) => signals::draw(agent, *at, theme, whole, cells),
        Mode::Details(from) => details::draw(model, *from, theme, whole, cells),
        Mode::Browse | Mode::Filter | Mode::Search | Mode::Confirm(..) | Mode::Answer(..) => {}
    }
}

/// What rows would be ordered by after a click on the heading in this column of the terminal.
pub(super) fn heading_at(model: &Model, x: u16) -> Option<Order> {
    let areas = model.areas()?;
    let mut left = areas.columns.x + 1;
    for (column, width) in table::shown(model, areas) {
        if (left..left + width).contains(&x) {
            return column.order();
        }
        left += width + columns::GAP;
    }
    None
}

fn empty(model: &Model, theme: Theme, area: Rect, cells: &mut Buffer) {
    let plain = |text: &str| (text.to_owned(), Style::new());
    let left = model.left.failure();
    let lines = match model.daemons {
        _ if let Some((why, help)) = left.as_ref().map(Failure::words) => {
            // A sentence at a time: a line that is too long loses its end.
            let why = why.split_inclusive([',', ':']).map(|part| (part.trim().to_owned(), theme.bad));
            let help = help.split_inclusive([';', ',']).map(|part| plain(part.trim()));
            why.chain([plain("")]).chain(help).collect()
        }
        None => vec![("looking for what runs …".to_owned(), theme.faint)],
        Some(_) => vec![
            ("Nothing runs.".to_owned(), theme.strong),
            plain(""),
            plain("toka run agents/ --detach   starts agents in the background"),
            plain("toka init                   writes a first workstream      "),
            plain(""),
            ("Whatever starts appears here by itself.".to_owned(), theme.faint),
        ],
    };
    centred(cells, area, &lines);
}

/// Lines in the middle of an area.
fn centred(cells: &mut Buffer, area: Rect, lines: &[(String, Style)]) {
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let top = area.y + area.height.saturating_sub(height) / 2;
    for ((text, style), y) in lines.iter().zip(top..area.bottom()) {
        let text = fit(text, usize::from(area.width));
        let x = area.x + (area.width - width_of(&text)) / 2;
        cells.set_string(x, y, text, *style);
    }
}

/// Columns that a text takes, which fit on a terminal.
fn width_of(text: &str) -> u16 {
    u16::try_from(columns(text)).unwrap_or(u16::MAX)
}

/// Puts spans on one row, those that fit, and cuts the last of them.
fn put(cells: &mut Buffer, area: Rect, spans: Vec<Span<'_>>) -> u16 {
    let line = Line::from(spans);
    let (x, _) = cells.set_line(area.x, area.y, &line, area.width);
    x
}

/// A text in a style.
fn span(text: impl Into<String>, style: Style) -> Span<'static> {
    Span::styled(text.into(), style)
}

/// Bytes in at most six columns: `812K`, `12.3M`, `1.2G`.
fn short_bytes(bytes: u64) -> String {
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 'K';
    for larger in ['M', 'G', 'T', 'P'] {
        if amount < 999.5 {
            break;
        }
        (amount, unit) = (amount / 1024.0, larger);
    }
    if amount < 9.95 && unit != 'K' { format!("{amount:.1}{unit}") } else { format!("{amount:.0}{unit}") }
}

/// Percent in at most four columns.
fn percent(value: f64) -> String {
    if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        for (bytes, text) in [
            (0, "0K"),
            (812 << 10, "812K"),
            (1023 << 10, "1.0M"),
            (12_900_000, "12M"),
            (1_300_000_000, "1.2G"),
            (64 << 30, "64G"),
            (u64::MAX, "16384P"),
        ] {
            assert_eq!(short_bytes(bytes), text, "{bytes}");
        }
        assert_eq!([0.0, 0.04, 9.94, 9.96, 145.2].map(percent), ["0.0", "0.0", "9.9", "10", "145"]);
    }
}
