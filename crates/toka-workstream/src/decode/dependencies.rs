//! `dependencies`: what the agent waits for.

use std::ops::Range;

use toka_core::AgentName;

use super::context::Context;
use super::keys::{DEPENDENCIES, DEPENDENCY};
use super::section::Section;
use super::texts::{choice, filled, name, text};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::model::{Condition, IfSkipped, Need};
use crate::read::{Entry, Node, Value, shorten};

/// A dependency whose condition may still depend on what it leads to.
pub(crate) struct Draft {
    pub(crate) on: AgentName,
    pub(crate) need: Need,
    pub(crate) reason: String,
    pub(crate) condition: Option<Condition>,
    pub(crate) if_skipped: IfSkipped,
    pub(crate) span: Range<usize>,
}

pub(crate) fn dependencies(cx: &mut Context<'_>, node: &Node) -> Vec<Draft> {
    let mut out = Vec::new();
    if let Value::List(items) = &node.value {
        let text = |item: &Node| match &item.value {
            Value::Scalar(scalar) => Some(scalar.text.clone()),
            _ => None,
        };
        let names: Vec<String> = items.iter().filter_map(|item| text(item)).collect();
        let message = "expected a map with `required` and `optional`, found a list";
        let help = format!("write `{{required: [{}]}}`", shorten(&names.join(", ")));
        cx.report(cx.at(Code::WrongType, message, node, "").help(help));
        return out;
    }
    let Some(section) = Section::read(cx, node, &DEPENDENCIES) else { return out };
    for (key, need) in [("required", Need::Required), ("optional", Need::Optional)] {
        if let Some(node) = section.get(key) {
            edges(cx, node, need, &mut out);
        }
    }
    out
}

/// A map name → reason, a list of one-key maps, a list of maps with a `name`, or a list of names.
fn edges(cx: &mut Context<'_>, node: &Node, need: Need, out: &mut Vec<Draft>) {
    match &node.value {
        Value::Map(entries) => entries.iter().for_each(|entry| named(cx, entry, need, out)),
        Value::List(items) => {
            for item in items {
                match &item.value {
                    Value::Scalar(scalar) if !scalar.is_null() => {
                        add(cx, &scalar.text, item, need, Reason::default(), out);
                    }
                    Value::Map(entries) if entries.iter().any(|entry| entry.key.text == "name") => {
                        full(cx, item, need, out);
                    }
                    Value::Map(entries) => entries.iter().for_each(|entry| named(cx, entry, need, out)),
                    _ => cx.wrong_type(item, "the name of an agent"),
                }
            }
        }
        Value::Scalar(_) => cx.wrong_type(node, "a map or a list of dependencies"),
    }
}

#[derive(Default)]
struct Reason {
    text: String,
    condition: Option<Condition>,
    if_skipped: IfSkipped,
}

const IF_SKIPPED: &[(&str, IfSkipped)] =
    &[("block", IfSkipped::Block), ("skip", IfSkipped::Skip), ("start", IfSkipped::Start)];

fn named(cx: &mut Context<'_>, entry: &Entry, need: Need, out: &mut Vec<Draft>) {
    let reason = match &entry.value.value {
        Value::Map(_) => match Section::read(cx, &entry.value, &DEPENDENCY) {
            Some(section) => long(cx, &section),
            None => return,
        },
        _ if entry.value.is_null() => Reason::default(),
        _ => Reason { text: text(cx, &entry.value).unwrap_or_default(), ..Reason::default() },
    };
    // The name is a key; what is wrong with it is shown there.
    let key = Node {
        value: Value::Scalar(crate::read::Scalar::text(entry.key.text.clone())),
        span: entry.key.span.clone(),
        weight: 1,
    };
    add(cx, &entry.key.text, &key, need, reason, out);
}

fn full(cx: &mut Context<'_>, node: &Node, need: Need, out: &mut Vec<Draft>) {
    let Some(section) = Section::read(cx, node, &DEPENDENCY) else { return };
    let reason = long(cx, &section);
    if let Some(node) = section.get("name")
        && let Some(name) = text(cx, node)
    {
        add(cx, &name, node, need, reason, out);
    }
}

fn long(cx: &mut Context<'_>, section: &Section<'_>) -> Reason {
    section.exclude(cx, "condition", "log_line");
    let line = section.get("log_line").and_then(|node| filled(cx, node)).map(Condition::LogLine);
    let condition = section.get("condition").and_then(|node| condition(cx, node));
    let text = section.get("reason").and_then(|node| text(cx, node)).unwrap_or_default();
    let if_skipped =
        section.get("if_skipped").and_then(|node| choice(cx, node, IF_SKIPPED)).unwrap_or_default();
    Reason { text, condition: condition.or(line), if_skipped }
}

const CONDITIONS: &[(&str, u8)] = &[
    ("process_started", 0),
    ("ready", 1),
    ("completed", 2),
    ("completed_successfully", 3),
    ("objective_met", 4),
];

fn condition(cx: &mut Context<'_>, node: &Node) -> Option<Condition> {
    if let Value::Map(entries) = &node.value {
        return match entries.as_slice() {
            [entry] if entry.key.text == "log_line" => filled(cx, &entry.value).map(Condition::LogLine),
            _ => {
                cx.wrong_type(node, "a condition, such as `ready` or `log_line: \"listening\"`");
                None
            }
        };
    }
    choice(cx, node, CONDITIONS).map(|word| match word {
        0 => Condition::ProcessStarted,
        1 => Condition::Ready,
        2 => Condition::Completed,
        3 => Condition::CompletedSuccessfully,
        _ => Condition::ObjectiveMet,
    })
}

fn add(cx: &mut Context<'_>, on: &str, node: &Node, need: Need, reason: Reason, out: &mut Vec<Draft>) {
    // What cannot be the name of an agent can never be there: that gates a required edge, and no optional
    // one.
    let severity = match need {
        Need::Required => Severity::Error,
        Need::Optional => Severity::Warning,
    };
    let Some(on) = name(cx, on, node, severity) else { return };
    if let Some(first) = out.iter().find(|draft| draft.on == on) {
        let problem = cx
            .at(Code::DuplicateDependency, format!("`{on}` is named twice"), node, "left out")
            .at(cx.file, first.span.clone(), "counts");
        cx.report(problem);
        return;
    }
    let Reason { text: reason, condition, if_skipped } = reason;
    out.push(Draft { on, need, reason, condition, if_skipped, span: node.span.clone() });
}

/// An agent that waits for itself never starts.
pub(crate) fn report_self(cx: &mut Context<'_>, draft: &Draft) {
    let message = format!("`{}` depends on itself", shorten(draft.on.as_str()));
    let problem = Diagnostic::new(Code::SelfDependency, message)
        .at(cx.file, draft.span.clone(), "its own name")
        .help("remove it, or name the agent that was meant");
    cx.report(problem);
}
