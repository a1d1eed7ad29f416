//! One run in the foreground: the daemon's part and the display side by side, signals in between, and what is printed
//! when it is over.

use std::path::Path;

use anyhow::Context as _;
use toka_api::socket::project_socket;
use toka_core::{Command, Event, EventKind, ExitCode, Urgency};
use toka_daemon::control::{Control, OPERATOR, Projects, Role};
use toka_prepare::RunError;
use toka_prepare::folders::ProjectFolders;
use toka_project::{Opened, Project, ProjectHandle, RunOptions, RunSummary};
use toka_runtime::turns::timed;
use tokio::sync::mpsc;

use super::prompt::Prompt;
use super::refusal;
use super::signals::{Ending, Signals};
use toka_terminal::display::{Display, Message, Shown};
use toka_terminal::ending::{self, Trace};
use toka_terminal::failure::{self, Failure};
use toka_terminal::follow::Follow;
use toka_terminal::mode::Mode;
use toka_terminal::palette::Palette;
use toka_terminal::screen::terminal_size;
use toka_terminal::summary::Summary;
use toka_terminal::view::RunView;
use toka_terminal::{json, out, table};

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
    let over = runtime.block_on(attend(options, display, look.mode))?;
    Ok(finish(over, &folders, look)?)
}

/// What is known when a run is over.
struct Over {
    outcome: Result<RunSummary, RunError>,
    shown: Shown,
    /// The signal that asked for its end, if one did.
    first: Option<Ending>,
}

async fn attend(options: RunOptions, display: Display, mode: Mode) -> anyhow::Result<Over> {
    let mut signals = Signals::catch().context("cannot catch signals")?;
    let messages = display.sender();
    let notices = display.sender();
    let (events, mut seen) = mpsc::unbounded_channel::<Event>();
    let (prompt, mut answers) = Prompt::start(mode);
    let shown = tokio::spawn(async move {
        while let Some(event) = seen.recv().await {
            let question = match &event.kind {
                EventKind::ApprovalAsked(approval) => prompt.ask(approval),
                EventKind::ApprovalAnswered { id, .. } => Some(prompt.forget(*id).unwrap_or_default()),
                _ => None,
            };
            // The display can only be gone if it failed; the run goes on without it.
            let _ = messages.send(Message::Event(Box::new(event)));
            if let Some(question) = question {
                let _ = messages.send(Message::Question(question));
            }
        }
    });
    let mut first = None;
    let run_dir = options.run_dir.clone();
    let outcome = match Project::open(options, Some(events)).await {
        Err(error) => Err(error),
        Ok(Opened { project, handle }) => {
            let _control = answer_others(&run_dir, &handle);
            let work = timed(project.drive());
            tokio::pin!(work);
            loop {
                tokio::select! {
                    summary = &mut work => break Ok(summary),
                    signal = signals.next() => {
                        let urgency = answer(first);
                        let _ = notices.send(Message::Notice(notice(first, signal)));
                        first.get_or_insert(signal);
                        handle.tell(Command::Down { urgency }, signal.as_str());
                    }
                    Some((id, by_key)) = answers.recv() => {
                        let (handle, uid) = (handle.clone(), nix::unistd::getuid().as_raw());
                        // Somebody else may have answered first, which the display tells.
                        tokio::spawn(async move { handle.answer(id, by_key, OPERATOR, uid).await });
                    }
                }
            }
        }
    };
    drop(notices);
    shown.await.context("the events were not passed on")?;
    let shown = wait_for(display, &mut signals).await?;
    Ok(Over { outcome, shown, first })
}

/// What is said about a signal.
fn notice(first: Option<Ending>, signal: Ending) -> String {
    match (first, signal) {
        (Some(_), _) => "killing".to_owned(),
        (None, Ending::Interrupt) => "stopping; press Ctrl-C again to kill".to_owned(),
        (None, other) => format!("stopping, as {} asks; another signal kills", other.as_str()),
    }
}

/// Lets other commands see and control the run. One that nobody can reach runs all the same.
pub(crate) fn answer_others(run_dir: &Path, handle: &ProjectHandle) -> Option<Control> {
    let projects = Projects::default();
    projects.insert(handle.clone());
    let socket = project_socket(run_dir, &handle.overview().project);
    let control = Control::listen(&socket, projects, Role::Foreground, vec![run_dir.to_owned()]);
    control.inspect_err(|error| tracing::warn!(socket = %socket.display(), %error, "no control socket")).ok()
}

/// What a signal asks for: the first to stop, any after it to kill.
fn answer(first: Option<Ending>) -> Urgency {
    match first {
        None => Urgency::Graceful,
        Some(_) => Urgency::Kill,
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
    let status = first.map_or(summary.status, |ending| ending.exit_code() as u8);
    let ended = match written {
        Ok(()) => out::end(&text(&view, &traces(&view, folders), status, look), code),
        failed => out::settle(failed, code),
    };
    // Said here: to who called, this is a run that took place.
    match ended {
        // That of an agent may be one that Toka has no word for.
        Ok(ended) if ended == code && status != code as u8 => std::process::exit(i32::from(status)),
        Ok(code) => Ok(code),
        Err(unwritten) => Ok(failure::report(&unwritten.into())),
    }
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
fn text(view: &RunView, traces: &[Trace], status: u8, look: Look) -> String {
    match look.mode {
        Mode::Json => format!("{}\n", json::line(&Summary::of(view, traces, status))),
        Mode::Quiet => ending::failures(view, traces, look.palette),
        Mode::Live => table_and_places(view, traces, terminal_size().columns, look.palette),
        Mode::Plain => table_and_places(view, traces, table::PIPE_COLUMNS, look.palette),
    }
}

fn table_and_places(view: &RunView, traces: &[Trace], columns: usize, palette: Palette) -> String {
    let table = table::table(view, columns, palette);
    let failures = ending::failures(view, traces, palette);
    let places = format!("{}{}", ending::shortfalls(view, palette), ending::places(traces, palette));
    let gap = if places.is_empty() { "" } else { "\n" };
    format!("\n{table}{failures}{gap}{places}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_stops_and_any_other_kills() {
        assert_eq!(answer(None), Urgency::Graceful);
        assert_eq!(answer(Some(Ending::Interrupt)), Urgency::Kill);
    }

    #[test]
    fn the_first_signal_decides_the_status() {
        for (signal, status) in [(Ending::Interrupt, 130), (Ending::Terminate, 143), (Ending::HangUp, 143)] {
            assert_eq!(signal.exit_code() as u8, status);
        }
    }
}
