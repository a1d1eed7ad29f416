//! Something to be done with agents, and how long the caller waits for its end.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use toka_core::Command;
use toka_core::command::Outcome;

use super::super::error::Error;
use super::super::server::{OPERATOR, Server};

#[derive(Debug, Deserialize)]
pub(super) struct Waiting {
    /// How long to wait for the command to come to its end, in milliseconds; not at all when absent.
    wait_ms: Option<u64>,
}

pub(super) async fn command(
    State(server): State<Server>,
    Path(project): Path<String>,
    waiting: Result<Query<Waiting>, QueryRejection>,
    command: Result<Json<Command>, JsonRejection>,
) -> Result<Json<Outcome>, Error> {
    let handle = server.project(&project)?;
    let Json(command) = command?;
    let Query(Waiting { wait_ms }) = waiting?;
    if let Err(why) = handle.answers().await {
        let project = &handle.overview().project;
        let Command::Down { .. } = command else { return Err(Error::silent_keeper(project, &why)) };
        handle.command(command, OPERATOR).await??;
        return Err(Error::ends_later(project, &why));
    }
    let longest = Duration::from_millis(wait_ms.unwrap_or(0));
    Ok(Json(handle.carry_out(command, OPERATOR, longest).await??))
}
