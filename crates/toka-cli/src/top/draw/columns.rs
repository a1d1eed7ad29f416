//! Which columns the table has, and how wide: as many as the terminal has room for, the least telling ones go first.

use toka_core::{AgentState, AgentStatus};

use super::{percent, short_bytes};
use crate::terminal::list;
use crate::terminal::text::{columns as width_of, fit};
use crate::top::figures::Figures;
use crate::top::model::Model;
use crate::top::rows::AgentId;

/// What a column shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Agent,
    State,
    For,
    Restarts,
    Pid,
    Cpu,
    Memory,
    Progress,
    Doing,
}

/// All of them, from left to right.
const ALL: [Column; 9] = [
    Column::Agent,
    Column::State,
    Column::For,
    Column::Restarts,
    Column::Pid,
    Column::Cpu,
    Column::Memory,
    Column::Progress,
    Column::Doing,
];
/// Those that give way, the first of them first.
const DISPENSABLE: [Column; 3] = [Column::Pid, Column::Restarts, Column::Progress];
/// Columns between two columns.
pub(super) const GAP: u16 = 1;
/// Columns that the names and the last column have at least.
const LEAST_NAME: u16 = 14;
const LEAST_DOING: u16 = 8;
/// Columns in which there is room for a bar beside its figure.
pub(super) const LEAST_BAR: u16 = 10;
/// Columns that the project has at least beside its agent.
const LEAST_PROJECT: usize = 4;
/// Columns that states have at least: those of the commonest.
const LEAST_STATE: u16 = 9;
/// The share of a wide terminal, and of another, that names have at most.
const MOST_NAME: (u16, u16) = (3, 5);
/// From this width on a terminal is wide.
const WIDE: u16 = 120;

/// The longest texts in the columns of names and states.
#[derive(Debug, Clone, Copy)]
pub(super) struct Longest {
    pub(super) name: u16,
    pub(super) state: u16,
}

impl Column {
    pub(super) fn title(self, width: u16) -> &'static str {
        match self {
            Self::Agent => "AGENT",
            Self::State => "STATE",
            Self::For => "FOR",
            Self::Restarts if width >= 8 => "RESTARTS",
            Self::Restarts => "RST",
            Self::Pid => "PID",
            Self::Cpu => "CPU%",
            Self::Memory => "MEMORY",
            Self::Progress if width >= LEAST_BAR => "PROGRESS",
            Self::Progress => "DONE",
            Self::Doing => "DOING",
        }
    }

    /// Whether what is in it stands at its right side.
    pub(super) fn is_figure(self, width: u16) -> bool {
        match self {
            Self::For | Self::Restarts | Self::Pid | Self::Cpu | Self::Memory => true,
            Self::Progress => width < LEAST_BAR,
            Self::Agent | Self::State | Self::Doing => false,
        }
    }

    /// Its width on a terminal of this width; those of the texts are worked out from what is left.
    fn width(self, terminal: u16) -> u16 {
        let is_wide = terminal >= WIDE;
        match self {
            Self::Agent => LEAST_NAME,
            Self::State => LEAST_STATE,
            Self::For => 6,
            Self::Restarts => {
                if is_wide {
                    8
                } else {
                    3
                }
            }
            Self::Pid => 7,
            Self::Cpu => 4,
            Self::Memory => {
                if is_wide {
                    12
                } else {
                    9
                }
            }
            Self::Progress => {
                if is_wide {
                    16
                } else {
                    5
                }
            }
            Self::Doing => LEAST_DOING,
        }
    }
}

