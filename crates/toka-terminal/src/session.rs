//! What happens in a session, in a line for people.

use std::time::Duration;

use toka_core::escape::for_terminal;
use toka_core::event::Effect;
use toka_core::units::format_duration;
use toka_core::{EventKind, FileChange};

/// The longest text of a model in a line, in characters.
const LONGEST: usize = 160;

fn safe(text: &str) -> String {
    for_terminal(text.as_bytes(), LONGEST)
}

/// An event of a session; `None` for any other.
pub(crate) fn tell(kind: &EventKind) -> Option<String> {
    Some(match kind {
        EventKind::SessionStarted { session, model, resumed: false } => {
            format!("session {session} asks {}", safe(&model.to_string()))
        }
        EventKind::SessionStarted { session, .. } => format!("session {session} goes on"),
        EventKind::SessionSteered { text, by, interrupted: true, .. } if text.is_empty() => {
            format!("{} interrupts the model", safe(by))
        }
        EventKind::SessionSteered { text, by, interrupted: true, .. } => {
            format!("{} interrupts the model and tells it: {}", safe(by), safe(text))
        }
        EventKind::SessionSteered { text, by, .. } => format!("{} tells the model: {}", safe(by), safe(text)),
        EventKind::SessionCompacted { model, freed_tokens, .. } => {
            let who =
                model.as_ref().map_or_else(String::new, |model| format!(" by {}", safe(&model.to_string())));
            format!("what was done before is summarised{who}: about {freed_tokens} tokens less")
        }
        EventKind::StateChange { from, to, .. } => format!("{from} → {to}"),
        EventKind::PlanCreated { steps, .. } => {
            let steps: Vec<String> = steps.iter().map(|step| safe(&step.description)).collect();
            format!("plan: {}", steps.join(" · "))
        }
        EventKind::PlanStepUpdate { step, status, .. } => format!("step {step} of the plan: {status}"),
        EventKind::ToolCallStart { tool, about, .. } if about.is_empty() => safe(tool),
        EventKind::ToolCallStart { tool, about, .. } => format!("{}: {}", safe(tool), safe(about)),
        EventKind::ToolCallComplete { tool, duration_ms, changes, .. } => {
            let took = format_duration(Duration::from_millis(*duration_ms));
            let changes: Vec<String> = changes.iter().map(change).collect();
            let separator = if changes.is_empty() { "" } else { ", " };
            format!("{} is done ({took}){separator}{}", safe(tool), changes.join(", "))
        }
        EventKind::ToolCallFailed { tool, reason, effect, .. } => {
            let how = match effect {
                Effect::Done => "failed",
                Effect::NotDone => "was not done",
                Effect::Unknown => "may have been done",
            };
            format!("{} {how}: {}", safe(tool), safe(reason))
        }
        EventKind::ResponseComplete { text, .. } => {
            let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            format!("answers: {}", safe(first.trim()))
        }
        _ => return None,
    })
}

fn change(change: &FileChange) -> String {
    format!("{} +{} -{}", safe(&change.path), change.added, change.removed)
}
