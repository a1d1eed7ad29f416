//! `toka events`: what happened in a project, and what happens. Of the run that goes on its daemon tells; of runs that have ended,
//! the journal of the project.

use std::io::Write as _;
use std::ops::ControlFlow;

use clap::builder::PossibleValuesParser;
use strum::VariantNames as _;
use toka_core::{AgentName, Event, EventKind, ExitCode, ProjectName, RunId};
use toka_project::history::{self, Ending, Run};

use super::folders::Folders;
use super::logs::moment;
use super::reach::{AgentRef, Found, Purpose, Reach, block_on, failure, looks, meant};
use super::runs::{Known, Runs};
use super::signals::Signals;
use toka_terminal::failure::Failure;
use toka_terminal::palette::Palette;
use toka_terminal::plain::event_line;
use toka_terminal::text::moment;
use toka_terminal::{json, out};

/// Options of `toka events`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("project", looks))]
pub(crate) struct Args {
    /// Only those about these agents, as AGENT or PROJECT/AGENT
    #[arg(value_name = "AGENT")]
    agents: Vec<AgentRef>,
    #[command(flatten)]
    reach: Reach,
    /// Only those after this number, or since this time, such as 10m or 09:30
    #[arg(long, value_name = "SEQ|TIME", default_value = "0", value_parser = since)]
    since: Since,
    /// Only these kinds, such as agent_ended; may be given several times
    #[arg(long = "kind", value_name = "KIND", value_parser = PossibleValuesParser::new(EventKind::VARIANTS), hide_possible_values = true,
        value_delimiter = ',')]
    kinds: Vec<String>,
    /// Which run: its id, in full or the short form; or -1 for the one before the last, -2, …; or all
    #[arg(long, value_name = "ID", default_value = "last", allow_negative_numbers = true)]
    run: Runs,
    /// List the runs of the project that its journal still has, the last one first
    #[arg(long, conflicts_with_all = ["agents", "since", "kinds", "run", "follow"])]
    list_runs: bool,
    /// Go on with what happens from now on; with the last run only
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Where the events begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// After the event of this number.
    Number(u64),
    /// At this time, in milliseconds since the Unix epoch.
    Time(i64),
}

impl Since {
    fn number(self) -> u64 {
        if let Self::Number(number) = self { number } else { 0 }
    }

    fn has(self, event: &Event) -> bool {
        if let Self::Time(time_ms) = self { event.time_ms >= time_ms } else { true }
    }
}

fn since(text: &str) -> Result<Since, String> {
    match text.parse() {
        Ok(number) => Ok(Since::Number(number)),
        Err(_) => Ok(Since::Time(moment::parse(text)?.as_millis())),
    }
}

/// Prints the events; with --follow until the run is over or Ctrl-C.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.follow && args.run != Runs::Last {
        return Err(Failure::new(
            ExitCode::Usage,
            "--follow goes on with the last run, and --run means another",
        )
        .into());
    }
    block_on(async {
        // Of runs of before the folder says whose they are, whatever else runs.
        if (args.list_runs || args.run != Runs::Last)
            && let Some(project) = args.meant()
            && !args.runs_of(&project)?.is_empty()
        {
            let running = args.reach.running().await?;
            let current = running.iter().find(|found| *found.name() == project);
            return args.of_journal(&project, current.map(|found| found.project.overview.run));
        }
        let found = args.reach.find(&args.agents, Purpose::Look).await;
        match found {
            Ok(found) if args.run == Runs::Last && !args.list_runs => args.of_running(&found).await,
            Ok(found) => {
                let project = found.name().clone();
                args.of_journal(&project, Some(found.project.overview.run))
            }
            Err(error) if args.follow => Err(error),
            Err(error) => match args.past()? {
                Some(project) => args.of_journal(&project, None),
                None => Err(error),
            },
        }
    })
}

