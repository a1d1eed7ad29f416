//! The generated files are what the code makes, and an independent validator agrees with the decoder.

use std::fs;
use std::path::{Path, PathBuf};

use toka_workstream::schema::{Draft, reference_markdown, to_text};
use toka_workstream::{LoadOptions, check, documents};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares a committed file with what it should be; `TOKA_UPDATE=1` writes it instead.
fn is_fresh(path: &str, expected: &str) {
    let path = root().join(path);
    if std::env::var_os("TOKA_UPDATE").is_some() {
        fs::write(&path, expected).expect("written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{} is stale; run `TOKA_UPDATE=1 cargo test -p toka-workstream --test schema`",
        path.display()
    );
}

#[test]
fn the_schemas_are_fresh() {
    is_fresh("schemas/workstream.schema.json", &to_text(Draft::Draft202012));
    is_fresh("schemas/workstream.draft-07.schema.json", &to_text(Draft::Draft07));
}

#[test]
fn the_reference_is_fresh() {
    is_fresh("docs/workstream.md", &reference_markdown());
}

fn validators() -> Vec<jsonschema::Validator> {
    [Draft::Draft202012, Draft::Draft07]
        .into_iter()
        .map(|draft| {
            let schema: serde_json::Value = serde_json::from_str(&to_text(draft)).expect("JSON");
            if let Err(error) = jsonschema::meta::validate(&schema) {
                panic!("{draft:?} is no schema: {}: {error}", error.instance_path());
            }
            jsonschema::validator_for(&schema).expect("a schema")
        })
        .collect()
}

fn yaml_files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            yaml_files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            out.push(path);
        }
    }
}

fn assert_valid(name: &str, text: &str) {
    for validator in validators() {
        for document in documents(text) {
            let problems: Vec<String> = validator
                .iter_errors(&document)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(problems.is_empty(), "{name}: {problems:#?}");
        }
    }
}

#[test]
fn what_the_decoder_takes_the_schema_takes() {
    let mut files = Vec::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for folder in [fixtures.join("good"), fixtures.join("foreign"), root().join("agents")] {
        yaml_files(&folder, &mut files);
    }
    assert!(files.len() >= 5);
    for path in &files {
        assert_valid(&path.display().to_string(), &fs::read_to_string(path).expect("read"));
    }
    assert_valid("the starter", toka_workstream::STARTER);
}

/// Every mistake of these the decoder reports, and a schema can see.
#[test]
fn what_the_schema_refuses_the_decoder_refuses() {
    let head = "metadata: {name: a}\nspec: {process: {command: [x]}";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("one.yaml");
    for text in [
        "spec: {}\n".to_owned(),
        "metadata: {name: Not A Label}\nspec: {process: {command: [x]}}\n".to_owned(),
        format!("{head}, priority: urgent}}\n"),
        format!("{head}, comand: 1}}\n"),
        format!("{head}, restart: {{policy: sometimes}}}}\n"),
        format!("{head}, stop: [1]}}\n"),
        format!("{head}, readiness_probe: {{http_get: {{port: 0}}}}}}\n"),
        format!("{head}, readiness_probe: {{notification_fd: 2}}}}\n"),
        format!("{head}, readiness_probe: {{notification_fd: 1024}}}}\n"),
        format!("{head}}}\nsecurity: {{sandbox: perhaps}}\n"),
        format!("{head}}}\nsecurity: {{network: some}}\n"),
        format!("{head}}}\nsecurity: {{resource_limits: {{max_processes: 0}}}}\n"),
        format!("{head}}}\nreporting: {{frequency: never}}\n"),
        format!("{head}}}\nlogs: {{when_full: panic}}\n"),
        format!("{head}}}\nlogs: {{rotate: 3}}\n"),
        format!("{head}}}\ntasks: {{default: [{{run: x}}]}}\n"),
        format!("{head}, watchdog: 10 apples}}\n"),
        format!("{head}, schedule: 10 apples}}\n"),
        format!("{head}, success_exit_codes: [10 apples]}}\n"),
        format!("{head}, stop: {{grace_period: 10 apples}}}}\n"),
        format!("{head}, stop: {{signal: 10 apples}}}}\n"),
        format!("{head}}}\nlogs: {{max_size: 10 apples}}\n"),
        format!("{head}}}\ntasks: {{default: [{{description: d, timeout: 10 apples}}]}}\n"),
        format!("{head}}}\nsecurity: {{resource_limits: {{max_memory: 10 apples}}}}\n"),
        format!("{head}}}\nsecurity: {{resource_limits: {{max_cpu: 10 apples}}}}\n"),
        format!("{head}}}\nsecurity: {{resource_limits: {{max_network_bandwidth: 10 apples}}}}\n"),
    ] {
        let document = &documents(&text)[0];
        assert!(
            validators().iter().all(|validator| !validator.is_valid(document)),
            "the schema takes {text}"
        );
        fs::write(&path, &text).expect("written");
        let loaded = check(std::slice::from_ref(&path), &LoadOptions::default());
        assert!(loaded.set.is_none(), "the decoder takes {text}");
    }
}

