//! The loop of `toka top`: it waits for whatever happens, lets the model take it, and draws when it is time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use toka_api::client::{Client, ClientError};
use toka_api::wire::AnswerBody;
use toka_core::exit::signal_name;
use toka_core::{ApprovalAnswer, Command, Decision, ExitCode, Request};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::keyboard::Keyboard;
use super::log;
use super::log_line::Wanted;
use super::model::{Effect, Message, Model, Note, Tone};
use super::rows::AgentId;
use super::sampling::{self, Watched};
use super::screen::{self, Mouse, Screen};
use super::theme::Theme;
use super::{feed, keys};
use crate::commands::ps::now_ms;
use crate::commands::reach::Reach;
use crate::commands::signals::Signals;
use crate::commands::verb::{Words, code_of, text};
use toka_terminal::palette::Palette;
use toka_terminal::text::safe;

/// Least time between two drawings.
const FRAME: Duration = Duration::from_millis(100);
/// How often clocks on the screen move.
const SECOND: Duration = Duration::from_secs(1);
/// How long the terminal may hold up the end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Messages that wait to be taken.
const QUEUE: usize = 1024;
/// Longest wait for a command to come to its end: longer than any reasonable grace period.
const LONGEST: Duration = Duration::from_secs(600);
/// The same for what a host does at once, or cannot do.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Shows what runs until somebody has seen enough.
///
/// # Errors
/// When the terminal cannot be drawn on.
pub(crate) async fn run(reach: Reach, palette: Palette, mouse: Mouse) -> anyhow::Result<ExitCode> {
    let mut ending = watch_signals()?;
    let mut session = Session::open(reach, palette, mouse)?;
    tokio::select! {
        ended = session.drive() => ended,
        Some(code) = ending.recv() => Ok(code),
    }
}

/// Tells of the signal that ends this program, and sees that it does: a terminal that nobody reads holds up whoever
/// writes to it, even the last words.
fn watch_signals() -> anyhow::Result<mpsc::Receiver<ExitCode>> {
    let (told, ending) = mpsc::channel(1);
    let (began, has_begun) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        // Of its own: the other one may be held up.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let code = runtime.and_then(|runtime| {
            runtime.block_on(async {
                let mut signals = Signals::catch()?;
                let _ = began.send(Ok(()));
                Ok(signals.next().await.exit_code())
            })
        });
        match code {
            Ok(code) => end_soon(&told, code),
            // Whoever waits hears it; nothing is caught.
            Err(error) => drop(began.send(Err(error))),
        }
    })?;
    has_begun.recv()??;
    Ok(ending)
}

/// Tells of the end, and brings it about when nobody does in time.
fn end_soon(told: &mpsc::Sender<ExitCode>, code: ExitCode) {
    // Whoever draws may not listen any more.
    let _ = told.try_send(code);
    std::thread::sleep(LAST_WORDS);
    screen::give_up();
    std::process::exit(i32::from(code as u8));
}

struct Session {
    model: Model,
    screen: Screen,
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    watched: watch::Sender<Watched>,
    log: watch::Sender<Wanted>,
    /// The shell lets this program go on.
    continued: Signal,
    keyboard: Arc<Keyboard>,
    /// Where commands that are run from here look for daemons, too.
    state_dir: Option<PathBuf>,
}

impl Session {
    fn open(reach: Reach, palette: Palette, mouse: Mouse) -> anyhow::Result<Self> {
        let state_dir = reach.state_dir.clone();
        let continued = signal(SignalKind::from_raw(nix::libc::SIGCONT))?;
        let screen = Screen::open(Theme::from(palette), mouse)?;
        let (sender, messages) = mpsc::channel(QUEUE);
        let (watched, to_watch) = watch::channel(Watched::default());
        let (log, to_read) = watch::channel(None);
        tokio::spawn(feed::feed(reach, sender.clone()));
        tokio::spawn(sampling::sample(to_watch, sender.clone()));
        tokio::spawn(log::follow(to_read, sender.clone()));
        let keyboard = Keyboard::listen(sender.clone())?;
        let model = Model { size: screen.size()?, now_ms: now_ms(), ..Model::default() };
        Ok(Self { model, screen, sender, messages, watched, log, continued, keyboard, state_dir })
    }

