//! Connections that become streams: somebody looks at an agent's terminal and types into it, or runs a command beside the
//! agent. A request is refused like any other; once it is granted, the connection is a WebSocket ([`toka_api::stream`]).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::SEC_WEBSOCKET_PROTOCOL;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use toka_core::{AgentName, AgentState, AgentStatus, ExitCode, RunStatus};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::server::create_response;

use super::error::Error;
use toka_api::stream::{self, End, Receiver, SUBPROTOCOL, Sender, Side};
use toka_project::{ProjectHandle, RunOver};

/// A connection that becomes a WebSocket when the answer has been sent.
pub(super) struct Handshake {
    upgrade: OnUpgrade,
    answer: Response,
}

impl Handshake {
    /// What a request asks for.
    ///
    /// # Errors
    /// When it asks for no WebSocket, or for another version of it.
    pub(super) fn of(request: &mut Request) -> Result<Self, Error> {
        let mut head = axum::http::Request::new(());
        *head.method_mut() = request.method().clone();
        *head.version_mut() = request.version();
        head.headers_mut().clone_from(request.headers());
        let Ok(answer) = create_response(&head) else {
            let error = "this is a WebSocket: ask with `Connection: Upgrade`, `Upgrade: websocket`, a key and version 13";
            return Err(Error::new(StatusCode::UPGRADE_REQUIRED, ExitCode::Usage, error));
        };
        let mut answer = answer.map(|()| Body::empty());
        if offers(request.headers()) {
            answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        Ok(Self { upgrade: hyper::upgrade::on(request), answer })
    }

    /// The answer, and the connection after it: `None` when the caller has gone meanwhile.
    pub(super) fn accept(self) -> (Response, impl Future<Output = Option<(Receiver, Sender)>> + Send) {
        let Self { upgrade, answer } = self;
        let opened = async move { Some(stream::open(upgrade.await.ok()?, Side::Daemon).await) };
        (answer, opened)
    }
}

fn offers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim() == SUBPROTOCOL)
}

/// While input waits for somebody who does not read, nothing is read from the connection, and its end does not show; but
/// something sent to it then fails.
pub(super) const PROBE: Duration = Duration::from_secs(1);

/// Hands on what was typed, and probes whether the other side is there as long as nobody takes it.
pub(super) async fn pass_on(typed: &mpsc::Sender<Vec<u8>>, keys: Vec<u8>, probe: &(impl Fn() + Sync)) {
    loop {
        match tokio::time::timeout(PROBE, typed.reserve()).await {
            Ok(Ok(place)) => return place.send(keys),
            // After its end nobody takes it.
            Ok(Err(_)) => return,
            Err(_) => probe(),
        }
    }
}

/// Longest that is quoted of what makes no sense.
pub(super) const QUOTED: usize = 200;

pub(super) fn nonsense(reason: &str) -> End {
    End::Nonsense { reason: reason.chars().take(QUOTED).collect() }
}

pub(super) fn has_process(state: &AgentState) -> bool {
    matches!(state, AgentState::Running { .. } | AgentState::Paused { .. } | AgentState::Stopping { .. })
}

/// How long somebody waits for an agent that is about to start: it was begun a moment ago.
pub(super) const BEGINNING: Duration = Duration::from_secs(2);

/// What is known of the project, when the agent has started or does not in this moment.
pub(super) async fn settled(handle: &ProjectHandle, name: &AgentName) -> Result<Arc<RunStatus>, RunOver> {
    let mut moved = handle.moved();
    let deadline = tokio::time::Instant::now() + BEGINNING;
    loop {
        moved.borrow_and_update();
        let status = handle.status().await?;
        let begins =
            |status: &AgentStatus| matches!(status.state, AgentState::Pending | AgentState::Starting);
        if !status.agent(name).is_some_and(begins)
            || !matches!(tokio::time::timeout_at(deadline, moved.changed()).await, Ok(Ok(())))
        {
            return Ok(status);
        }
    }
}

/// An agent that has a process.
pub(super) async fn running(handle: &ProjectHandle, agent: &str) -> Result<AgentStatus, Error> {
    let name = AgentName::new(agent).map_err(|error| Error::bad_request(error.to_string()))?;
    let status = settled(handle, &name).await?;
    let known = || status.agents().iter().map(|agent| agent.name.clone()).collect::<Vec<_>>();
    let status = status.agent(&name).cloned().ok_or_else(|| Error::no_agent(&name, &known()))?;
    let does = match &status.state {
        state if has_process(state) => return Ok(status),
        AgentState::Running { .. } | AgentState::Paused { .. } | AgentState::Stopping { .. } => String::new(),
        AgentState::Pending => "has not started yet".to_owned(),
        AgentState::Starting => "is only starting".to_owned(),
        AgentState::Backoff { .. } => "waits for its next start".to_owned(),
        AgentState::Blocked { why: Some(why), .. } => format!("is blocked: {why}"),
        AgentState::Blocked { by, why: None } => format!("is blocked by {by}"),
        AgentState::Ended { exit } | AgentState::Quarantined { exit, .. } => format!("has ended: {exit}"),
    };
    let error =
        Error::new(StatusCode::CONFLICT, ExitCode::AgentFailed, format!("{name} does not run: it {does}"));
    Err(error.help(format!("`toka logs {name}` shows what it wrote; `toka start {name}` starts it")))
}
