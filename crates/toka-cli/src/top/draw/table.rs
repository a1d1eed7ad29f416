//! The agents, one row each: only those on the screen are looked at.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use toka_core::AgentStatus;

use super::columns::{Column, GAP, LEAST_BAR, Longest, columns, name, text};
use super::width_of;
use crate::top::layout::Areas;
use crate::top::model::{Judged, Link, Model, Pane};
use crate::top::rows::{Order, Row, Turn};
use crate::top::theme::{Theme, style};
use toka_terminal::text::{cell, columns as columns_of, fit};
use toka_terminal::{health, list};

pub(super) fn draw(model: &Model, theme: Theme, areas: Areas, cells: &mut Buffer) {
    if areas.rows.height == 0 {
        return;
    }
    let shown = shown(model, areas);
    titles(model, theme, &shown, areas.columns, cells);
    for (row, y) in model.visible().iter().zip(areas.rows.y..) {
        let area = Rect { y, height: 1, ..areas.rows };
        draw_row(model, theme, &shown, row, area, cells);
    }
    if model.rows.is_empty() {
        let line = format!(" no agent has “{}”; Esc shows all", fit(&model.filter, 20));
        cells.set_stringn(areas.rows.x, areas.rows.y, line, usize::from(areas.rows.width), theme.faint);
    }
}

/// The columns, with their widths.
pub(super) fn shown(model: &Model, areas: Areas) -> Vec<(Column, u16)> {
    let longest = Longest {
        name: model.rows.iter().map(|row| width_of(&name(model, row))).max().unwrap_or(0),
        state: model.agents().map(|agent| width_of(agent.state.as_str())).max().unwrap_or(0),
    };
    columns(areas.rows.width, longest)
}

fn titles(model: &Model, theme: Theme, shown: &[(Column, u16)], row: Rect, cells: &mut Buffer) {
    let mark = if model.turn == Turn::Back { '▴' } else { '▾' };
    let is_focused = model.pane == Pane::Agents;
    let mut x = row.x + 1;
    for (column, width) in shown {
        let title = column.title(*width);
        let is_ordered =
            column.order() == Some(model.order) || (*column == Column::Agent && model.order == Order::Tree);
        let style = match (is_ordered, is_focused) {
            (true, _) => theme.strong.patch(theme.accent),
            (false, true) => theme.strong,
            (false, false) => theme.faint,
        };
        let marked = if is_ordered { format!("{title}{mark}") } else { title.to_owned() };
        let marked = if columns_of(&marked) > usize::from(*width) { title.to_owned() } else { marked };
        cells.set_string(x, row.y, aligned(*column, &marked, *width), style);
        x += width + GAP;
    }
}

fn aligned(column: Column, text: &str, width: u16) -> String {
    let columns = usize::from(width);
    let text = fit(text, columns);
    match column.is_figure(width) {
        true => format!("{}{text}", " ".repeat(columns - columns_of(&text))),
        false => cell(&text, columns),
    }
}

fn draw_row(model: &Model, theme: Theme, shown: &[(Column, u16)], of: &Row, row: Rect, cells: &mut Buffer) {
    let id = &of.id;
    let Some((project, agent)) = model.agent(id) else { return };
    let judged = model.judged(id);
    let is_old = project.link == Link::Lost;
    let mut x = row.x + 1;
    for (column, width) in shown {
        let area = Rect { x, width: *width, ..row };
        match column {
            Column::Progress => bar(agent, theme, area, cells),
            _ => {
                let text = aligned(*column, &text(*column, model, of, agent, *width), *width);
                let style = if is_old { theme.faint } else { look(*column, agent, judged, &text, theme) };
                cells.set_string(x, row.y, text, style);
            }
        }
        x += width + GAP;
    }
    if model.selected.as_ref() == Some(id) {
        // One colour for the whole row: reversed colours of each column would be a patchwork.
        cells.set_style(row, Style::reset().patch(theme.chosen));
    }
}

fn look(column: Column, agent: &AgentStatus, judged: Option<&Judged>, text: &str, theme: Theme) -> Style {
    if text.trim() == "–" {
        return theme.faint;
    }
    match column {
        Column::State => style(list::paint(agent, theme.palette)),
        Column::Health => {
            judged.map_or(theme.faint, |judged| style(health::paint(judged.verdict, theme.palette)))
        }
        Column::For | Column::Pid => theme.faint,
        Column::Restarts => theme.warn,
        _ => Style::new(),
    }
}

/// Columns of the figure beside a bar.
const LABEL: u16 = 4;

/// How far it is: heavy for what is done, light for what is not, so that it is read without colours too.
fn bar(agent: &AgentStatus, theme: Theme, area: Rect, cells: &mut Buffer) {
    let fraction = agent.progress.fraction;
    let label = fraction.map(|fraction| format!("{:.0}%", (fraction * 100.0).floor()));
    let (Some(fraction), Some(label), LEAST_BAR..) = (fraction, &label, area.width) else {
        let text = aligned(Column::Progress, label.as_deref().unwrap_or("–"), area.width);
        let style = if label.is_some() { Style::new() } else { theme.faint };
        cells.set_string(area.x, area.y, text, style);
        return;
    };
    let room = area.width - LABEL - 1;
    let done = (f64::from(room) * fraction).round() as u16;
    cells.set_string(area.x, area.y, "━".repeat(usize::from(done)), theme.busy);
    cells.set_string(area.x + done, area.y, "─".repeat(usize::from(room - done)), theme.faint);
    cells.set_string(area.x + room + 1, area.y, format!("{label:>4}"), Style::new());
}
