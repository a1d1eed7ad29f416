//! `security.budget`, and `budgets` and `approvals` of `toka.yaml`.

use std::time::Duration;

use toka_core::{Budget, BudgetConfig, Declared, Money};

use super::context::Context;
use super::keys::{APPROVALS, BUDGET, BUDGETS};
use super::quantities::{amount, delay, duration, number};
use super::section::Section;
use crate::diagnostic::Code;
use crate::read::{Node, ScalarKind, Value};

/// Most dollars that a budget may have: sums stay numbers that every reader of JSON takes for what they are.
const MOST_DOLLARS: f64 = 1e6;
/// The shortest time that a budget may have.
const LEAST_WALL: Duration = Duration::from_secs(1);

/// `security.budget`.
pub(crate) fn budget(cx: &mut Context<'_>, node: &Node) -> Option<Declared<Budget>> {
    let budget = amounts(cx, node)?;
    Some(Declared::new(budget, cx.origin(node)))
}

/// The amounts of a budget.
fn amounts(cx: &mut Context<'_>, node: &Node) -> Option<Budget> {
    let section = Section::read(cx, node, &BUDGET)?;
    if let Some(node) = section.get("turns") {
        let problem = cx
            .at(Code::NoEffect, "`turns` are not counted yet", node, "")
            .help("the programs of others do not tell their turns; `calls` counts their calls of models");
        cx.report(problem);
        amount(cx, node);
    }
    let wall = section.get("wall").and_then(|node| {
        let wall = duration(cx, node)?;
        if wall < LEAST_WALL {
            let problem = cx.at(Code::OutOfRange, "the least is one second", node, "");
            cx.report(problem);
        }
        Some(wall)
    });
    Some(Budget {
        money: section.get("money").and_then(|node| money(cx, node)),
        tokens: section.get("tokens").and_then(|node| amount(cx, node)),
        calls: section.get("calls").and_then(|node| amount(cx, node)),
        wall,
    })
}

/// US dollars, as a number, with or without their sign.
fn money(cx: &mut Context<'_>, node: &Node) -> Option<Money> {
    let written = match &node.value {
        Value::Scalar(scalar) if scalar.kind == ScalarKind::Text => scalar.text.trim().strip_prefix('$'),
        _ => None,
    };
    let dollars = match written.map(|text| text.trim().parse::<f64>()) {
        Some(Ok(dollars)) if (0.0..=MOST_DOLLARS).contains(&dollars) => Some(dollars),
        Some(_) => {
            cx.bad_value(node, format!("a sum is a number of US dollars, from 0 to {MOST_DOLLARS:.0}"));
            None
        }
        None => number(cx, node, 0.0..=MOST_DOLLARS),
    };
    Money::from_dollars(dollars?)
}

/// `budgets` of `toka.yaml`.
pub(crate) fn budgets(cx: &mut Context<'_>, node: &Node) -> BudgetConfig {
    let Some(section) = Section::read(cx, node, &BUDGETS) else { return BudgetConfig::default() };
    let mut of = |key| section.get(key).and_then(|node| amounts(cx, node)).unwrap_or_default();
    BudgetConfig { run: of("run"), agent: of("agent") }
}

/// `approvals` of `toka.yaml`: how long they wait for an answer.
pub(crate) fn approvals(cx: &mut Context<'_>, node: &Node) -> Option<Duration> {
    let section = Section::read(cx, node, &APPROVALS)?;
    section.get("expire").and_then(|node| delay(cx, node))
}
