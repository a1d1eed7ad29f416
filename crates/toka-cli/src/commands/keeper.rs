//! `toka __keeper`: the process that forks and holds the agents. Its control socket is descriptor 3.

use std::process::ExitCode;

/// Becomes the keeper; returns when it has nothing left to keep.
pub(crate) fn run() -> ExitCode {
    ExitCode::from(toka_core::ExitCode::Internal as u8)
}
