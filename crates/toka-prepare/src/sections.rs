//! What an agent may know of its own declaration: the file that TOKA_SECTIONS names.
//!
//! It says what the work is, not how it is confined or started: no secrets, no environment, no command lines, no paths of
//! the host. Whoever reads it is the program that does the work.

use serde_json::{Map, Value, json};
use toka_workstream::{Agent, Objective, Task};

/// The file's name, in the folder of the agent's sockets.
pub const FILE: &str = "sections.json";

/// The file's contents: one JSON object. The sections that Toka does not know are in it verbatim, under `sections`, so
/// that none of them can take the place of one that it knows.
pub fn sections(agent: &Agent) -> Value {
    json!({
        "metadata": metadata(agent),
        "spec": {
            "name": agent.title,
            "domain": agent.domain,
            "description": agent.description,
            "priority": agent.priority,
            "type": agent.kind,
        },
        "capabilities": { "primary": agent.capabilities_primary, "secondary": agent.capabilities_secondary },
        "objectives": agent.objectives.iter().map(objective).collect::<Vec<_>>(),
        "tasks": agent.tasks.iter().enumerate().map(task).collect::<Vec<_>>(),
        "reporting": reporting(agent),
        "sections": agent.extras,
        "unknown": agent.kept,
    })
}

/// Where reports go is known to the agent, and not the secrets in the way there.
fn reporting(agent: &Agent) -> Value {
    let mut reporting = json!(agent.reporting);
    let channels: Vec<String> =
        agent.reporting.channels.iter().map(|channel| channel.value.to_string()).collect();
    reporting["channels"] = json!(channels);
    reporting
}

fn metadata(agent: &Agent) -> Map<String, Value> {
    let rest = &agent.metadata;
    let own = [("name", agent.name.as_str()), ("version", &agent.version), ("workstream", &agent.workstream)];
    let optional = [
        ("schema_version", &rest.schema_version),
        ("created", &rest.created),
        ("modified", &rest.modified),
        ("branch", &rest.branch),
        ("checksum", &rest.checksum),
    ];
    let given = optional.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
    own.into_iter().chain(given).map(|(key, value)| (key.to_owned(), value.into())).collect()
}

fn objective(objective: &Objective) -> Value {
    json!({
        "description": objective.description,
        "deliverable": objective.deliverable,
        "validation": objective.validation,
        "priority": objective.priority,
    })
}

fn task((index, task): (usize, &Task)) -> Value {
    json!({
        "index": index,
        "description": task.description,
        "priority": task.priority,
        "group": task.group,
        "estimated_duration": task.estimated_duration,
        "tools_required": task.tools_required,
        "depends_on": task.depends_on,
    })
}

#[cfg(test)]
mod tests {
    use toka_workstream::{LoadOptions, load};

    use super::*;

    const FILE_OF_AN_AGENT: &str = r#"
metadata: {name: writer, branch: main}
spec:
  process:
    shell: "echo hunter2-command"
    environment: {TOKEN: hunter2-environment}
  secrets: {key: {env: HUNTER2_SECRET}}
objectives: [{description: A text is there, deliverable: text.md, check: "grep hunter2-check text.md"}]
tasks: {default: [{description: Write it, run: "echo hunter2-run", tools_required: [pen]}]}
reporting: {channels: [dashboard, "webhook: https://hooks.example.org/hunter2"]}
behavioral_directives: {tone: [plain, "short"], depth: 3}
success_criteria: [it reads well]
"#;

    #[test]
    fn an_agent_knows_its_sections_verbatim_and_no_commands_or_secrets() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("writer.yaml");
        std::fs::write(&path, FILE_OF_AN_AGENT).expect("room");
        let loaded = load(&[path], &LoadOptions::default());
        let set = loaded.set.expect("a good file");
        let known = sections(&set.agents[0]);
        assert_eq!(
            known["sections"],
            json!({
                "behavioral_directives": {"tone": ["plain", "short"], "depth": 3},
                "success_criteria": ["it reads well"],
            })
        );
        assert_eq!(
            known["reporting"]["channels"],
            json!(["dashboard", "webhook: https://hooks.example.org:443"])
        );
        assert_eq!(known["metadata"]["name"], "writer");
        assert_eq!(known["metadata"]["branch"], "main");
        assert_eq!(known["objectives"][0]["deliverable"], "text.md");
        assert_eq!(known["tasks"][0]["description"], "Write it");
        assert_eq!(known["tasks"][0]["tools_required"][0], "pen");
        let text = known.to_string().to_lowercase();
        assert!(!text.contains("hunter2"), "no commands, variables or sources of secrets: {text}");
        assert!(!text.contains(&*folder.path().to_string_lossy()), "no paths of the host: {text}");
    }
}
