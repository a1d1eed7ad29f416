//! `/readyz` and `/v1/health`: whether the daemon can do its work, and how well every agent is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use toka_api::health::{Check, DaemonHealth, HealthView, ProjectHealth};
use toka_api::host::HostFigures;
use toka_core::{ProjectName, Verdict};
use toka_prepare::host_figures;

use super::super::checks::{Files, of_daemon, of_project, open_files, text};
use super::super::error::Error;
use super::super::server::{Server, now_ms};
use super::daemon::view_of;
use toka_project::{Facts, Figures, ProjectHandle};

/// A project that has not answered by then does not: its keeper alone may take four of these seconds.
const LONGEST: Duration = Duration::from_secs(6);

/// A project and what is known of it; nothing when it does not answer.
pub(super) struct Known {
    pub(super) project: ProjectName,
    pub(super) facts: Option<Facts>,
}

/// Everything that health is told from.
pub(super) struct Gathered {
    pub(super) projects: Vec<Known>,
    pub(super) daemon: DaemonHealth,
    pub(super) host: Option<HostFigures>,
    pub(super) now_ms: i64,
}

/// Asks all projects at once: the slowest decides how long that takes. One whose run ends meanwhile is left out.
pub(super) async fn gather(server: &Server, figures: Figures) -> Gathered {
    let handles = server.projects.all();
    let mut folders: BTreeSet<_> = server.folders.iter().cloned().collect();
    folders.extend(handles.iter().map(|handle| handle.overview().root.clone()));
    let files: BTreeMap<ProjectName, Files> =
        handles.iter().map(|handle| (handle.overview().project.clone(), server.files_of(handle))).collect();
    let asked: Vec<_> = handles.into_iter().map(|handle| tokio::spawn(ask(handle, figures))).collect();
    let mut projects = Vec::new();
    for answer in asked {
        projects.extend(answer.await.ok().flatten());
    }
    let open_files = open_files();
    let mut checks = of_daemon(&server.socket, &folders, open_files);
    checks.extend(projects.iter().flat_map(|known| checks_of(known, files.get(&known.project))));
    let is_well = checks.iter().all(Check::is_ok);
    let verdict = if is_well { Verdict::Healthy } else { Verdict::Unhealthy };
    let daemon = DaemonHealth { verdict, view: view_of(server), checks, open_files };
    Gathered { projects, daemon, host: host_figures::look(), now_ms: now_ms() }
}

async fn ask(handle: ProjectHandle, figures: Figures) -> Option<Known> {
    let project = handle.overview().project.clone();
    match tokio::time::timeout(LONGEST, handle.facts(figures)).await {
        Ok(Ok(facts)) => Some(Known { project, facts: Some(facts) }),
        Ok(Err(_)) => None,
        Err(_) => Some(Known { project, facts: None }),
    }
}

fn checks_of(known: &Known, files: Option<&Files>) -> Vec<Check> {
    match (&known.facts, files) {
        (Some(facts), Some(files)) => of_project(&known.project, facts, files).to_vec(),
        _ => vec![Check::failed(format!("project/{}", known.project), "it does not answer")],
    }
}

impl Gathered {
    fn view(self) -> HealthView {
        let of = |known: &Known| {
            let facts = known.facts.as_ref()?;
            let agents = facts.reports(self.now_ms);
            let verdict = Verdict::worst(agents.iter().map(|agent| agent.verdict));
            let (project, started_ms) = (known.project.clone(), facts.status.started_ms);
            Some(ProjectHealth { project, verdict, started_ms, agents })
        };
        let projects: Vec<ProjectHealth> = self.projects.iter().filter_map(of).collect();
        let verdict =
            Verdict::worst(projects.iter().map(|project| project.verdict).chain([self.daemon.verdict]));
        HealthView { verdict, at_ms: self.now_ms, daemon: self.daemon, host: self.host, projects }
    }
}

pub(super) async fn health(State(server): State<Server>) -> Json<HealthView> {
    Json(gather(&server, Figures::With).await.view())
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    format: Format,
}

pub(super) async fn readyz(
    State(server): State<Server>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(Wanted { format }) = wanted?;
    let DaemonHealth { checks, .. } = gather(&server, Figures::Without).await.daemon;
    let is_ready = checks.iter().all(Check::is_ok);
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(match format {
        Format::Text => (status, text(&checks)).into_response(),
        Format::Json => {
            let body = serde_json::json!({ "ready": is_ready, "checks": checks });
            (status, Json(body)).into_response()
        }
    })
}
