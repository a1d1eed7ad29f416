//! `toka record`: runs workstreams as `toka run` does, and makes a script of what models said.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use toka_core::ExitCode;
use toka_gateway::Gateway;
use toka_terminal::failure::Failure;
use toka_terminal::text::count;

use super::run;

/// Options of `toka record`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "An agent with `spec.model: {script: FILE}` gets the same answers again, without a model and without a key. The file holds what models said, \
    and the words by which a conversation is known again: look at it before you give it to others."
)]
#[group(skip)]
pub(crate) struct Args {
    /// The script; a file that is there already stays as it is
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    run: run::Args,
}

/// Runs the workstreams and writes the script, also when an agent failed.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !args.run.is_in_foreground() {
        let message = "what is recorded is written at the end of a run in the foreground: not with --detach or --dry-run";
        return Err(Failure::new(ExitCode::Usage, message).into());
    }
    let shown = args.file.display();
    // Before anything is paid for.
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let message = format!("{shown} is there already, and was left as it is");
            return Err(Failure::new(ExitCode::Usage, message)
                .help("name another file, or remove it first")
                .into());
        }
        opened => opened.with_context(|| format!("cannot make {shown}"))?,
    };
    let recorder = Gateway::of_this_process().map_err(anyhow::Error::msg)?.record();
    let outcome = run::run(args.run);
    let (conversations, answers, lost) = recorder.count();
    if answers == 0 {
        eprintln!("no model answered, so that {shown} was not written");
        let _ = fs::remove_file(&args.file);
        return outcome;
    }
    file.write_all(recorder.script().as_bytes()).with_context(|| format!("cannot write {shown}"))?;
    eprintln!(
        "recorded {} of {} in {shown}; `spec.model: {{script: {shown}}}` gives them again",
        count(answers, "answer"),
        count(conversations, "conversation")
    );
    if lost > 0 {
        eprintln!(
            "{} could not be kept: the same was asked before, and answered otherwise",
            count(lost, "answer")
        );
    }
    outcome
}
