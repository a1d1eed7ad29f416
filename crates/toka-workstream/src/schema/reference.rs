//! `docs/workstream.md`, made from the schema, so that no key is missing from it or told otherwise than
//! editors tell it.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::generate::{Draft, generate};
use super::key::{KeyReference, plain};
use super::policy_keys::policy_keys;

const INTRODUCTION: &str = "\
# The workstream file

<!-- Made from the schema: `TOKA_UPDATE=1 cargo test -p toka-workstream --test schema`. Do not edit. -->

One YAML document is one agent; a file may hold several, with `---` between them; a folder is the set of its `*.yaml` and
`*.yml` files, not searched any deeper. Required are `metadata.name`, and something to do: `spec.process` or a task.

```yaml
# yaml-language-server: $schema=../schemas/workstream.draft-07.schema.json
metadata: {name: checks}
spec:
  process: {command: [cargo, test]}
security:
  capabilities_required: [filesystem-read, \"filesystem-write:target\", cargo-execution]
```

- Sizes: `512MB`, `512M` and `512MiB` are all 512·1024² bytes; a bare number is bytes.
- Shares of CPU: `75%` and `0.75` are three quarters of one CPU, `200%` and `2` are two.
- Durations: `250ms`, `90s`, `1h30m`, `2d`; a bare number is seconds.
- Paths are relative to the workspace: `--workdir`, or the folder that the command is run in.
- Nothing is interpolated: `$x` in a command reaches the shell as it stands.
- A key that is unknown inside of a section is an error. An unknown section at the top level is kept and handed to the agent,
  unless its name is within two edits of a known one.
- Where nothing stands behind a key, its default holds.

`toka validate` checks files, `toka explain CODE` tells more about a problem, `toka schema` prints the schema for editors.
";

const INSIDE: &str = "
## What an agent sees

Its process begins in `spec.process.working_dir`, with a small environment: `LANG`, `TERM` and `TZ` of the caller, the
`USER` that it runs as, a `PATH` with what it may execute, a `HOME` and a `TMPDIR` of its own, what `spec.process` declares,
and these of Toka's:

| variable | what it names |
|---|---|
| `TOKA_AGENT`, `TOKA_PROJECT`, `TOKA_RUN` | the agent, the project, the run |
| `TOKA_REPLICA` | where `spec.replicas` is declared: which of them it is, from 1 |
| `TOKA_ARTIFACTS` | the folder for results: emptied once in each run of the project, before the agent's first start; kept when it is restarted or its schedule starts it again, and after the run |
| `TOKA_INPUTS` | a folder with one entry for each agent that it depends on: the artifacts of that agent, read-only |
| `CREDENTIALS_DIRECTORY` | a folder with one file for each of `spec.secrets` |
| `TOKA_SECTIONS` | a JSON file with what it may know of its own declaration, unknown sections included; no secrets or commands |
| `TOKA_WORKSTREAM_DIR` | the folder of its file, where it may read it; the one that a declaration can replace |
| `NOTIFY_SOCKET` | a datagram socket for sd_notify(3): `READY=1`, `RELOADING=1`, `STOPPING=1`, `STATUS=…`, `ERRNO=…`, `BUSERROR=…`, `EXIT_STATUS=…`, `MAINPID=…`, `EXTEND_TIMEOUT_USEC=…`, `WATCHDOG=1`, `WATCHDOG=trigger`, `BARRIER=1`, `X_TOKA_PROGRESS=0.42`, `X_TOKA_TASK=…`; what is unknown is passed over |
| `WATCHDOG_USEC` | where `spec.watchdog` is declared: its time in microseconds |
| `OPENAI_BASE_URL`, `OPENAI_API_BASE`, `ANTHROPIC_BASE_URL`, `GOOGLE_GEMINI_BASE_URL` | where `spec.model` is declared: the address at which it reaches models |
| `OPENAI_API_KEY`, `ANTHROPIC_API_KEY`, `GOOGLE_API_KEY`, `GEMINI_API_KEY` | beside them: a key that is good there and nowhere else |
| `TOKA_MODEL` | beside them, where a model is named or chosen: the first, as its provider calls it |
| `TOKA_SOCKET` | a stream socket for JSON-RPC 2.0, one message a line: `progress` with `fraction`, `status`, `task`; `metrics` with `values`, a map of numbers; `ready` |

