//! `toka logs`: what agents wrote, in this run and in earlier ones. Reads their files; needs no daemon, and disturbs none.
//!
//! ```text
//!  words ─▶ [find] sources ─▶ [choice] logs of the runs wanted ─▶ [merge] one row of lines ─▶ [print]
//!                                                                   ▲            │
//!                                                                   └─ [follow] ─┘
//! ```

mod choice;
mod find;
mod follow;
mod merge;
pub(super) mod moment;
mod print;

use std::io::{self, BufWriter, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use regex::bytes::Regex;
use toka_core::{ExitCode, ProjectName};
use toka_logs::Extent;

use self::choice::Filter;
use self::merge::Merged;
use self::moment::Moment;
use self::print::{Look, Printer};
use super::folders::{Folders, Place, project, workspace};
use super::reach::{AgentRef, Purpose, Reach, block_on};
use super::runs::Runs;
use toka_terminal::failure::Failure;
use toka_terminal::out;
use toka_terminal::palette::Palette;

/// How long daemons may take to say what runs: logs are files, and need none.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 * 1024;

/// Options of `toka logs`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A TIME is one as 2026-11-21T10:00:00Z or \"2026-11-21 10:00\" or 10:00, a span before now as 10m \
    or \"2h ago\", or one of now, today, yesterday.\n\
    Lines of several agents begin with the agent's name, and come in the order of their time. On a \
    terminal, control characters are escaped; elsewhere the bytes come as they were written.\n\
    Exit status: 0 success, 1 stdout cannot be written, 2 no such agent, run or project, \
    73 state folder cannot be read, 130 interrupted, 143 terminated."
)]
pub(crate) struct Args {
    /// Agents, as AGENT or PROJECT/AGENT [default: all of the project]
    #[arg(value_name = "AGENT")]
    agents: Vec<String>,
    /// Go on with what is written from now on, also by runs to come, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Only what was written at this time or after it
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    since: Option<Moment>,
    /// Only what was written before this time; not with --follow
    #[arg(long, value_name = "TIME", value_parser = moment::parse, conflicts_with = "follow")]
    until: Option<Moment>,
    /// Only the last N lines of each agent
    #[arg(long, short = 'n', value_name = "N")]
    tail: Option<usize>,
    /// Which run: its id, in full or the short form; or -1 for the one before the last, -2, …; or all
    #[arg(long, value_name = "ID", default_value = "last", allow_negative_numbers = true)]
    run: Runs,
    /// Only lines that match this regular expression
    #[arg(long, short = 'g', value_name = "RE", value_parser = Regex::new)]
    grep: Option<Regex>,
    /// Begin each line with the time at which it was written
    #[arg(long, short)]
    timestamps: bool,
    /// Print one JSON object per line, with time, project, agent, run, stream and text
    #[arg(long, conflicts_with = "timestamps")]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Prints the lines.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let state = Folders::find(args.place.state_dir.as_deref())?.state;
    let own = || project(args.place.project.as_ref(), &workspace(args.place.workdir.as_deref())?, &state);
    let projects = state.join("projects");
    let meant = find::sources(&projects, own, &args.agents);
    let find::Meant { sources, unstarted, only } =
        meant.or_else(|error| match args.of_what_runs(own, &projects) {
            Some(running) => {
                find::sources(&projects, || Ok(running.clone()), &args.agents).map_err(|_| error)
            }
            None => Err(error),
        })?;
    for agent in &unstarted {
        eprintln!("{agent} has not started: nothing was written yet");
    }
    let filter = Filter {
        since_ms: args.since.map(Moment::as_millis),
        until_ms: args.until.map(Moment::as_millis),
        pattern: args.grep.clone(),
        run: None,
    };
    let extent = if args.follow { Extent::Growing } else { Extent::Present };
    let (chosen, filter) = choice::choose(sources, &args.run, filter)?;
    if let (Runs::Last, Some((project, _))) = (&args.run, &only)
        && let Some((last, shown)) = choice::earlier(&state, project, &chosen)
    {
        eprintln!("the last run, {}, has no such logs; these are of the run {}", last.short(), shown.short());
    }
    let mut merged = Merged::open(chosen, filter, extent, args.tail)?;
    let printer = Printer::new(BufWriter::with_capacity(BUFFER, io::stdout()), args.look());
    if !args.follow {
        return Ok(out::settle(printed(merged, printer)?, ExitCode::Success)?);
    }
    let news = only.map(|(project, wanted)| find::Everybody { projects, project, wanted });
    follow::follow(&mut merged, printer, news)
}

/// Prints what is there. The outer error is of reading, the inner one of writing.
fn printed(mut merged: Merged, mut printer: Printer<impl io::Write>) -> Result<io::Result<()>, Failure> {
    printer.sources(merged.sources());
    while let Some((source, item)) = merged.next()? {
        if let Err(error) = printer.print(&merged.sources()[source], &item) {
            return Ok(Err(error));
        }
    }
    Ok(printer.flush())
}

impl Args {
    /// The running project that `toka events` would find from here. None when a person named a project, when the project of this folder
    /// has had agents, and when no daemon answers in time.
    fn of_what_runs(
        &self,
        own: impl Fn() -> Result<ProjectName, Failure>,
        projects: &Path,
    ) -> Option<ProjectName> {
        let Place { workdir, project, state_dir } = &self.place;
        if workdir.is_some()
            || project.is_some()
            || own().is_ok_and(|own| find::agents_folder(projects, &own).exists())
        {
            return None;
        }
        let agents: Vec<AgentRef> =
            self.agents.iter().map(|agent| agent.parse()).collect::<Result<_, _>>().ok()?;
        let reach = Reach { project: None, state_dir: state_dir.clone() };
        let found = block_on(async {
            let found = tokio::time::timeout(ANSWERS_WITHIN, reach.find(&agents, Purpose::Look)).await;
            found.unwrap_or_else(|late| Err(late.into()))
        });
        Some(found.ok()?.name().clone())
    }

    fn look(&self) -> Look {
        let stdout = io::stdout();
        match (self.json, stdout.is_terminal()) {
            (true, _) => Look::Json,
            (false, is_terminal) => Look::Text {
                palette: Palette::for_stream(&stdout),
                bytes: if is_terminal { print::Bytes::Escaped } else { print::Bytes::Raw },
                times: if self.timestamps { print::Times::Shown } else { print::Times::Hidden },
            },
        }
    }
}

/// The failure to read an agent's logs.
fn unreadable(agent: &impl std::fmt::Display, error: &io::Error) -> Failure {
    Failure::new(ExitCode::StateFolder, format!("the logs of {agent} cannot be read: {error}"))
}
