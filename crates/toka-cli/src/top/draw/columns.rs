//! Which columns the table has, and how wide: as many as the terminal has room for, the least telling ones go first.

use toka_core::{AgentState, AgentStatus, Verdict};

use super::{percent, short_bytes};
use crate::top::figures::Figures;
use crate::top::model::Model;
use crate::top::rows::{AgentId, Order, Row};
use toka_terminal::list;
use toka_terminal::text::{columns as width_of, fit, safe};

/// What a column shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Agent,
    State,
    Health,
    For,
    Restarts,
    Pid,
    Cpu,
    Memory,
    Progress,
    Doing,
}

/// All of them, from left to right.
const ALL: [Column; 10] = [
    Column::Agent,
    Column::State,
    Column::Health,
    Column::For,
    Column::Restarts,
    Column::Pid,
    Column::Cpu,
    Column::Memory,
    Column::Progress,
    Column::Doing,
];
/// Those that give way to why an agent is as it is, the first of them first.
const DISPENSABLE: [Column; 4] = [Column::Health, Column::Pid, Column::Restarts, Column::Progress];
/// Columns between two columns.
pub(super) const GAP: u16 = 1;
/// Columns that the names and the last column have at least.
const LEAST_NAME: u16 = 14;
const LEAST_DOING: u16 = 8;
/// The same from this width of the terminal on: a reason of three words.
const USUAL: (u16, u16) = (80, 16);
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
            Self::Health => "HEALTH",
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

    /// What rows are in the order of it.
    pub(super) fn order(self) -> Option<Order> {
        match self {
            Self::Agent => Some(Order::Name),
            Self::State | Self::Health => Some(Order::State),
            Self::Cpu => Some(Order::Cpu),
            Self::Memory => Some(Order::Memory),
            Self::For | Self::Restarts | Self::Pid | Self::Progress | Self::Doing => None,
        }
    }

    /// Whether what is in it stands at its right side.
    pub(super) fn is_figure(self, width: u16) -> bool {
        match self {
            Self::For | Self::Restarts | Self::Pid | Self::Cpu | Self::Memory => true,
            Self::Progress => width < LEAST_BAR,
            Self::Agent | Self::State | Self::Health | Self::Doing => false,
        }
    }

    /// Its width on a terminal of this width; those of the texts are worked out from what is left.
    fn width(self, terminal: u16) -> u16 {
        let is_wide = terminal >= WIDE;
        match self {
            Self::Agent => LEAST_NAME,
            Self::State => LEAST_STATE,
            Self::Health => 9,
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
            Self::Doing if terminal >= USUAL.0 => USUAL.1,
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
pub(super) fn name(model: &Model, row: &Row) -> String {
    let id = &row.id;
    indented(row, if model.projects.len() > 1 { id.to_string() } else { id.agent.to_string() })
}

/// Below what it waits for.
fn indented(row: &Row, name: String) -> String {
    if row.depth == 0 { name } else { format!("{}└ {name}", "  ".repeat(row.depth - 1)) }
}

/// The same where there is less room: the project gives way before the agent does.
fn short_name(model: &Model, row: &Row, width: usize) -> String {
    let (whole, id) = (name(model, row), &row.id);
    if model.projects.len() < 2 || width_of(&whole) <= width {
        return whole;
    }
    if row.depth > 0 {
        // It stands below one of its project.
        return indented(row, id.agent.to_string());
    }
    let room = width.saturating_sub(width_of(id.agent.as_str()) + 1);
    format!("{}/{}", fit(id.project.as_str(), room.max(LEAST_PROJECT)), id.agent)
}

/// What stands in a column that is plain text.
pub(super) fn text(column: Column, model: &Model, row: &Row, agent: &AgentStatus, width: u16) -> String {
    let figures = model.figures.get(&row.id);
    let has_process = list::pid(&agent.state).is_some() || matches!(agent.state, AgentState::Stopping { .. });
    let figures = figures.filter(|_| has_process);
    match column {
        Column::Agent => short_name(model, row, usize::from(width)),
        Column::State => agent.state.as_str().to_owned(),
        Column::Health => model.judged(&row.id).map_or_else(unknown, |judged| judged.verdict.to_string()),
        Column::For => list::age(agent.since_ms, model.now_ms),
        Column::Restarts => match agent.restart_count {
            0 => unknown(),
            restarts => restarts.to_string(),
        },
        Column::Pid => list::pid(&agent.state).map_or_else(unknown, |pid| pid.to_string()),
        Column::Cpu => figures.and_then(|figures| figures.cpu).map_or_else(unknown, percent),
        Column::Memory => figures.and_then(memory).map_or_else(unknown, |both| fitting(both, width)),
        Column::Doing => doing(model, &row.id, agent),
        Column::Progress => String::new(),
    }
}

/// Why it is as it is; of one that is well, what it does.
pub(super) fn doing(model: &Model, id: &AgentId, agent: &AgentStatus) -> String {
    let worst = || {
        let judged = model.judged(id).filter(|judged| judged.verdict >= Verdict::Degraded)?;
        judged.reasons.first().map(|reason| safe(&reason.to_string()))
    };
    list::trouble(agent, model.now_ms).or_else(worst).unwrap_or_else(|| list::activity(agent))
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
        assert_eq!(
            (at(60), at(80), at(200)),
            (6, 8, 10),
            "at 80 columns the pid and the health give way to the reason"
        );
    }

    #[test]
    fn a_limit_gives_way_to_the_amount() {
        assert_eq!(fitting((12 << 20, Some(64 << 20)), 9), "12M/64M");
        assert_eq!(fitting((812 << 10, Some(1000 << 20)), 9), "812K/1.0G");
        assert_eq!(fitting((812 << 10, Some(64 << 30)), 7), "812K");
        assert_eq!(fitting((812 << 10, None), 7), "812K");
    }
}
