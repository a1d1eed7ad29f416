//! `toka doctor`: what this host can enforce, and proof that it does. What there is to find is found elsewhere; here it is
//! shown, and made a status.

mod json;
mod text;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::Context as _;
use toka_core::ExitCode;
use toka_doctor::{Depth, DoctorOptions, Report, Strictness, examine};
use toka_prepare::folders::group_name;

use super::folders::Folders;
use toka_terminal::out;
use toka_terminal::palette::Palette;
use toka_terminal::screen;
use toka_terminal::table::PIPE_COLUMNS;

/// Options of `toka doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing is changed: what is made for the proofs is removed again.\n \
    Exit status: 0 the walls hold, 1 something that every agent needs is missing or a violation got through (with \
    --strict also when anything is less than full), 2 wrong command line, 73 no place for the state folder.")]
pub(crate) struct Args {
    /// Only look, try nothing
    #[arg(long)]
    quick: bool,
    /// Fail when any layer of the sandbox is less than full
    #[arg(long)]
    strict: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Look at this state folder [default: that of `toka run`]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Examines the host; fails when something speaks against it.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let folders = Folders::find(args.state_dir.as_deref())?;
    let options = DoctorOptions {
        // Several doctors may be at work at once.
        name: format!("{}-doctor-{}", group_name(&folders.state), std::process::id()),
        state_dir: folders.state,
        run_dir: folders.run,
        toka_exe: std::env::current_exe().context("find the toka binary")?,
    };
    let depth = if args.quick { Depth::Facts } else { Depth::Proofs };
    let strictness = if args.strict { Strictness::Strict } else { Strictness::Default };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(examine(&options, depth));
    let code = status(&report, strictness);
    let text = if args.json {
        json::object(&report, strictness, code)?
    } else {
        text::page(
            &report,
            strictness,
            screen::columns(PIPE_COLUMNS),
            Palette::for_stream(&std::io::stdout()),
        )
    };
    Ok(out::end(&text, code)?)
}

fn status(report: &Report, strictness: Strictness) -> ExitCode {
    match report.faults(strictness).next() {
        None => ExitCode::Success,
        Some(_) => ExitCode::AgentFailed,
    }
}
