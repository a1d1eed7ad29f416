//! The signals that can be sent, in a box.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{popup, width_of};
use crate::top::keys::SIGNALS;
use crate::top::rows::AgentId;
use crate::top::theme::Theme;
use toka_terminal::text::{cell, fit};

pub(super) fn draw(agent: &AgentId, chosen: usize, theme: Theme, whole: Rect, cells: &mut Buffer) {
    let lines: Vec<String> = SIGNALS.iter().map(|(number, what)| format!("{number:>2}  {what}")).collect();
    let width = lines.iter().map(|line| width_of(line)).max().unwrap_or(0);
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let title = format!("Signal to {}", fit(&agent.to_string(), usize::from(width).saturating_sub(8)));
    let inside = popup::open(&title, (width, height), theme, whole, cells);
    // Where it is low, the chosen one is seen.
    let from = (chosen + 1).saturating_sub(usize::from(inside.height));
    for ((at, line), y) in lines.iter().enumerate().skip(from).zip(inside.y..inside.bottom()) {
        let style = if at == chosen { theme.chosen } else { Style::new() };
        cells.set_stringn(
            inside.x,
            y,
            cell(line, usize::from(inside.width)),
            usize::from(inside.width),
            style,
        );
    }
}
