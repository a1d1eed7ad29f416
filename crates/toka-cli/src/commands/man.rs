//! `toka man DIR`: writes the man pages, for packagers. Hidden, because a user has no need of it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::CommandFactory as _;
use toka_core::ExitCode;

use crate::cli::Cli;

/// Options of `toka man`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder to write into; it is made when absent
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes `toka.1` and one page per visible subcommand.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    write_pages(&args.folder)?;
    Ok(ExitCode::Success)
}

fn write_pages(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    clap_mangen::generate_to(Cli::command(), folder)
        .with_context(|| format!("cannot write man pages into {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_for_the_command_and_one_for_each_visible_subcommand() {
        let folder = tempfile::tempdir().expect("a folder");
        write_pages(folder.path()).expect("pages");
        assert!(folder.path().join("toka.1").exists());
        for command in Cli::command().get_subcommands() {
            let page = folder.path().join(format!("toka-{}.1", command.get_name()));
            assert_eq!(page.exists(), !command.is_hide_set(), "{}", page.display());
        }
    }
}
