//! `toka upgrade`: the daemon becomes the program that is installed now, while its agents run on.

use std::time::Duration;

use toka_api::client::{Client, ClientError};
use toka_api::wire::RoleName;
use toka_core::ExitCode;

use super::reach::{Reach, block_on, failure};
use toka_terminal::failure::Failure;
use toka_terminal::out;
use toka_terminal::text::count;

/// How long the new program may take until it answers.
const LONGEST: Duration = Duration::from_secs(30);

/// Options of `toka upgrade`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file of the running program must have been replaced in its place. Where it is no program of Toka's, the \
    daemon goes on as it is."
)]
pub(crate) struct Args {
    #[command(flatten)]
    reach: Reach,
}

/// Upgrades the daemon, and waits until its successor answers.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let told = block_on(async {
        let client = service(&args.reach).await?;
        let before = client.daemon().await.map_err(failure)?;
        match client.upgrade().await {
            // It is about to be another: the connection may not live to the answer.
            Ok(()) | Err(ClientError::Broken { .. }) => {}
            Err(error) => return Err(failure(error).into()),
        }
        let after = next(&client, before.started_ms).await?;
        Ok(format!(
            "toka {} is now {}, with {}\n",
            before.version,
            after.version,
            count(after.projects.len(), "project")
        ))
    })?;
    Ok(out::end(&told, ExitCode::Success)?)
}

async fn service(reach: &Reach) -> anyhow::Result<Client> {
    for client in reach.clients()? {
        match client.daemon().await {
            Ok(daemon) if daemon.role == RoleName::Service => return Ok(client),
            Ok(_) | Err(ClientError::NobodyThere { .. }) => {}
            Err(error) => return Err(failure(error).into()),
        }
    }
    Err(Failure::new(ExitCode::NoDaemon, "no daemon serves here").help("begin one with `toka serve`").into())
}

/// Waits for one that began later.
async fn next(client: &Client, started_ms: i64) -> Result<toka_api::wire::DaemonView, Failure> {
    let deadline = tokio::time::Instant::now() + LONGEST;
    loop {
        match client.daemon().await {
            Ok(daemon) if daemon.started_ms > started_ms => return Ok(daemon),
            _ if tokio::time::Instant::now() >= deadline => {
                return Err(Failure::new(ExitCode::NoDaemon, "the new program does not answer")
                    .help("its agents run on; `toka serve` takes them over"));
            }
            // There is nothing to wait for but the answer itself.
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
