//! The live part of the screen: one line per agent that lives, a line of counts below. Everything above it has
//! scrolled past and stays.

use std::time::Duration;

use toka_core::units::format_duration;
use toka_core::{AgentState, ByteSize};

use super::palette::{Paint, Palette};
use super::phrases::{done_glyph, outcome};
use super::text::{cell, clock, columns, count, fit};
use super::view::{AgentView, End, Outcome, RunView};

/// The screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

/// Rows that the live part leaves free: for the counts, and for the line that scrolled past last.
const RESERVED_ROWS: usize = 2;
/// Longest name shown in full; the table at the end shows every name in full.
pub const MAX_NAME: usize = 24;
/// How long a frame of the spinner stays.
const SPINNER_STEP: Duration = Duration::from_millis(125);
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// Draws the live part. Nothing in it is wider than the screen less one column, where some terminals wrap.
pub fn frame(view: &RunView, now: Duration, size: Size, palette: Palette) -> Vec<String> {
    let live: Vec<&AgentView> =
        view.agents().iter().filter(|agent| agent.outcome() == Outcome::Live).collect();
    let room = size.rows.saturating_sub(RESERVED_ROWS).max(1);
    let shown = if live.len() <= room { live.len() } else { room - 1 };
    let layout = Layout::of(view, size.columns.saturating_sub(1));
    let mut lines: Vec<String> = live[..shown].iter().map(|agent| layout.line(agent, now, palette)).collect();
    if shown < live.len() {
        let more = format!("… and {} more", live.len() - shown);
        lines.push(palette.faint.paint(fit(&more, layout.width)));
    }
    lines.push(footer(view, now, layout.width, palette));
    lines
}

/// The counts, and what the command itself has to say.
fn footer(view: &RunView, now: Duration, width: usize, palette: Palette) -> String {
    let elapsed = clock(now.saturating_sub(view.started));
    let counts = fit(&format!("{} · {elapsed}", view.counts()), width);
    let room = width.saturating_sub(columns(&counts) + 3);
    match &view.notice {
        Some(notice) if room > 0 => {
            format!("{} · {}", palette.faint.paint(counts), palette.warn.paint(fit(notice, room)))
        }
        _ => palette.faint.paint(counts),
    }
}

/// How the columns of a line are shared out.
struct Layout {
    width: usize,
    name: usize,
    bar: usize,
}

impl Layout {
    /// By the longest name of all agents, so that the columns stand still while agents come and go.
    fn of(view: &RunView, width: usize) -> Self {
        Self { width, name: view.longest_name().min(MAX_NAME).min(width / 4), bar: (width / 5).clamp(4, 30) }
    }

    fn line(&self, agent: &AgentView, now: Duration, palette: Palette) -> String {
        let (glyph, paint) = glyph(&agent.state, now, palette);
        let name = cell(agent.name.as_str(), self.name);
        let elapsed = agent.started.map_or_else(String::new, |started| clock(now.saturating_sub(started)));
        let bar = match agent.fraction.filter(|_| !matches!(agent.state, AgentState::Stopping { .. })) {
            Some(fraction) => bar(fraction, self.bar, paint, palette),
            None => paint.paint(cell(agent.state.as_str(), self.bar + 5)),
        };
        let used = 2 + self.name + 1 + self.bar + 5 + 1 + 6;
        let doing = fit(&agent.doing(), self.width.saturating_sub(used + 2));
        if used > self.width {
            // On a screen this narrow there is room for a name at most.
            let name = fit(agent.name.as_str(), self.width.saturating_sub(2));
            return fit(&format!("{glyph} {name}"), self.width).trim_end().to_owned();
        }
        let line = format!("{} {name} {bar} {elapsed:>6}  {doing}", paint.paint(glyph));
        line.trim_end().to_owned()
    }
}

/// `━━━━━━──── 61%`, `width` columns and five for the figure.
fn bar(fraction: f64, width: usize, paint: Paint, palette: Palette) -> String {
    let filled = ((fraction * width as f64).round() as usize).min(width);
    let done = paint.paint("━".repeat(filled));
    let rest = palette.faint.paint("─".repeat(width - filled));
    // Rounded down, so that 100 % means all of it.
    format!("{done}{rest} {:>3}%", (fraction * 100.0).floor())
}

fn glyph(state: &AgentState, now: Duration, palette: Palette) -> (&'static str, Paint) {
    let frame = (now.as_millis() / SPINNER_STEP.as_millis()) as usize % SPINNER.len();
    match state {
        AgentState::Starting => ("◌", palette.faint),
        AgentState::Running { ready: false, .. } => (SPINNER[frame], palette.busy),
        AgentState::Running { ready: true, .. } => (SPINNER[frame], palette.good),
        AgentState::Paused { .. } => ("‖", palette.warn),
        AgentState::Stopping { .. } => (SPINNER[frame], palette.warn),
        done => done_glyph(Outcome::of(done), palette),
    }
}

