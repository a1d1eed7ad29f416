//! Somebody runs a command beside an agent. It lives as long as both do: whoever asked for it, and the agent.

use std::io;
use std::os::fd::OwnedFd;

use axum::body::to_bytes;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use hyper_util::rt::TokioIo;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use toka_api::frame::{End, Frame, FrameReader, ReadError, send};
use toka_api::wire::ExecBody;
use toka_core::{AgentName, AgentState, AgentStatus, ExitCode};
use toka_keeper::SpawnError;
use toka_runtime::{Output, Terminal};
use tokio::io::{AsyncRead, AsyncWriteExt as _, split};
use tokio::net::unix::pipe::Sender;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::MAX_COMMAND;
use super::super::error::Error;
use super::super::peer::Peer;
use super::super::server::{OPERATOR, Server};
use super::super::stream::{
    Connection, PROBE, Sending, granted, has_process, nonsense, pass_on, running, wanted,
};
use toka_project::{Begun, ExecError, ExecRequest, ProjectHandle, exit_of};

/// Most that is read of the command at once.
const PIECE: usize = 32 * 1024;
/// Pieces that wait for a client that does not keep up; then the command waits.
const WAITING: usize = 4;
/// Pieces of input that wait for a command that does not read; then the client waits.
const TYPED_AHEAD: usize = 16;
/// Longest name of a terminal (term(7)); real ones have some twenty characters.
const LONGEST_TERM: usize = 64;

pub(super) async fn exec(
    State(server): State<Server>,
    Path((project, agent)): Path<(String, String)>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
) -> Result<Response, Error> {
    let handle = server.project_at_work(&project).await?;
    let upgrade = wanted(&mut request)?;
    let body = to_bytes(request.into_body(), MAX_COMMAND).await;
    let body = body.map_err(|error| Error::bad_request(error.to_string()))?;
    let body: ExecBody =
        serde_json::from_slice(&body).map_err(|error| Error::bad_request(error.to_string()))?;
    check(&body)?;
    let status = running(&handle, &agent).await?;
    let name = status.name;
    if matches!(status.state, AgentState::Paused { .. }) {
        let error = format!("{name} is paused, and so would the command be");
        return Err(Error::new(StatusCode::CONFLICT, ExitCode::AgentFailed, error)
            .help(format!("`toka resume {name}` lets it go on")));
    }
    let life = status.started_ms;
    let (reader, writer) = input_of(&body).map_err(|error| {
        let error = format!("no pipe for the command's input: {error}");
        Error::new(StatusCode::INTERNAL_SERVER_ERROR, ExitCode::Internal, error)
    })?;
    let ExecBody { argv, terminal, term, .. } = body;
    let begun = handle
        .exec(ExecRequest {
            agent: name.clone(),
            argv,
            terminal,
            term,
            input: reader,
            by: OPERATOR.to_owned(),
            uid: peer.uid,
        })
        .await??;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => serve(TokioIo::new(upgraded), begun, writer, Host { handle, name, life }).await,
            // Whoever asked has gone meanwhile.
            Err(_) => end(begun).await,
        }
    });
    Ok(granted())
}

fn check(body: &ExecBody) -> Result<(), Error> {
    if body.argv.first().is_none_or(String::is_empty) {
        return Err(Error::bad_request("there is no command to run"));
    }
    if body.argv.iter().any(|word| word.contains('\0')) {
        return Err(Error::bad_request("a NUL byte can be in no argument"));
    }
    let is_name = |term: &String| {
        term.len() <= LONGEST_TERM && term.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c))
    };
    if body.term.as_ref().is_some_and(|term| !is_name(term)) {
        return Err(Error::bad_request("that is no name of a terminal"));
    }
    Ok(())
}

/// What the command reads, and where that is written; a terminal is both.
fn input_of(body: &ExecBody) -> io::Result<(Option<OwnedFd>, Option<Sender>)> {
    if !body.input || body.terminal.is_some() {
        return Ok((None, None));
    }
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((Some(read), Some(Sender::from_owned_fd(write)?)))
}

/// The agent beside which it runs.
struct Host {
    handle: ProjectHandle,
    name: AgentName,
    /// When this life of it began, in milliseconds since the Unix epoch.
    life: Option<i64>,
}

impl Host {
    /// Returns when its process is gone.
    async fn gone(self) {
        let mut moved = self.handle.moved();
        loop {
            moved.borrow_and_update();
            let Ok(status) = self.handle.status().await else { return };
            let lives = |status: &AgentStatus| status.started_ms == self.life && has_process(&status.state);
            if !status.agent(&self.name).is_some_and(lives) || moved.changed().await.is_err() {
                return;
            }
        }
    }
}

/// What the other side says, besides input.
enum Said {
    Signal(i32),
    Over(Option<End>),
}

