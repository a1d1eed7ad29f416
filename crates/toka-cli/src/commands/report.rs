//! `toka report`: Report progress from inside an agent.

use toka_core::ExitCode;

/// Options of `toka report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not written yet")
}
