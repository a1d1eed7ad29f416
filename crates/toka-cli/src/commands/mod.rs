//! The subcommands, one file each: its options (`Args`) and what it does (`run`).

pub(crate) mod agent;
pub(crate) mod completions;
pub(crate) mod dry_run;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod folders;
pub(crate) mod foreground;
pub(crate) mod init;
pub(crate) mod keeper;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod refusal;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod signals;
pub(crate) mod validate;
pub(crate) mod workstreams;

use toka_core::ExitCode;

use crate::cli::Command;

/// Does what the command line asks; the answer is the status of the process.
///
/// # Errors
/// Whatever kept the command from doing its work. A [`crate::failure::Failure`] in it names the status.
pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Validate(args) => validate::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Init(args) => init::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Report(args) => report::run(args),
        Command::Exec(args) => exec::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Logs(args) => logs::run(args),
        Command::Man(args) => man::run(args),
    }
}
