//! What is printed and cannot be written is an error of every command alike, as of the coreutils; a reader who has gone
//! away is none.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Every command that prints something and starts nothing, and its status when all goes well.
const COMMANDS: [(&[&str], i32); 20] = [
    (&["--help"], 0),
    (&["--version"], 0),
    (&["run", "--help"], 0),
    (&["run", "--dry-run", "tests/fixtures/plan"], 0),
    (&["run", "--dry-run", "--json", "tests/fixtures/plan"], 0),
    (&["run", "--json", "tests/fixtures/plan-circle"], 65),
    (&["validate", "tests/fixtures/plan"], 0),
    (&["validate", "--json", "tests/fixtures/plan"], 0),
    (&["plan", "tests/fixtures/plan-grant"], 0),
    (&["plan", "--json", "tests/fixtures/plan-grant"], 0),
    (&["plan", "--format", "dot", "tests/fixtures/plan"], 0),
    (&["doctor", "--quick"], 0),
    (&["doctor", "--quick", "--json"], 0),
    (&["init"], 0),
    (&["explain"], 0),
    (&["explain", "capabilities"], 0),
    (&["schema"], 0),
    (&["completions", "bash"], 0),
    (&["man", "run"], 0),
    (&["validate", "tests/fixtures/plan-absent"], 65),
];

fn run(words: &[&str], stdout: Stdio) -> Output {
    let scratch = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_toka"));
    command.args(words).env("TOKA_STATE_DIR", scratch.path().join("state")).stdout(stdout);
    if words == ["init"] {
        command.arg(scratch.path().join("agents"));
    }
    command.output().expect("the toka binary")
}

#[test]
fn a_full_disk_is_told_and_makes_a_failure_of_a_success() {
    for (words, status) in COMMANDS {
        let full = File::options().write(true).open(Path::new("/dev/full")).expect("every Linux has it");
        let output = run(words, full.into());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if status == 0 { 1 } else { status }), "{words:?}: {stderr}");
        assert!(stderr.contains("cannot write to stdout: No space left on device"), "{words:?}: {stderr}");
    }
}

#[test]
fn a_reader_who_is_gone_changes_nothing() {
    for (words, status) in COMMANDS {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = run(words, writer.into());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {stderr}");
        assert!(!stderr.contains("cannot write"), "{words:?}: {stderr}");
    }
}
