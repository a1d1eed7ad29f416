//! Whom the agents of a project ask at this moment.

use axum::Json;
use axum::extract::{Path, State};
use toka_api::wire::{ModelsView, RestView};

use super::super::error::Error;
use super::super::server::Server;

pub(super) async fn models(
    State(server): State<Server>,
    Path(project): Path<String>,
) -> Result<Json<ModelsView>, Error> {
    view(&server, &project, false).await
}

/// Has those asked again that rest, which are told.
pub(super) async fn wake(
    State(server): State<Server>,
    Path(project): Path<String>,
) -> Result<Json<ModelsView>, Error> {
    view(&server, &project, true).await
}

async fn view(server: &Server, project: &str, wake: bool) -> Result<Json<ModelsView>, Error> {
    let handle = server.project_at_work(project).await?;
    let resting = handle.resting(wake).await?.into_iter().map(|rest| RestView {
        provider: rest.provider,
        model: rest.model,
        left_ms: u64::try_from(rest.left.as_millis()).unwrap_or(u64::MAX),
        reason: rest.reason,
    });
    Ok(Json(ModelsView { resting: resting.collect() }))
}
