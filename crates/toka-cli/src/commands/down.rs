//! `toka down`: the end of a project, or of the daemon and everything that runs in it.

use std::time::Duration;

use toka_api::client::{Client, ClientError};
use toka_api::wire::RoleName;
use toka_core::{Command, ExitCode, ProjectName, Urgency};
use toka_keeper::process::{Presence, presence};
use toka_prepare::{LockError, RunError};
use toka_project::{end_unattended, unfinished};

use super::folders::Folders;
use super::reach::{Purpose, Reach, block_on, failure};
use super::refusal;
use toka_terminal::failure::Failure;
use toka_terminal::out;

/// Options of `toka down`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    reach: Reach,
    /// Every project, and the daemon too
    #[arg(long, conflicts_with = "project")]
    all: bool,
    /// Kill instead of stopping
    #[arg(long)]
    kill: bool,
}

/// How long a run whose connection broke may take until it is over, or known to be killed.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait for the end of a run: longer than any reasonable grace period.
const LONGEST: Duration = Duration::from_secs(600);

/// Ends what is meant, and waits for that.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let urgency = if args.kill { Urgency::Kill } else { Urgency::Graceful };
    let told = block_on(async {
        if args.all { all(&args.reach, urgency).await } else { one(&args.reach, urgency).await }
    })?;
    Ok(out::end(&told, ExitCode::Success)?)
}

async fn one(reach: &Reach, urgency: Urgency) -> anyhow::Result<String> {
    let meant = reach.project.clone().or_else(|| reach.here());
    if let Some(project) =
        meant.filter(|project| reach.left().is_ok_and(|left| left.ending.contains(project)))
    {
        return Ok(ended_by_keeper(reach, &project, urgency).await?);
    }
    let found = match reach.find(&[], Purpose::Act).await {
        Ok(found) => found,
        // Only where nobody runs what is meant.
        Err(error) if reach.project.is_none() && !reach.running().await?.is_empty() => return Err(error),
        Err(error) => return without_daemon(reach).await?.ok_or(error),
    };
    let outcome = found.client.command_of(found.run(), &Command::Down { urgency }, LONGEST).await;
    match outcome {
        Ok(outcome) if !outcome.finished => {
            let message = format!("{} is still stopping", found.name());
            Err(Failure::new(ExitCode::TimedOut, message).help("`toka down --kill` ends it at once").into())
        }
        Ok(_) => Ok(format!("{} is down\n", found.name())),
        // A run in the foreground takes its socket along when it ends, as does one that is killed.
        Err(error @ ClientError::Broken { .. }) => after_break(reach, found.name(), urgency, error).await,
        Err(error) => Err(failure(error).into()),
    }
}

async fn all(reach: &Reach, urgency: Urgency) -> anyhow::Result<String> {
    let mut told = String::new();
    for client in reach.clients()? {
        let Some(daemon) = client.settled(Client::daemon).await.map_err(failure)? else { continue };
        match daemon.role {
            RoleName::Service => client.shutdown(urgency).await.map_err(failure)?,
            RoleName::Foreground => {
                for project in &daemon.projects {
                    let ended = client.command(project, &Command::Down { urgency }, LONGEST).await;
                    ignore_gone(ended)?;
                }
            }
        }
        wait_for_end(&client, daemon.pid).await?;
        daemon.projects.iter().for_each(|project| told.push_str(&format!("{project} is down\n")));
        if daemon.role == RoleName::Service {
            told.push_str("the daemon has ended\n");
        }
    }
    // Runs that a signal had left to a next daemon: there is none that drives them now.
    let state = Folders::find(reach.state_dir.as_deref())?.state;
    let mut obstacle = None;
    for project in unfinished(&state) {
        match end_open(reach, &project).await {
            Ok(true) => told.push_str(&format!("{project} is down\n")),
            // Somebody else has it, or has ended it.
            Ok(false) => {}
            Err(error) => drop(obstacle.get_or_insert(error)),
        }
    }
    if let Some(error) = obstacle {
        eprint!("{told}");
        return Err(error);
    }
    for project in reach.left()?.ending {
        told.push_str(&ended_by_keeper(reach, &project, urgency).await?);
    }
    for project in reach.left()?.behind {
        if end_open(reach, &project).await? {
            told.push_str(&format!("{project} is down\n"));
        }
    }
    // When a daemon is killed, its keeper and the agents go on.
    if !reach.left()?.orphaned.is_empty() {
        eprint!("{told}");
        return Err(reach.nothing_runs().into());
    }
    if told.is_empty() { Ok("nothing runs\n".to_owned()) } else { Ok(told) }
}