#[test]
fn the_schema_takes_quantities_as_the_decoder_does() {
    for value in [
        "watchdog: 1 Hour 30 min",
        "watchdog: 90",
        "watchdog: '1h30m'",
        "watchdog: 1.5 s",
        "stop: {signal: SIGUSR1}",
        "stop: {signal: 15}",
        "stop: {signal: int}",
        "schedule: '@daily'",
        "schedule: '0 30 2 * * MON-FRI 2027'",
        "success_exit_codes: [0, 130, SIGTERM]",
    ] {
        let document =
            &documents(&format!("metadata: {{name: a}}\nspec: {{process: {{command: [x]}}, {value}}}\n"))[0];
        assert!(validators().iter().all(|validator| validator.is_valid(document)), "{value}");
    }
    for limit in [
        "max_memory: 512 MiB",
        "max_memory: 1_000k",
        "max_memory: 1073741824",
        "max_cpu: 75%",
        "max_cpu: 0.75",
        "max_network_bandwidth: 10MB/s",
        "max_network_bandwidth: 100 Mbps",
        "max_network_bandwidth: 10MBps",
        "max_network_bandwidth: 100Mbit/s",
        "timeout: 2 Days",
    ] {
        let text = format!(
            "metadata: {{name: a}}\nspec: {{process: {{command: [x]}}}}\nsecurity: {{resource_limits: {{{limit}}}}}\n"
        );
        let document = &documents(&text)[0];
        assert!(validators().iter().all(|validator| validator.is_valid(document)), "{limit}");
    }
}

#[test]
fn the_examples_of_the_reference_are_what_the_decoder_takes() {
    let schema: serde_json::Value = serde_json::from_str(&to_text(Draft::Draft202012)).expect("JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("one.yaml");
    let mut tried = 0;
    for (definition, section) in [
        ("Spec", "spec"),
        ("Security", "security"),
        ("Reporting", "reporting"),
        ("Logs", "logs"),
        ("Capabilities", "capabilities"),
    ] {
        for (key, property) in schema["$defs"][definition]["properties"].as_object().expect("keys") {
            let example = &property["examples"][0];
            let (spec, rest) = match section {
                "spec" if ["process", "chat"].contains(&key.as_str()) => {
                    (format!("{{{key}: {example}}}"), String::new())
                }
                "spec" => (format!("{{process: {{command: [x]}}, {key}: {example}}}"), String::new()),
                _ => ("{process: {command: [x]}}".to_owned(), format!("{section}: {{{key}: {example}}}\n")),
            };
            fs::write(&path, format!("metadata: {{name: a}}\nspec: {spec}\n{rest}")).expect("written");
            let loaded = check(std::slice::from_ref(&path), &LoadOptions::default());
            assert!(loaded.set.is_some(), "{section}.{key}: {:?}", loaded.diagnostics);
            tried += 1;
        }
    }
    assert!(tried > 20);
}
