//! `spec.start`, `spec.on_end` and `spec.success_exit_codes`.

use toka_core::SuccessStatus;

use super::context::Context;
use super::keys::ON_END;
use super::process::signal;
use super::section::Section;
use super::texts::choice;
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{AfterEnd, OnEnd, Start};
use crate::read::{Node, ScalarKind, Value};

const STARTS: &[(&str, Start)] = &[("auto", Start::Plan), ("manual", Start::Manual)];
const AFTER_ENDS: &[(&str, AfterEnd)] = &[("continue", AfterEnd::Continue), ("stop-run", AfterEnd::StopRun)];

/// What starts the agent: its schedule, or what `spec.start` says.
pub(crate) fn start(cx: &mut Context<'_>, spec: &Section<'_>) -> Start {
    let declared = spec.get("start").and_then(|node| choice(cx, node, STARTS));
    let scheduled = spec.entry("schedule").filter(|entry| !entry.value.is_null());
    match (declared, scheduled) {
        (Some(Start::Manual), Some(schedule)) => {
            let start = spec.entry("start").map_or(0..0, |entry| entry.value.span.clone());
            let problem =
                Diagnostic::new(Code::Conflict, "`schedule` and `start: manual` exclude each other")
                    .at(cx.file, start, "started by a person")
                    .at(cx.file, schedule.key.span.clone(), "started by the clock")
                    .help("leave one of them out: `toka start` also starts an agent whose time has not come");
            cx.report(problem);
            Start::Manual
        }
        (_, Some(_)) => Start::Clock,
        (declared, None) => declared.unwrap_or_default(),
    }
}

pub(crate) fn on_end(cx: &mut Context<'_>, node: &Node) -> OnEnd {
    let Some(section) = Section::read(cx, node, &ON_END) else { return OnEnd::default() };
    let mut take = |key| section.get(key).and_then(|node| choice(cx, node, AFTER_ENDS)).unwrap_or_default();
    OnEnd { success: take("success"), failure: take("failure") }
}

/// Exit codes and names of signals; a single one stands for a list of itself. 0 is a success whether it is named or not.
pub(crate) fn success(cx: &mut Context<'_>, node: &Node) -> Vec<SuccessStatus> {
    let items: Vec<&Node> = match &node.value {
        Value::List(items) => items.iter().map(|item| &**item).collect(),
        _ => vec![node],
    };
    items
        .into_iter()
        .filter_map(|item| status(cx, item))
        .filter(|status| *status != SuccessStatus::Code(0))
        .collect()
}

fn status(cx: &mut Context<'_>, node: &Node) -> Option<SuccessStatus> {
    match &node.value {
        Value::Scalar(scalar) if matches!(scalar.kind, ScalarKind::Int(_)) => {
            super::quantities::integer(cx, node, 0..=255).map(|code| SuccessStatus::Code(code as i32))
        }
        Value::Scalar(scalar) if !scalar.is_null() => signal(cx, node).map(SuccessStatus::Signal),
        _ => {
            cx.wrong_type(node, "an exit code from 0 to 255, or the name of a signal");
            None
        }
    }
}