/// Ends the run that is meant, if its journal has no end of it and no process drives it.
async fn without_daemon(reach: &Reach) -> anyhow::Result<Option<String>> {
    let Some(project) = reach.project.clone().or_else(|| reach.here()) else { return Ok(None) };
    let ended = end_open(reach, &project).await?;
    Ok(ended.then(|| format!("{project} is down\n")))
}

/// Ends an open run; not one that somebody drives.
async fn end_open(reach: &Reach, project: &ProjectName) -> anyhow::Result<bool> {
    let Folders { state, run, .. } = Folders::find(reach.state_dir.as_deref())?;
    match end_unattended((&state, &run), project, "operator").await {
        Ok(ended) => Ok(ended),
        Err(RunError::Lock(LockError::Held(_) | LockError::Kept(_))) => Ok(false),
        Err(error) => Err(refusal::failure(error.exit_code(), &error).into()),
    }
}

fn ignore_gone<T>(ended: Result<T, ClientError>) -> Result<(), Failure> {
    match ended {
        Ok(_) | Err(ClientError::Broken { .. } | ClientError::NobodyThere { .. }) => Ok(()),
        Err(error) => Err(failure(error)),
    }
}

/// Until the keeper of a run in the foreground that was killed has ended its agents.
async fn ended_by_keeper(reach: &Reach, project: &ProjectName, urgency: Urgency) -> Result<String, Failure> {
    eprintln!("the run of {project} was killed; its keeper ends the agents, each within its grace period");
    if urgency == Urgency::Kill {
        // Where there are no control groups, the keeper alone knows the processes.
        toka_project::kill_groups_of(&Folders::find(reach.state_dir.as_deref())?.state, project).await;
    }
    let deadline = tokio::time::Instant::now() + LONGEST;
    while reach.left()?.ending.contains(project) {
        if tokio::time::Instant::now() >= deadline {
            return Err(Failure::new(
                ExitCode::TimedOut,
                format!("the keeper of {project} is still ending its agents"),
            ));
        }
        // It is no child of ours: there is nothing to wait for but its lock.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What its own process could not write down.
    if let Err(error) = end_open(reach, project).await {
        eprintln!("warning: {error}");
    }
    Ok(format!("{project} is down\n"))
}

/// What became of a project whose daemon broke the connection off: its run is over, or its keeper has the agents yet.
async fn after_break(
    reach: &Reach,
    project: &ProjectName,
    urgency: Urgency,
    error: ClientError,
) -> anyhow::Result<String> {
    let Some(left) = reach.settled(project, SETTLED_WITHIN).await? else { return Err(failure(error).into()) };
    if !left.ending.is_empty() {
        return Ok(ended_by_keeper(reach, project, urgency).await?);
    }
    if !left.orphaned.is_empty()
        && let Some(failure) = left.failure()
    {
        return Err(failure.into());
    }
    // Of one that was killed this writes the end down, and kills what it left.
    end_open(reach, project).await?;
    Ok(format!("{project} is down\n"))
}

/// Until nobody answers any more, and the process that did is gone.
async fn wait_for_end(client: &Client, pid: u32) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + LONGEST;
    while client.daemon().await.is_ok() || presence(pid.cast_signed()) == Presence::Alive {
        if tokio::time::Instant::now() >= deadline {
            return Err(Failure::new(ExitCode::TimedOut, "it is still stopping")
                .help("`toka down --all --kill` ends it at once"));
        }
        // It is no child of ours: there is nothing to wait for but that it is gone.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
