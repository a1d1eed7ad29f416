//! `toka attach`: the terminal of an agent on that of the caller, until the caller leaves it or the agent ends.

use std::io::{IsTerminal as _, stderr, stdin, stdout};

use toka_api::stream::End;
use toka_core::ExitCode;

use super::reach::{AgentRef, Purpose, Reach, block_on, failure};
use crate::remote::keys::DetachKeys;
use crate::remote::raw::RawTerminal;
use crate::remote::{Interrupts, Keyboard, Outcome, Screen, Session, size};
use toka_terminal::failure::Failure;
use toka_terminal::out;

/// Options of `toka attach`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 after detaching; that of the agent when it ends meanwhile: its exit code, 128 and the number of \
    the signal that ended it, 124 when its time was up, 143 when somebody stopped it, 1 for any other end. 69 when the \
    connection is lost, 130 and 143 after a signal."
)]
pub(crate) struct Args {
    /// The agent, as AGENT or PROJECT/AGENT; it must have `tty: true` in its spec.process
    #[arg(value_name = "AGENT")]
    agent: AgentRef,
    #[command(flatten)]
    reach: Reach,
    /// The keys that detach, in docker's syntax: characters and ctrl-CHARACTER, with commas between them
    #[arg(long, value_name = "KEYS", default_value_t)]
    detach_keys: DetachKeys,
    /// Only look: send nothing of what is typed
    #[arg(long)]
    no_stdin: bool,
}

/// Shows and types until one side has enough. The exit status is the agent's.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let agent = &args.agent.agent;
    if !stdout().is_terminal() {
        let wrong = Failure::new(ExitCode::Usage, "stdout is no terminal, and an agent draws on one");
        return Err(wrong.help(format!("`toka logs -f {agent}` passes on what it writes")).into());
    }
    if !args.no_stdin && !stdin().is_terminal() {
        let wrong = Failure::new(ExitCode::Usage, "stdin is no terminal, so that there is no way to detach");
        return Err(wrong.help("only look, with --no-stdin").into());
    }
    let (outcome, name) = block_on(attach(&args))?;
    match outcome {
        Outcome::Ended(End::Exited { exit }) => {
            eprintln!("{name} has ended: {}", toka_terminal::text::safe(&exit.to_string()));
            std::process::exit(i32::from(exit.status()));
        }
        Outcome::Ended(End::Over) => {
            eprintln!("the run of {name} is over");
            Ok(ExitCode::Success)
        }
        Outcome::Ended(End::TooSlow) => {
            let slow = format!("detached from {name}: this terminal does not keep up with what it draws");
            Err(Failure::new(ExitCode::AgentFailed, slow).help(comes_back(&name)).into())
        }
        Outcome::Ended(End::Nonsense { reason }) => Err(Failure::new(ExitCode::Internal, reason).into()),
        Outcome::Detached => {
            // Where the agent has left the cursor.
            eprintln!("\ndetached from {name}, which goes on; {}", comes_back(&name));
            Ok(ExitCode::Success)
        }
        Outcome::Told(ending) => Ok(ending.exit_code()),
        Outcome::Lost => Err(lost(&name).into()),
        Outcome::Unwritten(error) => Ok(out::settle(Err(error), ExitCode::AgentFailed)?),
    }
}

fn comes_back(name: &str) -> String {
    format!("`toka attach {name}` comes back")
}

fn lost(name: &str) -> Failure {
    Failure::new(ExitCode::NoDaemon, format!("the connection to the daemon of {name} is lost")).help(format!(
        "`toka ps` says what goes on; when the daemon is gone, `toka serve --detach` begins one that takes over; then {}",
        comes_back(name)
    ))
}

/// The whole session; the terminal is as it was when this returns.
async fn attach(args: &Args) -> anyhow::Result<(Outcome, String)> {
    let found = args.reach.find(std::slice::from_ref(&args.agent), Purpose::Act).await?;
    let agent = found.agent(&args.agent)?;
    let name = format!("{}/{agent}", found.name());
    let stream = found.client.attach(found.name(), &agent, size()).await.map_err(failure)?;
    let keyboard = if args.no_stdin { Keyboard::Unused } else { Keyboard::Watched(args.detach_keys.clone()) };
    let way_out =
        if args.no_stdin { "Ctrl-C leaves".to_owned() } else { format!("{} leaves", args.detach_keys) };
    let _ =
        std::io::Write::write_all(&mut stderr(), format!("attached to {name}; {way_out} it\n").as_bytes());
    let screen = Screen::open()?;
    let _raw = match args.no_stdin {
        false => Some(RawTerminal::enter()?),
        true => stdin().is_terminal().then(RawTerminal::enter_to_look).transpose()?,
    };
    let session = Session { stream, screen, keyboard, interrupts: Interrupts::Ours, follows_size: true };
    Ok((session.run().await?, name))
}
