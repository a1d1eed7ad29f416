//! The loop between our streams and the daemon: everything that can happen meanwhile, on one page.

use std::io;
use std::time::Duration;

use toka_api::client;
use toka_api::stream::{End, Message, ReceiveError};
use toka_core::TerminalSize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::keys::{DetachKeys, Scanned, Scanner};
use super::pipes::{Piece, Screen, Stream, keyboard};
use crate::commands::signals::{Ending, Signals};

/// Messages that wait to be sent. As many pieces of what was typed can wait for an agent that does not read, and the keys by
/// which one leaves are still heard.
const TO_SEND: usize = 256;

/// How long somebody who leaves waits for what is still to be written to a terminal that takes nothing.
const LAST_SIGHT: Duration = Duration::from_millis(500);

/// Our side of a stream.
#[derive(Debug)]
pub(crate) struct Session {
    /// The connection.
    pub(crate) stream: client::Stream,
    /// Where what comes is written.
    pub(crate) screen: Screen,
    /// What of our input is sent.
    pub(crate) keyboard: Keyboard,
    /// Who hears Ctrl-C when it is no key.
    pub(crate) interrupts: Interrupts,
    /// Whether a terminal is on the other side, which wants to know the size of ours.
    pub(crate) follows_size: bool,
}

/// What of our input is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keyboard {
    /// Nothing.
    Unused,
    /// All of it.
    Passed,
    /// All but these keys, which end the session.
    Watched(DetachKeys),
}

/// What an interrupt from outside is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupts {
    /// It ends us.
    Ours,
    /// It is the command's.
    Theirs,
}

/// Why the session is over.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The other side says so.
    Ended(End),
    /// The keys were typed.
    Detached,
    /// A signal.
    Told(Ending),
    /// The connection is gone, and nobody said why.
    Lost,
    /// Our output cannot be written.
    Unwritten(io::Error),
}

/// The size of our terminal; unknown when we have none.
pub(crate) fn size() -> TerminalSize {
    let (columns, rows) =
        terminal_size::terminal_size().map_or((0, 0), |(width, height)| (width.0, height.0));
    TerminalSize { columns, rows }
}

impl Session {
    /// Goes on until something ends it. All that came before is written then, unless a signal came first.
    ///
    /// # Errors
    /// When signals cannot be heard, or there is no room for a thread.
    pub(crate) async fn run(self) -> io::Result<Outcome> {
        let Self { stream, screen, keyboard: wanted, interrupts, follows_size } = self;
        let client::Stream { mut receiver, mut sender } = stream;
        let Screen { pieces, mut written } = screen;
        let mut signals = Signals::catch()?;
        let mut resized = signal(SignalKind::window_change())?;
        let (mut scanner, mut typed) = match &wanted {
            Keyboard::Unused => (None, None),
            Keyboard::Passed => (None, Some(keyboard()?)),
            Keyboard::Watched(keys) => (Some(Scanner::new(keys)), Some(keyboard()?)),
        };
        let (to_send, mut waiting) = mpsc::channel::<Message>(TO_SEND);
        let sent = tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                if sender.send(message).await.is_err() {
                    return;
                }
            }
        });
        let mut shown: Option<Piece> = None;
        let outcome = loop {
            tokio::select! {
                biased;
                ending = signals.next() => match (ending, interrupts) {
                    (Ending::Interrupt, Interrupts::Theirs) => {
                        drop(to_send.try_send(Message::Signal(nix::libc::SIGINT)));
                    }
                    (ending, _) => return Ok(Outcome::Told(ending)),
                },
                _ = resized.recv(), if follows_size => drop(to_send.try_send(Message::Resize(size()))),
                Ok(Err(error)) = &mut written => break Outcome::Unwritten(error),
                keys = next(&mut typed), if to_send.capacity() > 1 => {
                    let is_last = keys.is_empty();
                    let (keys, detached) = scan(scanner.as_mut(), keys);
                    if !keys.is_empty() {
                        drop(to_send.try_send(Message::Input(keys)));
                    }
                    if detached {
                        break Outcome::Detached;
                    }
                    if is_last {
                        typed = None;
                        drop(to_send.try_send(Message::InputEnd));
                    }
                }
                place = pieces.reserve(), if shown.is_some() => {
                    // Why it takes no more is told above.
                    if let (Ok(place), Some(piece)) = (place, shown.take()) {
                        place.send(piece);
                    }
                }
                message = receiver.next(), if shown.is_none() => match message {
                    Ok(Some(Message::Output(bytes))) => shown = Some((Stream::Output, bytes)),
                    Ok(Some(Message::Errors(bytes))) => shown = Some((Stream::Errors, bytes)),
                    Ok(Some(Message::End(end))) => break Outcome::Ended(end),
                    Ok(Some(other)) => {
                        let reason = format!("the daemon said what only it is told: {other:?}");
                        break Outcome::Ended(End::Nonsense { reason });
                    }
                    Err(ReceiveError::Message(error)) => {
                        break Outcome::Ended(End::Nonsense { reason: error.to_string() });
                    }
                    Ok(None) | Err(ReceiveError::Io(_)) => break Outcome::Lost,
                },
            }
        };
        drop(pieces);
        if matches!(outcome, Outcome::Unwritten(_)) {
            return Ok(outcome);
        }
        let leaves = matches!(outcome, Outcome::Detached);
        if leaves {
            // What was typed before the keys is the agent's.
            drop(to_send);
            let _ = tokio::time::timeout(LAST_SIGHT, sent).await;
        }
        tokio::select! {
            biased;
            result = &mut written => match result {
                Ok(Err(error)) => Ok(Outcome::Unwritten(error)),
                _ => Ok(outcome),
            },
            ending = signals.next() => Ok(Outcome::Told(ending)),
            () = tokio::time::sleep(LAST_SIGHT), if leaves => Ok(outcome),
        }
    }
}

/// What of it is for the other side, and whether the keys came then. An empty piece is the end of what is typed.
fn scan(scanner: Option<&mut Scanner>, keys: Vec<u8>) -> (Vec<u8>, bool) {
    match scanner {
        None => (keys, false),
        Some(scanner) if keys.is_empty() => (scanner.rest(), false),
        Some(scanner) => match scanner.scan(&keys) {
            Scanned::Pass(keys) => (keys, false),
            Scanned::Detach(keys) => (keys, true),
        },
    }
}

async fn next(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Vec<u8> {
    match typed {
        Some(typed) => typed.recv().await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}
