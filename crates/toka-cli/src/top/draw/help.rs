//! The keys, in a box above everything: those that look at the left, those that act at the right.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{popup, width_of};
use crate::top::keys::{ACTS, LOOKS};
use crate::top::theme::Theme;

/// Columns of the keys.
const KEYS: u16 = 13;
const KEYS_OF_ACTS: u16 = 8;
/// Columns between the two halves.
const GAP: u16 = 3;

pub(super) fn draw(theme: Theme, whole: Rect, cells: &mut Buffer) {
    let longest = |keys: &[(&str, &str)]| keys.iter().map(|(_, what)| width_of(what)).max().unwrap_or(0);
    let left = KEYS + longest(&LOOKS);
    let wide = left + GAP + KEYS_OF_ACTS + longest(&ACTS);
    let height = u16::try_from(LOOKS.len()).unwrap_or(u16::MAX);
    if whole.width >= wide + 4 && whole.height >= height + 2 {
        let inside = popup::open("Keys", (wide, height), theme, whole, cells);
        column(&LOOKS, KEYS, theme, inside, cells);
        let x = inside.x + left + GAP;
        column(&ACTS, KEYS_OF_ACTS, theme, Rect { x, width: inside.right() - x, ..inside }, cells);
        return;
    }
    // Where it is low, the empty lines between the groups go first, and then those of the end.
    let all: Vec<_> = LOOKS.iter().chain(&ACTS).filter(|(_, what)| !what.is_empty()).copied().collect();
    let height = u16::try_from(all.len()).unwrap_or(u16::MAX);
    let inside = popup::open("Keys", (left, height), theme, whole, cells);
    column(&all, KEYS, theme, inside, cells);
}

fn column(keys: &[(&str, &str)], width: u16, theme: Theme, area: Rect, cells: &mut Buffer) {
    for ((key, what), y) in keys.iter().zip(area.y..area.bottom()) {
        cells.set_string(area.x, y, key, theme.accent);
        let room = area.width.saturating_sub(width);
        cells.set_stringn(area.x + width, y, what, usize::from(room), Style::new());
    }
}
