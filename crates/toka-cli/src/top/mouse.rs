//! What the mouse does: it chooses rows and panes, scrolls, and orders by a heading.

use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};

use super::draw::heading_at;
use super::keys::Move;
use super::model::{Mode, Model, Pane};
use super::rows::Turn;

/// Rows that a step of the wheel moves.
const STEPS: usize = 3;

impl Model {
    /// Takes what the mouse did. While something is asked or shown above the table, it does nothing.
    pub(super) fn mouse(&mut self, mouse: MouseEvent) {
        let (Mode::Browse | Mode::Filter, Some(areas)) = (&self.mode, self.areas()) else { return };
        let at = Position { x: mouse.column, y: mouse.row };
        let below = |area: Rect| area.contains(at);
        let pane = if below(areas.log) || below(areas.title) || below(areas.charts) {
            Pane::Log
        } else {
            Pane::Agents
        };
        match mouse.kind {
            MouseEventKind::ScrollUp => (0..STEPS).for_each(|_| self.go_in(pane, Move::Up)),
            MouseEventKind::ScrollDown => (0..STEPS).for_each(|_| self.go_in(pane, Move::Down)),
            MouseEventKind::Down(MouseButton::Left) if areas.columns.contains(at) => {
                if let Some(order) = heading_at(self, at.x) {
                    let turn = if order == self.order { self.turn.other() } else { Turn::Usual };
                    self.order_by(order, turn);
                }
            }
            MouseEventKind::Down(MouseButton::Left) => {
                self.pane = pane;
                if areas.rows.contains(at) {
                    let place = usize::from(at.y - areas.rows.y);
                    if let Some(row) = self.visible().get(place) {
                        self.selected = Some(row.id.clone());
                        self.settle();
                    }
                }
            }
            _ => {}
        }
    }
}
