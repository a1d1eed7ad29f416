//! `toka health`: how well agents and the daemon are, and why they are not better.

use std::collections::BTreeSet;
use std::time::Duration;

use toka_api::client::Client;
use toka_api::health::{HealthView, ProjectHealth};
use toka_core::{AgentName, ExitCode, ProjectName, Verdict};

use super::reach::{AgentRef, Reach, block_on, failure, meant, narrows, no_agent};
use super::signals::Signals;
use toka_terminal::failure::Failure;
use toka_terminal::mode::Mode;
use toka_terminal::palette::Palette;
use toka_terminal::screen::{self, Screen};
use toka_terminal::{health, health_page, json, out};

/// Time from one look to the next with `--watch`: the figures of resources are read anew each time.
const INTERVAL: Duration = Duration::from_secs(2);

/// Options of `toka health`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It ends with 0 when nothing is unhealthy, with 1 when an agent or the daemon is, with 69 when nothing runs.",
    mut_arg("project", narrows)
)]
pub(crate) struct Args {
    /// Only these agents, as AGENT or PROJECT/AGENT, each with all that is known of it
    #[arg(value_name = "AGENT")]
    agents: Vec<AgentRef>,
    #[command(flatten)]
    reach: Reach,
    /// Look again every two seconds, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// Print one JSON array: every daemon with its projects and their agents
    #[arg(long)]
    json: bool,
}

/// Prints the health of what runs.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        if args.watch {
            return watch(&args).await;
        }
        let views = look(&args).await?;
        let palette = Palette::for_stream(&std::io::stdout());
        let text = text(&args, &views, screen::columns(usize::MAX), palette);
        Ok(out::end(&text, code_of(&views))?)
    })
}

/// A run in the foreground and a service have a project of their own each: the worst of all decides.
fn code_of(views: &[HealthView]) -> ExitCode {
    match Verdict::worst(views.iter().map(|view| view.verdict)) {
        Verdict::Unhealthy => ExitCode::AgentFailed,
        _ => ExitCode::Success,
    }
}

/// Asks every daemon, and keeps what was asked for.
async fn look(args: &Args) -> anyhow::Result<Vec<HealthView>> {
    let mut views = Vec::new();
    for client in args.reach.clients()? {
        // Of one that does not answer any more the socket is what it left.
        views.extend(client.settled(Client::health).await.map_err(failure)?);
    }
    if views.is_empty() {
        return Err(args.reach.nothing_runs().into());
    }
    let is_there = |name: &ProjectName| {
        views.iter().flat_map(|view| &view.projects).any(|project| project.project == *name)
    };
    let left = args.reach.left()?.but(is_there);
    match (&args.reach.project, left.failure()) {
        (None, Some(failure)) => eprintln!("warning: {failure}"),
        (Some(name), Some(_)) => {
            if let Some(failure) = left.only(name).failure() {
                return Err(failure.into());
            }
        }
        (_, None) => {}
    }
    narrow(views, args)
}

fn narrow(mut views: Vec<HealthView>, args: &Args) -> anyhow::Result<Vec<HealthView>> {
    if args.agents.is_empty() && args.reach.project.is_none() {
        return Ok(views);
    }
    if let Some(name) = &args.reach.project {
        views.iter_mut().for_each(|view| view.projects.retain(|project| project.project == *name));
        if views.iter().all(|view| view.projects.is_empty()) {
            let message = format!("the project {name} does not run");
            return Err(Failure::new(ExitCode::NoDaemon, message).into());
        }
    }
    for wanted in &args.agents {
        let is_there = |project: &ProjectHealth| {
            let names = project.agents.iter().map(|agent| &agent.status.name);
            !meant(std::slice::from_ref(wanted), &project.project, names).is_empty()
        };
        if !views.iter().flat_map(|view| &view.projects).any(is_there) {
            return Err(no_agent(wanted).into());
        }
    }
    views.iter_mut().for_each(|view| keep(view, &args.agents));
    views.retain(|view| !view.projects.is_empty());
    Ok(views)
}

/// Leaves these agents; the verdicts are then theirs and the daemon's.
fn keep(view: &mut HealthView, wanted: &[AgentRef]) {
    for project in &mut view.projects {
        let mut agents = std::mem::take(&mut project.agents);
        let names = agents.iter().map(|agent| &agent.status.name);
        let meant: BTreeSet<AgentName> =
            meant(wanted, &project.project, names).into_iter().cloned().collect();
        agents.retain(|agent| meant.contains(&agent.status.name));
        project.verdict = Verdict::worst(agents.iter().map(|agent| agent.verdict));
        project.agents = agents;
    }
    view.projects.retain(|project| !project.agents.is_empty());
    let of_projects = view.projects.iter().map(|project| project.verdict);
    view.verdict = Verdict::worst(of_projects.chain([view.daemon.verdict]));
}

fn text(args: &Args, views: &[HealthView], columns: usize, palette: Palette) -> String {
    if args.json {
        return json::line(&views) + "\n";
    }
    if args.agents.is_empty() {
        health::list(views, columns, palette)
    } else {
        health_page::pages(views, columns, palette)
    }
}

/// Shows it again and again; on a pipe whenever it is another text.
async fn watch(args: &Args) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::catch()?;
    let is_live = !args.json && std::io::IsTerminal::is_terminal(&std::io::stdout());
    let mut screen = Screen::of(if is_live { Mode::Live } else { Mode::Plain });
    let palette = Palette::for_stream(&std::io::stdout());
    let mut shown = String::new();
    let outcome = loop {
        let seen = tokio::select! {
            seen = look(args) => seen,
            signal = signals.next() => break Ok(signal.exit_code()),
        };
        let views = match seen {
            Ok(views) => views,
            Err(error) => break Err(error),
        };
        let next = text(args, &views, screen::columns(usize::MAX), palette);
        if next != shown {
            match screen.size() {
                Some(size) => screen.show("", frame(&next, size.rows)),
                None => screen.show(&next, Vec::new()),
            }
            shown = next;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            signal = signals.next() => break Ok(signal.exit_code()),
        }
    };
    let written = screen.finish();
    Ok(out::settle(written, outcome?)?)
}

/// As much as the window holds, and how much it does not.
fn frame(text: &str, rows: usize) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let room = rows.saturating_sub(1).max(1);
    if lines.len() <= room {
        return lines.into_iter().map(str::to_owned).collect();
    }
    let shown = room.saturating_sub(1);
    let rest = format!("… and {} more lines", lines.len() - shown);
    lines.into_iter().take(shown).map(str::to_owned).chain([rest]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_window() {
        let text = (0..50).map(|line| format!("{line}\n")).collect::<String>();
        assert_eq!(frame("one\ntwo\n", 24), ["one", "two"]);
        let cut = frame(&text, 24);
        assert_eq!((cut.len(), cut[22].as_str()), (23, "… and 28 more lines"));
        assert_eq!(frame(&text, 0).len(), 1);
    }
}
