//! `toka ps`: what runs, one line per agent.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use toka_api::wire::ProjectView;
use toka_core::{AgentName, ExitCode, escape};

use super::reach::{AgentRef, Found, Reach, block_on, meant, narrows, no_agent};
use toka_terminal::palette::Palette;
use toka_terminal::screen::terminal_size;
use toka_terminal::{json, list, out, screen};

/// Options of `toka ps`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("project", narrows))]
pub(crate) struct Args {
    /// Only these agents, as AGENT or PROJECT/AGENT
    #[arg(value_name = "AGENT")]
    agents: Vec<AgentRef>,
    #[command(flatten)]
    reach: Reach,
    /// Print one JSON array: every project with its agents
    #[arg(long)]
    json: bool,
    /// Print the names only, as PROJECT/AGENT
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

/// Prints what runs; nothing is no error, unless somebody asked for it by name.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let found = block_on(args.reach.running())?;
    if found.is_empty() {
        tell_of_orphans(&args.reach)?;
        // Another folder may be meant, or another user's.
        if let (false, Some(asked)) = (args.quiet, args.reach.asked()) {
            eprintln!("{asked}");
        }
    } else {
        tell_of_the_rest(&args.reach, &found)?;
    }
    if let Some(missing) =
        args.agents.iter().find(|wanted| !found.iter().any(|found| has(&found.project, wanted)))
    {
        return Err(if found.is_empty() { args.reach.nothing_runs() } else { no_agent(missing) }.into());
    }
    let found = args.reach.named_among(found)?;
    let mut projects: Vec<ProjectView> = found.into_iter().map(|found| found.project).collect();
    if !args.agents.is_empty() {
        projects.iter_mut().for_each(|project| narrow(project, &args.agents));
        projects.retain(|project| !project.agents.is_empty());
    }
    tell_of_trouble(&projects);
    let text = if args.json {
        json::line(&projects) + "\n"
    } else if args.quiet {
        names(&projects)
    } else {
        let stdout = std::io::stdout();
        let columns = match std::io::IsTerminal::is_terminal(&stdout) {
            true => terminal_size().columns,
            false => screen::columns(usize::MAX),
        };
        list::agents(&projects, now_ms(), columns, Palette::for_stream(&stdout))
    };
    Ok(out::end(&text, ExitCode::Success)?)
}

/// Nothing that runs is no error; what runs and nobody looks after is, and a state folder that somebody named and that is
/// not there.
pub(super) fn tell_of_orphans(reach: &Reach) -> anyhow::Result<()> {
    let left = reach.left()?;
    let left = match &reach.project {
        Some(name) => left.only(name),
        None => left,
    };
    match left.failure() {
        Some(failure) => Err(failure.into()),
        None if reach.names_nothing()? => Err(reach.nothing_runs().into()),
        None => Ok(()),
    }
}

/// What is left of killed runs beside what answers; it is the answer where nothing else was asked for.
fn tell_of_the_rest(reach: &Reach, found: &[Found]) -> anyhow::Result<()> {
    let left = reach.left()?.but(|name| found.iter().any(|found| found.name() == name));
    match (&reach.project, left.failure()) {
        (_, None) => Ok(()),
        (None, Some(failure)) => {
            eprintln!("warning: {failure}");
            Ok(())
        }
        (Some(name), Some(_)) => left.only(name).failure().map_or(Ok(()), |failure| Err(failure.into())),
    }
}

/// What is listed of such a project is what was last heard.
fn tell_of_trouble(projects: &[ProjectView]) {
    for project in projects {
        if let Some(why) = &project.trouble {
            let (name, why) = (&project.overview.project, escape::for_terminal(why.as_bytes(), usize::MAX));
            eprintln!(
                "warning: the keeper of {name} does not answer, so that nothing can be done with its agents: {why}"
            );
        }
    }
}

fn has(project: &ProjectView, wanted: &AgentRef) -> bool {
    let names = project.agents.iter().map(|agent| &agent.name);
    !meant(std::slice::from_ref(wanted), &project.overview.project, names).is_empty()
}

fn narrow(project: &mut ProjectView, wanted: &[AgentRef]) {
    let agents = std::mem::take(&mut project.agents);
    let names = agents.iter().map(|agent| &agent.name);
    let meant: BTreeSet<AgentName> =
        meant(wanted, &project.overview.project, names).into_iter().cloned().collect();
    project.agents = agents.into_iter().filter(|agent| meant.contains(&agent.name)).collect();
}

fn names(projects: &[ProjectView]) -> String {
    let of = |project: &ProjectView| {
        let name = project.overview.project.clone();
        project.agents.iter().map(move |agent| format!("{name}/{}\n", agent.name)).collect::<String>()
    };
    projects.iter().map(of).collect()
}

/// The wall clock in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
