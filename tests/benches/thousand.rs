//! A thousand confined sleepers: how long until all run, how long from the signal until all are gone with their control
//! groups, what the daemon and the keeper hold in memory meanwhile, and that they sleep when nothing happens. Beside them
//! `floor.c`, which forks as many sleepers and does nothing else, and the supervisors of others that are installed.
//!
//! `cargo bench -p toka-tests --bench thousand [-- ROUNDS]`. Rounds alternate; ratios are of medians.

mod supervisors;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toka_tests::measure::{Samples, Table, compile_c, rounds, scratch};
use toka_tests::{cgroups_of, toka_binary, workspace_root};

const ROUNDS: usize = 5;
const AGENTS: usize = 1000;
const FILES: usize = 10;
/// Between the last start and the first look: what started has settled by then.
const SETTLE: Duration = Duration::from_secs(2);
/// How long nobody may wake.
const IDLE: Duration = Duration::from_secs(3);
/// By this name the benchmark's groups are found.
const GROUP: &str = "toka-test-bench";

fn main() {
    let rounds = rounds(ROUNDS);
    let temp = scratch();
    let floor = temp.path().join("floor");
    compile_c(&workspace_root().join("tests/benches/floor.c"), &[], &floor);
    write_workstreams(&temp.path().join("sleepers"));
    // Builds it where it is not up to date, which is not to be measured.
    toka_binary();
    let (mut bare, mut toka) = (Figures::default(), Figures::default());
    let mut others = supervisors::installed();
    for _ in 0..rounds {
        for other in &mut others {
            other.run(&temp.path().join("others"), AGENTS);
        }
        run_floor(&floor, &mut bare);
        run_toka(temp.path(), &mut toka);
    }

    let mut table = Table::new(format!("{AGENTS} sleepers, {rounds} rounds in turn"));
    table.row("start: bare loop in C", &bare.start, "ms", Some(&bare.start), "");
    table.row(
        "start: toka run, until all run",
        &toka.start,
        "ms",
        Some(&bare.start),
        "≤ 1.9 s, ahead of the others",
    );
    table.row("  of it, before the first start", &toka.first, "ms", None, "≤ 50 ms");
    table.row("stop: bare loop in C", &bare.stop, "ms", Some(&bare.stop), "");
    table.row("stop: until all groups are removed", &toka.stop, "ms", Some(&bare.stop), "≤ 300 ms");
    table.row("  until toka run has ended", &toka.end, "ms", Some(&bare.stop), "≤ 500 ms");
    table.row("memory (PSS) of the daemon", &toka.daemon, "MiB", None, "");
    table.row("memory (PSS) of the keeper", &toka.keeper, "MiB", None, "");
    table.row("  together", &toka.together, "MiB", None, "< 25 MiB");
    table.row(&format!("wake-ups of both in {} idle s", IDLE.as_secs()), &toka.wakes, "", None, "0");
    for other in &others {
        let name = |what: &str| format!("{}, unconfined: {what}", other.name);
        table.row(&name("start, until all run"), &other.start, "ms", Some(&bare.start), "");
        table.row(&name("stop, until none runs"), &other.stop, "ms", Some(&bare.stop), "");
        table.row(&name("  until it has ended"), &other.end, "ms", Some(&bare.stop), "");
        table.row(&name("memory (PSS)"), &other.memory, "MiB", None, "");
    }
    table.print();
}

/// Times in milliseconds, memory in MiB.
#[derive(Default)]
struct Figures {
    start: Samples,
    first: Samples,
    stop: Samples,
    end: Samples,
    daemon: Samples,
    keeper: Samples,
    together: Samples,
    wakes: Samples,
}

fn write_workstreams(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    for file in 0..FILES {
        let mut text = String::new();
        for agent in 0..AGENTS / FILES {
            let _ = writeln!(text, "---\nmetadata: {{name: s{file}-{agent}}}");
            text += "spec: {process: {command: [sleep, '1000']}}\n";
        }
        fs::write(folder.join(format!("s{file}.yaml")), text).expect("a workstream");
    }
}

