//! `spec.tools` and `spec.autonomy`: what a model that works on the agent's tasks may use, and when a person is asked.

use toka_core::tool::{TOOLS as NAMES, means_a_tool};
use toka_core::{Autonomy, ToolProfile, ToolRules};

use super::context::Context;
use super::keys::TOOLS;
use super::quantities::integer;
use super::section::Section;
use super::suggest::nearest;
use super::texts::{choice, texts_with_nodes};
use crate::diagnostic::Code;
use crate::read::{Node, Value, shorten};

const PROFILES: &[(&str, ToolProfile)] = &[
    ("minimal", ToolProfile::Minimal),
    ("coding", ToolProfile::Coding),
    ("messaging", ToolProfile::Messaging),
    ("full", ToolProfile::Full),
];
const AUTONOMIES: &[(&str, Autonomy)] = &[("semi", Autonomy::Semi), ("auto", Autonomy::Auto)];
/// Most calls for one answer that can be declared.
const MOST_CALLS: u32 = 1000;

/// `spec.tools`: a map, or the name of a profile alone.
pub(crate) fn tools(cx: &mut Context<'_>, node: &Node) -> ToolRules {
    if let Value::Scalar(_) = &node.value {
        return ToolRules { profile: choice(cx, node, PROFILES).unwrap_or_default(), ..ToolRules::default() };
    }
    let Some(section) = Section::read(cx, node, &TOOLS) else { return ToolRules::default() };
    let mut patterns = |key| section.get(key).map(|node| patterns(cx, node)).unwrap_or_default();
    let (allow, deny, ask) = (patterns("allow"), patterns("deny"), patterns("ask"));
    ToolRules {
        profile: section.get("profile").and_then(|node| choice(cx, node, PROFILES)).unwrap_or_default(),
        allow,
        deny,
        ask,
        calls_per_turn: section.get("calls_per_turn").and_then(|node| integer(cx, node, 1..=MOST_CALLS)),
        autonomy: Autonomy::default(),
    }
}

/// `spec.autonomy`.
pub(crate) fn autonomy(cx: &mut Context<'_>, node: &Node) -> Autonomy {
    choice(cx, node, AUTONOMIES).unwrap_or_default()
}

/// Names of tools, with `*` for anything. One that means none would be a rule that nobody keeps.
fn patterns(cx: &mut Context<'_>, node: &Node) -> Vec<String> {
    let mut patterns = Vec::new();
    for (text, node) in texts_with_nodes(cx, node) {
        let pattern = text.trim().to_owned();
        if !means_a_tool(&pattern) {
            let message = format!("there is no tool `{}`", shorten(&pattern));
            let help = match nearest(&pattern, NAMES) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the tools are {}", NAMES.join(", ")),
            };
            cx.report(cx.at(Code::UnknownChoice, message, node, "").help(help));
            continue;
        }
        patterns.push(pattern);
    }
    patterns
}