impl Args {
    async fn of_running(&self, found: &Found) -> anyhow::Result<ExitCode> {
        let mut signals = Signals::catch()?;
        let wanted: Vec<AgentName> =
            if self.agents.is_empty() { Vec::new() } else { found.agents(&self.agents)? };
        let mut query = format!("&run={}", found.project.overview.run);
        if !self.kinds.is_empty() {
            query.push_str(&format!("&kinds={}", self.kinds.join(",")));
        }
        let (name, since) = (found.name(), self.since.number());
        let mut printer = Printer::new(self, &wanted);
        let mut written = Ok(());
        let mut print = |event: &Event, line: &[u8]| {
            written = printer.print(event, || String::from_utf8_lossy(line).into_owned());
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let all = async {
            if self.follow {
                return found.client.follow(found.run(), (since, &query), print).await;
            }
            let path = format!("/v1/projects/{name}/events?since={since}{query}");
            let each = |line: &[u8]| match serde_json::from_slice::<Event>(line) {
                Ok(event) => print(&event, line),
                Err(_) => ControlFlow::Continue(()),
            };
            found.client.lines(&path, each).await
        };
        let code = tokio::select! {
            read = all => read.map(|()| ExitCode::Success).map_err(failure)?,
            signal = signals.next() => signal.exit_code(),
        };
        Ok(out::settle(written, code)?)
    }

    /// The project that is meant, if it has a journal, and no daemon is to be begun for it.
    fn past(&self) -> anyhow::Result<Option<ProjectName>> {
        let Some(project) = self.meant() else { return Ok(None) };
        if self.reach.left()?.orphaned.contains(&project) || self.runs_of(&project)?.is_empty() {
            return Ok(None);
        }
        Ok(Some(project))
    }

    /// The project that was named, or that of this folder.
    fn meant(&self) -> Option<ProjectName> {
        let of_agents = self.agents.iter().find_map(|agent| agent.project.clone());
        self.reach.project.clone().or(of_agents).or_else(|| self.reach.here())
    }

    fn runs_of(&self, project: &ProjectName) -> anyhow::Result<Vec<Run>> {
        let state = Folders::find(self.reach.state_dir.as_deref())?.state;
        Ok(history::runs(&state, project).map_err(|error| unreadable(project, &error))?)
    }

    /// Tells of runs from the journal; `current` is the one that goes on.
    fn of_journal(&self, project: &ProjectName, current: Option<RunId>) -> anyhow::Result<ExitCode> {
        let runs = self.runs_of(project)?;
        if self.list_runs {
            return Ok(out::end(&list(&runs, current, self.json), ExitCode::Success)?);
        }
        let known: Known = runs.iter().map(|run| (run.id, Some(run.started_ms))).collect();
        let chosen = self.run.choose(&known, "events")?;
        let state = Folders::find(self.reach.state_dir.as_deref())?.state;
        let told = history::events((&state, project), chosen, self.since.number(), &self.kinds)
            .map_err(|error| unreadable(project, &error))?;
        let known = told.iter().filter_map(|event| event.agent.as_ref());
        let wanted: Vec<AgentName> = match self.agents.as_slice() {
            [] => Vec::new(),
            agents => meant(agents, project, known).into_iter().cloned().collect(),
        };
        if wanted.is_empty() && !self.agents.is_empty() {
            let which = chosen.map_or_else(
                || format!("the runs of {project}"),
                |run| format!("the run {} of {project}", run.short()),
            );
            return Err(Failure::new(
                ExitCode::Usage,
                format!("nothing is told of such an agent in {which}"),
            )
            .into());
        }
        if let (None, Runs::Last, Some(run)) = (current, &self.run, chosen) {
            match self.reach.left()?.only(project).failure() {
                Some(left) => eprintln!("note: {left}; this is its last run, {}", run.short()),
                None => eprintln!("{project} does not run; this is its last run, {}", run.short()),
            }
        }
        let mut printer = Printer::new(self, &wanted);
        let written = told.iter().try_for_each(|event| printer.print(event, || json::line(event)));
        Ok(out::settle(written, ExitCode::Success)?)
    }
}

pub(super) fn unreadable(project: &ProjectName, error: &impl std::fmt::Display) -> Failure {
    Failure::new(ExitCode::StateFolder, format!("the journal of {project} cannot be read: {error}"))
}

/// A line for each run, the last one first.
fn list(runs: &[Run], current: Option<RunId>, as_json: bool) -> String {
    let end = |run: &Run| match run.ended {
        Some(Ending { time_ms, exit_code }) => format!("{}  status {exit_code}", moment(time_ms)),
        None if current == Some(run.id) => "goes on".to_owned(),
        None => "its end was not recorded".to_owned(),
    };
    let line = |run: &Run| match as_json {
        true => {
            let (ended_ms, exit_code) =
                (run.ended.map(|end| end.time_ms), run.ended.map(|end| end.exit_code));
            let run = serde_json::json!({
                "run": run.id, "started_ms": run.started_ms, "ended_ms": ended_ms, "exit_code": exit_code,
                "running": current == Some(run.id),
            });
            json::line(&run)
        }
        false => format!("{}  {}  {}", run.id.short(), moment(run.started_ms), end(run)),
    };
    runs.iter().map(|run| line(run) + "\n").collect()
}

/// Prints events that are wanted.
struct Printer<'a> {
    args: &'a Args,
    wanted: &'a [AgentName],
    palette: Palette,
    stdout: std::io::StdoutLock<'static>,
}

impl<'a> Printer<'a> {
    fn new(args: &'a Args, wanted: &'a [AgentName]) -> Self {
        let stdout = std::io::stdout();
        Self { args, wanted, palette: Palette::for_stream(&stdout), stdout: stdout.lock() }
    }

    fn print(&mut self, event: &Event, as_json: impl FnOnce() -> String) -> std::io::Result<()> {
        let is_about = |agent: &AgentName| self.wanted.contains(agent);
        let is_wanted = self.wanted.is_empty() || event.agent.as_ref().is_some_and(is_about);
        if !is_wanted || !self.args.since.has(event) {
            return Ok(());
        }
        let text = if self.args.json { json::escaped(as_json()) } else { event_line(event, self.palette) };
        writeln!(self.stdout, "{text}")?;
        self.stdout.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_begin_after_a_number_or_at_a_time() {
        assert_eq!(since("42"), Ok(Since::Number(42)));
        assert!(matches!(since("10m"), Ok(Since::Time(_))));
        assert!(matches!(since("2026-11-21T10:00:00Z"), Ok(Since::Time(1_795_255_200_000))));
        assert!(since("soon").is_err_and(|error| error.contains("a time such as")));
    }
}
