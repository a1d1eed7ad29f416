//! What becomes of a run that does not start: an error for people, and with `--json` the same as data. Then the last line
//! is a summary as after every other run, so that a program always finds the exit status there.

use serde_json::{Value, json};
use toka_core::{ExitCode, Origin};
use toka_daemon::{Problem, ProblemKind, RunError};

use crate::failure::{self, Failure};
use crate::terminal::json;
use crate::terminal::out::Out;
use crate::terminal::summary::Summary;
use crate::terminal::view::RunView;

/// The failure of a command whose run did not start.
pub(crate) fn failure(code: ExitCode, error: &RunError) -> Failure {
    let parts = match error {
        RunError::Refused(problems) => problems.iter().map(as_data).collect(),
        _ => Vec::new(),
    };
    Failure::new(code, error.to_string()).parts(parts)
}

/// Tells programs why nothing was started: one object a line, and the summary of a run without agents.
pub(crate) fn print(error: &anyhow::Error) {
    let (parts, code) = failure::data(error);
    let mut text: String = parts.iter().map(|part| json::line(part) + "\n").collect();
    text.push_str(&json::line(&Summary::of(&RunView::default(), &[], code)));
    text.push('\n');
    Out::stdout().print(&text);
}

/// A problem as data; `file`, `line` and `column` are there when a line of a file asks for what cannot be.
pub(crate) fn as_data(problem: &Problem) -> Value {
    let mut value = json!({
        "type": "problem",
        "kind": kind(problem.kind),
        "agent": problem.agent,
        "message": problem.message,
        "help": Some(&problem.help).filter(|help| !help.is_empty()),
    });
    if let Origin::File { file, line, column } = &problem.origin {
        value["file"] = json!(file);
        value["line"] = json!(line);
        value["column"] = json!(column);
    }
    value
}

fn kind(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Invalid => "invalid",
        ProblemKind::Unconfigured => "unconfigured",
        ProblemKind::Denied => "denied",
    }
}

#[cfg(test)]
mod tests {
    use toka_core::Name;

    use super::*;

    #[test]
    fn a_problem_says_where_it_is_and_what_helps() {
        let problem = Problem {
            kind: ProblemKind::Denied,
            agent: Name::new("checks").expect("a label"),
            origin: Origin::File { file: "a.yaml".into(), line: 7, column: 3 },
            message: "no".into(),
            help: String::new(),
        };
        let expected = json!({
            "type": "problem", "kind": "denied", "agent": "checks", "message": "no", "help": null,
            "file": "a.yaml", "line": 7, "column": 3,
        });
        assert_eq!(as_data(&problem), expected);
        let elsewhere = as_data(&Problem { origin: Origin::default_of("user"), ..problem });
        assert_eq!(elsewhere.get("line"), None);
    }
}
