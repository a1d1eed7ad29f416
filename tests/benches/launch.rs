//! How long a confined launch takes: `/bin/true` through the keeper, in its own control groups, mount namespace, Landlock
//! domain, system call filter and limits, until it is reaped and its groups are removed; against posix_spawn(3) and wait.
//!
//! `cargo bench -p toka-tests --bench launch [-- ROUNDS]`. Rounds alternate, so that a drift of the machine's speed meets both
//! alike; the ratio is of medians. The binary must be built with `cargo build --release` before.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use toka_core::{Confinement, Name};
use toka_keeper::{Keeper, KeeperEvent, KeeperOptions, Launch, ProcessId, Program};
use toka_sandbox::{AgentFolders, CompileInput, HostFacts, SandboxPlan};

const ROUNDS: usize = 300;
/// Memory that the measuring process touches before the second part: a keeper's forks must not feel it.
const BALLAST: usize = 512 << 20;

fn main() {
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(rounds));
}

async fn measure(rounds: usize) {
    let binary = binary();
    let options = KeeperOptions {
        program: binary.clone(),
        cgroup_name: format!("toka-test-bench-{}", std::process::id()),
    };
    let (keeper, mut events) = Keeper::start(&options).await.expect("a keeper");
    let temp = tempfile::tempdir().expect("a temporary folder");
    let plan = Arc::new(plan(temp.path(), &binary));
    let mut next = 0;
    for part in ["daemon small", "daemon holds 512 MiB"] {
        let ballast = if part == "daemon small" { Vec::new() } else { vec![1u8; BALLAST] };
        let (mut bare, mut confined) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let start = Instant::now();
            let status = Command::new("/bin/true").stdin(Stdio::null()).status().expect("true");
            bare.push(start.elapsed());
            assert!(status.success());
            next += 1;
            let start = Instant::now();
            let started = keeper.spawn(launch(next, &plan)).await.expect("a start");
            loop {
                match events.recv().await {
                    Some(KeeperEvent::Gone { .. }) => break,
                    Some(KeeperEvent::Exited { .. }) => {}
                    other => panic!("{other:?}"),
                }
            }
            confined.push(start.elapsed());
            drop(started);
        }
        let (bare, confined) = (median(&mut bare), median(&mut confined));
        let ratio = confined.as_secs_f64() / bare.as_secs_f64();
        println!(
            "{part}: bare {bare:?}, confined {confined:?}, ratio {ratio:.2} (n = {rounds} each, in pairs)"
        );
        drop(ballast);
    }
    keeper.shutdown().await;
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn launch(id: u64, plan: &Arc<SandboxPlan>) -> Launch {
    Launch {
        id: ProcessId(id),
        program: Program::Path("/bin/true".into()),
        argv: vec!["true".into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        plan: Arc::clone(plan),
        stop_signal: 15,
        grace: Duration::from_secs(1),
    }
}

fn binary() -> PathBuf {
    let path = std::env::current_exe().expect("our own path");
    let profile = path.parent().and_then(|deps| deps.parent()).expect("target/release");
    let binary = profile.join("toka");
    assert!(binary.exists(), "{} is missing: cargo build --release", binary.display());
    binary
}

fn plan(root: &std::path::Path, binary: &std::path::Path) -> SandboxPlan {
    let make = |name: &str| {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    };
    let folders = AgentFolders {
        workspace: make("workspace"),
        home: make("home"),
        tmp: make("tmp"),
        artifacts: make("artifacts"),
        inputs: Vec::new(),
        inputs_dir: make("inputs"),
        credentials: make("credentials"),
        door: make("door"),
        state_dir: root.to_owned(),
        run_dir: root.to_owned(),
        working_dir: make("workspace"),
        user_home: make("home"),
    };
    let name = |text| Name::new(text).expect("a label");
    SandboxPlan::compile(&CompileInput {
        confinement: &Confinement::default(),
        folders: &folders,
        host: &HostFacts::probe(),
        project: &name("bench"),
        agent: &name("true"),
        workstream_files: &[],
        workstream_dir: None,
        toka_exe: binary,
        programs: &[],
        run_as: None,
    })
    .expect("a plan")
}