A shell script need not speak either protocol:

```sh
toka report progress 42% --status \"reading\" --task \"inventory\"   # or a fraction such as 0.42
toka report status \"waiting for the index\"
toka report metric files 120 lines 5400
toka report ready                                                  # it now does what it is there for
```

`toka report` ends with 0 when it was told, 2 when it was refused as wrong, 69 when nobody listens, as outside of an agent, 77 when
the process is none that is answered, as a hook before or after the process.
";

/// The default of a key that has none because it must be given.
pub const REQUIRED: &str = "required";

/// The sections in the order of the document: heading, definition.
const SECTIONS: &[(&str, &str)] = &[
    ("metadata", "Metadata"),
    ("spec", "Spec"),
    ("spec.process", "Process"),
    ("spec.secrets.NAME", "Secret"),
    ("spec.restart", "Restart"),
    ("spec.restart.backoff", "Backoff"),
    ("spec.startup_probe, spec.readiness_probe, spec.liveness_probe", "Probe"),
    ("….exec", "ProbeExec"),
    ("….http_get", "HttpGet"),
    ("….tcp_socket", "TcpSocket"),
    ("spec.stop", "Stop"),
    ("spec.hooks", "Hooks"),
    ("spec.model", "Model"),
    ("spec.tools", "Tools"),
    ("spec.schedule", "Schedule"),
    ("spec.on_end", "OnEnd"),
    ("capabilities", "Capabilities"),
    ("objectives[]", "Objective"),
    ("tasks", "Tasks"),
    ("tasks.default[], tasks.conditional.GROUP[]", "Task"),
    ("tasks.….retry", "Retry"),
    ("dependencies", "Dependencies"),
    ("dependencies.….NAME", "Dependency"),
    ("dependencies.….NAME.condition", "LogLine"),
    ("reporting", "Reporting"),
    ("reporting.metrics[]", "Metric"),
    ("security", "Security"),
    ("security.filesystem", "Filesystem"),
    ("security.network", "Network"),
    ("security.resource_limits", "Limits"),
    ("security.budget", "Budget"),
    ("logs", "Logs"),
];

/// The reference of the format as Markdown: every key with its type, default, meaning and an example.
pub fn reference_markdown() -> String {
    let schema = generate(Draft::Draft202012);
    let mut out = String::from(INTRODUCTION);
    for (heading, definition) in sections(&schema) {
        let heading = if heading.is_empty() { "Top level".to_owned() } else { format!("`{heading}`") };
        section(&mut out, &heading, definition, &schema);
    }
    out.push_str(INSIDE);
    out
}

/// Every key of the format, in the order of the reference.
pub fn key_references() -> Vec<KeyReference> {
    let schema = generate(Draft::Draft202012);
    sections(&schema).flat_map(|(heading, definition)| rows(heading, definition, &schema)).collect()
}

/// The keys of a workstream and of `toka.yaml` that a person means by `text`: a name such as `max_restarts`, or a path such as `spec.restart`, which means the
/// keys below it, too.
pub fn explain_key(text: &str) -> Vec<KeyReference> {
    let text = text.trim_end_matches(':');
    let mut all = key_references();
    all.extend(policy_keys());
    all.retain(|key| !plain(text).is_empty() && (key.is_meant(text) || key.is_below(text)));
    all
}

fn sections(schema: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    let below = SECTIONS.iter().map(|(heading, name)| (*heading, &schema["$defs"][*name]));
    std::iter::once(("", schema)).chain(below)
}

