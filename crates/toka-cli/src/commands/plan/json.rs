//! The plan for programs: the order as the plan exports it, and per agent everything that the text shows.

use serde_json::{Map, Value, json};
use toka_prepare::Problem;
use toka_prepare::confine::ProgramFile;
use toka_workstream::describe::life;

use super::View;
use super::facts::AgentFacts;

/// `{waves, agents: […], dropped, run: {exit_code, obstacles}}`.
pub(super) fn value(view: &View) -> Value {
    let mut value = view.plan.to_json();
    let nodes = value["agents"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let agents = nodes.into_iter().zip(&view.agents).map(|(node, facts)| agent(node, facts));
    value["agents"] = agents.collect();
    value["run"] = json!({
        "exit_code": view.verdict.exit_code() as u8,
        "obstacles": view.verdict.problems.iter().map(Problem::to_json).collect::<Vec<_>>(),
    });
    value
}

/// The same where there is no plan: what keeps it from being made is what would keep a run from starting.
pub(super) fn refusal(error: &anyhow::Error) -> Value {
    let (parts, code) = toka_terminal::failure::data(error);
    json!({"run": {"exit_code": code as u8, "obstacles": parts}})
}

fn agent(node: Value, facts: &AgentFacts) -> Value {
    let agent = &facts.agent;
    let mut map: Map<String, Value> = node.as_object().cloned().unwrap_or_default();
    let confined = facts.confined.as_ref().ok();
    let fields = json!({
        "file": agent.file,
        "origin": agent.origin,
        "replica": agent.replica,
        "schedule": agent.schedule.as_ref().map(|schedule| {
            let next: Vec<String> =
                schedule.times(facts.now).take(super::text::NEXT_TIMES).map(|time| time.to_string()).collect();
            json!({"cron": schedule.cron, "timezone": schedule.timezone, "next": next})
        }),
        "command": agent.process.as_ref().map(|process| &process.command),
        "program": confined.and_then(|confined| confined.program.as_ref()).map(ProgramFile::path),
        "started": facts.started,
        "working_dir": facts.working_dir,
        "environment": confined.map(|confined| confined.plan.environment()),
        "tasks": agent.tasks,
        "life": life(agent),
        "models": facts.models,
        "budget": facts.budget,
        "network": agent.confinement.network,
        "limits": agent.confinement.limits,
        "capabilities": capabilities(facts),
        "rules": facts.rules(),
        "not_in_full": facts.short,
        "hard_links": facts.shared.iter().map(|(place, shared)| {
            json!({"place": place, "files": shared.files, "first": shared.first, "all": shared.is_whole})
        }).collect::<Vec<_>>(),
        "error": facts.confined.as_ref().err().map(ToString::to_string),
    });
    map.extend(fields.as_object().cloned().unwrap_or_default());
    Value::Object(map)
}

fn capabilities(facts: &AgentFacts) -> Vec<Value> {
    let decide = |demand| facts.demands.refused.iter().find(|(refused, _)| refused == demand);
    facts
        .demands
        .all
        .iter()
        .map(|demand| {
            json!({
                "name": demand.value,
                "origin": demand.origin,
                "granted": decide(demand).is_none(),
                "reason": decide(demand).map(|(_, refusal)| refusal.to_string()),
            })
        })
        .collect()
}