async fn serve(connection: Connection, begun: Begun, input: Option<Sender>, host: Host) {
    let Begun { mut execution, record } = begun;
    let (receiving, sending) = split(connection);
    let (pieces, waiting) = mpsc::channel(WAITING);
    let mut writing = write(sending, waiting);
    if let Some(streams) = execution.take_streams() {
        tokio::spawn(copy(streams.output, pieces.clone(), Frame::Output));
        tokio::spawn(copy(streams.errors, pieces.clone(), Frame::Errors));
    }
    let (say, mut said) = mpsc::channel(1);
    let target = Target { terminal: execution.terminal().cloned(), input };
    // It keeps no piece from coming to its end.
    let listening = tokio::spawn(listen(FrameReader::new(receiving), target, say, pieces.downgrade()));
    drop(pieces);
    let gone = host.gone();
    tokio::pin!(gone);
    let (mut last, mut sending, mut is_heard) = (None, None, true);
    let status = loop {
        tokio::select! {
            Some(said) = said.recv() => match said {
                Said::Signal(signal) => execution.signal(signal),
                Said::Over(end) => {
                    last = end;
                    execution.kill();
                    break execution.ended().await;
                }
            },
            written = &mut writing, if sending.is_none() => match written {
                Ok(Ok(stream)) => sending = Some(stream),
                // Nobody is left who would read; a task that has ended must not be waited for again.
                _ => {
                    is_heard = false;
                    execution.kill();
                    break execution.ended().await;
                }
            },
            () = &mut gone => {
                execution.kill();
                break execution.ended().await;
            }
            status = execution.ended(), if sending.is_some() => break status,
        }
    };
    listening.abort();
    let exit = exit_of(status);
    record.end(exit.clone());
    let last = last.unwrap_or(End::Exited { exit });
    match sending {
        Some(mut sending) => drop(send(&mut sending, &Frame::End(last)).await),
        // What it had written is still on its way to somebody who made no sense, or is gone.
        None if is_heard => match tokio::time::timeout(PROBE, &mut writing).await {
            Ok(Ok(Ok(mut sending))) => drop(send(&mut sending, &Frame::End(last)).await),
            Ok(_) => {}
            Err(_) => writing.abort(),
        },
        None => {}
    }
}

/// Ends a command that nobody waits for.
async fn end(begun: Begun) {
    let Begun { mut execution, record } = begun;
    execution.kill();
    record.end(exit_of(execution.ended().await));
}

/// Sends what comes; gives the stream back when nothing more does.
fn write(mut sending: Sending, mut pieces: mpsc::Receiver<Frame>) -> JoinHandle<io::Result<Sending>> {
    tokio::spawn(async move {
        while let Some(frame) = pieces.recv().await {
            send(&mut sending, &frame).await?;
        }
        Ok(sending)
    })
}

/// Passes on what a stream brings, to its end.
async fn copy(mut output: Output, pieces: mpsc::Sender<Frame>, frame: fn(Vec<u8>) -> Frame) {
    let mut buffer = vec![0; PIECE];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        if pieces.send(frame(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

/// Where input goes.
struct Target {
    terminal: Option<Terminal>,
    input: Option<Sender>,
}

/// The character that ends what is typed on a terminal (termios(3), `VEOF`).
const END_OF_FILE: u8 = 0x04;

impl Target {
    /// Takes what is typed to its end: an empty piece.
    async fn feed(self, mut keys: mpsc::Receiver<Vec<u8>>) {
        let Self { terminal, mut input } = self;
        while let Some(piece) = keys.recv().await {
            let fed = match (&terminal, &mut input) {
                (Some(terminal), _) if piece.is_empty() => terminal.type_in(&[END_OF_FILE]).await,
                (Some(terminal), _) => terminal.type_in(&piece).await,
                (None, _) if piece.is_empty() => return,
                (None, Some(input)) => input.write_all(&piece).await,
                (None, None) => Ok(()),
            };
            // Nobody reads any more.
            if fed.is_err() {
                return;
            }
        }
    }
}

/// Hears what the other side says, until it is gone or makes no sense.
async fn listen(
    mut frames: FrameReader<impl AsyncRead + Unpin + Send>,
    target: Target,
    say: mpsc::Sender<Said>,
    pieces: mpsc::WeakSender<Frame>,
) {
    let (typed, keys) = mpsc::channel(TYPED_AHEAD);
    let terminal = target.terminal.clone();
    let feeding = AbortOnDrop(tokio::spawn(target.feed(keys)));
    let probe = || drop(pieces.upgrade().map(|pieces| pieces.try_send(Frame::Output(Vec::new()))));
    let over = loop {
        match frames.next().await {
            Ok(Some(Frame::Input(keys))) if keys.is_empty() => {}
            Ok(Some(Frame::Input(keys))) => pass_on(&typed, keys, &probe).await,
            Ok(Some(Frame::InputEnd)) => pass_on(&typed, Vec::new(), &probe).await,
            Ok(Some(Frame::Resize(size))) => {
                drop(terminal.as_ref().map(|terminal| terminal.resize(size.or_default())));
            }
            Ok(Some(Frame::Signal(signal))) => drop(say.send(Said::Signal(signal)).await),
            Ok(Some(other)) => break Some(nonsense(&format!("{other:?} has no meaning here"))),
            Ok(None) | Err(ReadError::Io(_)) => break None,
            Err(ReadError::Frame(error)) => break Some(nonsense(&error.to_string())),
        }
    };
    drop(feeding);
    let _ = say.send(Said::Over(over)).await;
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The statuses of the shell for what is no program, and for what is none that can be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

impl From<ExecError> for Error {
    fn from(error: ExecError) -> Self {
        let text = error.to_string();
        let internal = || Self::new(StatusCode::INTERNAL_SERVER_ERROR, ExitCode::Internal, text.clone());
        match error {
            ExecError::NotFound(_) => internal().status(StatusCode::UNPROCESSABLE_ENTITY, NOT_FOUND),
            ExecError::NotExecutable(_) => {
                internal().status(StatusCode::UNPROCESSABLE_ENTITY, NOT_EXECUTABLE)
            }
            ExecError::Refused(error) => error.into(),
            ExecError::Start(SpawnError::Prepare(toka_sandbox::PrepareError::Refused(_))) => {
                Self::new(StatusCode::FORBIDDEN, ExitCode::Denied, text)
            }
            ExecError::Undeclared | ExecError::Start(_) => internal(),
        }
    }
}
