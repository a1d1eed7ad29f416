//! `toka __agent`: the runner inside a sandbox, which works through the tasks of an agent without a process.

use std::process::ExitCode;

use toka_core::AgentProgram;

/// Becomes the runner; returns when the tasks are done.
pub(crate) fn run() -> ExitCode {
    let mut arguments = std::env::args_os().skip(2);
    match arguments.next() {
        Some(word) if word == AgentProgram::EXEC => toka_agent::exec::main(arguments),
        _ => toka_agent::runner::main(),
    }
}
