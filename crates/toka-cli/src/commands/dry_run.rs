//! `toka run --dry-run`: what would start, in which order, and what it would wait for. `toka plan` shows it in full.

use toka_workstream::plan::{Gate, Node};
use toka_workstream::{AgentKind, Need, Plan};

use toka_terminal::palette::Palette;
use toka_terminal::text::{columns, count, safe};

/// The plan in short, one line per agent.
pub(crate) fn text(plan: &Plan, palette: Palette) -> String {
    let longest = plan.nodes().iter().map(|node| columns(node.agent.as_str())).max().unwrap_or(0);
    let waves = plan.waves().count();
    let heading = format!("{} in {}", count(plan.len(), "agent"), count(waves, "wave"));
    let mut out = format!("{}; nothing is started\n", palette.strong.paint(heading));
    for wave in plan.waves() {
        for (at, node) in wave.iter().enumerate() {
            let number = if at == 0 { (node.wave + 1).to_string() } else { String::new() };
            out.push_str(&line(node, &number, longest, palette));
        }
    }
    out.push_str(&palette.faint.paint("every rule that would be enforced: toka plan"));
    out.push('\n');
    out
}

fn line(node: &Node, number: &str, longest: usize, palette: Palette) -> String {
    let name = format!("{:longest$}", node.agent.as_str());
    let kind = match node.kind {
        AgentKind::Task => "task",
        AgentKind::Service => "service",
    };
    let gates: Vec<String> = node.gates.iter().map(gate).collect();
    let waits = if gates.is_empty() { String::new() } else { format!("after {}", gates.join(", ")) };
    let line = format!(
        "{number:>3}  {}  {kind:<7}  {:<8}  {waits}",
        palette.accent.paint(name),
        node.priority.as_str()
    );
    format!("{}\n", line.trim_end())
}

fn gate(gate: &Gate) -> String {
    let condition = safe(&gate.condition.to_string());
    match gate.need {
        Need::Required => format!("{} ({condition})", gate.on),
        Need::Optional => format!("{} ({condition}, or has ended)", gate.on),
    }
}

#[cfg(test)]
mod tests {
    use toka_core::{AgentName, Name, Origin, Priority};
    use toka_workstream::plan::{Member, arrange};
    use toka_workstream::{Condition, Dependency};

    use super::*;

    fn name(text: &str) -> AgentName {
        Name::new(text).expect("a label")
    }

    fn member(text: &str, kind: AgentKind, waits: &[(&str, Need, Condition)]) -> Member {
        let origin = Origin::default_of("test");
        let dependency = |(on, need, condition): &(&str, Need, Condition)| Dependency {
            on: name(on),
            need: *need,
            reason: String::new(),
            condition: condition.clone(),
            if_skipped: Default::default(),
            origin: origin.clone(),
        };
        Member {
            name: name(text),
            title: text.into(),
            kind,
            start: Default::default(),
            priority: Priority::High,
            dependencies: waits.iter().map(dependency).collect(),
            network: Default::default(),
            serves_a_port: false,
            on_end: Default::default(),
            skip: None,
            checks: 0,
            origin: origin.clone(),
        }
    }

    #[test]
    fn waves_and_gates() {
        let members = vec![
            member("fetch", AgentKind::Task, &[]),
            member("database", AgentKind::Service, &[]),
            member(
                "checks",
                AgentKind::Task,
                &[
                    ("fetch", Need::Required, Condition::CompletedSuccessfully),
                    ("database", Need::Optional, Condition::LogLine("up \u{1b}[2J".into())),
                ],
            ),
        ];
        let plan = arrange(members).0.expect("a plan");
        insta::assert_snapshot!(text(&plan, Palette::PLAIN));
    }
}
