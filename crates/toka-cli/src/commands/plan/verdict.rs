//! What `toka run` would do with the plan as it is: start it, or refuse before anything has started.

use toka_core::ExitCode;
use toka_prepare::Problem;

/// What a run would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Why nothing would start, in the order of the plan; none when it would.
    pub(super) problems: Vec<Problem>,
}

impl Verdict {
    /// What a run would end with before anything started.
    pub(super) fn exit_code(&self) -> ExitCode {
        Problem::exit_code(&self.problems).unwrap_or(ExitCode::Success)
    }

    /// What would help, each once.
    pub(super) fn help(&self) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        for problem in &self.problems {
            if !problem.help.is_empty() && !all.contains(&problem.help.as_str()) {
                all.push(&problem.help);
            }
        }
        all
    }
}
