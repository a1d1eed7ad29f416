//! The list of what runs: one line per agent, with as much as the width allows.

use std::time::Duration;

use toka_api::wire::ProjectView;
use toka_core::event::{killed_for_memory, spinning};
use toka_core::probe::ProbeKind;
use toka_core::status::{ProbeStatus, StartedBy, Wedged, unmet_in_words};
use toka_core::{AgentState, AgentStatus};

use super::palette::{Paint, Palette};
use super::text::{cell, clock, columns as width_of, fit, safe};

const HEADER: [&str; 6] = ["AGENT", "STATE", "FOR", "RESTARTS", "PID", "DOING"];
/// The text column, which takes what is left.
const LAST: usize = HEADER.len() - 1;
const GAP: &str = "  ";

/// Draws the agents of all projects, `columns` wide at most, as they are at `now_ms` of the wall clock.
pub fn agents(projects: &[ProjectView], now_ms: i64, columns: usize, palette: Palette) -> String {
    let rows: Vec<(Row, Paint)> = projects
        .iter()
        .flat_map(|project| {
            let name = project.overview.project.as_str();
            project.agents.iter().map(move |agent| (row(name, agent, now_ms), paint(agent, palette)))
        })
        .collect();
    if rows.is_empty() {
        return "nothing runs\n".to_owned();
    }
    let widths = widths(&rows, columns);
    let header = line(&HEADER.map(str::to_owned), &widths, None);
    let mut text = format!("{}\n", palette.strong.paint(header.trim_end()));
    for (row, paint) in &rows {
        text.push_str(line(row, &widths, Some(*paint)).trim_end());
        text.push('\n');
    }
    text
}

type Row = [String; 6];

fn row(project: &str, agent: &AgentStatus, now_ms: i64) -> Row {
    let unknown = || "–".to_owned();
    let pid = pid(&agent.state).map_or_else(unknown, |pid| pid.to_string());
    [
        format!("{project}/{}", agent.name),
        agent.state.as_str().to_owned(),
        age(agent.since_ms, now_ms),
        if agent.restart_count == 0 { unknown() } else { agent.restart_count.to_string() },
        pid,
        doing(agent, now_ms),
    ]
}

/// The process of one that has one.
pub fn pid(state: &AgentState) -> Option<i32> {
    match state {
        AgentState::Running { pid, .. } | AgentState::Paused { pid, .. } => Some(*pid),
        _ => None,
    }
}

/// How long ago that was, by a wall clock that may have been set back.
pub fn age(since_ms: i64, now_ms: i64) -> String {
    clock(Duration::from_millis(u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or(0)))
}

/// What a person wants to know next: why it is not well, or how far it is.
pub fn doing(agent: &AgentStatus, now_ms: i64) -> String {
    trouble(agent, now_ms).unwrap_or_else(|| {
        let percent = agent.progress.fraction.map(|fraction| format!("{:.0} %", fraction * 100.0));
        let words = [percent, Some(activity(agent)).filter(|words| !words.is_empty())];
        words.into_iter().flatten().collect::<Vec<_>>().join("  ")
    })
}

/// Why it is not well, or not any more; empty when it ended well.
pub fn trouble(agent: &AgentStatus, now_ms: i64) -> Option<String> {
    match agent.wedged {
        Some(Wedged::Silent { .. }) => return Some("no sign of life".to_owned()),
        Some(Wedged::Spinning { quiet_ms, cpu_us }) => return Some(spinning(quiet_ms, cpu_us)),
        None => {}
    }
    let why = why(agent, now_ms);
    let waits = matches!(agent.state, AgentState::Pending) || agent.state.is_final();
    match agent.next_due_ms.filter(|_| waits).map(|next| format!("next in {}", age(now_ms, next))) {
        None => why,
        Some(next) => Some(match why {
            Some(why) if !why.is_empty() => format!("{why}; {next}"),
            _ => next,
        }),
    }
}

