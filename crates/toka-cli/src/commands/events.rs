//! `toka events`: what happened in a project, and what happens. Of one that runs its daemon tells; of one that has ended, the
//! journal that it left.

use std::io::Write as _;
use std::ops::ControlFlow;

use clap::builder::PossibleValuesParser;
use strum::VariantNames as _;
use toka_core::{AgentName, Event, EventKind, ExitCode, ProjectName};
use toka_daemon::history;

use super::folders::Folders;
use super::logs::moment;
use super::reach::{AgentRef, Found, Purpose, Reach, block_on, failure, meant};
use super::signals::Signals;
use crate::failure::Failure;
use crate::terminal::palette::Palette;
use crate::terminal::plain::event_line;
use crate::terminal::{json, out};

/// Options of `toka events`.
#[derive(Debug, clap::Args)]
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
    /// Go on with what happens from now on
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
    block_on(async {
        let found = args.reach.find(&args.agents, Purpose::Look).await;
        match found {
            Ok(found) => args.of_running(&found).await,
            Err(error) if args.follow => Err(error),
            Err(error) => match args.past()? {
                Some((project, past)) => args.of_past(&project, &past),
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
        let kinds =
            if self.kinds.is_empty() { String::new() } else { format!("&kinds={}", self.kinds.join(",")) };
        let (name, since) = (found.name(), self.since.number());
        let mut printer = Printer::new(self, &wanted);
        let mut written = Ok(());
        let mut print = |event: &Event, line: &[u8]| {
            written = printer.print(event, || String::from_utf8_lossy(line).into_owned());
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let all = async {
            if self.follow {
                return found.client.follow(found.run(), (since, &kinds), print).await;
            }
            let path = format!("/v1/projects/{name}/events?since={since}{kinds}");
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

    /// The last run of the project that is meant, if it has left a journal, and no daemon is to be begun for it.
    fn past(&self) -> anyhow::Result<Option<(ProjectName, history::Past)>> {
        let of_agents = self.agents.iter().find_map(|agent| agent.project.clone());
        let named = self.reach.project.clone().or(of_agents);
        let Some(project) = named.or_else(|| self.reach.here()) else { return Ok(None) };
        if self.reach.left()?.orphaned.contains(&project) {
            return Ok(None);
        }
        let state = Folders::find(self.reach.state_dir.as_deref())?.state;
        let past = history::last_run(&state, &project, self.since.number(), &self.kinds);
        let past = past.map_err(|error| {
            Failure::new(ExitCode::StateFolder, format!("the journal of {project} cannot be read: {error}"))
        })?;
        Ok(past.map(|past| (project, past)))
    }

    fn of_past(&self, project: &ProjectName, past: &history::Past) -> anyhow::Result<ExitCode> {
        let known = past.events.iter().filter_map(|event| event.agent.as_ref());
        let wanted: Vec<AgentName> = match self.agents.as_slice() {
            [] => Vec::new(),
            agents => meant(agents, project, known).into_iter().cloned().collect(),
        };
        if wanted.is_empty() && !self.agents.is_empty() {
            let message = format!("nothing is told of such an agent in the last run of {project}");
            return Err(Failure::new(ExitCode::Usage, message).into());
        }
        eprintln!("{project} does not run; this is its last run, {}", past.run);
        let mut printer = Printer::new(self, &wanted);
        let mut events = past.events.iter();
        let written = events.try_for_each(|event| printer.print(event, || json::line(event)));
        Ok(out::settle(written, ExitCode::Success)?)
    }
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
