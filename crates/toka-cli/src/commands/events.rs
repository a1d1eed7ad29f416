//! `toka events`: what happened in a project, and what happens.

use std::io::Write as _;
use std::ops::ControlFlow;

use toka_core::{AgentName, Event, ExitCode};

use super::reach::{AgentRef, Purpose, Reach, block_on, failure};
use super::signals::Signals;
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
    /// Only those after this number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    since: u64,
    /// Only these kinds, such as agent_ended; may be given several times
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Go on with what happens from now on
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Prints the events; with --follow until the run is over or Ctrl-C.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        let mut signals = Signals::catch()?;
        let found = args.reach.find(&args.agents, Purpose::Look).await?;
        let wanted: Vec<AgentName> =
            if args.agents.is_empty() { Vec::new() } else { found.agents(&args.agents)? };
        let kinds =
            if args.kinds.is_empty() { String::new() } else { format!("&kinds={}", args.kinds.join(",")) };
        let path = format!(
            "/v1/projects/{}/events?since={}&follow={}{kinds}",
            found.name(),
            args.since,
            args.follow
        );
        let palette = Palette::for_stream(&std::io::stdout());
        let mut stdout = std::io::stdout().lock();
        let mut written = Ok(());
        let print = |line: &[u8]| {
            let Ok(event) = serde_json::from_slice::<Event>(line) else { return ControlFlow::Continue(()) };
            if !wanted.is_empty() && !event.agent.as_ref().is_some_and(|agent| wanted.contains(agent)) {
                return ControlFlow::Continue(());
            }
            let text = if args.json {
                json::escaped(String::from_utf8_lossy(line).into_owned())
            } else {
                event_line(&event, palette)
            };
            written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let code = tokio::select! {
            read = found.client.lines(&path, print) => read.map(|()| ExitCode::Success).map_err(failure)?,
            signal = signals.next() => signal.exit_code(),
        };
        Ok(out::settle(written, code)?)
    })
}
