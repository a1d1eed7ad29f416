//! What can be asked, a file for each resource.

mod agents;
mod apply;
mod approvals;
mod attach;
mod command;
mod daemon;
mod events;
mod exec;
mod health;
mod metrics;
mod models;
mod projects;
mod session;
mod steer;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post};
use toka_core::ExitCode;

use super::error::Error;
use super::server::Server;
use super::{MAX_COMMAND, MAX_DECLARATION};

pub(super) fn router(server: Server) -> Router {
    Router::new()
        .route("/v1/daemon", get(daemon::daemon))
        .route("/v1/projects", get(projects::projects))
        .route("/v1/projects/{project}", get(projects::project))
        .route("/v1/projects/{project}/agents/{agent}", get(agents::agent))
        .route("/v1/projects/{project}/agents/{agent}/attach", get(attach::attach))
        .route("/v1/projects/{project}/agents/{agent}/exec", get(exec::exec))
        .route("/v1/projects/{project}/resources", get(agents::resources))
        .route(
            "/v1/projects/{project}/command",
            post(command::command).layer(DefaultBodyLimit::max(MAX_COMMAND)),
        )
        .route(
            "/v1/projects/{project}/apply",
            post(apply::apply).layer(DefaultBodyLimit::max(MAX_DECLARATION)),
        )
        .route(
            "/v1/projects/{project}/approvals/{id}",
            post(approvals::answer).layer(DefaultBodyLimit::max(MAX_COMMAND)),
        )
        .route(
            "/v1/projects/{project}/agents/{agent}/steer",
            post(steer::steer).layer(DefaultBodyLimit::max(MAX_COMMAND)),
        )
        .route("/v1/projects/{project}/agents/{agent}/session", get(session::session))
        .route("/v1/projects/{project}/models", get(models::models))
        .route("/v1/projects/{project}/models/wake", post(models::wake))
        .route("/v1/projects/{project}/events", get(events::events))
        .route("/v1/shutdown", post(daemon::shutdown))
        .route("/v1/upgrade", post(daemon::upgrade))
        .route("/v1/health", get(health::health))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .fallback(async || {
            Error::new(StatusCode::NOT_FOUND, ExitCode::Usage, "there is nothing under this path")
        })
        .with_state(server)
}
