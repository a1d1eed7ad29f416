//! What became of a run.

use toka_core::{ExitCode, RunId};

/// A run that has ended. What became of its agents, its events say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// The exit status that it deserves.
    pub exit_code: ExitCode,
    /// The exit status of the command: that of the agent which `--exit-code-from` names, else the one above.
    pub status: u8,
    /// The run.
    pub run: RunId,
}