    async fn drive(&mut self) -> anyhow::Result<ExitCode> {
        let mut second = tokio::time::interval(SECOND);
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut drawn: Option<Instant> = None;
        let mut is_stale = true;
        loop {
            let due = drawn.map_or_else(Instant::now, |drawn| drawn + FRAME);
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due), if is_stale => {
                    self.show()?;
                    (drawn, is_stale) = (Some(Instant::now()), false);
                }
                message = self.messages.recv() => {
                    // There is always a sender: this one.
                    let Some(message) = message else { return Ok(ExitCode::Success) };
                    is_stale = true;
                    if let Some(code) = self.take(message)? {
                        return Ok(code);
                    }
                }
                _ = second.tick() => {
                    is_stale = true;
                    self.take(Message::Tick(now_ms()))?;
                }
                _ = self.continued.recv() => {
                    is_stale = true;
                    self.screen.resume()?;
                    self.measure()?;
                }
            }
        }
    }

    /// Draws, and says what has to be known for the next drawing.
    fn show(&mut self) -> anyhow::Result<()> {
        self.model.settle();
        self.screen.draw(&self.model)?;
        let (watched, wanted) = (Watched::of(&self.model), self.model.log_wanted());
        self.watched.send_if_modified(|known| std::mem::replace(known, watched.clone()) != watched);
        self.log.send_if_modified(|known| std::mem::replace(known, wanted.clone()) != wanted);
        Ok(())
    }

    /// Takes a message; the status, if it is the last one.
    fn take(&mut self, message: Message) -> anyhow::Result<Option<ExitCode>> {
        match self.model.update(message) {
            None => {}
            Some(Effect::Quit) => return Ok(Some(self.model.ending.unwrap_or(ExitCode::Success))),
            Some(Effect::Suspend) => {
                self.screen.suspend()?;
                self.measure()?;
            }
            Some(Effect::Run(words)) => self.run(&words)?,
            Some(Effect::Signal { client, signal, agent }) => {
                self.later(async move { Message::Told(send(client, signal, agent).await) });
            }
            Some(Effect::Answer { client, agent, id, answer }) => {
                self.later(async move { Message::Told(answer_approval(client, agent, id, answer).await) });
            }
            Some(Effect::Look { client, agent }) => self.later(async move {
                let view = client.agent(&agent.project, &agent.agent).await;
                Message::Details(agent, view.map(Box::new).map_err(|error| error.to_string()))
            }),
            Some(Effect::Ask { client, request, agent }) => {
                self.later(async move { Message::Told(ask(client, request, agent).await) });
            }
        }
        Ok(None)
    }

    /// Asks the terminal for its size: while another command has it, `top` receives no event for a new one.
    fn measure(&mut self) -> anyhow::Result<()> {
        self.model.size = self.screen.size()?;
        Ok(())
    }

    /// Tells what comes of something when it is there.
    fn later(&self, message: impl Future<Output = Message> + Send + 'static) {
        let sender = self.sender.clone();
        tokio::spawn(async move { sender.send(message.await).await });
    }

    /// Runs a command of this program on the terminal, and comes back when it has ended.
    fn run(&mut self, words: &[String]) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("find the toka binary")?;
        let mut command = std::process::Command::new(program);
        command.args(&words[..1]);
        if let Some(folder) = &self.state_dir {
            command.arg("--state-dir").arg(folder);
        }
        command.args(&words[1..]);
        // Keys are the command's; what was typed before is not.
        self.keyboard.pause();
        let told = self.screen.lend(&mut command);
        self.keyboard.go_on();
        self.measure()?;
        let what = format!("toka {}", words.join(" "));
        let note = match told? {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => Note { text: format!("{what}: {}", ended(status)), tone: Tone::Bad },
            Err(error) => Note { text: format!("{what}: {error}"), tone: Tone::Bad },
        };
        self.take(Message::Told(note)).map(drop)
    }
}

fn ended(status: std::process::ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("ended with {code}"))
}

async fn send(client: Client, signal: i32, agent: AgentId) -> Note {
    let command = Command::Signal { signal, agents: vec![agent.agent.clone()] };
    let what = format!("{} to {agent}", signal_name(signal));
    match client.command(&agent.project, &command, Duration::ZERO).await {
        Ok(outcome) => match outcome.agents.first().map(|done| done.decision) {
            Some(Decision::Accept) => Note { text: format!("{what}: sent"), tone: Tone::Good },
            _ => Note { text: format!("{what}: it has no process"), tone: Tone::Bad },
        },
        Err(error) => Note { text: format!("{what}: {error}"), tone: Tone::Bad },
    }
}

async fn answer_approval(client: Client, agent: AgentId, id: u64, answer: ApprovalAnswer) -> Note {
    match client.answer(&agent.project, id, &AnswerBody::of(answer)).await {
        Ok(answered) => Note { text: format!("{agent}: {}", answered.answer.as_str()), tone: Tone::Good },
        Err(ClientError::Refused(refused)) => {
            Note { text: format!("{agent}: {}", safe(&refused.error)), tone: Tone::Bad }
        }
        Err(error) => Note { text: format!("{agent}: {error}"), tone: Tone::Bad },
    }
}

/// Asks, waits until it is done, and says what became of it.
async fn ask(client: Client, request: Request, agent: AgentId) -> Note {
    let command = Command::Request { request, agents: vec![agent.agent.clone()] };
    let longest = if matches!(request, Request::Pause | Request::Resume) { AT_ONCE } else { LONGEST };
    let told = client.command(&agent.project, &command, longest).await;
    let what = keys::word(request);
    match told {
        Ok(outcome) if !outcome.finished => {
            let state = outcome.agents.first().map_or("gone", |done| done.state.as_str());
            Note { text: format!("{what} {agent}: not done yet, it is {state}"), tone: Tone::Bad }
        }
        Ok(outcome) => {
            let lines = text(&outcome, Words::of(request), Palette::PLAIN);
            let said: Vec<String> = lines.lines().map(|line| format!("{}/{line}", agent.project)).collect();
            let tone = if code_of(&outcome, Words::of(request)) == ExitCode::Success {
                Tone::Good
            } else {
                Tone::Bad
            };
            Note { text: said.join(", "), tone }
        }
        Err(ClientError::Refused(refused)) => {
            let help = refused.help.map(|help| format!(" ({})", safe(&help))).unwrap_or_default();
            Note { text: format!("{what} {agent}: {}{help}", safe(&refused.error)), tone: Tone::Bad }
        }
        Err(error) => Note { text: format!("{what} {agent}: {error}"), tone: Tone::Bad },
    }
}
