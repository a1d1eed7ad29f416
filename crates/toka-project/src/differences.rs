//! What is different between two declarations, by the keys of the file, and for which of it an agent that runs has to begin
//! anew. Where an agent stands in its file, and what is commented there, makes no difference.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;
use serde_json::{Map, Value};
use toka_api::wire::Changes;
use toka_core::{AgentName, Confinement};
use toka_workstream::{Agent, Dependency, KeptKey, Plan, Set, Start};

use crate::member::awaited_lines;

/// What a difference means for an agent that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    /// It goes on.
    InPlace,
    /// It has to begin anew.
    Restart,
}

/// A key of the file whose value is another.
type Difference = (String, How);

/// Fields of a type, with the key of the file that each comes from, and what a difference of it means. A field that is not
/// here is called as in the file, and a difference of it restarts.
type Keys = [(&'static str, &'static str, How)];

/// What an agent is told of itself it was told at its start.
const AGENT: &Keys = &[
    ("version", "metadata.version", How::InPlace),
    ("workstream", "metadata.workstream", How::InPlace),
    ("metadata", "metadata", How::InPlace),
    ("title", "spec.name", How::InPlace),
    ("domain", "spec.domain", How::InPlace),
    ("description", "spec.description", How::InPlace),
    ("priority", "spec.priority", How::InPlace),
    ("restart", "spec.restart", How::InPlace),
    ("stop", "spec.stop", How::InPlace),
    ("on_end", "spec.on_end", How::InPlace),
    ("success", "spec.success_exit_codes", How::InPlace),
    ("logs", "logs", How::InPlace),
    ("capabilities_primary", "capabilities", How::InPlace),
    ("capabilities_secondary", "capabilities", How::InPlace),
    ("kind", "spec.type", How::Restart),
    ("process", "spec.process", How::Restart),
    ("secrets", "spec.secrets", How::Restart),
    ("schedule", "spec.schedule", How::Restart),
    ("model", "spec.model", How::Restart),
    ("start", "spec.start", How::Restart),
    ("watchdog", "spec.watchdog", How::Restart),
    ("hooks", "spec.hooks", How::Restart),
    ("replica", "spec.replicas", How::Restart),
    ("idle_groups", "tasks", How::Restart),
];

/// Fields of an agent that have parts of their own, compared one by one.
const IN_PARTS: [&str; 5] = ["confinement", "probes", "dependencies", "extras", "kept"];

const PROBES: &Keys = &[
    ("startup", "spec.startup_probe", How::Restart),
    ("readiness", "spec.readiness_probe", How::Restart),
    ("liveness", "spec.liveness_probe", How::Restart),
];

const CONFINEMENT: &Keys = &[
    ("sandbox", "security.sandbox", How::Restart),
    ("capabilities", "security.capabilities_required", How::Restart),
    ("read", "security.filesystem.read", How::Restart),
    ("write", "security.filesystem.write", How::Restart),
    ("execute", "security.filesystem.execute", How::Restart),
    ("network", "security.network", How::Restart),
    ("compatibility", "security.compatibility", How::Restart),
    ("priority", "spec.priority", How::InPlace),
    ("budget", "security.budget", How::InPlace),
    ("asks_hosts", "security.network.ask", How::Restart),
    ("asks_paths", "security.filesystem.ask", How::Restart),
];

const LIMITS: &Keys = &[
    ("memory", "security.resource_limits.max_memory", How::InPlace),
    ("cpu", "security.resource_limits.max_cpu", How::InPlace),
    ("processes", "security.resource_limits.max_processes", How::InPlace),
    ("open_files", "security.resource_limits.max_open_files", How::Restart),
    ("timeout", "security.resource_limits.timeout", How::Restart),
    ("disk", "security.resource_limits.max_disk_usage", How::Restart),
    ("network_bandwidth", "security.resource_limits.max_network_bandwidth", How::Restart),
];

