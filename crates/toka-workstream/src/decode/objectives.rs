//! `objectives` and `capabilities`: what the agent is for, and what it is good at.

use toka_core::Priority;

use super::context::Context;
use super::keys::{CAPABILITIES, OBJECTIVE};
use super::section::Section;
use super::tasks::PRIORITIES;
use super::texts::{argv, choice, filled, texts};
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{Objective, ProcessCommand};
use crate::read::{Node, Value};

pub(crate) fn objectives(cx: &mut Context<'_>, node: &Node) -> Vec<Objective> {
    match &node.value {
        Value::List(items) => items.iter().filter_map(|item| objective(cx, item)).collect(),
        _ if node.is_null() => Vec::new(),
        _ => {
            cx.wrong_type(node, "a list of objectives");
            Vec::new()
        }
    }
}

fn objective(cx: &mut Context<'_>, node: &Node) -> Option<Objective> {
    let mut out = Objective {
        description: String::new(),
        deliverable: None,
        validation: None,
        priority: Priority::Medium,
        check: None,
        origin: cx.origin(node),
    };
    if let Value::Scalar(_) = node.value {
        out.description = filled(cx, node)?;
        return Some(out);
    }
    let section = Section::read(cx, node, &OBJECTIVE)?;
    match section.get("description") {
        Some(node) => out.description = filled(cx, node)?,
        None => {
            let problem = Diagnostic::new(Code::Missing, "the objective has no `description`").at(
                cx.file,
                section.span(),
                "what is to be achieved?",
            );
            cx.report(problem);
        }
    }
    let mut joined = |key| {
        let texts = section.get(key).map(|node| texts(cx, node)).unwrap_or_default();
        (!texts.is_empty()).then(|| texts.join("; "))
    };
    out.deliverable = joined("deliverable");
    out.validation = joined("validation");
    if let Some(priority) = section.get("priority").and_then(|node| choice(cx, node, PRIORITIES)) {
        out.priority = priority;
    }
    out.check = section.get("check").and_then(|node| command(cx, node));
    Some(out)
}

/// A list is an argv, one text is a line for the shell, as in a task's `run`.
fn command(cx: &mut Context<'_>, node: &Node) -> Option<ProcessCommand> {
    match node.value {
        Value::List(_) => argv(cx, node).map(ProcessCommand::Argv),
        _ => filled(cx, node).map(ProcessCommand::Shell),
    }
}

/// `capabilities`: primary and secondary, free text.
pub(crate) fn capabilities(cx: &mut Context<'_>, node: &Node) -> (Vec<String>, Vec<String>) {
    // A plain list is what the agent is good at in the first place.
    if matches!(node.value, Value::List(_)) {
        return (texts(cx, node), Vec::new());
    }
    let Some(section) = Section::read(cx, node, &CAPABILITIES) else { return Default::default() };
    let mut take = |key| section.get(key).map(|node| texts(cx, node)).unwrap_or_default();
    (take("primary"), take("secondary"))
}
