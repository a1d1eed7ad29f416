//! `toka schema`: the JSON Schema of workstream files.

use toka_core::ExitCode;
use toka_workstream::schema::{Draft, to_text};

use toka_terminal::out;

/// Options of `toka schema`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the older draft-07, which more editors understand, instead of 2020-12
    #[arg(long = "draft-07")]
    draft_07: bool,
    /// Accepted for likeness with other commands: a schema is JSON anyway
    #[arg(long, hide = true)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let draft = if args.draft_07 { Draft::Draft07 } else { Draft::Draft202012 };
    Ok(out::end(&to_text(draft), ExitCode::Success)?)
}
