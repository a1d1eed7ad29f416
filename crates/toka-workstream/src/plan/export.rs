//! The plan in other programs' languages: Graphviz, Mermaid, JSON.
//!
//! Names of agents are DNS labels and need no quoting; titles are free text from a file that somebody else may have
//! written, so each language gets them escaped in its own way.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Gate, Node, Plan};
use crate::{AgentKind, Condition, Need};

impl Plan {
    /// A graph in the DOT language (<https://graphviz.org/doc/info/lang.html>). Arrows lead from a dependency to what
    /// waits for it; those that only order are dashed.
    pub fn to_dot(&self) -> String {
        let mut out =
            String::from("digraph plan {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
        for node in &self.nodes {
            let shape = match node.kind {
                AgentKind::Task => "box",
                AgentKind::Service => "ellipse",
            };
            let label = label_lines(node).map(dot_text).join("\\n");
            let _ = writeln!(out, "  \"{}\" [label=\"{label}\", shape={shape}];", node.agent);
        }
        for (node, gate) in self.gates() {
            let style = match gate.need {
                Need::Required => "solid",
                Need::Optional => "dashed",
            };
            let label = dot_text(&gate.condition.to_string());
            let _ =
                writeln!(out, "  \"{}\" -> \"{}\" [label=\"{label}\", style={style}];", gate.on, node.agent);
        }
        out.push_str("}\n");
        out
    }

    /// A flowchart for Mermaid (<https://mermaid.js.org/syntax/flowchart.html>), which GitHub draws in Markdown.
    pub fn to_mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        for (at, node) in self.nodes.iter().enumerate() {
            let label = label_lines(node).map(mermaid_text).join("<br/>");
            let (open, close) = match node.kind {
                AgentKind::Task => ("[", "]"),
                AgentKind::Service => ("([", "])"),
            };
            // Numbers as ids: a name such as `end` is a word of the language.
            let _ = writeln!(out, "  n{at}{open}\"{label}\"{close}");
        }
        for (at, node) in self.nodes.iter().enumerate() {
            for gate in &node.gates {
                let arrow = match gate.need {
                    Need::Required => "-->",
                    Need::Optional => "-.->",
                };
                let label = mermaid_text(&gate.condition.to_string());
                let _ = writeln!(out, "  n{} {arrow}|\"{label}\"| n{at}", gate.position);
            }
        }
        out
    }

    /// `{waves: [[name]], agents: [{agent, title, kind, priority, wave, gates: […]}], dropped: […]}`.
    pub fn to_json(&self) -> Value {
        let waves: Vec<Vec<&str>> =
            self.waves().map(|wave| wave.iter().map(|node| node.agent.as_str()).collect()).collect();
        json!({ "waves": waves, "agents": self.nodes, "dropped": self.dropped })
    }

    fn gates(&self) -> impl Iterator<Item = (&Node, &Gate)> {
        self.nodes.iter().flat_map(|node| node.gates.iter().map(move |gate| (node, gate)))
    }
}

/// The name, and the title when it says something else.
fn label_lines(node: &Node) -> Lines<'_> {
    Lines { name: node.agent.as_str(), title: (node.title != node.agent.as_str()).then_some(&node.title) }
}

struct Lines<'a> {
    name: &'a str,
    title: Option<&'a String>,
}

impl Lines<'_> {
    fn map(self, escape: fn(&str) -> String) -> Vec<String> {
        std::iter::once(self.name).chain(self.title.map(String::as_str)).map(escape).collect()
    }
}

/// Text within the double quotes of a DOT label, where a backslash escapes and `&name;` is a character.
fn dot_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Text within the double quotes of a Mermaid label, where `#name;` is a character, Markdown and HTML mean something.
fn mermaid_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '#' | '&' | '<' | '>' | '`' | '*' | '_' | '\\' | '|' => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

impl std::fmt::Display for Condition {
    /// As people say it: `ready`, `completed successfully`, `log line "listening"`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ProcessStarted => f.write_str("process started"),
            Self::Ready => f.write_str("ready"),
            Self::Completed => f.write_str("completed"),
            Self::CompletedSuccessfully => f.write_str("completed successfully"),
            Self::ObjectiveMet => f.write_str("objective met"),
            Self::LogLine(text) => write!(f, "log line {text:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use toka_core::{Name, Origin, Priority};

    use super::*;
    use crate::Dependency;
    use crate::plan::{Member, arrange};

    const NASTY: &str = "a \"quote\" \\ <b>|#35; &amp; `x`\n\u{1b}[31m é";

    fn plan() -> Plan {
        let name = |text: &str| Name::new(text).expect("a label");
        let member = |text: &str, title: &str, kind, dependencies| Member {
            name: name(text),
            title: title.to_owned(),
            kind,
            start: Default::default(),
            priority: Priority::Medium,
            dependencies,
            checks: 0,
            network: Default::default(),
            serves_a_port: false,
            on_end: Default::default(),
            skip: None,
            origin: Origin::default_of("test"),
        };
        let dependency = |on: &str, need, condition| Dependency {
            on: name(on),
            need,
            reason: format!("needs {on}"),
            condition,
            if_skipped: Default::default(),
            origin: Origin::File { file: "agents/x.yaml".into(), line: 7, column: 3 },
        };
        let members = vec![
            member(
                "end",
                NASTY,
                AgentKind::Task,
                vec![
                    dependency("db", Need::Required, Condition::LogLine("up \"now\"".into())),
                    dependency("fetch", Need::Optional, Condition::Completed),
                ],
            ),
            member("db", "db", AgentKind::Service, vec![]),
            member(
                "fetch",
                "Fetch sources",
                AgentKind::Task,
                vec![dependency("end", Need::Optional, Condition::Completed)],
            ),
        ];
        arrange(members).0.expect("a plan")
    }

    #[test]
    fn exports() {
        insta::assert_snapshot!("dot", plan().to_dot());
        insta::assert_snapshot!("mermaid", plan().to_mermaid());
        insta::assert_snapshot!("json", serde_json::to_string_pretty(&plan().to_json()).expect("JSON"));
    }

    #[test]
    fn what_a_plan_waits_for_in_the_output() {
        let plan = plan();
        assert_eq!(plan.watched_lines(&Name::new("db").expect("a label")), ["up \"now\""]);
        assert_eq!(plan.watched_lines(&Name::new("fetch").expect("a label")), [""; 0]);
    }
}
