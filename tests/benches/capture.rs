//! How fast an agent can write: its output on the way to its log in large pieces and in small ones, against the same
//! program writing into `cat >FILE`, and into nothing, which is as fast as it can.
//!
//! `cargo bench -p toka-tests --bench capture [-- ROUNDS]`. Rounds alternate; ratios are of medians.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use toka_tests::measure::{Samples, Table, rounds, scratch};
use toka_tests::toka_binary;

const ROUNDS: usize = 5;
const GROUP: &str = "toka-test-bench";

/// How the writer writes.
struct Load {
    name: &'static str,
    block: usize,
    blocks: usize,
}

const LOADS: [Load; 2] = [
    Load { name: "64 KiB", block: 64 << 10, blocks: 4096 },
    Load { name: "100 bytes", block: 100, blocks: 500_000 },
];

impl Load {
    fn command(&self) -> String {
        format!("dd if=/dev/zero bs={} count={} status=none", self.block, self.blocks)
    }

    /// MB/s, of 10⁶ bytes, when it took so many seconds.
    fn speed(&self, seconds: f64) -> f64 {
        (self.block * self.blocks) as f64 / 1e6 / seconds
    }
}

fn main() {
    let rounds = rounds(ROUNDS);
    let mut table = Table::new(format!("Output of one writer, {rounds} rounds in turn"));
    for load in &LOADS {
        let (mut nothing, mut cat, mut toka) = (Samples::default(), Samples::default(), Samples::default());
        for _ in 0..rounds {
            nothing.add(load.speed(into_nothing(load)));
            cat.add(load.speed(through_cat(load)));
            toka.add(load.speed(through_toka(load)));
        }
        table.row(&format!("writes of {}, >/dev/null", load.name), &nothing, "MB/s", Some(&cat), "");
        table.row(&format!("writes of {}, cat >FILE", load.name), &cat, "MB/s", Some(&cat), "");
        table.row(&format!("writes of {}, log of toka run", load.name), &toka, "MB/s", Some(&cat), "");
    }
    table.print();
}

fn into_nothing(load: &Load) -> f64 {
    let begun = Instant::now();
    let status = Command::new("sh").args(["-c", &format!("{} >/dev/null", load.command())]).status();
    assert!(status.expect("a shell").success());
    begun.elapsed().as_secs_f64()
}

fn through_cat(load: &Load) -> f64 {
    let temp = scratch();
    let line = format!("{} | cat >\"$0\"", load.command());
    let begun = Instant::now();
    let status = Command::new("sh").args(["-c", &line]).arg(temp.path().join("log")).status();
    assert!(status.expect("a shell").success());
    let took = begun.elapsed().as_secs_f64();
    let size = fs::metadata(temp.path().join("log")).expect("the log").len();
    assert_eq!(size, (load.block * load.blocks) as u64);
    took
}

/// From the agent's start to its end, so that what surrounds every run is left out.
fn through_toka(load: &Load) -> f64 {
    let temp = scratch();
    let (file, state) = (temp.path().join("writer.yaml"), temp.path().join("state"));
    // Logs of the usual size, which are begun, compressed and counted on the way; none is removed, to see that none is lost.
    let yaml = format!(
        "metadata: {{name: writer}}\nspec: {{process: {{shell: {}}}}}\nlogs: {{total: 4GB}}\n",
        load.command()
    );
    fs::write(&file, yaml).expect("a workstream");
    let mut command = Command::new(toka_binary());
    command.arg("run").arg(&file).arg("--json").env("TOKA_CGROUP", GROUP);
    command.args(["--project", "bench"]).arg("--workdir").arg(temp.path()).arg("--state-dir").arg(&state);
    let output = command.stdin(Stdio::null()).output().expect("toka starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {text}", output.status);
    let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let time = |kind: &str| {
        let event = events.iter().find(|event| event["type"] == kind);
        event.and_then(|event| event["time_ms"].as_f64()).expect("the event")
    };
    let logs = state.join("projects").join("bench").join("agents").join("writer");
    assert_eq!(written(&logs), (load.block * load.blocks) as u64, "nothing is lost");
    (time("agent_ended") - time("agent_started")) / 1e3
}

/// Bytes in an agent's current log and in its older ones. A compressed one says how many it holds in its last four bytes
/// (RFC 1952).
fn written(agent: &Path) -> u64 {
    let older = fs::read_dir(agent.join("logs")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut sizes = BTreeMap::new();
    for path in older.chain([agent.join("log")]) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let Ok(bytes) = fs::read(&path) else { continue };
        if let Some(whole) = name.strip_suffix(".log.gz") {
            let (_, last) = bytes.split_last_chunk().expect("a compressed file has an end");
            sizes.entry(whole.to_owned()).or_insert(u64::from(u32::from_le_bytes(*last)));
        } else if let Some(whole) = name.strip_suffix(".log").or((name == "log").then_some("log")) {
            sizes.insert(whole.to_owned(), bytes.len() as u64);
        }
    }
    sizes.values().sum()
}
