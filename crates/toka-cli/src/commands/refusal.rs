//! What becomes of a run that does not start: an error for people, and with `--json` the same as data. Then the last line
//! is a summary as after every other run, so that a program always finds the exit status there.

use toka_core::ExitCode;
use toka_prepare::{Problem, RunError};

use toka_terminal::failure::{self, Failure};
use toka_terminal::json;
use toka_terminal::out::Out;
use toka_terminal::summary::Summary;
use toka_terminal::view::RunView;

/// The failure of a command whose run did not start.
pub(crate) fn failure(code: ExitCode, error: &RunError) -> Failure {
    let parts = match error {
        RunError::Refused(problems) => problems.iter().map(Problem::to_json).collect(),
        _ => Vec::new(),
    };
    Failure::new(code, error.to_string()).parts(parts)
}

/// Tells programs why nothing was started: one object a line, and the summary of a run without agents.
pub(crate) fn print(error: &anyhow::Error) {
    let (parts, code) = failure::data(error);
    let mut text: String = parts.iter().map(|part| json::line(part) + "\n").collect();
    text.push_str(&json::line(&Summary::of(&RunView::default(), &[], code as u8)));
    text.push('\n');
    Out::stdout().print(&text);
}
