//! `toka run`: from workstreams to their end, in the foreground.
//!
//! ```text
//!  files ─▶ ready ─▶ options ─▶ [foreground] ─▶ summary
//!                                 │ events        │
//!                                 ▼               ▼
//!                              display ─▶ table, last words, where the work is
//! ```

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context as _;
use toka_core::{Capability, ExitCode, ProjectName};
use toka_daemon::RunOptions;
use toka_daemon::confine::user_home;
use toka_daemon::folders::ProjectFolders;

use super::folders::{Folders, project, workspace};
use super::workstreams::{Ready, Selection, Tell};
use super::{dry_run, foreground, policy, refusal};
use crate::failure::Failure;
use crate::terminal::display::Mode;
use crate::terminal::palette::Palette;
use crate::terminal::{json, out};

/// Options of `toka run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "The first Ctrl-C stops the agents gracefully, the second kills them.\n\
    Exit status: 0 success, 1 an agent failed or stdout cannot be written, 65 invalid or no workstream,\n\
    73 state folder cannot be written, 77 denied by policy, 78 something must be configured first,\n\
    124 every failure was a timeout, 130 interrupted, 143 terminated.")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// The workspace, which relative paths are relative to [default: the current folder]
    #[arg(long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// The project's name [default: the workspace folder's name]
    #[arg(long, value_name = "NAME")]
    project: Option<ProjectName>,
    /// Keep state, run files and sockets below this folder [env: TOKA_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Run at most so many agents at once
    #[arg(long, value_name = "N")]
    max_concurrent: Option<NonZeroUsize>,
    /// Grant a dangerous capability, such as network:full; may be given several times
    #[arg(long, value_name = "NAME", value_parser = policy::grant)]
    allow: Vec<Capability>,
    /// The policy file [default: toka.yaml in the workspace]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Show what agents write, as they write it; not with --quiet
    #[arg(long, conflicts_with = "quiet")]
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
    let ready = args.selection.ready(tell)?;
    if args.dry_run {
        return Ok(out::end(&plan_text(&ready, &args), ExitCode::Success)?);
    }
    let look = foreground::Look { mode: args.mode(), palette: args.palette(), output: args.output() };
    let folders = project_folders(&args)?;
    let policy = policy::read(args.policy.as_deref(), &folders.workspace, &args.allow)?;
    let options = RunOptions {
        project: folders.project.clone(),
        policy,
        set: ready.set,
        plan: ready.plan,
        workspace: folders.workspace.clone(),
        state_dir: folders.state_dir.clone(),
        run_dir: folders.run_dir.clone(),
        max_concurrent: args.max_concurrent.map(NonZeroUsize::get),
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

fn project_folders(args: &Args) -> Result<ProjectFolders, Failure> {
    let workspace = workspace(args.workdir.as_deref())?;
    let folders = Folders::find(args.state_dir.as_deref())?;
    Ok(ProjectFolders {
        project: project(args.project.as_ref(), &workspace)?,
        workspace,
        state_dir: folders.state,
        run_dir: folders.run,
        user_home: user_home(),
    })
}

impl Args {
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

    fn palette(&self) -> Palette {
        Palette::for_stream(&std::io::stdout())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

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
        assert_eq!(args.allow, [Capability::NetworkFull]);
        assert_eq!(args.max_concurrent.map(NonZeroUsize::get), Some(3));
        assert_eq!(args.project.as_ref().map(ProjectName::as_str), Some("x"));
        assert_eq!(args.selection.paths().expect("paths"), [PathBuf::from("a.yaml"), PathBuf::from("b")]);
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
