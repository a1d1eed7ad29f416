//! The other side of the control socket, for the command line.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use toka_core::command::Outcome;
use toka_core::{AgentName, Command, Event, ProjectName, RunId, SessionNews, TerminalSize, Urgency};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::declaration::Declaration;
use crate::health::HealthView;
use crate::socket;
use crate::stream::{self, Message, Receiver, SUBPROTOCOL, Sender, Side};
use crate::wire::{
    AgentView, AnswerBody, AnsweredView, Changes, DaemonView, ExecBody, ModelsView, ProjectView, Refused,
    ResourcesView, SteerBody, SteeredView,
};

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("nobody answers at {}", path.display())]
    NobodyThere {
        /// The socket.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or what came is no answer.
    #[error("the daemon at {} gave no answer: {why}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// It says no.
    #[error("{}", .0.error)]
    Refused(Box<Refused>),
}

/// How long the next daemon may take until it answers.
const SUCCESSOR: Duration = Duration::from_secs(10);
/// How often events are asked for again that break off at once, without any: the pause before grows by this, and a connection
/// that lasted so long counts as a good one.
const MOST_IN_VAIN: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
const LASTING: Duration = Duration::from_secs(1);
/// How long the kernel may take to close what a killed process listened with.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);
/// Time from one question to the next meanwhile.
const CLOSING: Duration = Duration::from_millis(5);
/// Longest answer, in bytes: ten thousand agents.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// What an application changed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, Serialize)]
pub struct Applied {
    /// The changes.
    #[serde(flatten)]
    pub changes: Changes,
    /// Whether the project began to run with it.
    pub began: bool,
}

/// A connection that became a stream.
#[derive(Debug)]
pub struct Stream {
    /// What the daemon says.
    pub receiver: Receiver,
    /// Where it is told something.
    pub sender: Sender,
}

