//! Sessions as people read them.

use std::collections::HashMap;

use toka_core::escape::is_harmless;
use toka_core::event::Effect;
use toka_core::transcript::{CallEntry, Entry, EntryKind, SessionInfo};
use toka_core::{ByteSize, PlanStep, StepStatus};

use super::grid::grid;
use super::list::age;
use super::palette::Palette;
use super::text::{moment, safe};

/// Lines of what a tool gave that are shown, unless all are wanted.
const LINES: usize = 12;

/// A row for each session.
pub fn list(
    project: &str,
    infos: &[SessionInfo],
    is_open: impl Fn(&SessionInfo) -> bool,
    now_ms: i64,
    columns: usize,
    palette: Palette,
) -> String {
    let Some(first) = infos.first() else {
        return format!("no model has worked on tasks of {project}\n");
    };
    let row = |info: &SessionInfo| {
        let state = match &info.ended {
            Some(exit) if exit.is_success() => "succeeded".to_owned(),
            Some(exit) => safe(&exit.to_string()),
            None if is_open(info) => "under way".to_owned(),
            None => "interrupted".to_owned(),
        };
        let run = info.run.map_or_else(|| "–".to_owned(), |run| run.short());
        let began = info.began_ms.map_or_else(|| "–".to_owned(), |ms| format!("{} ago", age(ms, now_ms)));
        let size = format!("{} lines, {}", info.entries, ByteSize(info.bytes));
        [info.key.to_string(), run, began, size, state]
    };
    let text = grid(["SESSION", "RUN", "BEGAN", "SIZE", "STATE"], infos.iter().map(row), columns, palette);
    text + &palette
        .faint
        .paint(format!("help: `toka sessions show {}` shows what was said and done", first.key))
        + "\n"
}

/// Two columns of figures beside each other, and what each is.
pub fn beside(heads: [&str; 2], rows: &[(&str, String, String)], columns: usize, palette: Palette) -> String {
    let rows = rows.iter().map(|(name, one, other)| [(*name).to_owned(), safe(one), safe(other)]);
    grid(["", heads[0], heads[1]], rows, columns, palette)
}

/// What was said and done, in its order. `whole` gives texts that stand beside the transcript.
pub fn conversation(
    entries: &[Entry],
    whole: impl Fn(&str) -> Option<Vec<u8>>,
    full: bool,
    palette: Palette,
) -> String {
    let mut calls: HashMap<&str, &CallEntry> = HashMap::new();
    let mut text = String::new();
    for entry in entries {
        if let EntryKind::Assistant { calls: wanted, .. } = &entry.kind {
            calls.extend(wanted.iter().map(|call| (call.id.as_str(), call)));
        }
        let Some((head, body)) = told(entry, &calls, &whole, full, palette) else { continue };
        text += &format!("{} {head}\n", palette.faint.paint(format!("{:>5} {}", entry.id, moment(entry.at))));
        text += &body;
    }
    if text.is_empty() { "nothing was said\n".to_owned() } else { text }
}

