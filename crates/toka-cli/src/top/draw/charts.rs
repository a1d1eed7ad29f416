//! What the chosen agent uses, now and before: CPU at the left, memory at the right.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{RenderDirection, Sparkline, Widget as _};
use toka_core::Resources;
use toka_core::units::ByteSize;

use super::percent;
use crate::top::figures::Figures;
use crate::top::model::Model;
use crate::top::theme::Theme;
use toka_terminal::text::{cell, clock};

/// The least that the full height of the chart of CPU stands for, in tenths of a percent: a quiet agent looks quiet.
const LEAST_SCALE: u64 = 100;
/// Columns of what stands beside a chart.
const LABEL: u16 = 18;

pub(super) fn draw(model: &Model, theme: Theme, area: Rect, cells: &mut Buffer) {
    if area.height == 0 {
        return;
    }
    let none = Figures::default();
    let figures = model.selected.as_ref().and_then(|id| model.figures.get(id)).unwrap_or(&none);
    let now = figures.now.unwrap_or_default();
    let half = area.width / 2;
    let left = Rect { x: area.x + 1, width: half - 2, ..area };
    let right = Rect { x: area.x + half, width: area.width - half - 1, ..area };
    let length = usize::from(half);
    let shares = figures.cpu_history(length);
    let scale = shares.iter().copied().max().unwrap_or(0).max(LEAST_SCALE);
    labels(&cpu(figures, &now), theme, left, cells);
    chart(&shares, scale, theme.good, left, cells);
    let amounts = figures.memory_history(length);
    let scale = amounts.iter().copied().max().unwrap_or(0).max(1);
    labels(&memory(&now), theme, right, cells);
    chart(&amounts, scale, theme.busy, right, cells);
}

/// A name and what stands beside it.
type Label = (&'static str, Option<String>);

fn cpu(figures: &Figures, now: &Resources) -> [Label; 3] {
    let throttled = now.throttled_us.filter(|time| *time > 0);
    [
        ("cpu", figures.cpu.map(|cpu| format!("{}%", percent(cpu)))),
        ("waits", now.pressure.cpu.map(|pressure| format!("{}%", percent(pressure)))),
        ("throttled", throttled.map(|time| clock(std::time::Duration::from_micros(time)))),
    ]
}

fn memory(now: &Resources) -> [Label; 3] {
    let bytes = |amount: Option<u64>| amount.map(|amount| ByteSize(amount).to_string());
    [("mem", bytes(now.memory_current)), ("peak", bytes(now.memory_peak)), ("limit", bytes(now.memory_limit))]
}

fn labels(labels: &[Label], theme: Theme, area: Rect, cells: &mut Buffer) {
    for ((name, value), y) in labels.iter().zip(area.y..area.bottom()) {
        let name_width = if area.height > 1 { 10 } else { 4 };
        let (value, style) = match value {
            Some(value) => (value.as_str(), Style::new()),
            None => ("–", theme.faint),
        };
        cells.set_string(area.x, y, cell(name, name_width), theme.faint);
        let x = area.x + u16::try_from(name_width).unwrap_or(0);
        cells.set_stringn(x, y, value, usize::from(LABEL) - name_width, style);
    }
}

fn chart(newest_first: &[u64], scale: u64, style: Style, area: Rect, cells: &mut Buffer) {
    let indent = if area.height > 1 { LABEL + 2 } else { 14 };
    if area.width <= indent {
        return;
    }
    let area = Rect { x: area.x + indent, width: area.width - indent, ..area };
    let chart = Sparkline::default().data(newest_first).max(scale).style(style);
    chart.direction(RenderDirection::RightToLeft).render(area, cells);
}
