//! `spec.restart`.

use super::context::Context;
use super::keys::{BACKOFF, RESTART};
use super::quantities::{duration, integer, number};
use super::section::Section;
use super::texts::choice;
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{AgentKind, Backoff, MaxRestarts, Restart, RestartPolicy, WhenExhausted};
use crate::read::{Node, ScalarKind, Value, shorten};

/// What the file says; the policy depends on the kind of the agent when it is absent, and the kind on the
/// policy.
pub(crate) struct Declared {
    pub(crate) policy: Option<RestartPolicy>,
    restart: Restart,
}

impl Default for Declared {
    fn default() -> Self {
        Self { policy: None, restart: Restart::with_policy(RestartPolicy::No) }
    }
}

impl Declared {
    pub(crate) fn for_kind(&self, kind: AgentKind) -> Restart {
        let default = match kind {
            AgentKind::Task => RestartPolicy::No,
            AgentKind::Service => RestartPolicy::OnFailure,
        };
        Restart { policy: self.policy.unwrap_or(default), ..self.restart }
    }
}

const POLICIES: &[(&str, RestartPolicy)] = &[
    ("no", RestartPolicy::No),
    ("always", RestartPolicy::Always),
    ("on-failure", RestartPolicy::OnFailure),
    ("on-abnormal", RestartPolicy::OnAbnormal),
    ("on-watchdog", RestartPolicy::OnWatchdog),
    ("unless-stopped", RestartPolicy::UnlessStopped),
    ("never", RestartPolicy::No),
    ("off", RestartPolicy::No),
];

pub(crate) fn restart(cx: &mut Context<'_>, node: &Node) -> Declared {
    let mut out = Declared::default();
    // `restart: always` stands for a map with that policy.
    if matches!(&node.value, Value::Scalar(scalar) if !scalar.is_null()) {
        out.policy = policy(cx, node);
        return out;
    }
    let Some(section) = Section::read(cx, node, &RESTART) else { return out };
    out.policy = section.get("policy").and_then(|node| policy(cx, node));
    if let Some(most) = section.get("max_restarts").and_then(|node| max_restarts(cx, node)) {
        out.restart.max_restarts = most;
    }
    if let Some(then) = section.get("when_exhausted").and_then(|node| choice(cx, node, EXHAUSTED)) {
        out.restart.when_exhausted = then;
    }
    if let Some(window) = section.get("window").and_then(|node| duration(cx, node)) {
        out.restart.window = window;
    }
    if let Some(node) = section.get("backoff") {
        out.restart.backoff = backoff(cx, node);
    }
    out
}

const EXHAUSTED: &[(&str, WhenExhausted)] =
    &[("fail", WhenExhausted::Fail), ("accept", WhenExhausted::Accept)];

fn max_restarts(cx: &mut Context<'_>, node: &Node) -> Option<MaxRestarts> {
    let is_unlimited = matches!(&node.value, Value::Scalar(scalar)
        if matches!(scalar.text.to_ascii_lowercase().as_str(), "unlimited" | "infinity"));
    if is_unlimited {
        return Some(MaxRestarts::Unlimited);
    }
    if let Value::Scalar(scalar) = &node.value
        && scalar.kind == ScalarKind::Text
        && scalar.text.trim().parse::<i64>().is_err()
    {
        let message = format!("expected a whole number or `unlimited`, found {}", node.describe());
        let problem = cx.at(Code::WrongType, message, node, "");
        cx.report(problem);
        return None;
    }
    integer(cx, node, 0..=u32::MAX).map(MaxRestarts::Limited)
}

/// YAML 1.1 reads a bare `no` as false, and so do files that went through such a reader.
fn policy(cx: &mut Context<'_>, node: &Node) -> Option<RestartPolicy> {
    if matches!(&node.value, Value::Scalar(scalar) if scalar.kind == ScalarKind::Bool(false)) {
        return Some(RestartPolicy::No);
    }
    // Docker's way to say how often.
    if let Value::Scalar(scalar) = &node.value
        && let Some((policy, most)) = scalar.text.split_once(':')
        && most.parse::<u32>().is_ok()
        && POLICIES.iter().any(|(name, _)| *name == policy)
    {
        let message = format!("`{}` is none of the choices", shorten(&scalar.text));
        let problem = cx.at(Code::UnknownChoice, message, node, "");
        cx.report(problem.help(format!("write `{{policy: {policy}, max_restarts: {most}}}`")));
        return None;
    }
    choice(cx, node, POLICIES)
}

fn backoff(cx: &mut Context<'_>, node: &Node) -> Backoff {
    let mut out = Backoff::default();
    let Some(section) = Section::read(cx, node, &BACKOFF) else { return out };
    let mut time = |key, into: &mut std::time::Duration| {
        if let Some(value) = section.get(key).and_then(|node| duration(cx, node)) {
            *into = value;
        }
    };
    time("initial", &mut out.initial);
    time("max", &mut out.max);
    time("reset_after", &mut out.reset_after);
    if let Some(value) = section.get("multiplier").and_then(|node| number(cx, node, 1.0..=100.0)) {
        out.multiplier = value;
    }
    if let Some(value) = section.get("jitter").and_then(|node| number(cx, node, 0.0..=1.0)) {
        out.jitter = value;
    }
    if out.initial > out.max {
        let problem = Diagnostic::new(Code::Conflict, "the first wait is longer than the longest")
            .at(cx.file, section.span(), "")
            .help("make `max` at least as long as `initial`");
        cx.report(problem);
    }
    out
}
