//! `toka exec`: one command in the sandbox of an agent that runs, beside it; or, with `--sandbox`, behind the walls that a
//! workstream declares, with nothing around it.

mod beside;
mod sandbox;
mod unexecuted;

use std::ffi::OsString;
use std::path::PathBuf;

use toka_core::{ExitCode, ProjectName};

use super::reach::{AgentRef, Reach};
use toka_terminal::failure::Failure;

/// Options of `toka exec`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "toka exec [OPTIONS] AGENT -- COMMAND…\n       toka exec --sandbox FILE [OPTIONS] [AGENT] -- COMMAND…",
    after_help = "Exit status: that of the command, 128 and the number of the signal that ended it; 126 it cannot be \
    executed, 127 there is no such program. Of Toka itself: 1 the agent does not run, 2 wrong command line, 65 invalid \
    workstream, 69 no daemon answers, or the connection to it is lost, 73 the state folder cannot be used, 77 denied, 78 something must be configured first."
)]
pub(crate) struct Args {
    /// The agent beside which the command runs, as AGENT or PROJECT/AGENT; with --sandbox, which of the file's agents is meant
    #[arg(value_name = "AGENT")]
    agent: Option<AgentRef>,
    /// Run it on a terminal [default: when stdin and stdout are one]
    #[arg(short = 't', long, conflicts_with = "no_tty")]
    tty: bool,
    /// Run it without a terminal
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// Pass on what comes at stdin [default: when stdin and stdout are a terminal]
    #[arg(short = 'i', long)]
    interactive: bool,
    /// The project [default: the one named after the current folder, or the only one that has such agents]
    #[arg(long, value_name = "NAME")]
    project: Option<ProjectName>,
    /// Look for daemons below this folder [env: TOKA_STATE_DIR]; with --sandbox, make the command's home, temporary and
    /// artifact folders there [default: a temporary folder, removed afterwards]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    own: sandbox::Options,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command; its exit status is ours.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { agent, tty, no_tty, interactive, project, state_dir, own, command } = args;
    if let Some(sandbox) = own.sandbox() {
        let state_dir = state_dir.as_deref();
        let agent = agent.as_ref();
        return sandbox::run(&sandbox::Own { sandbox, agent, options: &own, state_dir, command: &command });
    }
    if own.grants_something() {
        let message = "--allow, --policy and --trust grant something to a sandbox of its own";
        let help = "beside an agent a command has what the agent has; name a workstream with --sandbox";
        return Err(Failure::new(ExitCode::Usage, message).help(help).into());
    }
    // One of both is required.
    let Some(agent) = agent else { return Ok(ExitCode::Usage) };
    let terminal = match (tty, no_tty) {
        (true, _) => beside::Terminal::Wanted,
        (_, true) => beside::Terminal::Unwanted,
        _ => beside::Terminal::AsOurs,
    };
    let reach = Reach { project, state_dir };
    beside::run(&beside::Wanted { agent, reach, terminal, interactive, command })
}
