//! One run in the foreground: the daemon's part and the display side by side, signals in between, and what is printed
//! when it is over.

use anyhow::Context as _;
use toka_core::{Event, ExitCode};
use toka_daemon::folders::ProjectFolders;
use toka_daemon::{RunCommand, RunError, RunOptions, RunSummary};
use tokio::sync::mpsc;

use super::refusal;
use super::signals::{Ending, Signals};
use crate::failure::{self, Failure};
use crate::terminal::display::{Display, Message, Mode, Shown};
use crate::terminal::ending::{self, Trace};
use crate::terminal::follow::Follow;
use crate::terminal::palette::Palette;
use crate::terminal::screen::terminal_size;
use crate::terminal::summary::Summary;
use crate::terminal::view::RunView;
use crate::terminal::{json, out, table};

/// How the run is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// What is printed.
    pub(crate) mode: Mode,
    /// In which colours.
    pub(crate) palette: Palette,
    /// What becomes of the agents' output.
    pub(crate) output: Output,
}

/// What becomes of the agents' output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// It goes to their log files.
    Logged,
    /// It is shown too.
    Followed,
}

/// Runs to the end and prints what became of it.
pub(crate) fn run(options: RunOptions, folders: ProjectFolders, look: Look) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let of = folders.clone();
    let follow = (look.output == Output::Followed).then(|| Follow::new(Box::new(move |agent| of.log(agent))));
    let display = Display::start(look.mode, look.palette, follow).context("cannot start the display")?;
    let over = runtime.block_on(attend(options, display))?;
    Ok(finish(over, &folders, look)?)
}

/// What is known when a run is over.
struct Over {
    outcome: Result<RunSummary, RunError>,
    shown: Shown,
    /// The signal that asked for its end, if one did.
    first: Option<Ending>,
}

async fn attend(options: RunOptions, display: Display) -> anyhow::Result<Over> {
    let mut signals = Signals::catch().context("cannot catch signals")?;
    let messages = display.sender();
    let notices = display.sender();
    let (events, mut seen) = mpsc::unbounded_channel::<Event>();
    let (commands, orders) = mpsc::channel(ORDERS);
    let shown = tokio::spawn(async move {
        while let Some(event) = seen.recv().await {
            // The display can only be gone if it failed; the run goes on without it.
            let _ = messages.send(Message::Event(Box::new(event)));
        }
    });
    let mut first = None;
    let outcome = {
        let work = toka_daemon::run(options, orders, events);
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                signal = signals.next() => {
                    let command = answer(first, signal);
                    let notice = if first.is_none() { STOPPING } else { KILLING };
                    let _ = notices.send(Message::Notice(notice.to_owned()));
                    first.get_or_insert(signal);
                    // A queue that is full already holds an order to kill.
                    let _ = commands.try_send(command);
                }
            }
        }
    };
    drop(notices);
    shown.await.context("the events were not passed on")?;
    let shown = wait_for(display, &mut signals).await?;
    Ok(Over { outcome, shown, first })
}

/// Orders that wait for the daemon's part; the first stops, the others all kill.
const ORDERS: usize = 2;
const STOPPING: &str = "stopping; press Ctrl-C again to kill";
const KILLING: &str = "killing";

/// What a signal asks for: the first to stop, any after it to kill.
fn answer(first: Option<Ending>, signal: Ending) -> RunCommand {
    match first {
        None => RunCommand::Stop { by: signal.as_str().to_owned() },
        Some(_) => RunCommand::Kill,
    }
}

/// Waits until everything is shown. Stdout may stand still for ever: then a signal ends the waiting, and the process,
/// since all agents are gone already.
async fn wait_for(display: Display, signals: &mut Signals) -> anyhow::Result<Shown> {
    tokio::select! {
        shown = tokio::task::spawn_blocking(|| display.finish()) => shown.context("the display failed"),
        signal = signals.next() => std::process::exit(i32::from(signal.exit_code() as u8)),
    }
}

/// Prints what became of the run; the answer is the status of the process.
///
/// # Errors
/// When it did not take place.
fn finish(over: Over, folders: &ProjectFolders, look: Look) -> Result<ExitCode, Failure> {
    let Over { outcome, shown: Shown { view, written }, first } = over;
    let code_of = |code| first.map_or(code, Ending::exit_code);
    let summary = outcome.map_err(|error| refusal::failure(code_of(error.exit_code()), &error))?;
    let code = code_of(summary.exit_code);
    let ended = match written {
        Ok(()) => out::end(&text(&view, &traces(&view, folders), code, look), code),
        failed => out::settle(failed, code),
    };
    // Said here: to who called, this is a run that took place.
    Ok(ended.unwrap_or_else(|unwritten| failure::report(&unwritten.into())))
}

/// What the agents that ran left on disk. Others may have left something in an earlier run.
fn traces(view: &RunView, folders: &ProjectFolders) -> Vec<Trace> {
    let ran = view.agents().iter().filter(|agent| agent.enforcement.is_some());
    ran.map(|agent| Trace {
        agent: agent.name.clone(),
        log: folders.log(&agent.name),
        artifacts: folders.artifacts(&agent.name),
    })
    .collect()
}

/// What is printed when everything is over.
fn text(view: &RunView, traces: &[Trace], code: ExitCode, look: Look) -> String {
    match look.mode {
        Mode::Json => format!("{}\n", json::line(&Summary::of(view, traces, code))),
        Mode::Quiet => ending::failures(view, traces, look.palette),
        Mode::Live => table_and_places(view, traces, terminal_size().columns, look.palette),
        Mode::Plain => table_and_places(view, traces, table::PIPE_COLUMNS, look.palette),
    }
}

fn table_and_places(view: &RunView, traces: &[Trace], columns: usize, palette: Palette) -> String {
    let table = table::table(view, columns, palette);
    let failures = ending::failures(view, traces, palette);
    let places = ending::places(traces, palette);
    let gap = if places.is_empty() { "" } else { "\n" };
    format!("\n{table}{failures}{gap}{places}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_stops_and_any_other_kills() {
        assert!(matches!(answer(None, Ending::HangUp), RunCommand::Stop { by } if by == "SIGHUP"));
        for second in [Ending::Interrupt, Ending::Terminate] {
            assert!(matches!(answer(Some(Ending::Interrupt), second), RunCommand::Kill));
        }
    }

    #[test]
    fn the_first_signal_decides_the_status() {
        for (signal, status) in [(Ending::Interrupt, 130), (Ending::Terminate, 143), (Ending::HangUp, 143)] {
            assert_eq!(signal.exit_code() as u8, status);
        }
    }
}
