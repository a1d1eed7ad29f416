//! The last row: a question, what was said last, or the keys.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{put, span, width_of};
use crate::top::keys::word;
use crate::top::layout::Zoom;
use crate::top::model::{Mode, Model, Pane, Tone};
use crate::top::theme::Theme;
use toka_terminal::text::{fit, safe};

/// The keys that are shown, the most important first: what does not fit is left out.
const HINTS: [(&str, &str); 13] = [
    ("?", "help"),
    ("q", "quit"),
    ("/", "filter"),
    ("Enter", "log"),
    ("v", "events"),
    ("i", "details"),
    ("t", "tree"),
    ("o", "order"),
    ("p", "pause"),
    ("r", "resume"),
    ("s", "stop"),
    ("S", "start"),
    ("R", "restart"),
];
const HINTS_OF_LOG: [(&str, &str); 6] = [
    ("Esc", "back"),
    ("↑ ↓", "scroll"),
    ("End", "follow"),
    ("/", "search"),
    ("v", "output or events"),
    ("?", "help"),
];
const HINTS_OF_SEARCH: [(&str, &str); 4] =
    [("n", "found before"), ("N", "found after"), ("/", "another text"), ("Esc", "no search")];
const HINTS_OF_SIGNAL: [(&str, &str); 3] = [("↑ ↓", "choose"), ("Enter", "send"), ("Esc", "none")];
const HINTS_OF_DETAILS: [(&str, &str); 2] = [("↑ ↓", "scroll"), ("Esc", "back")];

pub(super) fn draw(model: &Model, theme: Theme, area: Rect, cells: &mut Buffer) {
    let row = Rect { x: area.x + 1, width: area.width - 1, ..area };
    match &model.mode {
        Mode::Answer(agent, approval) => {
            let subject = &approval.subject;
            let yes = subject.yes().unwrap_or_else(|| "yes, with a sum".to_owned());
            let no = subject.no();
            let width = usize::from(row.width).saturating_sub(yes.len() + no.len() + 22);
            let question = fit(&safe(&format!("{agent}: {subject}")), width);
            put(
                cells,
                row,
                vec![
                    span(question, theme.warn.patch(theme.strong)),
                    span("  y", theme.strong),
                    span(format!(" {yes}   "), Style::new()),
                    span("n", theme.strong),
                    span(format!(" {no}   "), Style::new()),
                    span("Esc", theme.strong),
                    span(" later", Style::new()),
                ],
            );
        }
        Mode::Confirm(request, agent) => {
            let width = usize::from(row.width).saturating_sub(24);
            let question = format!("{} {}?", word(*request), fit(&agent.to_string(), width));
            put(
                cells,
                row,
                vec![
                    span(question, theme.warn.patch(theme.strong)),
                    span("  y", theme.strong),
                    span(" yes   ", Style::new()),
                    span("n", theme.strong),
                    span(" no", Style::new()),
                ],
            );
        }
        Mode::Filter | Mode::Search => {
            let is_search = model.mode == Mode::Search;
            let text = safe(if is_search { &model.search } else { &model.filter });
            let end = put(
                cells,
                row,
                vec![span("/", theme.accent), span(text, Style::new()), span("▏", theme.accent)],
            );
            let said = if is_search { "Enter finds it".to_owned() } else { shown(model) };
            right(&said, theme, row, end, cells);
        }
        Mode::Signal(..) => {
            hints(&HINTS_OF_SIGNAL, theme, row, cells);
        }
        Mode::Details(_) => {
            hints(&HINTS_OF_DETAILS, theme, row, cells);
        }
        Mode::Browse | Mode::Help => match &model.note {
            Some((note, _)) => {
                let style = match note.tone {
                    Tone::Busy => theme.busy,
                    Tone::Good => theme.good,
                    Tone::Bad => theme.bad,
                };
                put(cells, row, vec![span(fit(&note.text, usize::from(row.width)), style)]);
            }
            None => keys(model, theme, row, cells),
        },
    }
}

fn keys(model: &Model, theme: Theme, row: Rect, cells: &mut Buffer) {
    let is_log = model.zoom == Zoom::Log || model.pane == Pane::Log;
    let keys = match is_log {
        true if !model.search.is_empty() => &HINTS_OF_SEARCH[..],
        true => &HINTS_OF_LOG[..],
        false => &HINTS[..],
    };
    let said = if is_log { String::new() } else { shown(model) };
    let room = row.width.saturating_sub(width_of(&said) + 2);
    let end = hints(keys, theme, Rect { width: room, ..row }, cells);
    right(&said, theme, row, end, cells);
}

/// Those that fit; where the last of them ends.
fn hints(hints: &[(&'static str, &'static str)], theme: Theme, row: Rect, cells: &mut Buffer) -> u16 {
    let mut spans = Vec::new();
    let mut taken = 0;
    for (key, what) in hints {
        let width = width_of(key) + width_of(what) + 4;
        if taken + width > row.width {
            break;
        }
        taken += width;
        spans.extend([span(*key, theme.accent), span(format!(" {what}   "), theme.faint)]);
    }
    put(cells, row, spans)
}

/// How many of how many agents are listed, when that is not all of them.
fn shown(model: &Model) -> String {
    let all = model.agents().count();
    if model.filter.is_empty() {
        let place = model.place().map_or(0, |place| place + 1);
        return if all > model.visible().len() { format!("{place} of {all}") } else { String::new() };
    }
    let filter = match model.mode {
        Mode::Filter => String::new(),
        _ => format!("/{}  ", fit(&safe(&model.filter), 20)),
    };
    format!("{filter}{} of {all}", model.rows.len())
}

fn right(text: &str, theme: Theme, row: Rect, taken: u16, cells: &mut Buffer) {
    let x = row.right().saturating_sub(width_of(text) + 1);
    if x > taken {
        cells.set_string(x, row.y, text, theme.accent);
    }
}
