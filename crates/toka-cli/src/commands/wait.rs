//! `toka wait`: until agents have come to their end; the exit status is theirs.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use toka_core::units::parse_duration;
use toka_core::{AgentKind, AgentName, AgentState, AgentStatus, Event, ExitCode, RunStatus};

use super::reach::{AgentRef, Found, Purpose, Reach, block_on, failure, looks};
use super::verb::{Awaited, lacks, tell_waits};
use toka_terminal::failure::Failure;
use toka_terminal::text::safe;
use toka_terminal::{json, out};

/// Options of `toka wait`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 all succeeded or were stopped, 1 one failed, 124 every failure was a timeout.",
    mut_arg("project", looks)
)]
pub(crate) struct Args {
    /// The agents, as AGENT or PROJECT/AGENT [default: the tasks of the project, or its services if it has none]
    #[arg(value_name = "AGENT")]
    agents: Vec<AgentRef>,
    #[command(flatten)]
    reach: Reach,
    /// What to wait for
    #[arg(long = "for", value_enum, default_value_t, value_name = "WHAT")]
    condition: What,
    /// Wait so long at most
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Print one JSON array: the agents as they are then
    #[arg(long)]
    json: bool,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    /// Its end
    #[default]
    End,
    /// That it is ready, or was and has ended well
    Ready,
}

impl What {
    /// Whether there is nothing more to wait for.
    fn is_settled(self, agent: &AgentStatus) -> bool {
        agent.state.is_final() || (self == Self::Ready && agent.state.is_ready())
    }
}

impl What {
    /// Why one that is settled is not what was waited for.
    fn lacks(self, agent: &AgentStatus) -> Option<String> {
        match &agent.state {
            AgentState::Blocked { why: Some(why), .. } => {
                Some(format!("it never starts: {}", safe(&why.to_string())))
            }
            AgentState::Blocked { by, .. } => Some(format!("it never starts: {by} did not succeed")),
            AgentState::Ended { exit } | AgentState::Quarantined { exit, .. } if self == Self::Ready => {
                let was_ready = exit.is_success() && agent.was_ready;
                (!was_ready).then(|| format!("it ended without being ready: {}", safe(&exit.to_string())))
            }
            _ => None,
        }
    }
}

/// Waits.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let agents = block_on(async {
        let found = args.reach.find(&args.agents, Purpose::Look).await?;
        let names = chosen(&found, &args.agents)?;
        let told: Vec<AgentName> = names.iter().cloned().collect();
        let awaited = if args.condition == What::Ready { Awaited::Readiness } else { Awaited::Life };
        let work = async {
            tokio::select! {
                agents = follow(&found, &names, args.condition) => agents,
                never = tell_waits(&found, &told, awaited) => match never {},
            }
        };
        match args.timeout {
            None => work.await,
            Some(longest) => match tokio::time::timeout(longest, work).await {
                Ok(agents) => agents,
                Err(_) => Err(too_long(&found, &names, (args.condition, awaited)).await.into()),
            },
        }
    })?;
    let code = code_of(&agents, args.condition);
    for agent in agents.iter().filter(|_| !args.json) {
        if let Some(why) = args.condition.lacks(agent) {
            eprintln!("{}: {why}", agent.name);
        }
    }
    let text = if args.json {
        json::line(&agents) + "\n"
    } else {
        agents.iter().map(|agent| format!("{}  {}\n", agent.name, agent.state.as_str())).collect()
    };
    Ok(out::end(&text, code)?)
}

/// Who has not come so far, and where each of them is.
async fn too_long(found: &Found, names: &BTreeSet<AgentName>, (what, awaited): (What, Awaited)) -> Failure {
    let projects = found.client.projects().await.unwrap_or_default();
    let project = projects.into_iter().find(|project| project.overview.project == *found.name());
    let agents = project.map(|project| project.agents).unwrap_or_default();
    let late = agents.iter().filter(|agent| names.contains(&agent.name) && !what.is_settled(agent));
    let late: Vec<String> = late
        .map(|agent| match lacks(agent, awaited) {
            Some(reason) => format!("{} {reason}", agent.name),
            None => format!("{} is {}", agent.name, agent.state.as_str()),
        })
        .collect();
    let message = match late.is_empty() {
        true => "not all of them have come so far".to_owned(),
        false => format!("not all of them have come so far: {}", late.join("; ")),
    };
    Failure::new(ExitCode::TimedOut, message)
}

fn chosen(found: &Found, wanted: &[AgentRef]) -> Result<BTreeSet<AgentName>, Failure> {
    if !wanted.is_empty() {
        return Ok(found.agents(wanted)?.into_iter().collect());
    }
    let project = &found.project;
    // One that the clock starts has no end to wait for.
    let ends = |agent: &&AgentStatus| agent.next_due_ms.is_none();
    let of = |kind| -> BTreeSet<AgentName> {
        let agents = project.agents.iter().filter(|agent| agent.kind == kind).filter(ends);
        agents.map(|agent| agent.name.clone()).collect()
    };
    let tasks = of(AgentKind::Task);
    Ok(if tasks.is_empty() { of(AgentKind::Service) } else { tasks })
}

/// Reads the events of the run until all of these agents are where they are to be.
async fn follow(found: &Found, names: &BTreeSet<AgentName>, what: What) -> anyhow::Result<Vec<AgentStatus>> {
    // What it is called and of which kind no event tells: it begins with what was found.
    let (_, mut status) = found.project.clone().into_status();
    let settled = |status: &RunStatus| -> Option<Vec<AgentStatus>> {
        let all: Vec<AgentStatus> =
            status.agents().iter().filter(|agent| names.contains(&agent.name)).cloned().collect();
        (all.len() == names.len() && all.iter().all(|agent| what.is_settled(agent))).then_some(all)
    };
    if let Some(agents) = settled(&status) {
        return Ok(agents);
    }
    let mut answer = None;
    let run = found.project.overview.run;
    let read = |event: &Event, _: &[u8]| {
        if event.run == run {
            status.observe(event);
        }
        answer = settled(&status);
        if answer.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    found.client.follow(found.run(), (found.project.seq, ""), read).await.map_err(failure)?;
    Ok(answer.ok_or_else(|| Failure::new(ExitCode::NoDaemon, "the run ended before that"))?)
}

fn code_of(agents: &[AgentStatus], what: What) -> ExitCode {
    let exits = agents.iter().filter_map(AgentStatus::exit);
    let failed = ExitCode::of_exits(exits.filter(|exit| !exit.is_asked_for()));
    let blocked = agents.iter().any(|agent| matches!(agent.state, AgentState::Blocked { .. }));
    let lacking = what == What::Ready && agents.iter().any(|agent| what.lacks(agent).is_some());
    if failed == ExitCode::Success && (blocked || lacking) { ExitCode::AgentFailed } else { failed }
}
