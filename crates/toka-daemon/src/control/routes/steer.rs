//! What a person tells the model that works on the tasks of an agent.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use toka_api::wire::{MAX_STEER, SteerBody, SteeredView};
use toka_core::{AgentName, ExitCode};
use toka_project::{SteerError, Steering};

use super::super::error::Error;
use super::super::peer::Peer;
use super::super::server::{OPERATOR, Server};

/// Tells it. Whether the peer is an agent was looked at before, as for every request.
pub(super) async fn steer(
    State(server): State<Server>,
    Path((project, agent)): Path<(String, String)>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<SteerBody>, JsonRejection>,
) -> Result<Json<SteeredView>, Error> {
    let handle = server.project(&project)?;
    let agent: AgentName =
        agent.parse().map_err(|error| Error::bad_request(format!("{agent:?} is no agent: {error}")))?;
    let Json(SteerBody { text, interrupt }) = body?;
    if text.trim().is_empty() && !interrupt || text.len() > MAX_STEER {
        let why = format!("a text has at least a word, and at most {} KiB", MAX_STEER / 1024);
        return Err(Error::bad_request(why));
    }
    let steered =
        handle.steer(agent.clone(), Steering { text, interrupts: interrupt }, OPERATOR, peer.uid).await?;
    let session = steered.map_err(|error| refused(&agent, &error))?;
    Ok(Json(SteeredView { session }))
}

pub(super) fn refused(agent: &AgentName, error: &SteerError) -> Error {
    let status = match error {
        SteerError::Undeclared => StatusCode::NOT_FOUND,
        SteerError::NoModel | SteerError::Session(_) => StatusCode::CONFLICT,
    };
    Error::new(status, ExitCode::Usage, format!("{agent}: {error}"))
}
