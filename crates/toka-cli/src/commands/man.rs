//! `toka man [COMMAND]`: prints a manual page, of a command or of the file format; with `--out`, writes all of them into a
//! folder, for packagers. Hidden, because a user whose system has the pages has no need of it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;
use roff::{Roff, bold, roman};
use toka_core::ExitCode;
use toka_workstream::schema::{KeyReference, REQUIRED, key_references};

use crate::cli::Cli;
use toka_terminal::failure::Failure;
use toka_terminal::out;

/// Options of `toka man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "To read a page: toka man run | man -l -")]
pub(crate) struct Args {
    /// The command whose page to print, or `workstream` for the file format [default: the page of toka itself]
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Option<String>,
    /// Write all pages into this folder instead; it is made when absent
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What the page of the file format is asked for by.
const FORMAT: &str = "workstream";

/// The file of that page, in the section of file formats (man(1)).
const FORMAT_FILE: &str = "toka-workstream.5";

/// Prints one page, or writes `toka.1`, one page per visible subcommand and that of the file format.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.out {
        Some(folder) => write_pages(&folder).map(|()| ExitCode::Success),
        None => Ok(out::end(&page(args.command.as_deref())?, ExitCode::Success)?),
    }
}

fn page(of: Option<&str>) -> anyhow::Result<String> {
    if of == Some(FORMAT) {
        return Ok(format_page());
    }
    let mut toka = Cli::command().disable_help_subcommand(true);
    toka.build();
    let visible = || toka.get_subcommands().filter(|command| !command.is_hide_set());
    let command = match of {
        None => toka.clone(),
        Some(name) => visible().find(|command| command.get_name() == name).cloned().ok_or_else(|| {
            let names: Vec<&str> = visible().map(clap::Command::get_name).collect();
            Failure::new(ExitCode::Usage, format!("there is no command {name:?}, and no page of it")).help(
                format!(
                    "there are pages of {FORMAT} and of the commands {}; `--out DIR` names a folder",
                    names.join(", ")
                ),
            )
        })?,
    };
    let mut page = Vec::new();
    Man::new(command).render(&mut page).context("cannot make the page")?;
    String::from_utf8(page).context("the page is no text")
}

/// The page of the file format: every key below a heading for its section.
fn format_page() -> String {
    let mut page = Roff::new();
    page.control("TH", ["toka-workstream", "5", "", concat!("toka ", env!("CARGO_PKG_VERSION")), ""]);
    page.control("SH", ["NAME"]).text([roman("toka-workstream - the file in which agents are declared")]);
    page.control("SH", ["DESCRIPTION"]).text([roman(
        "A YAML file; each of its documents is one agent. Required are metadata.name, and something to do: spec.process or a \
         task. A key that is unknown inside of a section that controls something is an error. `toka explain KEY` shows one key.",
    )]);
    let mut section = None;
    for key in key_references() {
        let (heading, name) = key.path.rsplit_once('.').unwrap_or(("TOP LEVEL", &key.path));
        if section.as_deref() != Some(heading) {
            page.control("SH", [heading]);
            section = Some(heading.to_owned());
        }
        let KeyReference { kind, default, meaning, example, .. } = &key;
        let default = match default.as_deref() {
            Some(REQUIRED) => format!(", {REQUIRED}"),
            Some(value) => format!(", default {value}"),
            None => String::new(),
        };
        page.control("TP", []).text([bold(name), roman(format!(" ({kind}{default})"))]);
        page.text([roman(format!("{meaning} Example: {example}"))]);
    }
    page.control("SH", ["SEE ALSO"]).text([
        bold("toka"),
        roman("(1), "),
        bold("toka-validate"),
        roman("(1)"),
    ]);
    page.to_roff()
}

fn write_pages(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), folder)
        .with_context(|| format!("cannot write man pages into {}", folder.display()))?;
    let path = folder.join(FORMAT_FILE);
    std::fs::write(&path, format_page()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_for_the_command_and_one_for_each_visible_subcommand() {
        let folder = tempfile::tempdir().expect("a folder");
        write_pages(folder.path()).expect("pages");
        let written = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok();
        assert_eq!(written("toka.1"), page(None).ok(), "what is printed is what is written");
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let text = written(&format!("toka-{name}.1"));
            assert_eq!(text.is_some(), !command.is_hide_set(), "{name}");
            assert_eq!(text, page(Some(name)).ok(), "{name}");
        }
        assert_eq!(written(FORMAT_FILE), page(Some(FORMAT)).ok());
        assert!(page(Some("no-such-command")).is_err());
    }
}
