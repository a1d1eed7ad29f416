//! A command whose last step failed, exec(2) itself: the exit status is that of shells and of env(1), 127 when there is no program,
//! 126 when it is none.

use nix::errno::Errno;
use thiserror::Error;
use toka_keeper::SpawnError;

/// A command that was not executed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Unexecuted {
    /// There is no such program.
    #[error("{0}")]
    NotFound(String),
    /// There is something, and it cannot be executed.
    #[error("{0}")]
    NotExecutable(String),
}

impl Unexecuted {
    /// The status that `toka exec` ends with.
    pub(super) fn status(&self) -> i32 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable(_) => 126,
        }
    }

    /// What the last step of a start failed with, if it was that one; a script can lack its interpreter.
    pub(super) fn of_start(error: &SpawnError) -> Option<Self> {
        let SpawnError::Step(step) = error else { return None };
        let text = format!("the command did not start: {step}");
        match Errno::from_raw(step.errno) {
            _ if step.step != "exec" => None,
            Errno::ENOENT => Some(Self::NotFound(text)),
            _ => Some(Self::NotExecutable(text)),
        }
    }
}
