//! One agent with all that is known of it, and what agents use at the moment.

use std::collections::HashSet;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use toka_api::wire::{AgentView, ResourcesView};
use toka_core::{AgentName, AgentStatus};

use super::super::error::Error;
use super::super::server::Server;

pub(super) async fn agent(
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
    let budget = handle.budget(&name).await?;
    Ok(Json(AgentView { project: handle.overview().project.clone(), status, resources, budget, declared }))
}

#[derive(Debug, Deserialize)]
pub(super) struct Whose {
    /// The agents, separated by commas; all of them when absent.
    agents: Option<String>,
}

/// Names that the project does not have are passed over: whoever asks every second may be a change behind.
pub(super) async fn resources(
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
