//! The last line of `--json`: what became of the run, so that a program need not add up the events.

use std::path::PathBuf;

use serde::Serialize;
use toka_core::event::Usage;
use toka_core::{AgentName, AgentState, Enforcement, Exit, RunId, Unmet};

use super::ending::{Trace, reports};
use super::view::{AgentView, RunView};

/// The outcome of a run.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    r#type: &'static str,
    project: Option<&'a str>,
    run: Option<RunId>,
    exit_code: u8,
    agents: Vec<AgentSummary<'a>>,
    reports: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct AgentSummary<'a> {
    agent: &'a AgentName,
    state: &'static str,
    /// The word of the table.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<&'a Exit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_by: Option<&'a AgentName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_why: Option<&'a Unmet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    restarts: u32,
    #[serde(skip_serializing_if = "<[Box<str>]>::is_empty")]
    unmet: &'a [Box<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    enforcement: Option<&'a Enforcement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<&'a PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifacts: Option<&'a PathBuf>,
}

impl<'a> Summary<'a> {
    /// Sums up a run that has ended with `status`.
    pub fn of(view: &'a RunView, traces: &'a [Trace], status: u8) -> Self {
        Self {
            r#type: "summary",
            project: view.project.as_deref(),
            run: view.run(),
            exit_code: status,
            agents: view.agents().iter().map(|agent| summary_of(agent, traces)).collect(),
            reports: reports(traces),
        }
    }
}

fn summary_of<'a>(agent: &'a AgentView, traces: &'a [Trace]) -> AgentSummary<'a> {
    let trace = traces.iter().find(|trace| trace.agent == agent.name);
    let end = agent.end.as_ref();
    AgentSummary {
        agent: &agent.name,
        state: agent.state.name(),
        outcome: agent.state.as_str(),
        exit: end.map(|end| &end.exit),
        blocked_by: match &agent.state {
            AgentState::Blocked { by, .. } => Some(by),
            _ => None,
        },
        blocked_why: match &agent.state {
            AgentState::Blocked { why, .. } => why.as_deref(),
            _ => None,
        },
        duration_ms: end.map(|end| u64::try_from(end.duration.as_millis()).unwrap_or(u64::MAX)),
        usage: end.map(|end| end.usage),
        restarts: agent.restarts,
        unmet: &agent.unmet,
        enforcement: agent.enforcement.as_ref(),
        log: trace.map(|trace| &trace.log),
        artifacts: trace.map(|trace| &trace.artifacts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{canned, json};

    #[test]
    fn the_canned_run() {
        let view = canned::view_after(canned::events().len());
        let traces = [Trace {
            agent: canned::name("checks"),
            log: "/s/agents/checks/log".into(),
            artifacts: "/s/agents/checks/artifacts".into(),
        }];
        insta::assert_snapshot!(json::line(&Summary::of(&view, &traces, 1)));
    }
}
