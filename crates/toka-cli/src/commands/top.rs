//! `toka top`: what runs, on the whole terminal; on anything else, once.

use std::io::IsTerminal as _;

use toka_api::wire::ProjectView;
use toka_core::ExitCode;

use super::ps::{now_ms, tell_of_orphans};
use super::reach::{Reach, block_on, narrows};
use crate::top::{self, Mouse};
use toka_terminal::palette::Palette;
use toka_terminal::{list, out, screen};

/// Options of `toka top`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Keys: ↑ ↓ move, / filters or searches, o orders, t shows who waits for whom, v turns to events, i tells \
    all that is known, Tab and Enter go to the log, p pauses, r resumes, s stops, S starts, R restarts, K kills, x sends a \
    signal, a attaches, e opens a shell inside, ? explains them all, q quits. The mouse works, too; Shift marks text.",
    mut_arg("project", narrows)
)]
pub(crate) struct Args {
    #[command(flatten)]
    reach: Reach,
    /// Leave the mouse to the terminal, to mark text with it
    #[arg(long)]
    no_mouse: bool,
}

/// Shows what runs, until a key says that it was enough. Without a terminal it prints the list once, as `top -b -n 1`
/// would.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let stdout = std::io::stdout();
    let is_dumb = std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb");
    if stdout.is_terminal() && std::io::stdin().is_terminal() && !is_dumb {
        // Nothing may be found wrong only after the screen was taken.
        args.reach.clients()?;
        if args.reach.names_nothing()? {
            return Err(args.reach.nothing_runs().into());
        }
        let mouse = if args.no_mouse { Mouse::Unused } else { Mouse::Ours };
        return block_on(top::run(args.reach, Palette::for_stream(&stdout), mouse));
    }
    let found = block_on(args.reach.running())?;
    if found.is_empty() {
        tell_of_orphans(&args.reach)?;
    }
    let found = args.reach.named_among(found)?;
    let projects: Vec<ProjectView> = found.into_iter().map(|found| found.project).collect();
    let text = list::agents(&projects, now_ms(), screen::columns(usize::MAX), Palette::for_stream(&stdout));
    let code = out::end(&text, ExitCode::Success)?;
    eprintln!("toka top moves on a terminal only; `toka ps` lists, `toka events --follow` goes on");
    Ok(code)
}
