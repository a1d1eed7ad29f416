//! A declaration that a project is to become, or with which it begins.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use toka_api::declaration::Declaration;
use toka_api::wire::Changes;
use toka_core::ExitCode;
use toka_project::ApplyMode;
use tokio::sync::oneshot;

use super::super::error::Error;
use super::super::server::{OPERATOR, Role, Server, ServiceOrder, project_name};

#[derive(Debug, Deserialize)]
pub(super) struct Applying {
    #[serde(default)]
    dry_run: bool,
}

/// What an application changed, and whether the project began with it.
#[derive(Debug, Serialize)]
pub(super) struct Applied {
    #[serde(flatten)]
    changes: Changes,
    began: bool,
}

pub(super) async fn apply(
    State(server): State<Server>,
    Path(project): Path<String>,
    applying: Result<Query<Applying>, QueryRejection>,
    declaration: Result<Json<Declaration>, JsonRejection>,
) -> Result<Json<Applied>, Error> {
    let name = project_name(&project)?;
    let Json(declaration) = declaration?;
    let Query(Applying { dry_run }) = applying?;
    if server.projects.get(&name).is_some() {
        let handle = server.project_at_work(&project).await?;
        let mode = if dry_run { ApplyMode::DryRun } else { ApplyMode::Apply };
        let changes = handle.apply(declaration, OPERATOR, mode).await??;
        return Ok(Json(Applied { changes, began: false }));
    }
    let Role::Service(orders) = &server.role else {
        return Err(Error::no_project(&name, &server.projects.names()));
    };
    let added = declaration.parse()?.plan.nodes().iter().map(|node| node.agent.clone()).collect();
    let changes = Changes { added, ..Changes::default() };
    if !dry_run {
        let (answer, opened) = oneshot::channel();
        let order = ServiceOrder::Open { project: name, declaration: Box::new(declaration), answer };
        let ending = || Error::new(StatusCode::CONFLICT, ExitCode::NoDaemon, "the daemon is ending");
        orders.send(order).await.map_err(|_| ending())?;
        opened.await.map_err(|_| ending())??;
    }
    Ok(Json(Applied { changes, began: true }))
}
