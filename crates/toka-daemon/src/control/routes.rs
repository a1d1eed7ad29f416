//! What can be asked, and who answers it.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use toka_api::declaration::Declaration;
use toka_api::wire::{AgentView, Changes, DaemonView, ProjectView, ResourcesView, RoleName};
use toka_core::command::Outcome;
use toka_core::{AgentName, AgentStatus, Command, ExitCode, ProjectName, Urgency};
use tokio::sync::oneshot;

use super::error::Error;
use super::events::events;
use super::server::{Role, Server, ServiceOrder};
use super::{MAX_COMMAND, MAX_DECLARATION};
use super::{health, metrics, stream};
use toka_project::{ApplyMode, Figures, ProjectHandle};

pub(super) fn router(server: Server) -> Router {
    Router::new()
        .route("/v1/daemon", get(daemon))
        .route("/v1/projects", get(projects))
        .route("/v1/projects/{project}", get(project))
        .route("/v1/projects/{project}/agents/{agent}", get(agent))
        .route("/v1/projects/{project}/agents/{agent}/attach", get(stream::attach))
        .route("/v1/projects/{project}/agents/{agent}/exec", post(stream::exec))
        .route("/v1/projects/{project}/resources", get(resources))
        .route("/v1/projects/{project}/command", post(command).layer(DefaultBodyLimit::max(MAX_COMMAND)))
        .route("/v1/projects/{project}/apply", post(apply).layer(DefaultBodyLimit::max(MAX_DECLARATION)))
        .route("/v1/projects/{project}/events", get(events))
        .route("/v1/shutdown", post(shutdown))
        .route("/v1/upgrade", post(upgrade))
        .route("/v1/health", get(health::health))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .fallback(async || {
            Error::new(StatusCode::NOT_FOUND, ExitCode::Usage, "there is nothing under this path")
        })
        .with_state(server)
}

/// Who asks through the socket, for the record.
pub(super) const OPERATOR: &str = "operator";

impl Server {
    pub(super) fn project(&self, name: &str) -> Result<ProjectHandle, Error> {
        let name = project_name(name)?;
        self.projects.get(&name).ok_or_else(|| Error::no_project(&name, &self.projects.names()))
    }

    /// A project with whose agents something can be done. Others are not asked, so that only those whose keeper hangs are
    /// refused.
    pub(super) async fn project_at_work(&self, name: &str) -> Result<ProjectHandle, Error> {
        let handle = self.project(name)?;
        let answers = handle.answers().await;
        answers.map_err(|why| Error::silent_keeper(&handle.overview().project, &why))?;
        Ok(handle)
    }
}

pub(super) fn project_name(name: &str) -> Result<ProjectName, Error> {
    ProjectName::new(name).map_err(|error| Error::bad_request(error.to_string()))
}

async fn daemon(State(server): State<Server>) -> Json<DaemonView> {
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

/// All are asked at once, and one that ends meanwhile is left out.
async fn projects(State(server): State<Server>) -> Json<Vec<ProjectView>> {
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

async fn project(
    State(server): State<Server>,
    Path(project): Path<String>,
) -> Result<Json<ProjectView>, Error> {
    let handle = server.project(&project)?;
    Ok(Json(ProjectView::of(handle.overview(), &*handle.status().await?)))
}

async fn agent(
    State(server): State<Server>,
    Path((project, agent)): Path<(String, String)>,
) -> Result<Json<AgentView>, Error> {
    let handle = server.project_at_work(&project).await?;
    let name = AgentName::new(&agent).map_err(|error| Error::bad_request(error.to_string()))?;
    let status = handle.status().await?;
    let known = || status.agents().iter().map(|agent| agent.name.clone()).collect::<Vec<_>>();
    let status = status.agent(&name).cloned().ok_or_else(|| Error::no_agent(&name, &known()))?;
    let resources = handle.resources(&name).await?;
    let declared = handle.declared(&name).await?;
    Ok(Json(AgentView { project: handle.overview().project.clone(), status, resources, declared }))
}

#[derive(Debug, Deserialize)]
struct Whose {
    /// The agents, separated by commas; all of them when absent.
    agents: Option<String>,
}

/// Names that the project does not have are passed over: whoever asks every second may be a change behind.
async fn resources(
    State(server): State<Server>,
    Path(project): Path<String>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Json<ResourcesView>, Error> {
    let handle = server.project_at_work(&project).await?;
    let Query(Whose { agents }) = whose?;
    let status = handle.status().await?;
    let wanted: Option<HashSet<&str>> = agents.as_deref().map(|names| names.split(',').collect());
    let is_wanted = |agent: &&AgentStatus| {
        agent.state.is_alive() && wanted.as_ref().is_none_or(|wanted| wanted.contains(agent.name.as_str()))
    };
    let mut view = ResourcesView::new();
    for agent in status.agents().iter().filter(is_wanted) {
        if let Some(resources) = handle.resources(&agent.name).await? {
            view.insert(agent.name.clone(), resources);
        }
    }
    Ok(Json(view))
}

#[derive(Debug, Deserialize)]
struct Waiting {
    /// How long to wait for the command to come to its end, in milliseconds; not at all when absent.
    wait_ms: Option<u64>,
}

async fn command(
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

#[derive(Debug, Deserialize)]
struct Applying {
    #[serde(default)]
    dry_run: bool,
}

/// What an application changed, and whether the project began with it.
#[derive(Debug, Serialize)]
struct Applied {
    #[serde(flatten)]
    changes: Changes,
    began: bool,
}

async fn apply(
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

#[derive(Debug, Default, Deserialize)]
struct Shutdown {
    #[serde(default)]
    urgency: Urgency,
}

async fn shutdown(
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

async fn upgrade(State(server): State<Server>) -> Result<Json<()>, Error> {
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

impl From<JsonRejection> for Error {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), ExitCode::Usage, rejection.body_text())
    }
}

impl From<QueryRejection> for Error {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), ExitCode::Usage, rejection.body_text())
    }
}
