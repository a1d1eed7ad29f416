//! Where what stands, for a terminal of any size.

use ratatui::layout::{Rect, Size};

/// The smallest terminal that is drawn on.
pub(crate) const LEAST: Size = Size { width: 60, height: 12 };
/// From this height on there is room for a taller chart.
const TALL: u16 = 36;
/// Rows that the table has at least.
const LEAST_ROWS: u16 = 3;

/// How much of the terminal the log has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Zoom {
    /// It shares it with the table.
    #[default]
    Split,
    /// All of it.
    Log,
}

/// The parts of the terminal, from top to bottom; one that is not shown has no height.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Areas {
    /// Totals.
    pub(crate) header: Rect,
    /// The titles of the columns.
    pub(crate) columns: Rect,
    /// The agents.
    pub(crate) rows: Rect,
    /// The title of what is below.
    pub(crate) title: Rect,
    /// Charts.
    pub(crate) charts: Rect,
    /// Output.
    pub(crate) log: Rect,
    /// Hints, questions, outcomes.
    pub(crate) bottom: Rect,
}

impl Areas {
    /// The parts of a terminal of this size that has so many agents to show; `None` when it is too small.
    pub(crate) fn of(size: Size, zoom: Zoom, agents: usize) -> Option<Self> {
        if size.width < LEAST.width || size.height < LEAST.height {
            return None;
        }
        let charts = if size.height >= TALL { 3 } else { 1 };
        let fixed = 2 + 1 + 1;
        let (columns, rows, charts, log) = match zoom {
            Zoom::Log => (0, 0, 0, size.height - fixed),
            Zoom::Split => {
                let free = size.height - fixed - 1 - charts;
                let wanted = u16::try_from(agents).unwrap_or(u16::MAX).max(LEAST_ROWS);
                let rows = wanted.min((free * 3).div_ceil(5));
                (1, rows, charts, free - rows)
            }
        };
        let mut y = 0;
        let mut take = |height: u16| {
            let area = Rect { x: 0, y, width: size.width, height };
            y += height;
            area
        };
        Some(Self {
            header: take(2),
            columns: take(columns),
            rows: take(rows),
            title: take(1),
            charts: take(charts),
            log: take(log),
            bottom: take(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_every_terminal_belongs_to_one_part() {
        for height in LEAST.height..120 {
            for agents in [0, 1, 7, 1000] {
                for zoom in [Zoom::Split, Zoom::Log] {
                    let size = Size { width: 80, height };
                    let areas = Areas::of(size, zoom, agents).expect("large enough");
                    let Areas { header, columns, rows, title, charts, log, bottom } = areas;
                    let heights = [header, columns, rows, title, charts, log, bottom].map(|area| area.height);
                    assert_eq!(heights.iter().sum::<u16>(), height, "{areas:?}");
                    assert_eq!(bottom.y, height - 1);
                    assert!(log.height >= 2, "{areas:?}");
                }
            }
        }
        assert_eq!(Areas::of(Size { width: 59, height: 24 }, Zoom::Split, 3), None);
        assert_eq!(Areas::of(Size { width: 80, height: 11 }, Zoom::Split, 3), None);
    }
}