/// The line that an agent leaves behind when nothing can happen to it any more; `None` while something can. Long names are
/// cut as in the lines that move, so that it stays one line.
pub fn last_line(view: &RunView, agent: &AgentView, palette: Palette) -> Option<String> {
    let (glyph, paint) = done_glyph(agent.outcome(), palette);
    let name = cell(agent.name.as_str(), view.longest_name().min(MAX_NAME));
    let text = match (&agent.state, &agent.end) {
        (AgentState::Blocked { by, why }, _) => {
            let why =
                why.as_ref().map(|why| format!(": {}", super::text::safe(&why.text))).unwrap_or_default();
            format!("blocked by {}{why}", fit(by.as_str(), MAX_NAME))
        }
        (_, Some(end)) => {
            let took = format_duration(end.duration);
            let memory = end.usage.memory_peak.map(|peak| format!("  {:>9}", ByteSize(peak)));
            let cause = (!end.exit.is_success() || end.restarts > 0 || end.usage.oom_kills > 0)
                .then(|| format!("  {}", cause(agent, end)));
            format!(
                "{took:>6}{}{}",
                palette.faint.paint(memory.unwrap_or_default()),
                cause.unwrap_or_default()
            )
        }
        _ => return None,
    };
    Some(format!("{} {name} {text}", paint.paint(glyph)))
}

/// Why it ended, when there is more to say than that it did what it was for.
fn cause(agent: &AgentView, end: &End) -> String {
    match (&agent.state, end.restarts) {
        (AgentState::Ended { .. }, 0) => super::text::safe(&end.usage.tell(&end.exit)),
        _ => outcome(agent),
    }
}

/// The line above everything when a run begins.
pub fn heading(view: &RunView, palette: Palette) -> String {
    let project = view.project.as_deref().unwrap_or("toka");
    let run = view.run().map_or_else(String::new, |run| format!("run {}", run.short()));
    let agents = count(view.agents().len(), "agent");
    format!("{} · {agents} {}", palette.strong.paint(project), palette.faint.paint(format!("· {run}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canned;

    const NOW: Duration = Duration::from_secs(6);

    fn draw(columns: usize, rows: usize, palette: Palette) -> String {
        frame(&canned::view_after(canned::MIDDLE), NOW, Size { columns, rows }, palette).join("\n")
    }

    #[test]
    fn at_80_columns() {
        insta::assert_snapshot!(draw(80, 24, Palette::PLAIN));
    }

    #[test]
    fn at_200_columns() {
        insta::assert_snapshot!(draw(200, 50, Palette::PLAIN));
    }

    #[test]
    fn in_colour() {
        insta::assert_snapshot!(draw(60, 24, Palette::COLOUR).replace('\u{1b}', "␛"));
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        for columns in 1..134 {
            let widest = draw(columns, 24, Palette::PLAIN).lines().map(super::columns).max();
            assert!(widest.is_some_and(|widest| widest < columns), "{columns}: {widest:?}");
        }
    }

    #[test]
    fn the_longest_name_leaves_one_line() {
        let kind = toka_core::EventKind::AgentBlocked { by: canned::name(&"n".repeat(63)), why: None };
        let view = canned::view_of(&[canned::name(&"m".repeat(63))], [(0, kind)]);
        let line =
            last_line(&view, &view.agents()[0], Palette::PLAIN).expect("nothing happens to it any more");
        let (name, by) = ("m".repeat(23), "n".repeat(23));
        assert_eq!(line, format!("⊘ {name}… blocked by {by}…"));
    }

    #[test]
    fn a_hundred_agents_fit_the_screen() {
        let names: Vec<_> = (0..100).map(|at| canned::name(&format!("agent-{at}"))).collect();
        let view = canned::view_of(&names, (0..100).map(|at| (at, toka_core::EventKind::AgentStarting)));
        let lines = frame(&view, NOW, Size { columns: 80, rows: 15 }, Palette::PLAIN);
        assert_eq!(lines.len(), 14);
        assert_eq!(lines[12], "… and 88 more");
        assert_eq!(lines[13], "100 running · 6s");
    }

    #[test]
    fn what_the_command_says_stands_below() {
        let mut view = canned::view_after(canned::MIDDLE);
        view.notice = Some("stopping; press Ctrl-C again to kill".into());
        let last =
            |columns| frame(&view, NOW, Size { columns, rows: 24 }, Palette::PLAIN).pop().expect("a line");
        assert_eq!(
            last(100),
            "2 running · 1 pending · 1 succeeded · 6s · stopping; press Ctrl-C again to kill"
        );
        assert_eq!(last(60), "2 running · 1 pending · 1 succeeded · 6s · stopping; press…");
    }

    #[test]
    fn what_agents_leave_behind() {
        let view = canned::view_after(canned::events().len());
        let lines: Vec<_> =
            view.agents().iter().filter_map(|agent| last_line(&view, agent, Palette::PLAIN)).collect();
        insta::assert_snapshot!(format!("{}\n{}", heading(&view, Palette::PLAIN), lines.join("\n")));
    }
}
