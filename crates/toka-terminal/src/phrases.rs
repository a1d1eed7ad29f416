//! What became of an agent, in words and as a mark: the same in the lines that move, in those that stay, and in the table.

use toka_core::event::Usage;
use toka_core::status::unmet_in_words;
use toka_core::{AgentName, AgentState, Coverage, Exit, LayerReport, Unmet};

use super::palette::{Paint, Palette};
use super::text::{count, safe};
use super::view::{AgentView, Outcome};

/// The mark of an agent that is not alive.
pub fn done_glyph(outcome: Outcome, palette: Palette) -> (&'static str, Paint) {
    match outcome {
        Outcome::Succeeded => ("✓", palette.good),
        Outcome::Failed => ("✗", palette.bad),
        Outcome::Blocked => ("⊘", palette.warn),
        Outcome::Stopped => ("■", palette.faint),
        Outcome::NotStarted => ("○", palette.faint),
        Outcome::Skipped => ("↷", palette.faint),
        Outcome::Live | Outcome::Pending => ("·", palette.faint),
    }
}

/// What became of it, in words.
pub fn outcome(agent: &AgentView) -> String {
    match unmet_in_words(&agent.unmet) {
        Some(unmet) => format!("{}; {}", end(agent), safe(&unmet)),
        None => end(agent),
    }
}

fn end(agent: &AgentView) -> String {
    match (&agent.state, &agent.end) {
        (AgentState::Quarantined { .. }, Some(end)) => quarantined(end.restarts, &end.exit, &end.usage),
        (_, Some(end)) => {
            let words = match &end.exit {
                Exit::Code { code } if *code != 0 => format!("failed: {}", end.usage.tell(&end.exit)),
                exit => safe(&end.usage.tell(exit)),
            };
            match end.restarts {
                0 => words,
                restarts => format!("{words}, after {}", count_restarts(restarts)),
            }
        }
        (AgentState::Blocked { by, why }, _) => blocked(by, why.as_deref()),
        (AgentState::Pending, _) => "not started".to_owned(),
        (other, _) => other.as_str().to_owned(),
    }
}

/// Why it is given up. An end that is a success counts like any other where the policy restarts after it.
pub fn quarantined(restarts: u32, exit: &Exit, usage: &Usage) -> String {
    let times = count_restarts(restarts);
    match exit.is_success() {
        true => format!("quarantined after {times}: it ended once more, with success"),
        false => format!("quarantined after {times}: {}", safe(&usage.tell(exit))),
    }
}

/// Why it never started.
pub fn blocked(by: &AgentName, why: Option<&Unmet>) -> String {
    match why {
        Some(why) => format!("blocked by {by}: {}", safe(&why.to_string())),
        None => format!("blocked by {by}"),
    }
}

/// `1 restart`, `5 restarts`.
pub fn count_restarts(restarts: u32) -> String {
    count(restarts as usize, "restart")
}

/// What a layer does not do in full, and why; `None` when it does all.
pub fn shortfall(report: &LayerReport) -> Option<String> {
    let how = match report.coverage {
        Coverage::Full => return None,
        Coverage::Partial => "enforced in part",
        Coverage::None => "not enforced",
    };
    Some(format!("{} {how}: {}", report.layer.as_str(), safe(&report.reasons.join("; "))))
}
