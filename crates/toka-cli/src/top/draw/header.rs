//! The totals: agents by their state, what they use together, how busy the machine is.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;
use toka_core::AgentStatus;

use super::{percent, put, short_bytes, span, width_of};
use crate::terminal::list;
use crate::terminal::text::count;
use crate::top::figures::Figures;
use crate::top::machine::WAITED_FOR;
use crate::top::model::Model;
use crate::top::theme::{Theme, style};

/// States in the order in which they are counted.
const STATES: [&str; 12] = [
    "quarantined",
    "failed",
    "blocked",
    "backoff",
    "stopping",
    "paused",
    "starting",
    "running",
    "ready",
    "pending",
    "stopped",
    "succeeded",
];

pub(super) fn draw(model: &Model, theme: Theme, area: Rect, cells: &mut Buffer) {
    let first = Rect { x: area.x + 1, width: area.width - 1, height: 1, ..area };
    let mut totals = agents(model, theme, "  ");
    if totals.iter().map(Span::width).sum::<usize>() > usize::from(first.width) {
        totals = agents(model, theme, " ");
        // The first is the heading, which can be done without.
        totals.drain(..2);
    }
    put(cells, first, totals);
    let second = Rect { y: area.y + 1, ..first };
    let end = put(cells, second, machine(model, theme));
    lost(model, theme, second, end, cells);
}

/// The heading, and how many agents there are in each state, `gap` apart.
fn agents(model: &Model, theme: Theme, gap: &'static str) -> Vec<Span<'static>> {
    let apart = || span(gap, Style::new());
    let agents: Vec<&AgentStatus> = model.agents().collect();
    let mut spans = vec![span("toka top", theme.strong)];
    let mut names = model.projects.keys();
    match (names.next(), names.next()) {
        (Some(only), None) => spans.extend([apart(), span(only.as_str(), theme.accent)]),
        (Some(_), Some(_)) => {
            spans.extend([apart(), span(count(model.projects.len(), "project"), Style::new())]);
        }
        (None, _) => {}
    }
    if agents.is_empty() {
        return spans;
    }
    spans.extend([apart(), span(count(agents.len(), "agent"), Style::new())]);
    for state in STATES {
        let mut those = agents.iter().filter(|agent| agent.state.as_str() == state);
        if let Some(first) = those.next() {
            let paint = style(list::paint(first, theme.palette));
            spans.extend([apart(), span(format!("{} {state}", 1 + those.count()), paint)]);
        }
    }
    spans
}

fn machine(model: &Model, theme: Theme) -> Vec<Span<'static>> {
    let label = |text: &str| span(format!("{text} "), theme.faint);
    let mut spans = Vec::new();
    if model.agents().next().is_some() {
        // A sum of nothing is -0.
        let cpu = model.figures.values().filter_map(|figures| figures.cpu).fold(0.0, |sum, cpu| sum + cpu);
        let memory: u64 = model.figures.values().filter_map(Figures::memory).sum();
        let amounts = [("cpu", format!("{}%", percent(cpu))), ("mem", short_bytes(memory))];
        for (name, value) in amounts {
            spans.extend([label(name), span(format!("{value:<5} "), Style::new())]);
        }
    }
    if let Some(load) = model.machine.load {
        let load = load.map(|load| format!("{load:.2}")).join(" ");
        spans.extend([label("load"), span(format!("{load}  "), Style::new())]);
    }
    if model.machine.pressure.iter().any(Option::is_some) {
        spans.push(label("pressure"));
        for (what, value) in WAITED_FOR.iter().zip(model.machine.pressure) {
            let Some(value) = value else { continue };
            let name = if *what == "memory" { "mem" } else { what };
            let text = format!("{}%", percent(value));
            spans.extend([label(name), span(format!("{text:<5} "), pressed(value, theme))]);
        }
    }
    spans
}

/// Waiting a tenth of the time is felt, half of it hurts.
fn pressed(value: f64, theme: Theme) -> Style {
    match value {
        50.0.. => theme.bad,
        10.0.. => theme.warn,
        _ => Style::new(),
    }
}

/// Whose daemon does not answer, at the right end of the row.
fn lost(model: &Model, theme: Theme, row: Rect, taken: u16, cells: &mut Buffer) {
    let lost = model.lost();
    let text = match lost.as_slice() {
        [] => return,
        [name] => format!(" {name} does not answer; trying again … "),
        several => format!(" {} do not answer; trying again … ", count(several.len(), "project")),
    };
    let width = width_of(&text).min(row.width);
    // What is old is more important than how busy the machine is.
    let x = row.right() - width;
    let style = theme.bad.patch(theme.chosen);
    cells.set_stringn(x, row.y, text, usize::from(width), style);
    if taken > x && x > row.x {
        cells.set_string(x - 1, row.y, "…", theme.faint);
    }
}
