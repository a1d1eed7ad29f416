//! `toka chat`: a conversation with an agent on a terminal: with one that runs, or with one of its own in this checkout.
//!
//! ```text
//!  own ─ declares an agent, runs it in this process ─┐
//!                                                    ▼
//!  typing ─ keys, lines ─▶ conversation ◀─ news, approvals ─ control socket of whoever runs the agent
//!                               │
//!                               ▼ text
//! ```

mod conversation;
mod own;
mod typing;

use std::path::PathBuf;

use toka_core::{Autonomy, ExitCode, ModelName, ProjectName};
use toka_terminal::failure::Failure;

use super::folders::Place;
use super::reach::{AgentRef, Purpose, Reach, block_on};
use conversation::{Conversation, With};

/// Options of `toka chat`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without AGENT, an agent of its own works in this folder: it reads and writes it, reaches no network, and ends with the conversation. \
    Where an agent runs here that can be talked to, that one is meant.\n\
    Keys while it works: Esc or Ctrl-C interrupts, any other key begins a line that it is told before it goes on. Ctrl-D ends.\n\
    Without a terminal, each line of stdin is said when the one before is answered.\n\
    Exit status: 0 the conversation has ended, 1 its last turn has failed, 69 nobody answers, 78 no model is chosen."
)]
pub(crate) struct Args {
    /// An agent that runs and on whose tasks a model works, as AGENT or PROJECT/AGENT [default: one of its own]
    #[arg(value_name = "AGENT")]
    agent: Option<AgentRef>,
    /// Ask this model, such as anthropic/claude-sonnet-4-5; of an agent of its own
    #[arg(long, value_name = "NAME", conflicts_with = "agent")]
    model: Option<String>,
    /// Answer from a script, without a model; of an agent of its own
    #[arg(long, value_name = "FILE", conflicts_with_all = ["agent", "model"])]
    script: Option<PathBuf>,
    /// When to ask you: before tools with a high risk (semi), or never but where a rule says so (auto); of an agent of its own
    #[arg(long, value_name = "WHEN", value_parser = autonomy, conflicts_with = "agent")]
    autonomy: Option<Autonomy>,
    /// It may read this folder, and change nothing of it; of an agent of its own
    #[arg(long, conflicts_with = "agent")]
    read_only: bool,
    /// Go on with the last conversation here, or with the session of this name; of an agent of its own
    #[arg(long = "continue", short = 'c', value_name = "SESSION", num_args = 0..=1, conflicts_with = "agent")]
    resume: Option<Option<String>>,
    /// Say this first; may be given several times. Without a terminal nothing else is said
    #[arg(long, short = 'm', value_name = "TEXT")]
    message: Vec<String>,
    #[command(flatten)]
    place: Place,
    /// Print one JSON object for each piece of news
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether something is said of an agent of its own.
    fn is_of_own(&self) -> bool {
        self.model.is_some()
            || self.script.is_some()
            || self.autonomy.is_some()
            || self.read_only
            || self.resume.is_some()
    }
}

fn autonomy(text: &str) -> Result<Autonomy, String> {
    text.parse().map_err(|_| "semi or auto".to_owned())
}

/// Talks.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let said = args.message.clone();
    match whom(&args)? {
        Some(with) => block_on(async { Conversation::begin(with, said, args.json).await?.run().await }),
        None => own::run(&args),
    }
}

/// The agent that runs and is meant, if one is.
fn whom(args: &Args) -> anyhow::Result<Option<With>> {
    let reach = Reach { project: args.place.project.clone(), state_dir: args.place.state_dir.clone() };
    block_on(async {
        if let Some(agent) = &args.agent {
            let found = reach.find(std::slice::from_ref(agent), Purpose::Act).await?;
            let agent = found.agent(agent)?;
            return Ok(Some(With::of(&found, agent)));
        }
        let folders = args.place.folders()?;
        let running = reach.running().await?;
        let Some(found) = running.into_iter().find(|found| *found.name() == folders.project) else {
            return Ok(None);
        };
        let names = || found.project.agents.iter().map(|agent| agent.name.clone());
        let mut talking = Vec::new();
        for agent in names() {
            let view = found.client.agent(found.name(), &agent).await.map_err(super::reach::failure)?;
            if view.declared.iter().any(|line| line.key == "chat") {
                talking.push(agent);
            }
        }
        match talking.as_slice() {
            [one] if args.is_of_own() => {
                let message = format!(
                    "{one} runs here already and is meant: --model, --script, --autonomy, --read-only and --continue are for an agent of its own"
                );
                Err(Failure::new(ExitCode::Usage, message)
                    .help(format!("leave them out to talk to {one}, or begin another project beside it: `toka chat --project NAME`"))
                    .into())
            }
            [one] => Ok(Some(With::of(&found, one.clone()))),
            _ => Err(busy(found.name(), &names().map(|name| name.to_string()).collect::<Vec<_>>()).into()),
        }
    })
}

fn busy(project: &ProjectName, agents: &[String]) -> Failure {
    let message =
        format!("the project {project} runs here already, and it is not clear whom you want to talk to");
    Failure::new(ExitCode::Usage, message).help(format!(
        "name one of {}, or begin another project beside it: `toka chat --project NAME`",
        agents.join(", ")
    ))
}

/// The model that is asked of an agent of its own.
fn model(text: &str) -> ModelName {
    ModelName::from(text.trim().to_owned())
}