/// The same without what the clock will do.
fn why(agent: &AgentStatus, now_ms: i64) -> Option<String> {
    if let Some(hold) = &agent.held {
        return Some(hold.to_string());
    }
    if let Some(approval) = agent.approvals.first() {
        let subject = safe(&approval.subject.to_string());
        return Some(format!("waits for a person (`toka approvals`, {}): {subject}", approval.id));
    }
    match (&agent.state, &agent.not_ready) {
        (AgentState::Pending, _) if agent.started_by == Some(StartedBy::Person) => {
            Some(format!("manual: starts with `toka start {}`", agent.name))
        }
        (AgentState::Pending, _) => agent.waits.as_ref().map(|unmet| safe(&unmet.to_string())),
        (AgentState::Blocked { why: Some(why), .. }, _) => Some(safe(&why.to_string())),
        (AgentState::Blocked { by, why: None }, _) => Some(format!("{by} did not succeed")),
        (AgentState::Quarantined { exit, .. }, _) => Some(match &agent.waits {
            Some(unmet) => {
                format!("{}; begins anew after that: {}", ended(agent, exit), safe(&unmet.to_string()))
            }
            None => ended(agent, exit),
        }),
        (AgentState::Ended { exit }, _) if !agent.unmet.is_empty() => {
            let unmet = unmet_in_words(&agent.unmet).unwrap_or_default();
            Some(format!("{}; {}", ended(agent, exit), safe(&unmet)))
        }
        (AgentState::Ended { exit }, _) if !exit.is_success() || kills(agent) => Some(ended(agent, exit)),
        (AgentState::Ended { .. }, _) => Some(String::new()),
        (AgentState::Backoff { .. }, _) => Some(again(agent, now_ms)),
        (AgentState::Running { .. }, Some(reason)) => Some(format!("not ready: {}", safe(reason))),
        (AgentState::Running { ready: false, .. }, None) if failing_probe(agent).is_some() => {
            failing_probe(agent)
        }
        (AgentState::Running { .. }, None) if agent.oom_kills > 0 => Some(killed_for_memory(agent.oom_kills)),
        _ => None,
    }
}

/// Why one is not ready that never was.
pub fn failing_probe(agent: &AgentStatus) -> Option<String> {
    // What a probe found in a former life says nothing about this one.
    let begun = agent.started_ms.unwrap_or(i64::MIN);
    let decides = |probe: &&ProbeStatus| probe.probe != ProbeKind::Liveness && probe.since_ms >= begun;
    let failing = agent.probes.iter().filter(decides).find(|probe| !probe.ok)?;
    Some(format!("not ready: {}", safe(&failing.reason)))
}

fn kills(agent: &AgentStatus) -> bool {
    agent.last.as_ref().is_some_and(|last| last.usage.oom_kills > 0)
}

/// How it ended, with what its last life used.
fn ended(agent: &AgentStatus, exit: &toka_core::Exit) -> String {
    safe(&agent.last.as_ref().map_or_else(|| exit.to_string(), |last| last.usage.tell(exit)))
}

/// What it is at, in its own words.
pub fn activity(agent: &AgentStatus) -> String {
    let words = [agent.progress.task.as_deref(), agent.progress.status.as_deref()];
    words.into_iter().flatten().map(safe).collect::<Vec<_>>().join("  ")
}

fn again(agent: &AgentStatus, now_ms: i64) -> String {
    let exit = agent.last.as_ref().map(|last| safe(&last.exit.to_string())).unwrap_or_default();
    match &agent.waits {
        Some(unmet) => format!("{exit}; again after that: {}", safe(&unmet.to_string())),
        None => {
            let wait = agent.next_start_ms.map(|next| age(now_ms, next)).unwrap_or_default();
            format!("{exit}; again in {wait}")
        }
    }
}

/// The colour of its state.
pub fn paint(agent: &AgentStatus, palette: Palette) -> Paint {
    match agent.wedged {
        Some(Wedged::Silent { .. }) => return palette.bad,
        Some(Wedged::Spinning { .. }) => return palette.warn,
        None => {}
    }
    match &agent.state {
        AgentState::Running { ready: true, .. } => palette.good,
        AgentState::Running { .. } if agent.not_ready.is_some() => palette.warn,
        AgentState::Running { .. } | AgentState::Starting => palette.busy,
        AgentState::Ended { exit } if exit.is_success() => palette.good,
        AgentState::Ended { exit } if exit.is_asked_for() => palette.faint,
        AgentState::Ended { .. } | AgentState::Quarantined { .. } | AgentState::Blocked { .. } => palette.bad,
        AgentState::Paused { .. } | AgentState::Backoff { .. } | AgentState::Stopping { .. } => palette.warn,
        AgentState::Pending => palette.faint,
    }
}

/// As wide as what is in it; the last takes what is left, and names give way before it is gone.
fn widths(rows: &[(Row, Paint)], columns: usize) -> [usize; 6] {
    let mut widths = HEADER.map(width_of);
    for (row, _) in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(width_of(text));
        }
    }
    let gaps = GAP.len() * LAST;
    let figures: usize = widths[1..LAST].iter().sum();
    let for_texts = columns.saturating_sub(figures + gaps);
    let least = HEADER[LAST].len();
    widths[0] = widths[0].min(for_texts.saturating_sub(least).max(least));
    widths[LAST] = for_texts.saturating_sub(widths[0]);
    widths
}

fn line(row: &Row, widths: &[usize; 6], state: Option<Paint>) -> String {
    let mut text = String::new();
    for (at, (field, width)) in row.iter().zip(widths).enumerate() {
        let shown = if at == LAST { fit(field, *width) } else { cell(field, *width) };
        match state {
            Some(paint) if at == 1 => text.push_str(&paint.paint(shown)),
            _ => text.push_str(&shown),
        }
        if at < LAST {
            text.push_str(GAP);
        }
    }
    text
}
