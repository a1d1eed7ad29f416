//! The totals: agents by their state, what they use together, how busy the machine is.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;
use toka_api::host::HostFigures;
use toka_core::AgentStatus;

use super::{percent, put, short_bytes, span, width_of};
use crate::top::figures::Figures;
use crate::top::machine::WAITED_FOR;
use crate::top::model::Model;
use crate::top::theme::{Theme, style};
use toka_terminal::failure::Failure;
use toka_terminal::list;
use toka_terminal::text::count;

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
    put(cells, first, totals(model, theme, usize::from(first.width)));
    let second = Rect { y: area.y + 1, ..first };
    let end = put(cells, second, machine(model, theme, second.width));
    lost(model, theme, second, end, cells);
}

/// The heading, and how many agents there are in each state. In a narrow terminal the heading is left out first, then the
/// states that need no action are counted as one, and the name of the project is left out last.
fn totals(model: &Model, theme: Theme, width: usize) -> Vec<Span<'static>> {
    let whose = whose(model, theme);
    let states = states(model, theme);
    let heading = vec![span("toka top", theme.strong)];
    let joined = |parts: &[&[Span<'static>]], gap: &'static str| -> Vec<Span<'static>> {
        let mut spans = Vec::new();
        for part in parts.iter().flat_map(|part| part.iter()) {
            if !spans.is_empty() {
                spans.push(span(gap, Style::new()));
            }
            spans.push(part.clone());
        }
        spans
    };
    let fits = |spans: &Vec<Span<'static>>| spans.iter().map(Span::width).sum::<usize>() <= width;
    let spelt: Vec<Span<'static>> = states.iter().map(|(_, span)| span.clone()).collect();
    let mut tries = vec![
        joined(&[&heading, &whose, &spelt], "  "),
        joined(&[&whose, &spelt], "  "),
        joined(&[&whose, &spelt], " "),
    ];
    for whose in [&whose[..], &whose[whose.len().min(1)..]] {
        for kept in (1..states.len()).rev() {
            let others: usize = states[kept..].iter().map(|(count, _)| count).sum();
            let others = [span(format!("{others} others"), theme.faint)];
            tries.push(joined(&[whose, &spelt[..kept], &others], " "));
        }
    }
    let last = tries.last().cloned().unwrap_or_default();
    tries.into_iter().find(fits).unwrap_or(last)
}

/// The project or how many there are, and how many agents.
fn whose(model: &Model, theme: Theme) -> Vec<Span<'static>> {
    let mut names = model.projects.keys();
    let mut spans = match (names.next(), names.next()) {
        (Some(only), None) => vec![span(only.as_str(), theme.accent)],
        (Some(_), Some(_)) => vec![span(count(model.projects.len(), "project"), Style::new())],
        (None, _) => Vec::new(),
    };
    let agents = model.agents().count();
    if agents > 0 {
        spans.push(span(count(agents, "agent"), Style::new()));
    }
    spans
}

/// How many agents are in each state, the most urgent first.
fn states(model: &Model, theme: Theme) -> Vec<(usize, Span<'static>)> {
    let agents: Vec<&AgentStatus> = model.agents().collect();
    let of = |state: &&str| {
        let mut those = agents.iter().filter(|agent| agent.state.as_str() == *state);
        let first = those.next()?;
        let count = 1 + those.count();
        Some((count, span(format!("{count} {state}"), style(list::paint(first, theme.palette)))))
    };
    STATES.iter().filter_map(of).collect()
}

fn machine(model: &Model, theme: Theme, width: u16) -> Vec<Span<'static>> {
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
    if let Some(HostFigures { load, .. }) = model.machine.host {
        let load = load.map(|load| format!("{load:.2}")).join(" ");
        spans.extend([label("load"), span(format!("{load}  "), Style::new())]);
    }
    let mut heading = "pressure ";
    for (what, value) in WAITED_FOR.iter().zip(model.machine.pressure) {
        let Some(value) = value else { continue };
        let name = if *what == "memory" { "mem" } else { what };
        let text = format!("{}%", percent(value));
        spans
            .extend([label(&format!("{heading}{name}")), span(format!("{text:<5} "), pressed(value, theme))]);
        heading = "";
    }
    // Last, since a narrow terminal has no room for it.
    if let Some(HostFigures { memory_total, memory_available, .. }) = model.machine.host {
        let text = format!("{} of {}", short_bytes(memory_available), short_bytes(memory_total));
        spans.extend([label("available"), span(text, Style::new())]);
    }
    fitting(spans, width)
}

/// As many labels with their values as there is room for: half a figure is a wrong one.
fn fitting(mut spans: Vec<Span<'static>>, width: u16) -> Vec<Span<'static>> {
    let wide = |spans: &[Span<'_>]| {
        let text: String = spans.iter().map(|span| span.content.as_ref()).collect();
        width_of(text.trim_end())
    };
    while wide(&spans) > width && spans.len() >= 2 {
        spans.truncate(spans.len() - 2);
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
    let left = model.left.failure();
    let text = match lost.as_slice() {
        // Where nothing else is shown, the whole screen says it.
        [] if model.projects.is_empty() => return,
        [] => match left.as_ref().map(Failure::words) {
            Some((why, _)) => format!(" {why} "),
            None => return,
        },
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
