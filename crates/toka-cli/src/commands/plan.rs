//! `toka plan`: what would run, in which order, and every rule that would be enforced, each with the line that it comes
//! from. Nothing is started and nothing is made: the folders of a run need not exist yet.

mod facts;
pub(crate) mod grid;
mod json;
#[cfg(test)]
mod tests;
mod text;
mod verdict;

use std::collections::HashMap;

use anyhow::Context as _;
use toka_api::caller::Caller;
use toka_core::capability::Policy;
use toka_core::{AgentName, ExitCode};
use toka_prepare::confine::{Confiner, workspace_facts};
use toka_prepare::folders::ProjectFolders;
use toka_prepare::users::{Claim, Users};
use toka_prepare::{Models, Problem};
use toka_sandbox::HostFacts;
use toka_workstream::{Agent, Plan};

use self::facts::AgentFacts;
use self::verdict::Verdict;
use super::folders::Place;
use super::policy::{Granted, Grants};
use super::workstreams::{Only, Ready, Selection, Tell};
use toka_terminal::out::{self, Out};
use toka_terminal::palette::Palette;
use toka_terminal::screen::columns;

/// Columns for a reader that is no terminal.
const PIPE_COLUMNS: usize = 100;

/// Options of `toka plan`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Everything is checked that a run checks before it starts anything. dot and mermaid show the order only.\n\
    Exit status: 0 a run would start this; as of the run that would not: 65 something in the files cannot \
    be, 77 denied by policy, 78 something must be configured first. The plan is printed all the same, \
    unless the files themselves are invalid."
)]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    only: Only,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    grants: Grants,
    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// What to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Everything, for people
    #[default]
    Text,
    /// Everything, for programs
    Json,
    /// The order as a Graphviz graph
    Dot,
    /// The order as a Mermaid flowchart
    Mermaid,
}

/// All that there is to show.
struct View {
    plan: Plan,
    agents: Vec<AgentFacts>,
    verdict: Verdict,
}

/// Runs the command. For programs there is always an object that says what a run would do.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match render(&args) {
        Ok((text, code)) => Ok(out::end(&text, code)?),
        Err(error) => {
            if args.format() == Format::Json {
                Out::stdout().print(&format!("{}\n", toka_terminal::json::line(&json::refusal(&error))));
            }
            Err(error)
        }
    }
}

/// What is printed, and the status that it ends with.
fn render(args: &Args) -> anyhow::Result<(String, ExitCode)> {
    let ready = args.selection.ready(&args.only, Tell::Everything)?;
    Ok(match args.format() {
        Format::Dot => (ready.plan.to_dot(), ExitCode::Success),
        Format::Mermaid => (ready.plan.to_mermaid(), ExitCode::Success),
        format => {
            let view = view(ready, args)?;
            (show(&view, format), view.verdict.exit_code())
        }
    })
}

fn show(view: &View, format: Format) -> String {
    if format == Format::Json {
        return format!("{}\n", toka_terminal::json::line(&json::value(view)));
    }
    text::text(view, columns(PIPE_COLUMNS), Palette::for_stream(&std::io::stdout()))
}

fn view(ready: Ready, args: &Args) -> anyhow::Result<View> {
    let folders = args.place.folders()?;
    if let Some(obstacle) = toka_project::obstacle(&folders) {
        eprintln!("note: `toka run` is refused as long as this is so: {obstacle}");
    }
    let Granted { policy, models, .. } = args.grants.granted(&folders, &ready.set)?;
    let caller = Caller::of_this_process();
    let models = Models::resolve(&models, &caller, &folders, &ready.set);
    let facts = workspace_facts(&ready.set, &folders);
    let host = HostFacts::probe();
    let toka_exe = std::env::current_exe().context("find the toka binary")?;
    let (project, toka_exe) = (&folders.project, toka_exe.as_path());
    let users = Users::of(&ready.set.agents, &folders, Claim::Look);
    let path = caller.variable("PATH").unwrap_or_default();
    let confiner =
        Confiner { host: &host, project, toka_exe, facts: &facts, users: &users, chosen: None, path };
    let problems = toka_prepare::problems(&ready.set, &ready.plan, &policy, &folders, confiner, &models);
    Ok(look(ready, &folders, &confiner, (&policy, &models), problems))
}

fn look(
    ready: Ready,
    folders: &ProjectFolders,
    confiner: &Confiner<'_>,
    (policy, models): (&Policy, &Models),
    problems: Vec<Problem>,
) -> View {
    let named: HashMap<&AgentName, &Agent> =
        ready.set.agents.iter().map(|agent| (&agent.name, agent)).collect();
    let agents: Vec<AgentFacts> = ready
        .plan
        .nodes()
        .iter()
        .filter_map(|node| named.get(&node.agent).copied())
        .map(|agent| AgentFacts::gather(agent, &ready.plan, folders, confiner, policy, models))
        .collect();
    View { plan: ready.plan, agents, verdict: Verdict { problems } }
}

impl Args {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}
