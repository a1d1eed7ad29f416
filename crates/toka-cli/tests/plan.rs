//! `toka plan` as a command: what it prints where, and what it ends with.

use std::process::{Command, Output};

fn plan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_toka"))
        .arg("plan")
        .args(arguments)
        .env("NO_COLOR", "1")
        .output()
        .expect("the toka binary")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn a_circle_is_shown_whole_with_the_line_of_each_edge() {
    let output = plan(&["tests/fixtures/plan-circle"]);
    assert_eq!(output.status.code(), Some(65));
    assert_eq!(text(&output.stdout), "");
    insta::assert_snapshot!(text(&output.stderr));
}

#[test]
fn without_a_plan_programs_are_told_why() {
    let output = plan(&["tests/fixtures/plan-circle", "--json"]);
    assert_eq!(output.status.code(), Some(65));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(value["run"]["exit_code"], 65);
    let circle = &value["run"]["obstacles"][0];
    assert_eq!(circle["type"], "diagnostic");
    assert!(circle["labels"][0]["line"].is_number(), "{circle}");
}

#[test]
fn every_format_is_printed_and_nothing_is_made() {
    let state = tempfile::tempdir().expect("a folder");
    let state = state.path().join("state");
    for (format, beginning) in [
        ("text", "3 agents in 2 waves\n"),
        ("json", "{\"waves\":[[\"cache\",\"fetch\"],[\"checks\"]],"),
        ("dot", "digraph plan {\n"),
        ("mermaid", "flowchart LR\n"),
    ] {
        let output =
            plan(&["tests/fixtures/plan", "--format", format, "--state-dir", &state.to_string_lossy()]);
        let code = if format == "text" || format == "json" { 65 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{format}");
        assert!(text(&output.stdout).starts_with(beginning), "{format}: {}", text(&output.stdout));
    }
    assert!(!state.exists());
}

#[test]
fn a_grant_changes_what_a_run_would_do() {
    let workspace = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(workspace.path().join("app")).expect("a folder");
    let workdir = workspace.path().to_string_lossy();
    let files = ["tests/fixtures/plan/checks.yaml", "tests/fixtures/plan-grant/fetch.yaml"];
    let exit_code = |arguments: &[&str]| {
        let output =
            plan(&[&files[..], &["--json", "--project", "p", "--workdir", &workdir], arguments].concat());
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(value["run"]["exit_code"].as_i64(), output.status.code().map(i64::from));
        output.status.code()
    };
    assert_eq!(exit_code(&[]), Some(77));
    assert_eq!(exit_code(&["--allow", "network:full"]), Some(77));
    assert_eq!(exit_code(&["--allow", "network:full", "--allow", "filesystem-outside:/data"]), Some(0));
}

#[test]
fn columns_are_honoured() {
    for (columns, most) in [("5", 60), ("80", 80), ("0", 100), ("many", 100), ("", 100)] {
        let output = Command::new(env!("CARGO_BIN_EXE_toka"))
            .args(["plan", "tests/fixtures/plan"])
            .envs([("COLUMNS", columns), ("NO_COLOR", "1")])
            .output()
            .expect("the toka binary");
        let longest = text(&output.stdout).lines().map(|line| line.chars().count()).max();
        assert_eq!(longest, Some(most), "COLUMNS={columns:?}: {}", text(&output.stderr));
    }
}
