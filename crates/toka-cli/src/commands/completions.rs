//! `toka completions SHELL`: a completion script, made from the same description that parses the command line.

use clap::CommandFactory as _;
use clap_complete::Shell;
use toka_core::ExitCode;

use crate::cli::Cli;

/// Options of `toka completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell that the script is for
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Generated into memory first: the generator panics when it cannot write, and a closed pipe is no reason to.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "toka", &mut script);
    Ok(crate::terminal::out::end(&String::from_utf8(script)?, ExitCode::Success)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        use clap::ValueEnum as _;
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "toka", &mut script);
            let script = String::from_utf8(script).expect("text");
            assert!(script.contains("validate"), "{shell}");
        }
    }
}
