//! Somebody runs a command beside an agent. It lives as long as both do: whoever asked for it, and the agent.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use toka_api::stream::{End, Message, ReceiveError, Receiver, Sender};
use toka_api::wire::ExecBody;
use toka_core::{AgentName, AgentState, AgentStatus, ExitCode};
use toka_keeper::SpawnError;
use toka_runtime::{Output, Terminal};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender as Input;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::error::Error;
use super::super::peer::Peer;
use super::super::server::{OPERATOR, Server};
use super::super::stream::{Handshake, PROBE, has_process, nonsense, pass_on, running};
use toka_project::{Begun, ExecError, ExecRequest, ProjectHandle, exit_of};

/// How long a caller may take to say what is to run.
const STARTS_WITHIN: Duration = Duration::from_secs(10);
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
    let handshake = Handshake::of(&mut request)?;
    let status = running(&handle, &agent).await?;
    let name = status.name;
    if matches!(status.state, AgentState::Paused { .. }) {
        let error = format!("{name} is paused, and so would the command be");
        return Err(Error::new(StatusCode::CONFLICT, ExitCode::AgentFailed, error)
            .help(format!("`toka resume {name}` lets it go on")));
    }
    let host = Host { handle, name, life: status.started_ms };
    let (answer, opened) = handshake.accept();
    tokio::spawn(async move {
        if let Some((receiver, sender)) = opened.await {
            run(receiver, sender, host, peer.uid).await;
        }
    });
    Ok(answer)
}

/// Waits for the command, and runs it.
async fn run(mut receiver: Receiver, sender: Sender, host: Host, uid: u32) {
    let begun = match tokio::time::timeout(STARTS_WITHIN, receiver.next()).await {
        Ok(Ok(Some(Message::Start(body)))) => begin(body, &host, uid).await,
        Ok(Ok(Some(other))) => {
            Err(Error::bad_request(format!("the first message is a start, not {other:?}")))
        }
        Ok(Err(ReceiveError::Message(error))) => Err(Error::bad_request(error.to_string())),
        Ok(Ok(None) | Err(ReceiveError::Io(_))) => return,
        Err(_) => Err(Error::bad_request("no command came")),
    };
    match begun {
        Ok((begun, input)) => serve((receiver, sender), begun, input, host).await,
        Err(error) => sender.finish(Message::Refused(error.into_body())).await,
    }
}

/// Begins the command; it, and where its input is written.
async fn begin(body: ExecBody, host: &Host, uid: u32) -> Result<(Begun, Option<Input>), Error> {
    check(&body)?;
    let (reader, writer) = input_of(&body).map_err(|error| {
        let error = format!("no pipe for the command's input: {error}");
        Error::new(StatusCode::INTERNAL_SERVER_ERROR, ExitCode::Internal, error)
    })?;
    let ExecBody { argv, terminal, term, .. } = body;
    let (agent, by) = (host.name.clone(), OPERATOR.to_owned());
    let request = ExecRequest { agent, argv, terminal, term, input: reader, by, uid };
    Ok((host.handle.exec(request).await??, writer))
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
fn input_of(body: &ExecBody) -> io::Result<(Option<OwnedFd>, Option<Input>)> {
    if !body.input || body.terminal.is_some() {
        return Ok((None, None));
    }
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((Some(read), Some(Input::from_owned_fd(write)?)))
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

async fn serve((receiver, sender): (Receiver, Sender), begun: Begun, input: Option<Input>, host: Host) {
    let Begun { mut execution, record } = begun;
    let (pieces, waiting) = mpsc::channel(WAITING);
    // There is room.
    let _ = pieces.try_send(Message::Started);
    let mut writing = write(sender, waiting);
    if let Some(streams) = execution.take_streams() {
        tokio::spawn(copy(streams.output, pieces.clone(), Message::Output));
        tokio::spawn(copy(streams.errors, pieces.clone(), Message::Errors));
    }
    let (say, mut said) = mpsc::channel(1);
    let target = Target { terminal: execution.terminal().cloned(), input };
    // It keeps no piece from coming to its end.
    let listening = tokio::spawn(listen(receiver, target, say, pieces.downgrade()));
    drop(pieces);
    let gone = host.gone();
    tokio::pin!(gone);
    let (mut last, mut sender, mut is_heard) = (None, None, true);
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
            written = &mut writing, if sender.is_none() => match written {
                Ok(Ok(stream)) => sender = Some(stream),
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
            status = execution.ended(), if sender.is_some() => break status,
        }
    };
    listening.abort();
    let exit = exit_of(status);
    record.end(exit.clone());
    let last = Message::End(last.unwrap_or(End::Exited { exit }));
    match sender {
        Some(sender) => sender.finish(last).await,
        // What it had written is still on its way to somebody who made no sense, or is gone.
        None if is_heard => match tokio::time::timeout(PROBE, &mut writing).await {
            Ok(Ok(Ok(sender))) => sender.finish(last).await,
            Ok(_) => {}
            Err(_) => writing.abort(),
        },
        None => {}
    }
}

/// Sends what comes; gives the stream back when nothing more does.
fn write(mut sender: Sender, mut pieces: mpsc::Receiver<Message>) -> JoinHandle<io::Result<Sender>> {
    tokio::spawn(async move {
        while let Some(message) = pieces.recv().await {
            sender.send(message).await?;
        }
        Ok(sender)
    })
}

/// Passes on what a stream brings, to its end.
async fn copy(mut output: Output, pieces: mpsc::Sender<Message>, message: fn(Vec<u8>) -> Message) {
    let mut buffer = vec![0; PIECE];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        if pieces.send(message(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

/// Where input goes.
struct Target {
    terminal: Option<Terminal>,
    input: Option<Input>,
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
    mut receiver: Receiver,
    target: Target,
    say: mpsc::Sender<Said>,
    pieces: mpsc::WeakSender<Message>,
) {
    let (typed, keys) = mpsc::channel(TYPED_AHEAD);
    let terminal = target.terminal.clone();
    let feeding = AbortOnDrop(tokio::spawn(target.feed(keys)));
    let probe = || drop(pieces.upgrade().map(|pieces| pieces.try_send(Message::Output(Vec::new()))));
    let over = loop {
        match receiver.next().await {
            Ok(Some(Message::Input(keys))) if keys.is_empty() => {}
            Ok(Some(Message::Input(keys))) => pass_on(&typed, keys, &probe).await,
            Ok(Some(Message::InputEnd)) => pass_on(&typed, Vec::new(), &probe).await,
            Ok(Some(Message::Resize(size))) => {
                drop(terminal.as_ref().map(|terminal| terminal.resize(size.or_default())));
            }
            Ok(Some(Message::Signal(signal))) => drop(say.send(Said::Signal(signal)).await),
            Ok(Some(other)) => break Some(nonsense(&format!("{other:?} has no meaning here"))),
            Ok(None) | Err(ReceiveError::Io(_)) => break None,
            Err(ReceiveError::Message(error)) => break Some(nonsense(&error.to_string())),
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