fn section(out: &mut String, heading: &str, definition: &Value, schema: &Value) {
    let _ = writeln!(out, "\n## {heading}\n");
    if let Some(text) = definition["description"].as_str() {
        let _ = writeln!(out, "{}\n", one_line(text));
    }
    out.push_str("| key | type | default | meaning | example |\n|---|---|---|---|---|\n");
    for row in rows("", definition, schema) {
        let default = match row.default.as_deref() {
            Some(REQUIRED) => REQUIRED.to_owned(),
            Some(value) => format!("`{value}`"),
            None => "–".to_owned(),
        };
        let KeyReference { key, kind, meaning, example, .. } = row;
        let row = [format!("`{key}`"), kind, default, meaning, format!("`{example}`")];
        let _ = writeln!(out, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
}

fn rows(heading: &str, definition: &Value, schema: &Value) -> Vec<KeyReference> {
    let required =
        |key: &str| definition["required"].as_array().is_some_and(|keys| keys.iter().any(|k| k == key));
    let empty = Map::new();
    let row = |(key, property): (&String, &Value)| KeyReference {
        path: if heading.is_empty() { key.clone() } else { format!("{heading}.{key}") },
        kind: kind(property, schema),
        default: match (required(key), property.get("default")) {
            (true, _) => Some(REQUIRED.to_owned()),
            (_, value) => value.map(flow),
        },
        meaning: one_line(property["description"].as_str().unwrap_or_default()),
        example: flow(&property["examples"][0]),
        key: key.clone(),
    };
    definition["properties"].as_object().unwrap_or(&empty).iter().map(row).collect()
}

/// What kind of value a key takes, in a word or as its choices.
fn kind(property: &Value, schema: &Value) -> String {
    if let Some(title) = property["title"].as_str() {
        return title.to_owned();
    }
    if let Some(target) = property["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return kind(&schema["$defs"][target], schema);
    }
    let choices = property["oneOf"].as_array().or(property["anyOf"].as_array());
    if let Some(choices) = choices {
        let mut kinds: Vec<String> =
            choices.iter().map(|choice| kind(choice, schema)).filter(|kind| kind != "nothing").collect();
        kinds.dedup();
        return kinds.join(", ");
    }
    if let Some(value) = property.get("const") {
        return format!("`{}`", flow(value));
    }
    if let Some(values) = property["enum"].as_array() {
        return values.iter().map(|value| format!("`{}`", flow(value))).collect::<Vec<_>>().join(", ");
    }
    let names: Vec<&str> = match &property["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect()
        }
        _ => Vec::new(),
    };
    match names.first() {
        Some(&"object") => "map".to_owned(),
        Some(&"array") => "list".to_owned(),
        Some(&"boolean") => "`true`, `false`".to_owned(),
        Some(&"integer") => "whole number".to_owned(),
        Some(&"string") => "text".to_owned(),
        Some(&"null") | None => "nothing".to_owned(),
        Some(other) => (*other).to_owned(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A value in YAML's flow style.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a text needs no quotes in flow style.
fn is_plain(text: &str) -> bool {
    let safe = |c: char| c.is_alphanumeric() || " _-./%~".contains(c);
    text.starts_with(|c: char| c.is_alphanumeric() || "./~".contains(c)) && text.chars().all(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        explain_key(text).into_iter().map(|key| key.path).collect()
    }

    #[test]
    fn a_key_is_found_by_its_name_and_by_its_path() {
        for text in ["max_restarts", "restart.max_restarts", "spec.restart.max_restarts", "max_restarts:"] {
            assert_eq!(paths(text), ["spec.restart.max_restarts"], "{text}");
        }
        let restart = paths("spec.restart");
        assert!(restart.contains(&"spec.restart".to_owned()) && restart.len() > 3, "{restart:?}");
        for (text, expected) in [
            (
                "spec.readiness_probe.period",
                "spec.startup_probe, spec.readiness_probe, spec.liveness_probe.period",
            ),
            ("spec.liveness_probe.http_get.port", "….http_get.port"),
            ("spec.secrets.file", "spec.secrets.NAME.file"),
            ("spec.secrets.NAME.file", "spec.secrets.NAME.file"),
            ("tasks.default.run", "tasks.default[], tasks.conditional.GROUP[].run"),
            ("dependencies.required.condition", "dependencies.….NAME.condition"),
            ("objectives.check", "objectives[].check"),
            ("spec.on_end.failure", "spec.on_end.failure"),
            ("spec.schedule.cron", "spec.schedule.cron"),
        ] {
            assert!(paths(text).contains(&expected.to_owned()), "{text}: {:?}", paths(text));
        }
        let probe = paths("spec.readiness_probe");
        assert!(probe.iter().any(|path| path.ends_with("failure_threshold")), "its own keys: {probe:?}");
        for nothing in ["", "restarts", "x", "[]"] {
            assert_eq!(paths(nothing), Vec::<String>::new(), "{nothing}");
        }
    }
}
