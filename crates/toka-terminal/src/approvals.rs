//! What waits for a person, as a table.

use toka_core::approval::Subject;
use toka_core::{AgentName, Approval, ProjectName};

use super::grid::grid;
use super::list::age;
use super::palette::Palette;
use super::text::whole;

/// An approval that is open, and who waits for it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct OpenApproval {
    /// The project.
    pub project: ProjectName,
    /// Who waits, in the order of the plan.
    pub agents: Vec<AgentName>,
    /// What is asked for.
    #[serde(flatten)]
    pub approval: Approval,
}

/// Draws a row for each, `columns` wide at most, as they are at `now_ms` of the wall clock; below, how to answer the first.
pub fn approvals(open: &[OpenApproval], now_ms: i64, columns: usize, palette: Palette) -> String {
    let Some(first) = open.first() else { return "nothing waits for a person\n".to_owned() };
    let heads = ["ID", "AGENT", "KIND", "EXPIRES", "WHAT"];
    let mut text = grid(heads, open.iter().map(|open| row(open, now_ms)), columns, palette);
    let name = name(first);
    let subject = &first.approval.subject;
    let yes = match (subject.yes(), subject) {
        (Some(yes), _) => format!("toka approvals approve {name}   {yes}"),
        (None, Subject::Question(_)) => format!("toka approvals answer {name} TEXT"),
        (None, _) => format!("toka approvals approve {name} --raise AMOUNT"),
    };
    let how = [yes, format!("toka approvals deny {name}      {}", subject.no())];
    for line in how {
        text.push_str(&palette.faint.paint(line));
        text.push('\n');
    }
    text
}

/// How a person names it.
pub fn name(open: &OpenApproval) -> String {
    format!("{}/{}", open.project, open.approval.id)
}

fn row(open: &OpenApproval, now_ms: i64) -> [String; 5] {
    let agents: Vec<&str> = open.agents.iter().map(AgentName::as_str).collect();
    let left = format!("in {}", age(now_ms, open.approval.expires_ms));
    let (kind, what) = (open.approval.subject.kind(), whole(&open.approval.subject.to_string()));
    [name(open), agents.join(", "), kind.to_owned(), left, what]
}

/// All that is known of one.
pub fn approval(open: &OpenApproval, now_ms: i64) -> String {
    let Approval { subject, expires_ms, .. } = &open.approval;
    let agents: Vec<&str> = open.agents.iter().map(AgentName::as_str).collect();
    let rows = [
        ("approval", name(open)),
        ("kind", subject.kind().to_owned()),
        ("waiting", agents.join(", ")),
        ("what", whole(&subject.to_string())),
        (
            "yes",
            subject.yes().unwrap_or_else(|| match subject {
                Subject::Question(_) => format!("answer it: `toka approvals answer {} TEXT`", name(open)),
                _ => "with --raise, as it needs more than as much again".to_owned(),
            }),
        ),
        ("no", subject.no().to_owned()),
        ("expires", format!("in {}, which is no", age(now_ms, *expires_ms))),
    ];
    rows.into_iter().map(|(key, text)| format!("{key:<9} {text}\n")).collect()
}

#[cfg(test)]
mod tests {
    use toka_core::Name;
    use toka_core::budget::{Measure, Scope};

    use super::*;

    #[test]
    fn what_is_shown() {
        let name = |text| Name::new(text).expect("a label");
        let subject = Subject::Budget {
            scope: Scope::Agent,
            measure: Measure::Money,
            used: 1_900_000_000,
            limit: 2_000_000_000,
            next: 310_000_000,
        };
        let approval = Approval { id: 3, subject, expires_ms: 1_800_000 };
        let open = OpenApproval { project: name("shop"), agents: vec![name("reviewer")], approval };
        insta::assert_snapshot!(format!(
            "{}\n{}",
            approvals(std::slice::from_ref(&open), 0, 100, Palette::PLAIN),
            super::approval(&open, 0)
        ));
        assert_eq!(approvals(&[], 0, 100, Palette::PLAIN), "nothing waits for a person\n");
    }
}
