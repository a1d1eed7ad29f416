//! `toka __agent`: the runner inside a sandbox, which works through the tasks of an agent without a process.

use std::process::ExitCode;

/// Becomes the runner; returns when the tasks are done.
pub(crate) fn run() -> ExitCode {
    toka_agent::runner::main()
}
