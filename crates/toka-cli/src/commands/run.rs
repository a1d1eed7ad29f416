//! `toka run`: from workstreams to their end, in the foreground.
//!
//! ```text
//!  files ─▶ ready ─▶ options ─▶ [foreground] ─▶ summary
//!                                 │ events        │
//!                                 ▼               ▼
//!                              display ─▶ table, last words, where the work is
//! ```

use anyhow::Context as _;
use toka_api::caller::Caller;
use toka_core::ExitCode;
use toka_keeper::HostLook;
use toka_project::{Lifetime, RunOptions};

use super::declare::Declare;
use super::trust::Ask;
use super::workstreams::{Ready, Tell};
use super::{apply, dry_run, foreground, refusal};
use toka_terminal::mode::Mode;
use toka_terminal::palette::Palette;
use toka_terminal::{json, out};

/// Options of `toka run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "The first Ctrl-C stops the agents gracefully, the second kills them.\n\
    Exit status: 0 success, 1 an agent failed or stdout cannot be written, 65 invalid or no workstream, \
    73 state folder cannot be written, 77 denied by policy, 78 something must be configured first, \
    124 every failure was a timeout, 130 interrupted, 143 terminated.")]
pub(crate) struct Args {
    #[command(flatten)]
    declare: Declare,
    /// Show what agents write, as they write it; not with --quiet
    #[arg(long, short, conflicts_with = "quiet")]
    follow: bool,
    /// Print one JSON object per event, or per problem when nothing starts, and a summary as the last line; not with --quiet
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print failures only; not with --json or --follow
    #[arg(long, short)]
    quiet: bool,
    /// Show what would run, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// End with the last task: do not wait for services that no task needs, nor for the times of schedules, unless there is
    /// nothing else; not with --detach
    #[arg(long, conflicts_with = "detach")]
    until_tasks_end: bool,
    /// Run in the background, in a daemon that is started when none serves; not with --follow or --quiet
    #[arg(long, short, conflicts_with_all = ["follow", "quiet", "dry_run", "exit_code_from"])]
    detach: bool,
}

/// Runs the workstreams.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let json = args.json;
    let outcome = start(args);
    if json && let Err(error) = &outcome {
        refusal::print(error);
    }
    outcome
}

fn start(args: Args) -> anyhow::Result<ExitCode> {
    let tell = if args.quiet { Tell::Errors } else { Tell::Everything };
    // It takes longer than to read the files, and needs nothing of them.
    let host = args.is_in_foreground().then(HostLook::begin);
    let ready = args.declare.selection.ready(&args.declare.only, tell)?;
    if args.dry_run {
        args.declare.stop_rules(&ready.set)?;
        return Ok(out::end(&plan_text(&ready, &args), ExitCode::Success)?);
    }
    let folders = args.declare.folders()?;
    if args.detach {
        let declaration = args.declare.declaration(&ready, &folders, args.ask())?;
        return apply::detach(&declaration, &args.declare.taken()?, args.json);
    }
    let look = foreground::Look { mode: args.mode(), palette: args.palette(), output: args.output() };
    let declaration = args.declare.declaration(&ready, &folders, args.ask())?;
    let folders = args.declare.taken()?;
    let Ready { set, mut plan, .. } = ready;
    declaration.stop.apply(&mut plan);
    let options = RunOptions {
        declaration,
        set,
        plan,
        caller: Caller::of_this_process(),
        project: folders.project.clone(),
        state_dir: folders.state_dir.clone(),
        run_dir: folders.run_dir.clone(),
        host: host.unwrap_or_else(HostLook::begin),
        lifetime: if args.until_tasks_end { Lifetime::UntilTasksEnd } else { Lifetime::UntilDone },
        toka_exe: std::env::current_exe().context("cannot find this program's own file")?,
    };
    foreground::run(options, folders, look)
}

fn plan_text(ready: &Ready, args: &Args) -> String {
    if args.json {
        format!("{}\n", json::line(&ready.plan.to_json()))
    } else {
        dry_run::text(&ready.plan, args.palette())
    }
}

impl Args {
    /// Whether agents run, and end with this command.
    pub(crate) fn is_in_foreground(&self) -> bool {
        !self.detach && !self.dry_run
    }

    fn mode(&self) -> Mode {
        match (self.json, self.quiet) {
            (true, _) => Mode::Json,
            (_, true) => Mode::Quiet,
            _ => Mode::for_stdout(),
        }
    }

    fn output(&self) -> foreground::Output {
        if self.follow { foreground::Output::Followed } else { foreground::Output::Logged }
    }

    fn ask(&self) -> Ask {
        if self.json || self.quiet { Ask::Nobody } else { Ask::Person }
    }

    fn palette(&self) -> Palette {
        Palette::for_stream(&std::io::stdout())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::PathBuf;

    use clap::Parser;
    use toka_core::{Capability, ProjectName};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, String> {
        Line::try_parse_from([&["run"], words].concat())
            .map(|line| line.args)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read() {
        let args =
            parse(&["a.yaml", "b", "--allow", "network_full", "--max-concurrent", "3", "--project", "x"])
                .expect("options");
        assert_eq!(args.declare.grants.allow, [Capability::NetworkFull]);
        assert_eq!(args.declare.max_concurrent.map(NonZeroUsize::get), Some(3));
        assert_eq!(args.declare.place.project.as_ref().map(ProjectName::as_str), Some("x"));
        assert_eq!(
            args.declare.selection.paths().expect("paths"),
            [PathBuf::from("a.yaml"), PathBuf::from("b")]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (words, reason) in [
            (&["--max-concurrent", "0"][..], "--max-concurrent"),
            (&["--project", "My Project"], "lower-case"),
            (&["--allow", "filesytem-outside:/x"], "did you mean filesystem-outside?"),
            (&["--allow", "unicorns"], "toka explain capabilities"),
            (&["--json", "--quiet"], "cannot be used with"),
            (&["--follow", "--quiet"], "cannot be used with"),
        ] {
            let message = parse(words).expect_err("refused");
            assert!(message.contains(reason), "{words:?}: {message}");
        }
    }

    #[test]
    fn what_excludes_each_other_is_in_the_help() {
        use clap::CommandFactory as _;
        let command = Line::command();
        for (option, other) in [("quiet", "--json or --follow"), ("json", "--quiet"), ("follow", "--quiet")] {
            let argument = command.get_arguments().find(|argument| argument.get_id() == option);
            let help = argument.and_then(clap::Arg::get_help).expect("help").to_string();
            assert!(help.contains(&format!("not with {other}")), "{help}");
        }
    }

    #[test]
    fn the_choice_of_a_mode() {
        assert_eq!(parse(&["--json"]).expect("options").mode(), Mode::Json);
        assert_eq!(parse(&["--quiet"]).expect("options").mode(), Mode::Quiet);
    }
}