/// Two sets with their plans, the one that runs first.
pub(crate) fn compare((before, old): (&Set, &Plan), (after, new): (&Set, &Plan)) -> Changes {
    let known: HashMap<&AgentName, &Agent> = before.agents.iter().map(|agent| (&agent.name, agent)).collect();
    let mut changes = Changes::default();
    for agent in &after.agents {
        let Some(former) = known.get(&agent.name) else {
            changes.added.push(agent.name.clone());
            changes.by_hand.extend((agent.start == Start::Manual).then(|| agent.name.clone()));
            continue;
        };
        let [former, latter] = [(*former, before, old), (agent, after, new)].map(|(agent, set, plan)| Side {
            agent: agent.without_places(),
            file: agent,
            set,
            plan,
        });
        let differences = differences(&former, &latter);
        let list = match differences.iter().map(|(_, how)| *how).max() {
            None => &mut changes.unchanged,
            Some(How::InPlace) => &mut changes.adjusted,
            Some(How::Restart) => &mut changes.changed,
        };
        list.push(agent.name.clone());
        if !differences.is_empty() {
            let mut keys: Vec<String> = differences.into_iter().map(|(key, _)| key).collect();
            keys.sort();
            keys.dedup();
            changes.keys.insert(agent.name.clone(), keys);
        }
    }
    let is_gone = |agent: &&Agent| after.agents.iter().all(|other| other.name != agent.name);
    for former in before.agents.iter().filter(is_gone) {
        // Its document is still there, and stands for other agents.
        if after.agents.iter().any(|other| other.declared_name() == former.declared_name()) {
            changes.keys.insert(former.name.clone(), vec!["spec.replicas".to_owned()]);
        }
        changes.removed.push(former.name.clone());
    }
    changes
}

/// An agent as one of two declarations has it.
struct Side<'a> {
    agent: Agent,
    /// As it stands in its file.
    file: &'a Agent,
    set: &'a Set,
    plan: &'a Plan,
}

fn differences(former: &Side<'_>, latter: &Side<'_>) -> Vec<Difference> {
    let mut found = fields(&former.agent, &latter.agent, AGENT, &IN_PARTS);
    found.extend(fields(&former.agent.probes, &latter.agent.probes, PROBES, &[]));
    found.extend(confinement(&former.agent.confinement, &latter.agent.confinement));
    found.extend(dependencies(former, latter));
    found.extend(keys_of(&former.agent.extras, &latter.agent.extras).map(|key| (key, How::Restart)));
    found.extend(kept(&former.agent.kept, &latter.agent.kept));
    // Paths are relative to it.
    if former.file.file.parent() != latter.file.file.parent() {
        found.push(("the folder of its file".to_owned(), How::Restart));
    }
    if awaited_lines(&former.agent, former.plan) != awaited_lines(&latter.agent, latter.plan) {
        found.push(("log lines that others wait for".to_owned(), How::Restart));
    }
    found
}

/// The fields that are different, but for some.
fn fields<T: Serialize>(former: &T, latter: &T, keys: &Keys, but_for: &[&str]) -> Vec<Difference> {
    let [former, latter] = [former, latter].map(as_map);
    let differing = keys_of(&former, &latter).filter(|field| !but_for.contains(&field.as_str()));
    let named = |field: String| match keys.iter().find(|(name, ..)| *name == field) {
        Some((_, key, how)) => ((*key).to_owned(), *how),
        None => (field, How::Restart),
    };
    differing.map(named).collect()
}

fn as_map<T: Serialize>(value: &T) -> Map<String, Value> {
    let Ok(Value::Object(mut map)) = serde_json::to_value(value) else { return Map::new() };
    // How many replicas there are besides makes no difference to one of them.
    if let Some(replica) = map.get_mut("replica").and_then(Value::as_object_mut) {
        replica.remove("count");
    }
    map
}

/// The keys whose values are different, or that only one of them has.
fn keys_of(former: &Map<String, Value>, latter: &Map<String, Value>) -> impl Iterator<Item = String> {
    let keys: BTreeSet<&String> = former.keys().chain(latter.keys()).collect();
    let differing: Vec<String> =
        keys.into_iter().filter(|key| former.get(*key) != latter.get(*key)).cloned().collect();
    differing.into_iter()
}

fn confinement(former: &Confinement, latter: &Confinement) -> Vec<Difference> {
    let mut found = fields(former, latter, CONFINEMENT, &["limits"]);
    let mut limits = fields(&former.limits, &latter.limits, LIMITS, &[]);
    // The kernel refuses a limit below what is in use, or kills for it.
    if latter.limits.memory.value < former.limits.memory.value {
        limits.iter_mut().filter(|(key, _)| key == LIMITS[0].1).for_each(|(_, how)| *how = How::Restart);
    }
    found.append(&mut limits);
    found
}

