//! Somebody attaches to the terminal of an agent. Several may: all see the same, and the last one who says how large a terminal
//! is decides. The agent and its log wait for none of them.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use toka_api::frame::{End, Frame, FrameReader, ReadError, send};
use toka_core::{ExitCode, TerminalSize};
use toka_runtime::{Terminal, View, ViewEnd};
use tokio::io::{AsyncRead, split};
use tokio::sync::{mpsc, oneshot};

use super::super::error::Error;
use super::super::server::Server;
use super::super::stream::{Connection, PROBE, Sending, granted, nonsense, pass_on, running, wanted};

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
    let upgrade = wanted(&mut request)?;
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
    tokio::spawn(async move {
        // Whoever asked may have gone meanwhile.
        if let Ok(upgraded) = upgrade.await {
            serve(TokioIo::new(upgraded), terminal, view, size).await;
        }
    });
    Ok(granted())
}

async fn serve(connection: Connection, terminal: Terminal, view: View, size: TerminalSize) {
    let (receiving, mut sending) = split(connection);
    draw_anew(&terminal, size).await;
    let (over, is_over) = oneshot::channel();
    let (probe, probes) = mpsc::channel(1);
    let listening = tokio::spawn({
        let terminal = terminal.clone();
        async move { drop(over.send(listen(FrameReader::new(receiving), terminal, probe).await)) }
    });
    let last = show(&mut sending, &terminal, view, probes, is_over).await;
    listening.abort();
    if let Some(end) = last {
        // It may be gone by now.
        let _ = send(&mut sending, &Frame::End(end)).await;
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
    sending: &mut Sending,
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
                send(sending, &Frame::Output(Vec::new())).await.ok()?;
                continue;
            }
            next = view.next() => next,
        };
        match next {
            Ok(piece) => send(sending, &Frame::Output(piece.to_vec())).await.ok()?,
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
async fn listen(
    mut frames: FrameReader<impl AsyncRead + Unpin + Send>,
    terminal: Terminal,
    probe: mpsc::Sender<()>,
) -> Option<End> {
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
            match frames.next().await {
                Ok(Some(Frame::Input(keys))) => pass_on(&typed, keys, probe).await,
                Ok(Some(Frame::Resize(size))) => drop(terminal.resize(size.or_default())),
                Ok(Some(Frame::InputEnd)) => {}
                Ok(Some(other)) => return Some(nonsense(&format!("{other:?} has no meaning here"))),
                Ok(None) | Err(ReadError::Io(_)) => return None,
                Err(ReadError::Frame(error)) => return Some(nonsense(&error.to_string())),
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
