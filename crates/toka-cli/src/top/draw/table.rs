//! The agents, one row each: only those on the screen are looked at.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use toka_core::AgentStatus;

use super::columns::{Column, GAP, LEAST_BAR, Longest, columns, name, text};
use super::width_of;
use crate::terminal::list;
use crate::terminal::text::{cell, columns as columns_of, fit};
use crate::top::layout::Areas;
use crate::top::model::{Link, Model, Pane};
use crate::top::rows::{AgentId, Order};
use crate::top::theme::{Theme, style};

pub(super) fn draw(model: &Model, theme: Theme, areas: Areas, cells: &mut Buffer) {
    if areas.rows.height == 0 {
        return;
    }
    let longest = Longest {
        name: model.rows.iter().map(|id| width_of(&name(model, id))).max().unwrap_or(0),
        state: model.agents().map(|agent| width_of(agent.state.as_str())).max().unwrap_or(0),
    };
    let shown = columns(areas.rows.width, longest);
    titles(model, theme, &shown, areas.columns, cells);
    for (id, y) in model.visible().iter().zip(areas.rows.y..) {
        let row = Rect { y, height: 1, ..areas.rows };
        draw_row(model, theme, &shown, id, row, cells);
    }
    if model.rows.is_empty() {
        let line = format!(" no agent has “{}”; Esc shows all", fit(&model.filter, 20));
        cells.set_stringn(areas.rows.x, areas.rows.y, line, usize::from(areas.rows.width), theme.faint);
    }
}

fn titles(model: &Model, theme: Theme, shown: &[(Column, u16)], row: Rect, cells: &mut Buffer) {
    let ordered = match model.order {
        Order::Name => Column::Agent,
        Order::State => Column::State,
        Order::Cpu => Column::Cpu,
        Order::Memory => Column::Memory,
    };
    let is_focused = model.pane == Pane::Agents;
    let mut x = row.x + 1;
    for (column, width) in shown {
        let title = column.title(*width);
        let style = match (*column == ordered, is_focused) {
            (true, _) => theme.strong.patch(theme.accent),
            (false, true) => theme.strong,
            (false, false) => theme.faint,
        };
        let marked = if *column == ordered { format!("{title}▾") } else { title.to_owned() };
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

fn draw_row(
    model: &Model,
    theme: Theme,
    shown: &[(Column, u16)],
    id: &AgentId,
    row: Rect,
    cells: &mut Buffer,
) {
    let Some((project, agent)) = model.agent(id) else { return };
    let is_old = project.link == Link::Lost;
    let mut x = row.x + 1;
    for (column, width) in shown {
        let area = Rect { x, width: *width, ..row };
        match column {
            Column::Progress => bar(agent, theme, area, cells),
            _ => {
                let text = aligned(*column, &text(*column, model, id, agent, *width), *width);
                let style = if is_old { theme.faint } else { look(*column, agent, &text, theme) };
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

fn look(column: Column, agent: &AgentStatus, text: &str, theme: Theme) -> Style {
    if text.trim() == "–" {
        return theme.faint;
    }
    match column {
        Column::State => style(list::paint(agent, theme.palette)),
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
