//! Somebody attaches to the terminal of an agent. Several may: all see the same, and the last one who says how large a terminal
//! is decides. The agent and its log wait for none of them.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use toka_api::stream::{End, Message, ReceiveError, Receiver, Sender};
use toka_core::{ExitCode, TerminalSize};
use toka_runtime::{Terminal, View, ViewEnd};
use tokio::sync::{mpsc, oneshot};

use super::super::error::Error;
use super::super::server::Server;
use super::super::stream::{Handshake, PROBE, nonsense, pass_on, running};

/// How long the other size lasts by which a program is made to draw anew: long enough to be seen as a change, too short to be
/// seen by people.
const REDRAW: Duration = Duration::from_millis(20);
/// Pieces of input that wait for an agent that does not read; then the connection waits.
const TYPED_AHEAD: usize = 16;

#[derive(Debug, Deserialize)]
pub(super) struct Size {
    #[serde(default)]
    columns: u16,
    #[serde(default)]
    rows: u16,
}

pub(super) async fn attach(
    State(server): State<Server>,
    Path((project, agent)): Path<(String, String)>,
    size: Result<Query<Size>, QueryRejection>,
    mut request: Request,
) -> Result<Response, Error> {
    let handle = server.project(&project)?;
    let Query(Size { columns, rows }) = size?;
    let handshake = Handshake::of(&mut request)?;
    let name = running(&handle, &agent).await?.name;
    let Some(terminal) = handle.terminal(&name).await? else {
        let error = format!("{name} has no terminal to attach to");
        return Err(Error::new(StatusCode::CONFLICT, ExitCode::Usage, error).help(format!(
            "`toka logs -f {name}` shows what it writes; with `tty: true` in its spec.process it gets a terminal"
        )));
    };
    let view = terminal.view().ok_or_else(|| {
        let error = format!("too many are attached to {name} already");
        Error::new(StatusCode::TOO_MANY_REQUESTS, ExitCode::AgentFailed, error)
    })?;
    let size = TerminalSize { columns, rows };
    let (answer, opened) = handshake.accept();
    tokio::spawn(async move {
        if let Some(connection) = opened.await {
            serve(connection, terminal, view, size).await;
        }
    });
    Ok(answer)
}

async fn serve(
    (receiver, mut sender): (Receiver, Sender),
    terminal: Terminal,
    view: View,
    size: TerminalSize,
) {
    draw_anew(&terminal, size).await;
    let (over, is_over) = oneshot::channel();
    let (probe, probes) = mpsc::channel(1);
    let listening = tokio::spawn({
        let terminal = terminal.clone();
        async move { drop(over.send(listen(receiver, terminal, probe).await)) }
    });
    let last = show(&mut sender, &terminal, view, probes, is_over).await;
    listening.abort();
    if let Some(end) = last {
        sender.finish(Message::End(end)).await;
    }
}

/// Sets the size, and makes the agent draw anew though it is the size that there was.
async fn draw_anew(terminal: &Terminal, size: TerminalSize) {
    if size.columns == 0 || size.rows == 0 {
        return;
    }
    // A terminal that has hung up shows so in the view.
    if terminal.size().is_ok_and(|now| now == size) {
        let _ = terminal.resize(size.another());
        tokio::time::sleep(REDRAW).await;
    }
    let _ = terminal.resize(size);
}

/// Shows what the agent does until its life is over, or somebody says so; the last word, unless nobody is left to hear it.
async fn show(
    sender: &mut Sender,
    terminal: &Terminal,
    mut view: View,
    mut probes: mpsc::Receiver<()>,
    mut is_over: oneshot::Receiver<Option<End>>,
) -> Option<End> {
    loop {
        let next = tokio::select! {
            biased;
            end = &mut is_over => return end.unwrap_or(None),
            Some(()) = probes.recv() => {
                sender.send(Message::Output(Vec::new())).await.ok()?;
                continue;
            }
            next = view.next() => next,
        };
        match next {
            Ok(piece) => sender.send(Message::Output(piece.to_vec())).await.ok()?,
            Err(ViewEnd::TooSlow) => return Some(End::TooSlow),
            Err(ViewEnd::Over) => {
                return tokio::select! {
                    end = &mut is_over => end.unwrap_or(None),
                    exit = terminal.ended() => Some(exit.map_or(End::Over, |exit| End::Exited { exit })),
                };
            }
        }
    }
}

/// Hears what is typed until the other side is gone, or talks nonsense.
async fn listen(mut receiver: Receiver, terminal: Terminal, probe: mpsc::Sender<()>) -> Option<End> {
    let (typed, mut keys) = mpsc::channel::<Vec<u8>>(TYPED_AHEAD);
    let typing = {
        let terminal = terminal.clone();
        async move {
            while let Some(keys) = keys.recv().await {
                if terminal.type_in(&keys).await.is_err() {
                    return;
                }
            }
        }
    };
    let hearing = async move {
        // One that waits already is enough.
        let probe = &|| {
            let _ = probe.try_send(());
        };
        loop {
            match receiver.next().await {
                Ok(Some(Message::Input(keys))) => pass_on(&typed, keys, probe).await,
                Ok(Some(Message::Resize(size))) => drop(terminal.resize(size.or_default())),
                Ok(Some(Message::InputEnd)) => {}
                Ok(Some(other)) => return Some(nonsense(&format!("{other:?} has no meaning here"))),
                Ok(None) | Err(ReceiveError::Io(_)) => return None,
                Err(ReceiveError::Message(error)) => return Some(nonsense(&error.to_string())),
            }
        }
    };
    tokio::pin!(hearing, typing);
    tokio::select! {
        end = &mut hearing => {
            // What was typed before is the agent's, if it reads.
            let _ = tokio::time::timeout(PROBE, typing).await;
            end
        }
        () = &mut typing => hearing.await,
    }
}