/// Why an agent waits makes no difference, nor how many replicas there are of the agent that it waits for.
fn dependencies(former: &Side<'_>, latter: &Side<'_>) -> Option<Difference> {
    let edges = |side: &Side<'_>, name: fn(&Set, &AgentName) -> AgentName| -> BTreeSet<String> {
        let edge = |edge: &Dependency| {
            let Dependency { on, need, condition, if_skipped, reason: _, origin: _ } = edge;
            format!("{} {need:?} {condition:?} {if_skipped:?}", name(side.set, on))
        };
        side.agent.dependencies.iter().map(edge).collect()
    };
    let own = |_: &Set, name: &AgentName| name.clone();
    let common = |set: &Set, name: &AgentName| {
        set.agent(name).map_or_else(|| name.clone(), |agent| agent.declared_name().clone())
    };
    let key = "dependencies".to_owned();
    if edges(former, common) != edges(latter, common) {
        return Some((key, How::Restart));
    }
    let reasons =
        |side: &Side<'_>| side.agent.dependencies.iter().map(|it| it.reason.clone()).collect::<Vec<_>>();
    (edges(former, own) != edges(latter, own) || reasons(former) != reasons(latter))
        .then_some((key, How::InPlace))
}

/// Keys that only inform.
fn kept(former: &[KeptKey], latter: &[KeptKey]) -> Vec<Difference> {
    let differing = |one: &[KeptKey], other: &[KeptKey]| -> Vec<Difference> {
        let missing = one.iter().filter(|key| !other.contains(key));
        missing.map(|KeptKey { section, key, .. }| (format!("{key} of {section}"), How::InPlace)).collect()
    };
    [differing(former, latter), differing(latter, former)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use toka_api::declaration::{Declaration, Parsed, SourceFile};

    fn parsed(texts: &[&str]) -> Parsed {
        let file = SourceFile { path: "/w/all.yaml".into(), text: texts.join("---\n") };
        let declaration = Declaration::of_files("/w".as_ref(), vec![file]);
        declaration.parse().unwrap_or_else(|unparsed| panic!("{:?}", unparsed.diagnostics))
    }

    const API: &str = "metadata: {name: api}\nspec: {type: service, process: {command: [serve]}}\n";

    /// What changes, as `+added ~changed =adjusted -removed`.
    fn check(before: &[&str], after: &[&str], expected: &str) {
        let (before, after) = (parsed(before), parsed(after));
        let changes = compare((&before.set, &before.plan), (&after.set, &after.plan));
        let words = |sign: &str, names: &[AgentName]| -> Vec<String> {
            names.iter().map(|name| format!("{sign}{name}")).collect()
        };
        let all = [
            words("+", &changes.added),
            words("~", &changes.changed),
            words("=", &changes.adjusted),
            words("-", &changes.removed),
        ];
        assert_eq!(all.concat().join(" "), expected);
        for agent in changes.changed.iter().chain(&changes.adjusted) {
            assert!(changes.keys.contains_key(agent), "it is told why");
        }
    }

    #[test]
    fn only_what_is_said_makes_a_difference() {
        let commented = format!("# a comment\n\n{API}");
        check(&[API], &[&commented], "");
        let other = API.replace("[serve]", "[serve, --fast]");
        check(&[API], &[&other], "~api");
        let grown = format!("{API}domain_notes: {{origin: here}}\n");
        check(&[API], &[&grown], "~api");
        check(&[&grown], &[&grown.replace("here", "there")], "~api");
    }

    #[test]
    fn what_the_process_does_not_depend_on_is_taken_over_in_place() {
        for more in [
            "  restart: {policy: always, max_restarts: 9}\n",
            "  stop: {grace_period: 3s}\n",
            "  description: it serves\n",
            "  name: The interface\n",
            "  on_end: {failure: stop-run}\n",
            "  success_exit_codes: [3]\n",
            "logs: {max_size: 1MB}\n",
        ] {
            let block = "metadata: {name: api}\nspec:\n  type: service\n  process: {command: [serve]}\n";
            check(&[block], &[&format!("{block}{more}")], "=api");
            let other = block.replace("[serve]", "[serve, --fast]");
            check(&[block], &[&format!("{other}{more}")], "~api");
        }
        let replicas = |count: u32| API.replace("type", &format!("replicas: {count}, type"));
        check(&[&replicas(2)], &[&replicas(3)], "+api-3");
        check(&[&replicas(3)], &[&replicas(1)], "-api-2 -api-3");
        check(&[API], &[&API.replace("type", "priority: high, type")], "=api");
    }

    #[test]
    fn limits_are_changed_in_place_but_for_less_memory() {
        let with = |limits: &str| format!("{API}security: {{resource_limits: {{{limits}}}}}\n");
        let before = with("max_memory: 64MB, max_cpu: 50%, max_processes: 9, timeout: 1h");
        for (after, expected) in [
            ("max_memory: 65MB, max_cpu: 50%, max_processes: 9, timeout: 1h", "=api"),
            ("max_memory: 64MB, max_cpu: 10%, max_processes: 5, timeout: 1h", "=api"),
            ("max_memory: 63MB, max_cpu: 50%, max_processes: 9, timeout: 1h", "~api"),
            ("max_memory: 64MB, max_cpu: 50%, max_processes: 9, timeout: 2h", "~api"),
        ] {
            check(&[&before], &[&with(after)], expected);
        }
    }

    #[test]
    fn values_count_whatever_they_are_called() {
        for (before, after) in [
            ("secrets: {t: {file: one}}", "secrets: {t: {file: two}}"),
            (
                "process: {shell: 'true', environment: {file: one}}",
                "process: {shell: 'true', environment: {file: two}}",
            ),
            (
                "process: {shell: 'true', environment: {origin: one}}",
                "process: {shell: 'true', environment: {origin: two}}",
            ),
        ] {
            let document = |text: &str| match text.starts_with("process") {
                true => format!("metadata: {{name: api}}\nspec: {{{text}}}\n"),
                false => format!("metadata: {{name: api}}\nspec: {{process: {{shell: 'true'}}, {text}}}\n"),
            };
            check(&[&document(before)], &[&document(after)], "~api");
            check(&[&document(before)], &[&format!("\n\n{}", document(before))], "");
        }
    }

    #[test]
    fn dependents_of_replicas_go_on_when_there_are_more_or_fewer() {
        let replicas = |count: u32| API.replace("type", &format!("replicas: {count}, type"));
        let waits = |reason: &str, condition: &str| {
            format!(
                "metadata: {{name: web}}\nspec: {{type: service, process: {{command: [serve]}}}}\n\
                 dependencies: {{required: {{api: {{reason: {reason}, condition: {condition}}}}}}}\n"
            )
        };
        let web = &waits("r", "process_started");
        check(&[&replicas(2), web], &[&replicas(3), web], "+api-3 =web");
        check(&[&replicas(3), web], &[&replicas(2), web], "=web -api-3");
        check(&[&replicas(2), web], &[&replicas(2), &waits("other", "process_started")], "=web");
        check(&[&replicas(2), web], &[&replicas(2), &waits("r", "completed")], "~web");
    }

    #[test]
    fn keys_are_those_of_the_file() {
        let block = "metadata: {name: api}\nspec:\n  type: service\n  process: {command: [serve]}\n";
        for (more, expected) in [
            ("  priority: high\n", "spec.priority"),
            ("  readiness_probe: {log_line: up}\n", "log lines that others wait for, spec.readiness_probe"),
            ("security: {network: loopback}\n", "security.network"),
            ("domain_notes: {a: b}\n", "domain_notes"),
        ] {
            let (before, after) = (parsed(&[block]), parsed(&[&format!("{block}{more}")]));
            let changes = compare((&before.set, &before.plan), (&after.set, &after.plan));
            let keys: Vec<&str> = changes.keys.values().flatten().map(String::as_str).collect();
            assert_eq!(keys.join(", "), expected, "{more}");
        }
    }

    #[test]
    fn one_that_makes_room_for_replicas_is_told_why() {
        let two = API.replace("type", "replicas: 2, type");
        check(&[API], &[&two], "+api-1 +api-2 -api");
        let (before, after) = (parsed(&[API]), parsed(&[&two]));
        let changes = compare((&before.set, &before.plan), (&after.set, &after.plan));
        let keys = changes.keys.iter().map(|(name, keys)| format!("{name}: {}", keys.join(", ")));
        assert_eq!(keys.collect::<Vec<_>>(), ["api: spec.replicas"]);
    }

    #[test]
    fn what_comes_and_what_goes() {
        let db = API.replace("api", "db");
        check(&[API], &[&db], "+db -api");
        check(&[API, &db], &[&db], "-api");
    }

    #[test]
    fn one_that_has_to_watch_for_another_line_is_changed() {
        let waits = "metadata: {name: job}\nspec: {process: {command: [work]}}\n\
            dependencies: {required: {api: {reason: r, condition: {log_line: up}}}}\n";
        check(&[API], &[API, waits], "+job ~api");
    }
}
