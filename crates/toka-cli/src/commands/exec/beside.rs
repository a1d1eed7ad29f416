//! `toka exec AGENT -- COMMAND`: a command in the sandbox of an agent that runs, its streams on ours.

use std::ffi::OsString;
use std::io::{IsTerminal as _, stdin, stdout};

use toka_api::client::ClientError;
use toka_api::stream::End;
use toka_api::wire::ExecBody;
use toka_core::ExitCode;

use crate::commands::reach::{AgentRef, Purpose, Reach, block_on, failure};
use crate::remote::raw::RawTerminal;
use crate::remote::{Interrupts, Keyboard, Outcome, Screen, Session, size};
use toka_terminal::failure::{self, Failure};
use toka_terminal::out;

/// What to run, and how.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) agent: AgentRef,
    pub(super) reach: Reach,
    pub(super) terminal: Terminal,
    pub(super) interactive: bool,
    pub(super) command: Vec<OsString>,
}

/// Whether the command gets a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terminal {
    Wanted,
    Unwanted,
    /// When we have one ourselves.
    AsOurs,
}

/// The statuses of the shell for what is no program, and for what is none that can be executed.
const UNEXECUTED: [u8; 2] = [126, 127];

/// Runs the command to its end; its exit status is ours.
pub(super) fn run(wanted: &Wanted) -> anyhow::Result<ExitCode> {
    let outcome = match block_on(execute(wanted)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(unexecuted)) => {
            let ClientError::Refused(refused) = &unexecuted else { return Err(failure(unexecuted).into()) };
            let status = i32::from(refused.exit_code);
            failure::report(&Failure::new(ExitCode::Internal, refused.error.clone()).into());
            std::process::exit(status);
        }
        Err(error) => return Err(error),
    };
    match outcome {
        Outcome::Ended(End::Exited { exit }) => std::process::exit(i32::from(exit.status())),
        Outcome::Ended(End::Nonsense { reason }) => Err(Failure::new(ExitCode::Internal, reason).into()),
        Outcome::Ended(End::Over | End::TooSlow) | Outcome::Lost | Outcome::Detached => {
            let lost = "the connection to the daemon is lost, and with it the command";
            Err(Failure::new(ExitCode::NoDaemon, lost).into())
        }
        Outcome::Told(ending) => Ok(ending.exit_code()),
        Outcome::Unwritten(error) => Ok(out::settle(Err(error), ExitCode::Success)?),
    }
}

/// The whole session; the terminal is as it was when this returns. The inner error is that of a command that is no program.
async fn execute(wanted: &Wanted) -> anyhow::Result<Result<Outcome, ClientError>> {
    let has_terminal = stdin().is_terminal() && stdout().is_terminal();
    let on_terminal = match wanted.terminal {
        Terminal::Wanted => true,
        Terminal::Unwanted => false,
        Terminal::AsOurs => has_terminal,
    };
    let input = wanted.interactive || (on_terminal && has_terminal);
    let body = ExecBody {
        argv: words(&wanted.command)?,
        terminal: on_terminal.then(|| size().or_default()),
        term: std::env::var("TERM").ok().filter(|term| on_terminal && !term.is_empty()),
        input,
    };
    let found = wanted.reach.find(std::slice::from_ref(&wanted.agent), Purpose::Act).await?;
    let agent = found.agent(&wanted.agent)?;
    let stream = match found.client.exec(found.name(), &agent, &body).await {
        Ok(stream) => stream,
        Err(ClientError::Refused(refused)) if UNEXECUTED.contains(&refused.exit_code) => {
            return Ok(Err(ClientError::Refused(refused)));
        }
        Err(error) => return Err(failure(error).into()),
    };
    let screen = Screen::open()?;
    let _raw = if on_terminal && input && stdin().is_terminal() { Some(RawTerminal::enter()?) } else { None };
    let keyboard = if input { Keyboard::Passed } else { Keyboard::Unused };
    let session =
        Session { stream, screen, keyboard, interrupts: Interrupts::Theirs, follows_size: on_terminal };
    Ok(Ok(session.run().await?))
}

fn words(command: &[OsString]) -> Result<Vec<String>, Failure> {
    let word = |word: &OsString| {
        let why = || Failure::new(ExitCode::Usage, format!("{} is no UTF-8 text", word.to_string_lossy()));
        word.to_str().map(str::to_owned).ok_or_else(why)
    };
    command.iter().map(word).collect()
}