/// A daemon that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The one that answers at `socket`, if any does.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Whether it is that of a service, which outlives its projects; else it is of one run in the foreground.
    pub fn is_service(&self) -> bool {
        self.socket.ends_with(socket::DAEMON)
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it answers; none when nobody listens. The socket of a process that was just killed takes connections until the kernel
    /// has closed it, and breaks them: so this asks again after a broken connection, for a second.
    ///
    /// # Errors
    /// As `ask`, but for [`ClientError::NobodyThere`].
    pub async fn settled<T>(
        &self,
        ask: impl AsyncFn(&Self) -> Result<T, ClientError>,
    ) -> Result<Option<T>, ClientError> {
        let deadline = tokio::time::Instant::now() + CLOSED_WITHIN;
        loop {
            match ask(self).await {
                Ok(answer) => return Ok(Some(answer)),
                Err(ClientError::NobodyThere { .. }) => return Ok(None),
                Err(ClientError::Broken { .. }) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(CLOSING).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Who answers.
    ///
    /// # Errors
    /// When nobody does.
    pub async fn daemon(&self) -> Result<DaemonView, ClientError> {
        self.get("/v1/daemon").await
    }

    /// How well it is, and everything that runs there.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn health(&self) -> Result<HealthView, ClientError> {
        self.get("/v1/health").await
    }

    /// Every project that runs there.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn projects(&self) -> Result<Vec<ProjectView>, ClientError> {
        self.get("/v1/projects").await
    }

    /// One project.
    ///
    /// # Errors
    /// When it does not run there.
    pub async fn project(&self, project: &ProjectName) -> Result<ProjectView, ClientError> {
        self.get(&format!("/v1/projects/{project}")).await
    }

    /// One agent.
    ///
    /// # Errors
    /// When there is none.
    pub async fn agent(&self, project: &ProjectName, agent: &AgentName) -> Result<AgentView, ClientError> {
        self.get(&format!("/v1/projects/{project}/agents/{agent}")).await
    }

    /// What these agents use at the moment; all of them when none is named. One that is not there, or has no process, is
    /// not in the answer.
    ///
    /// # Errors
    /// When the project does not run there.
    pub async fn resources(
        &self,
        project: &ProjectName,
        agents: &[AgentName],
    ) -> Result<ResourcesView, ClientError> {
        let names: Vec<&str> = agents.iter().map(AgentName::as_str).collect();
        let query = if names.is_empty() { String::new() } else { format!("?agents={}", names.join(",")) };
        self.get(&format!("/v1/projects/{project}/resources{query}")).await
    }

    /// Does something with agents, and waits `longest` for it to have come to its end.
    ///
    /// # Errors
    /// When it is refused as a whole.
    pub async fn command(
        &self,
        project: &ProjectName,
        command: &Command,
        longest: Duration,
    ) -> Result<Outcome, ClientError> {
        let wait_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        self.post(&format!("/v1/projects/{project}/command?wait_ms={wait_ms}"), command).await
    }

    /// Answers what waits for a person.
    ///
    /// # Errors
    /// When nothing of this number waits there, or it was answered before.
    pub async fn answer(
        &self,
        project: &ProjectName,
        id: u64,
        answer: &AnswerBody,
    ) -> Result<AnsweredView, ClientError> {
        self.post(&format!("/v1/projects/{project}/approvals/{id}"), answer).await
    }

    /// Tells the model that works on the tasks of an agent something, before it is asked next.
    ///
    /// # Errors
    /// When there is no such agent, or no model works on its tasks now.
    pub async fn steer(
        &self,
        project: &ProjectName,
        agent: &AgentName,
        word: &SteerBody,
    ) -> Result<SteeredView, ClientError> {
        self.post(&format!("/v1/projects/{project}/agents/{agent}/steer"), word).await
    }

    /// Reads what the session of an agent says: what is on record after the line `after`, then what happens; until the agent is no more, or
    /// `each` says that it has enough.
    ///
    /// # Errors
    /// When there is no such agent, no model works on its tasks, or the connection breaks.
    pub async fn look_on(
        &self,
        (project, agent): (&ProjectName, &AgentName),
        after: u64,
        mut each: impl FnMut(SessionNews) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let path = format!("/v1/projects/{project}/agents/{agent}/session?after={after}");
        // News that this version does not know are passed over.
        let line = |text: &[u8]| serde_json::from_slice(text).map_or(ControlFlow::Continue(()), &mut each);
        self.lines(&path, line).await
    }

    /// Whom the agents of a project ask at this moment.
    ///
    /// # Errors
    /// When it does not run there.
    pub async fn models(&self, project: &ProjectName) -> Result<ModelsView, ClientError> {
        self.get(&format!("/v1/projects/{project}/models")).await
    }

    /// Has those asked again that rest; they are returned.
    ///
    /// # Errors
    /// When it does not run there.
    pub async fn wake_models(&self, project: &ProjectName) -> Result<ModelsView, ClientError> {
        self.post(&format!("/v1/projects/{project}/models/wake"), &()).await
    }

    /// Makes a project what `declaration` says.
    ///
    /// # Errors
    /// When it cannot be; then the agents are declared as before.
    pub async fn apply(
        &self,
        project: &ProjectName,
        declaration: &Declaration,
    ) -> Result<Applied, ClientError> {
        self.post(&format!("/v1/projects/{project}/apply"), declaration).await
    }

    /// What [`Client::apply`] would change.
    ///
    /// # Errors
    /// As there.
    pub async fn would_apply(
        &self,
        project: &ProjectName,
        declaration: &Declaration,
    ) -> Result<Applied, ClientError> {
        self.post(&format!("/v1/projects/{project}/apply?dry_run=true"), declaration).await
    }

    /// Stops everything that runs there, and the daemon.
    ///
    /// # Errors
    /// When it is none that outlives its terminal.
    pub async fn shutdown(&self, urgency: Urgency) -> Result<(), ClientError> {
        self.post("/v1/shutdown", &serde_json::json!({ "urgency": urgency })).await
    }

    /// Has the daemon become the program that is installed now; its agents run on meanwhile.
    ///
    /// # Errors
    /// When that program cannot be executed, or the daemon does not outlive its terminal.
    pub async fn upgrade(&self) -> Result<(), ClientError> {
        self.post("/v1/upgrade", &()).await
    }

    /// Reads the lines of an answer one after the other, until there are none or `line` says that it has enough.
    ///
    /// # Errors
    /// When nobody answers, or the connection breaks.
    pub async fn lines(
        &self,
        path_and_query: &str,
        mut line: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let response = self.send(Method::GET, path_and_query, Vec::new()).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let mut body = response.into_body();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| self.broken(&error))?.into_data() else { continue };
            rest.extend_from_slice(&data);
            let mut from = 0;
            while let Some(length) = rest[from..].iter().position(|byte| *byte == b'\n') {
                if line(&rest[from..from + length]).is_break() {
                    return Ok(());
                }
                from += length + 1;
            }
            rest.drain(..from);
        }
        Ok(())
    }

    /// Reads the events of a run that come after the number `since`, until it is over or `each` says that it has enough.
    /// `query` may narrow them (`&kinds=…`). When the daemon breaks the connection off, the client asks the daemon that goes on with
    /// the run for the rest.
    ///
    /// # Errors
    /// When no daemon answers, or the connection breaks and no daemon goes on with the run.
    pub async fn follow(
        &self,
        (project, run): (&ProjectName, RunId),
        (mut since, query): (u64, &str),
        mut each: impl FnMut(&Event, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let mut in_vain = 0;
        loop {
            let (begun, known) = (tokio::time::Instant::now(), since);
            let path = format!("/v1/projects/{project}/events?since={since}&follow=true{query}");
            let read = |text: &[u8]| {
                let Ok(event) = serde_json::from_slice::<Event>(text) else {
                    return ControlFlow::Continue(());
                };
                since = event.seq;
                each(&event, text)
            };
            let broken = match self.lines(&path, read).await {
                Err(broken @ ClientError::Broken { .. }) => broken,
                read => return read,
            };
            // A daemon that breaks off each time has no events to tell: its journal cannot be read.
            let is_in_vain = since == known && begun.elapsed() < LASTING;
            in_vain = if is_in_vain { in_vain + 1 } else { 0 };
            if in_vain > MOST_IN_VAIN || !self.goes_on(project, run, SUCCESSOR).await {
                return Err(broken);
            }
            tokio::time::sleep(PAUSE * in_vain).await;
        }
    }

    /// Does something with agents of a run, and waits `longest` for it to have come to its end. When the daemon breaks the connection
    /// off, the client sends an idempotent command once more to the daemon that goes on with the run, within the same time.
    ///
    /// # Errors
    /// When it is refused as a whole, or the daemon ended meanwhile and it cannot be said what became of it.
    pub async fn command_of(
        &self,
        (project, run): (&ProjectName, RunId),
        command: &Command,
        longest: Duration,
    ) -> Result<Outcome, ClientError> {
        let begun = tokio::time::Instant::now();
        loop {
            let left = longest.saturating_sub(begun.elapsed());
            let broken = match self.command(project, command, left).await {
                Err(broken @ ClientError::Broken { .. }) if command.is_idempotent() => broken,
                told => return told,
            };
            let left = longest.saturating_sub(begun.elapsed());
            if !self.goes_on(project, run, left.min(SUCCESSOR)).await {
                return if begun.elapsed() < longest { Err(broken) } else { Ok(Outcome::default()) };
            }
        }
    }

    /// Whether a daemon goes on with a run whose daemon broke the connection off: the same, as another program, or the next.
    /// A run in the foreground has no next one.
    async fn goes_on(&self, project: &ProjectName, run: RunId, within: Duration) -> bool {
        if !self.is_service() {
            return false;
        }
        let deadline = tokio::time::Instant::now() + within;
        loop {
            match self.project(project).await {
                Ok(project) => return project.overview.run == run,
                Err(ClientError::Refused(_)) => return false,
                Err(_) if tokio::time::Instant::now() >= deadline => return false,
                // There is nothing to wait for but the answer itself.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// The text of an answer, whatever its status; and the status.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn text(&self, path: &str) -> Result<(u16, String), ClientError> {
        let response = self.send(Method::GET, path, Vec::new()).await?;
        let status = response.status().as_u16();
        let bytes = self.body(response).await?;
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Attaches to the terminal of an agent, for somebody whose own is so large.
    ///
    /// # Errors
    /// When it has none, or does not run.
    pub async fn attach(
        &self,
        project: &ProjectName,
        agent: &AgentName,
        TerminalSize { columns, rows }: TerminalSize,
    ) -> Result<Stream, ClientError> {
        let path = format!("/v1/projects/{project}/agents/{agent}/attach?columns={columns}&rows={rows}");
        self.stream(&path).await
    }

    /// Runs a command beside an agent.
    ///
    /// # Errors
    /// When the agent does not run, or the command cannot be executed.
    pub async fn exec(
        &self,
        project: &ProjectName,
        agent: &AgentName,
        body: &ExecBody,
    ) -> Result<Stream, ClientError> {
        let mut stream = self.stream(&format!("/v1/projects/{project}/agents/{agent}/exec")).await?;
        stream.sender.send(Message::Start(body.clone())).await.map_err(|error| self.broken(&error))?;
        match stream.receiver.next().await {
            Ok(Some(Message::Started)) => Ok(stream),
            Ok(Some(Message::Refused(refused))) => Err(ClientError::Refused(Box::new(refused))),
            Ok(Some(other)) => Err(self.broken(&format!("it answers a start with {other:?}"))),
            Ok(None) => Err(self.broken(&"it closes the connection")),
            Err(error) => Err(self.broken(&error)),
        }
    }

    async fn stream(&self, path: &str) -> Result<Stream, ClientError> {
        use hyper::header::{
            CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
            SEC_WEBSOCKET_VERSION, UPGRADE,
        };
        let key = generate_key();
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
            .header(SEC_WEBSOCKET_KEY, &key);
        let response = self.ask(request, Vec::new()).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(response).await);
        }
        let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(|value| value.as_bytes());
        if accepted != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(self.broken(&"it answers with the key of another WebSocket"));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| self.broken(&error))?;
        let (receiver, sender) = stream::open(upgraded, Side::Client).await;
        Ok(Stream { receiver, sender })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, Vec::new()).await?;
        self.parse(response).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(&error))?;
        let response = self.send(Method::POST, path, body).await?;
        self.parse(response).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        self.ask(Request::builder().method(method).uri(path), body).await
    }

    async fn ask(&self, request: Builder, body: Vec<u8>) -> Result<Response<Incoming>, ClientError> {
        let stream = socket::connect(&self.socket)
            .await
            .map_err(|source| ClientError::NobodyThere { path: self.socket.clone(), source })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // It ends with the answer, or when nobody reads that any more.
        tokio::spawn(connection.with_upgrades());
        let request = request
            .header(hyper::header::HOST, "toka")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(&error))?;
        sender.send_request(request).await.map_err(|error| self.broken(&error))
    }

    async fn parse<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, ClientError> {
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let bytes = self.body(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(&error))
    }

    async fn refusal(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        match self.body(response).await {
            Err(error) => error,
            Ok(bytes) => match serde_json::from_slice::<Refused>(&bytes) {
                Ok(refused) => ClientError::Refused(Box::new(refused)),
                Err(_) => self.broken(&format!("status {status}")),
            },
        }
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let limited = http_body_util::Limited::new(response.into_body(), MAX_ANSWER);
        let collected = limited.collect().await.map_err(|error| self.broken(&error))?;
        Ok(collected.to_bytes())
    }

    fn broken(&self, why: &impl ToString) -> ClientError {
        ClientError::Broken { path: self.socket.clone(), why: why.to_string() }
    }
}