fn told(
    entry: &Entry,
    calls: &HashMap<&str, &CallEntry>,
    whole: &impl Fn(&str) -> Option<Vec<u8>>,
    full: bool,
    palette: Palette,
) -> Option<(String, String)> {
    let shown = |words: &str| indented(words, if full { usize::MAX } else { LINES });
    let all = |words: &str| indented(words, usize::MAX);
    Some(match &entry.kind {
        EntryKind::Session { key, system, tools, .. } => {
            let body = if full { all(system) } else { String::new() };
            (format!("{} with {}", palette.strong.paint(key), tools.join(", ")), body)
        }
        EntryKind::Task { text, attempt, .. } => {
            let attempt = if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
            (format!("{}{attempt}", palette.strong.paint("task")), shown(text))
        }
        EntryKind::Person { text, by } => (palette.strong.paint(safe(by)), all(text)),
        EntryKind::Interrupted { by } => (palette.strong.paint(safe(by)), "interrupts".to_owned()),
        EntryKind::Halted { reason } => (palette.faint.paint("toka"), palette.bad.paint(safe(reason))),
        EntryKind::Notice { text } => (palette.faint.paint("toka"), all(text)),
        EntryKind::Assistant { model, text, thinking, calls, tokens, .. } => {
            let read = tokens.read();
            let figures = format!("{read} tokens read, {} written", tokens.output.unwrap_or(0));
            let mut body =
                if thinking.trim().is_empty() { String::new() } else { shown(&format!("({thinking})")) };
            body += &all(text);
            for call in calls {
                body += &all(&format!("> {}", line_of(call)));
            }
            (
                format!(
                    "{} {}",
                    palette.strong.paint(safe(&model.to_string())),
                    palette.faint.paint(figures)
                ),
                body,
            )
        }
        EntryKind::Result { call, text, is_error, effect, whole: name, changes, .. } => {
            let tool = calls.get(call.as_str()).map_or_else(|| "a tool".to_owned(), |call| safe(&call.name));
            let how = match (is_error, effect) {
                (false, _) => palette.good.paint(&tool),
                (true, Some(Effect::NotDone)) => palette.bad.paint(format!("{tool}, not done")),
                (true, Some(Effect::Unknown)) => palette.bad.paint(format!("{tool}, perhaps done")),
                (true, _) => palette.bad.paint(format!("{tool}, failed")),
            };
            let changed: Vec<String> = changes
                .iter()
                .map(|it| format!("{} +{} -{}", safe(&it.path), it.added, it.removed))
                .collect();
            let changed =
                if changed.is_empty() { String::new() } else { format!("  {}", changed.join(", ")) };
            let words = match name.as_deref().and_then(whole) {
                Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                None => text.clone(),
            };
            (format!("{how}{changed}"), shown(&words))
        }
        EntryKind::Plan { steps } => (palette.strong.paint("plan"), plan(steps, "      ")),
        EntryKind::Compacted { before, summary, .. } => (
            palette
                .faint
                .paint(format!("in the place of what came before line {before} stands from here on")),
            shown(summary),
        ),
        EntryKind::Pruned { before, .. } => (
            palette
                .faint
                .paint(format!("what tools gave before line {before} is left out of later requests")),
            String::new(),
        ),
        EntryKind::Ended { exit, .. } => {
            let paint = if exit.is_success() { palette.good } else { palette.bad };
            let words =
                if exit.is_success() { "the task is done".to_owned() } else { safe(&exit.to_string()) };
            (paint.paint(words), String::new())
        }
        EntryKind::Intent { .. } | EntryKind::Unknown => return None,
    })
}

/// The steps of a plan, a line each, and how far each is.
pub(crate) fn plan(steps: &[PlanStep], indent: &str) -> String {
    let mark = |status| match status {
        StepStatus::Pending => "[ ]",
        StepStatus::InProgress => "[>]",
        StepStatus::Completed => "[x]",
        StepStatus::Failed => "[!]",
    };
    let line = |step: &PlanStep| format!("{indent}{} {}\n", mark(step.status), safe(&step.description));
    steps.iter().map(line).collect()
}

fn line_of(call: &CallEntry) -> String {
    match &call.nonsense {
        Some(nonsense) => format!("{} {nonsense}", call.name),
        None => format!("{} {}", call.name, serde_json::Value::Object(call.arguments.clone())),
    }
}

/// Lines of a text, each behind blanks, with nothing in them that a terminal would obey; as many as wanted.
fn indented(text: &str, most: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let left = lines.len().saturating_sub(most);
    let line = |line: &&str| {
        let plain: String = line
            .chars()
            .map(|c| {
                if c == '\t' {
                    ' '
                } else if is_harmless(c) {
                    c
                } else {
                    '\u{fffd}'
                }
            })
            .collect();
        format!("      {plain}\n")
    };
    let mut text: String = lines.iter().take(most).map(line).collect();
    if left > 0 {
        text += &format!("      … ({left} more lines: --full)\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_of_it() {
        let text = indented("a\u{1b}[31mred\u{1b}]0;title\u{7}\n\tb\u{202e}c", 10);
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{7}') && !text.contains('\u{202e}'),
            "{text:?}"
        );
        assert_eq!(indented("1\n2\n3", 2), "      1\n      2\n      … (1 more lines: --full)\n");
    }
}