/// The columns with their widths for a terminal of this width.
pub(super) fn columns(terminal: u16, longest: Longest) -> Vec<(Column, u16)> {
    let mut shown: Vec<(Column, u16)> = ALL.map(|column| (column, column.width(terminal))).to_vec();
    for (_, width) in shown.iter_mut().filter(|(column, _)| *column == Column::State) {
        *width = longest.state.max(LEAST_STATE);
    }
    // One column stays free at either side.
    let needed = |shown: &[(Column, u16)]| shown.iter().map(|(_, width)| width + GAP).sum::<u16>() + 1;
    for column in DISPENSABLE {
        if needed(&shown) > terminal {
            shown.retain(|(known, _)| *known != column);
        }
    }
    let left = terminal.saturating_sub(needed(&shown));
    let most = terminal / if terminal >= WIDE { MOST_NAME.0 } else { MOST_NAME.1 };
    let name = longest.name.clamp(LEAST_NAME, most.max(LEAST_NAME)).min(LEAST_NAME + left);
    for (column, width) in &mut shown {
        match column {
            Column::Agent => *width = name,
            Column::Doing => *width += left - (name - LEAST_NAME),
            _ => {}
        }
    }
    shown
}

/// An agent's name as the table shows it: with its project where there are several.
pub(super) fn name(model: &Model, id: &AgentId) -> String {
    if model.projects.len() > 1 { id.to_string() } else { id.agent.to_string() }
}

/// The same where there is less room: the project gives way before the agent does.
fn short_name(model: &Model, id: &AgentId, width: usize) -> String {
    let whole = name(model, id);
    if model.projects.len() < 2 || width_of(&whole) <= width {
        return whole;
    }
    let room = width.saturating_sub(width_of(id.agent.as_str()) + 1);
    format!("{}/{}", fit(id.project.as_str(), room.max(LEAST_PROJECT)), id.agent)
}

/// What stands in a column that is plain text.
pub(super) fn text(column: Column, model: &Model, id: &AgentId, agent: &AgentStatus, width: u16) -> String {
    let figures = model.figures.get(id);
    let has_process = list::pid(&agent.state).is_some() || matches!(agent.state, AgentState::Stopping { .. });
    let figures = figures.filter(|_| has_process);
    match column {
        Column::Agent => short_name(model, id, usize::from(width)),
        Column::State => agent.state.as_str().to_owned(),
        Column::For => list::age(agent.since_ms, model.now_ms),
        Column::Restarts => match agent.restart_count {
            0 => unknown(),
            restarts => restarts.to_string(),
        },
        Column::Pid => list::pid(&agent.state).map_or_else(unknown, |pid| pid.to_string()),
        Column::Cpu => figures.and_then(|figures| figures.cpu).map_or_else(unknown, percent),
        Column::Memory => figures.and_then(memory).map_or_else(unknown, |both| fitting(both, width)),
        Column::Doing => list::trouble(agent, model.now_ms).unwrap_or_else(|| list::activity(agent)),
        Column::Progress => String::new(),
    }
}

fn unknown() -> String {
    "–".to_owned()
}

/// What is held, and what may be.
fn memory(figures: &Figures) -> Option<(u64, Option<u64>)> {
    let now = figures.now?;
    Some((now.memory_current?, now.memory_limit))
}

/// The limit is left out before the amount is cut.
fn fitting((held, limit): (u64, Option<u64>), width: u16) -> String {
    let held = short_bytes(held);
    let both = limit.map(|limit| format!("{held}/{}", short_bytes(limit)));
    both.filter(|both| width_of(both) <= usize::from(width)).unwrap_or(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_fill_every_terminal_and_never_more() {
        for terminal in 60..300 {
            for (name, state) in [(3, 7), (14, 9), (30, 11), (127, 11)] {
                let shown = columns(terminal, Longest { name, state });
                let taken: u16 = shown.iter().map(|(_, width)| width + GAP).sum();
                assert_eq!(taken + 1, terminal, "{shown:?}");
            }
        }
        let at = |terminal| columns(terminal, Longest { name: 10, state: 11 }).len();
        assert_eq!((at(60), at(80), at(200)), (6, 9, 9), "at 80 columns there is everything");
    }

    #[test]
    fn a_limit_gives_way_to_the_amount() {
        assert_eq!(fitting((12 << 20, Some(64 << 20)), 9), "12M/64M");
        assert_eq!(fitting((812 << 10, Some(1000 << 20)), 9), "812K/1.0G");
        assert_eq!(fitting((812 << 10, Some(64 << 30)), 7), "812K");
        assert_eq!(fitting((812 << 10, None), 7), "812K");
    }
}
