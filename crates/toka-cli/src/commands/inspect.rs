//! `toka inspect`: everything that is known of agents, as JSON.

use toka_core::ExitCode;

use super::reach::{AgentRef, Purpose, Reach, block_on, failure, looks};
use toka_terminal::{json, out};

/// Options of `toka inspect`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("project", looks))]
pub(crate) struct Args {
    /// The agents, as AGENT or PROJECT/AGENT
    #[arg(value_name = "AGENT", required = true)]
    agents: Vec<AgentRef>,
    #[command(flatten)]
    reach: Reach,
    /// Print one line; without it, one that people can read
    #[arg(long)]
    json: bool,
}

/// Prints what is known, one array for all of them.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let views = block_on(async {
        let found = args.reach.find(&args.agents, Purpose::Look).await?;
        let mut views = Vec::new();
        for agent in found.agents(&args.agents)? {
            views.push(found.client.agent(found.name(), &agent).await.map_err(failure)?);
        }
        Ok(views)
    })?;
    let text = if args.json { json::line(&views) } else { json::pretty(&views) };
    Ok(out::end(&(text + "\n"), ExitCode::Success)?)
}