fn run_floor(program: &Path, figures: &mut Figures) {
    let output = Command::new(program).arg(AGENTS.to_string()).output().expect("it was compiled");
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let mut times = text.split_whitespace().map(|word| word.parse().expect("a number"));
    figures.start.add(times.next().expect("the start"));
    figures.stop.add(times.next().expect("the stop"));
}

/// One run with a state folder of its own.
fn run_toka(temp: &Path, figures: &mut Figures) {
    let (state, workspace) = (temp.join("state"), temp.join("workspace"));
    fs::create_dir_all(&workspace).expect("a folder");
    let begun = Instant::now();
    let mut run = Run::start(temp, &workspace, &state);
    run.wait_for("agent_starting", 1);
    figures.first.add_time(begun.elapsed());
    run.wait_for("agent_started", AGENTS);
    figures.start.add_time(begun.elapsed());

    sleep(SETTLE);
    let daemon = run.pid();
    let keeper = child_of(daemon);
    let wakes = || context_switches(daemon) + context_switches(keeper);
    let before = wakes();
    sleep(IDLE);
    // A thread that has ended takes its count along.
    figures.wakes.add(wakes().saturating_sub(before) as f64);
    let (daemon, keeper) = (pss(daemon), pss(keeper));
    figures.daemon.add(daemon);
    figures.keeper.add(keeper);
    figures.together.add(daemon + keeper);

    let begun = Instant::now();
    kill(run.pid(), Signal::SIGINT).expect("it runs");
    run.wait_for("agent_ended", AGENTS);
    figures.stop.add_time(begun.elapsed());
    run.finish();
    figures.end.add_time(begun.elapsed());
    assert_eq!(cgroups_of(GROUP), Vec::<std::path::PathBuf>::new(), "no group stays behind");
    fs::remove_dir_all(&state).expect("the state folder can be removed");
}

/// A `toka run --json`. Killed when dropped, which takes its agents with it.
struct Run {
    child: Child,
    events: BufReader<ChildStdout>,
}

impl Run {
    fn start(temp: &Path, workspace: &Path, state: &Path) -> Self {
        let mut command = Command::new(toka_binary());
        command.arg("run").arg(temp.join("sleepers")).arg("--json");
        command.arg("--workdir").arg(workspace).arg("--state-dir").arg(state).env("TOKA_CGROUP", GROUP);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("toka starts");
        let events = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, events }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Reads events until so many of this type have come. A search of the line, not a parser: the reader shares the
    /// processors with what it measures.
    fn wait_for(&mut self, kind: &str, times: usize) {
        let wanted = format!("\"type\":\"{kind}\"");
        let (mut line, mut seen) = (String::new(), 0);
        while seen < times {
            line.clear();
            let read = self.events.read_line(&mut line).expect("events are text");
            assert!(read > 0, "the run ended after {seen} of {times} {kind}");
            seen += usize::from(line.contains(&wanted));
        }
    }

    fn finish(mut self) {
        std::io::copy(&mut self.events, &mut std::io::sink()).expect("the rest is read");
        let status = self.child.wait().expect("our own child");
        assert_eq!(status.code(), Some(130), "interrupted");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The keeper is the daemon's only child.
fn child_of(parent: Pid) -> Pid {
    *children_of(parent).first().expect("the keeper")
}

/// The children of a process.
fn children_of(parent: Pid) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").expect("proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let children = pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name before it may hold anything, but ends with the last bracket.
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(&parent.to_string())
    });
    children.map(Pid::from_raw).collect()
}

/// Memory of a process in MiB, each shared page divided by those who share it.
fn pss(pid: Pid) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a PSS");
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number of KiB");
    kib / 1024.0
}

/// How often the threads of a process were put on a processor and taken from it.
fn context_switches(pid: Pid) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten();
    threads
        .map(|thread| {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let lines = status.lines().filter(|line| line.contains("ctxt_switches:"));
            lines.filter_map(|line| line.rsplit(['\t', ' ']).next()?.parse::<u64>().ok()).sum::<u64>()
        })
        .sum()
}
