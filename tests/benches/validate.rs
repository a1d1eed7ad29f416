//! How long `toka validate` takes over a thousand files, and how much memory; beside it `cat`, which reads the same files
//! and does not look at them.
//!
//! `cargo bench -p toka-tests --bench validate [-- ROUNDS]`. Rounds alternate; ratios are of medians.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::resource::{UsageWho, getrusage};
use toka_tests::measure::{Samples, Table, rounds, scratch};
use toka_tests::toka_binary;

const ROUNDS: usize = 21;
const FILES: usize = 1000;
/// With this word the benchmark re-enters itself, to run one command and tell the memory that it took: the kernel keeps
/// only the most that any child ever held, and the benchmark itself may have had the compiler for a child.
const RE_ENTRY: &str = "__peak-memory-of";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == RE_ENTRY) {
        return print_peak_memory(&arguments[1..]);
    }
    measure(rounds(ROUNDS));
}

fn measure(rounds: usize) {
    let temp = scratch();
    let folder = temp.path().join("workstreams");
    let bytes = write_workstreams(&folder);
    let toka = toka_binary().to_str().expect("a path in UTF-8");
    let folder_word = folder.to_str().expect("a path in UTF-8");
    let validate = [toka, "validate", folder_word];
    let read = ["sh", "-c", "cat \"$0\"/*.yaml", folder_word];
    let (mut floor, mut time, mut memory) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..rounds {
        floor.time(|| run(&read));
        time.time(|| run(&validate));
    }
    for _ in 0..3 {
        memory.add(peak_memory(&validate));
    }

    let size = bytes as f64 / FILES as f64 / 1024.0;
    let mut table = Table::new(format!("{FILES} files of {size:.1} KiB, {rounds} rounds in turn"));
    table.row("cat", &floor, "ms", Some(&floor), "");
    table.row("toka validate", &time, "ms", Some(&floor), "< 300 ms");
    table.row("  most memory held", &memory, "MiB", None, "");
    table.print();
}

/// Writes files with a bit of everything; each third agent waits for the one before it. Returns their size in bytes.
fn write_workstreams(folder: &Path) -> usize {
    fs::create_dir_all(folder).expect("a folder");
    let texts = (0..FILES).map(|number| {
        let text = workstream(number);
        fs::write(folder.join(format!("agent-{number:04}.yaml")), &text).expect("a workstream");
        text.len()
    });
    texts.sum()
}

fn workstream(number: usize) -> String {
    let mut text = format!(
        "# One of many agents.
metadata:
  name: agent-{number:04}
  version: 1.0.{number}
spec:
  name: Agent number {number}
  domain: testing
  priority: high
  description: |
    Reads what the one before left, and
    leaves something for the next.
  process:
    command: [sh, -c, 'echo {number} > \"$TOKA_ARTIFACTS/number\"']
    environment: {{NUMBER: '{number}', LANG: C.UTF-8}}
  stop:
    signal: SIGINT
    grace_period: 5s
security:
  capabilities_required: [filesystem-read, \"filesystem-write:target\"]
  resource_limits: {{max_memory: {memory}MB, max_cpu: 50%, timeout: 10m}}
tasks:
  default:
    - description: Read the files of the one before
      priority: high
      estimated_duration: 5m
    - description: Write the number
      priority: medium
",
        memory = 64 + number % 64
    );
    if number % 3 == 2 {
        let before = number - 1;
        text += &format!("dependencies:\n  required:\n    agent-{before:04}: it leaves the number\n");
    }
    text
}

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).stdout(Stdio::null()).output();
    let output = output.expect("it starts");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The most memory that a command held at once, in MiB.
fn peak_memory(words: &[&str]) -> f64 {
    let myself = std::env::current_exe().expect("our own path");
    let output = Command::new(myself).arg(RE_ENTRY).args(words).output().expect("it starts");
    let kib: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number of KiB");
    kib / 1024.0
}

fn print_peak_memory(words: &[String]) {
    run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage of our children").max_rss());
}
