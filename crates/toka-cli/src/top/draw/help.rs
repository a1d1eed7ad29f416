//! The keys, in a box above everything.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Block, BorderType, Clear, Widget as _};

use super::width_of;
use crate::top::keys::HELP;
use crate::top::theme::Theme;

/// Columns of the keys.
const KEYS: u16 = 14;

pub(super) fn draw(theme: Theme, whole: Rect, cells: &mut Buffer) {
    let longest = HELP.iter().map(|(_, what)| width_of(what)).max().unwrap_or(0);
    let width = (longest + KEYS + 5).min(whole.width);
    // Where it is low, the empty lines between the groups go first.
    let fits = HELP.len() + 2 <= usize::from(whole.height);
    let lines: Vec<_> = HELP.iter().filter(|(key, _)| fits || !key.is_empty()).collect();
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(whole.height);
    let area = Rect { x: (whole.width - width) / 2, y: (whole.height - height) / 2, width, height };
    Clear.render(area, cells);
    let block = Block::bordered().border_type(BorderType::Rounded).border_style(theme.faint);
    let inside = block.inner(area);
    block.title(" Keys ").title_style(theme.strong).render(area, cells);
    for ((key, what), y) in lines.into_iter().zip(inside.y..inside.bottom()) {
        cells.set_string(inside.x + 1, y, key, theme.accent);
        let room = inside.width.saturating_sub(KEYS + 2);
        cells.set_stringn(inside.x + 1 + KEYS, y, what, usize::from(room), Style::new());
    }
}
