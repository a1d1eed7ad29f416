//! A box above everything.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::{Block, BorderType, Clear, Widget as _};

use crate::top::theme::Theme;

/// Draws an empty box in the middle, as large as what is in it wants and the terminal allows; the part for what is in it.
pub(super) fn open(title: &str, inside: (u16, u16), theme: Theme, whole: Rect, cells: &mut Buffer) -> Rect {
    let (width, height) = ((inside.0 + 4).min(whole.width), (inside.1 + 2).min(whole.height));
    let area = Rect {
        x: whole.x + (whole.width - width) / 2,
        y: whole.y + (whole.height - height) / 2,
        width,
        height,
    };
    Clear.render(area, cells);
    let block = Block::bordered().border_type(BorderType::Rounded).border_style(theme.faint);
    let inner = block.inner(area);
    block.title(format!(" {title} ")).title_style(theme.strong).render(area, cells);
    Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner }
}
