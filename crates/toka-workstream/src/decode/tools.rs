//! `spec.tools` and `spec.autonomy`: what a model that works on the agent's tasks may use, and when a person is asked.

use toka_core::tool::{TOOLS as NAMES, means_a_tool};
use toka_core::{Autonomy, ToolProfile, ToolRules};

use super::context::Context;
use super::keys::{MCP_SERVER, TOOLS};
use super::quantities::integer;
use super::section::{Section, pairs};
use super::suggest::nearest;
use super::texts::{choice, texts, texts_with_nodes};
use crate::diagnostic::{Code, Diagnostic};
use crate::model::McpServer;
use crate::read::{Node, Value, shorten};

const PROFILES: &[(&str, ToolProfile)] = &[
    ("minimal", ToolProfile::Minimal),
    ("coding", ToolProfile::Coding),
    ("messaging", ToolProfile::Messaging),
    ("full", ToolProfile::Full),
];
const AUTONOMIES: &[(&str, Autonomy)] = &[("semi", Autonomy::Semi), ("auto", Autonomy::Auto)];
/// The longest name of a server of tools.
const LONGEST_NAME: usize = 24;
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

/// `spec.mcp`: servers of tools, by their names.
pub(crate) fn servers(cx: &mut Context<'_>, node: &Node) -> Vec<McpServer> {
    let expected = "a map of names and servers, such as `{files: {command: [npx, -y, a-server]}}`";
    let mut servers = Vec::new();
    for entry in pairs(cx, node, expected).unwrap_or_default() {
        let name = &entry.key.text;
        let good = (1..=LONGEST_NAME).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !good {
            let message = format!("`{}` cannot be the name of a server of tools", shorten(name));
            let problem = Diagnostic::new(Code::BadName, message)
                .at(cx.file, entry.key.span.clone(), "")
                .help(format!("such a name has small letters, digits and dashes, {LONGEST_NAME} at most: it stands in the names of its tools"));
            cx.report(problem);
        }
        let Some(section) = Section::read(cx, &entry.value, &MCP_SERVER) else { continue };
        let Some(node) = section.get("command") else {
            let problem = Diagnostic::new(Code::Missing, "the server has no `command`")
                .at(cx.file, entry.key.span.clone(), "nothing to start")
                .help("write `{command: [program, argument]}`: it is started in the agent's sandbox, and speaks at its standard input and output");
            cx.report(problem);
            continue;
        };
        let command = texts(cx, node);
        if good && !command.is_empty() {
            servers.push(McpServer { name: name.clone(), command, origin: cx.origin_of(&entry.key.span) });
        }
    }
    servers
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
