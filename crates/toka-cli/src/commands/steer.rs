//! `toka steer`: a word from a person to the model that works on an agent's tasks.

use toka_api::wire::SteerBody;
use toka_core::ExitCode;

use super::reach::{AgentRef, Purpose, Reach, block_on, failure};
use toka_terminal::{json, out};

/// Options of `toka steer`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The model is told before it is asked next: what it is at, it comes to the end of first, but with --interrupt. `toka sessions show AGENT` shows what came of it."
)]
pub(crate) struct Args {
    /// The agent, as AGENT or PROJECT/AGENT; a model must be at work on its tasks
    #[arg(value_name = "AGENT")]
    agent: AgentRef,
    /// What it is told
    #[arg(value_name = "TEXT", required = true, num_args = 1..)]
    text: Vec<String>,
    /// Interrupt what it is at: the answer that comes, or the tool that is at work, which is killed
    #[arg(long)]
    interrupt: bool,
    #[command(flatten)]
    reach: Reach,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Tells it.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let steered = block_on(async {
        let found = args.reach.find(std::slice::from_ref(&args.agent), Purpose::Act).await?;
        let agent = found.agent(&args.agent)?;
        let word = SteerBody { text: args.text.join(" "), interrupt: args.interrupt };
        let steered = found.client.steer(found.name(), &agent, &word).await;
        Ok(steered.map_err(failure)?)
    })?;
    let text = match args.json {
        true => json::line(&steered) + "\n",
        false if args.interrupt => format!("{} is interrupted, and hears it\n", steered.session),
        false => format!("{} hears it before it is asked next\n", steered.session),
    };
    Ok(out::end(&text, ExitCode::Success)?)
}
