//! The daemon itself: who answers, its end, another program in its place.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use toka_api::wire::{DaemonView, RoleName};
use toka_core::{ExitCode, Urgency};
use tokio::sync::oneshot;

use super::super::error::Error;
use super::super::server::{Role, Server, ServiceOrder};

pub(super) async fn daemon(State(server): State<Server>) -> Json<DaemonView> {
    Json(view_of(&server))
}

pub(super) fn view_of(server: &Server) -> DaemonView {
    DaemonView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_ms: server.started_ms,
        role: match server.role {
            Role::Foreground => RoleName::Foreground,
            Role::Service(_) => RoleName::Service,
        },
        projects: server.projects.names(),
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Shutdown {
    #[serde(default)]
    urgency: Urgency,
}

pub(super) async fn shutdown(
    State(server): State<Server>,
    shutdown: Result<Json<Shutdown>, JsonRejection>,
) -> Result<Json<()>, Error> {
    let Json(Shutdown { urgency }) = shutdown?;
    let Role::Service(orders) = &server.role else {
        return Err(Error::new(
            StatusCode::CONFLICT,
            ExitCode::Usage,
            "this is a run in the foreground, which ends with its project",
        ));
    };
    // One that ends already is what was asked for.
    let _ = orders.send(ServiceOrder::Shutdown(urgency)).await;
    Ok(Json(()))
}

pub(super) async fn upgrade(State(server): State<Server>) -> Result<Json<()>, Error> {
    let Role::Service(orders) = &server.role else {
        return Err(Error::new(
            StatusCode::CONFLICT,
            ExitCode::Usage,
            "this is a run in the foreground, which ends with its terminal",
        ));
    };
    if let Some(lost) = server.unfindable() {
        let message = format!("the keeper of {lost} could not be found again: its socket is gone");
        return Err(Error::new(StatusCode::CONFLICT, ExitCode::StateFolder, message)
            .help("the daemon goes on as it is; stop that project with `toka down`, and begin it again"));
    }
    let (refused, why) = oneshot::channel();
    let _ = orders.send(ServiceOrder::Upgrade { refused }).await;
    match why.await {
        Ok(why) => Err(Error::new(StatusCode::CONFLICT, ExitCode::Invalid, why)),
        Err(_) => Ok(Json(())),
    }
}
