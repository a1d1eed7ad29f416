//! The one binary, `toka`: it talks to a terminal, and re-enters itself as the keeper, and as the runner and the probe
//! inside a sandbox. Here is only the way in and the way out; each subcommand has its file in [`commands`].

mod cli;
mod commands;
mod logging;
mod remote;
mod top;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // The keeper, the runner and the probe come first: they must stay small, so nothing of the command line is built for
    // them.
    match std::env::args_os().nth(1).as_deref().and_then(|word| word.to_str()) {
        Some("__keeper") => return commands::keeper::run(),
        Some("__agent") => return commands::agent::run(),
        Some("__probe") => return commands::probe::run(),
        _ => {}
    }
    commands::completions::answer();
    toka_sandbox::sys::share_arenas();
    dump_no_core();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return told_by_clap(&error),
    };
    cli.color.apply();
    logging::start(cli.command.log_unasked());
    match cli.command.run() {
        Ok(code) => code.into(),
        Err(error) => toka_terminal::failure::report(&error).into(),
    }
}

/// Keeps what this process knows, a person's keys among it, out of core dumps: with this limit the kernel writes none to a file, and starts no
/// program that takes one (`do_coredump` in fs/coredump.c: a limit of 1 means both). A process that may not lower it goes on.
fn dump_no_core() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let hard = getrlimit(Resource::RLIMIT_CORE).map_or(0, |(_, hard)| hard);
    let _ = setrlimit(Resource::RLIMIT_CORE, hard.min(1), hard);
}

/// The help and the version go to stdout, and end like everything that is printed there; what is wrong goes to stderr.
fn told_by_clap(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        error.exit();
    }
    let written = error.print().and_then(|()| std::io::stdout().flush());
    match toka_terminal::out::settle(written, toka_core::ExitCode::Success) {
        Ok(code) => code.into(),
        Err(unwritten) => toka_terminal::failure::report(&unwritten.into()).into(),
    }
}
