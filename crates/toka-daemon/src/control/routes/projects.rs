//! What runs: every project with its agents, or one.

use axum::Json;
use axum::extract::{Path, State};
use toka_api::wire::ProjectView;
use toka_project::{Figures, ProjectHandle};

use super::super::error::Error;
use super::super::server::Server;

/// All are asked at once, and one that ends meanwhile is left out.
pub(super) async fn projects(State(server): State<Server>) -> Json<Vec<ProjectView>> {
    let asked: Vec<_> = server.projects.all().into_iter().map(|handle| tokio::spawn(view(handle))).collect();
    let mut views = Vec::new();
    for view in asked {
        views.extend(view.await.ok().flatten());
    }
    Json(views)
}

async fn view(handle: ProjectHandle) -> Option<ProjectView> {
    let facts = handle.facts(Figures::Without).await.ok()?;
    Some(ProjectView::of(handle.overview(), &facts.status).troubled_by(facts.keeper.err()))
}

pub(super) async fn project(
    State(server): State<Server>,
    Path(project): Path<String>,
) -> Result<Json<ProjectView>, Error> {
    let handle = server.project(&project)?;
    Ok(Json(ProjectView::of(handle.overview(), &*handle.status().await?)))
}
