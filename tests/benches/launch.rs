//! How long a confined launch takes: `/bin/true` through the keeper, in its own control groups, mount namespace, Landlock
//! domain, system call filter and limits, until it is reaped and its groups are removed; against posix_spawn(3) and wait,
//! and against the sandboxes of others that are installed. Then with a port to Toka (a network namespace and a listening socket), beside
//! a launch without one.
//!
//! `cargo bench -p toka-tests --bench launch [-- ROUNDS] [alone]`. Rounds alternate, so that a drift of the machine's speed
//! meets all alike; ratios are of medians. `alone` leaves the others out, for a profile.

mod peers;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use toka_core::{Confinement, Declared, Name, NetworkAccess, Origin};
use toka_keeper::{Keeper, KeeperEvent, KeeperOptions, Launch, ProcessId, Program};
use toka_sandbox::{AgentFolders, CompileInput, HostFacts, SandboxPlan};
use toka_tests::measure::{Samples, Table, rounds, scratch};
use toka_tests::toka_binary;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::peers::Peer;

const ROUNDS: usize = 300;
/// Memory that the measuring process touches before the second part: a keeper's forks must not feel it.
const BALLAST: usize = 512 << 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(rounds(ROUNDS)));
}

async fn measure(rounds: usize) {
    // First, so that the keeper sees it.
    let temp = scratch();
    let options = KeeperOptions {
        program: toka_binary().to_owned(),
        cgroup_name: format!("toka-test-bench-{}", std::process::id()),
        ..KeeperOptions::default()
    };
    let (keeper, events) = Keeper::start(&options).await.expect("a keeper");
    let without = Arc::new(plan(temp.path(), &options.program, NetworkAccess::None));
    let with = Arc::new(plan(temp.path(), &options.program, NetworkAccess::Allow(Vec::new())));
    let mut launcher = Launcher { keeper, events, plan: Arc::clone(&without), next: 0 };
    let mut table = Table::new(format!("Launch of /bin/true until it is reaped, {rounds} rounds in turn"));
    launcher.measure(rounds, &mut [], ["posix_spawn and wait", "toka's keeper"], &mut table).await;
    let ballast = std::hint::black_box(vec![1u8; BALLAST]);
    let names = ["posix_spawn, with 512 MiB", "toka's keeper, with 512 MiB"];
    launcher.measure(rounds, &mut [], names, &mut table).await;
    drop(ballast);
    launcher.measure_port(rounds, (&without, &with), &mut table).await;
    if !std::env::args().any(|argument| argument == "alone") {
        // Last: the namespaces that others leave to the kernel are taken down beside whatever comes after.
        let mut peers = peers::installed(&temp.path().join("peers"));
        let names = ["posix_spawn, beside others", "toka's keeper, beside others"];
        launcher.measure(rounds, &mut peers, names, &mut table).await;
    }
    launcher.keeper.shutdown().await;
    table.print();
}

fn spawn_bare() {
    let status = Command::new("/bin/true").stdin(Stdio::null()).status().expect("true");
    assert!(status.success());
}

/// A keeper, and what is launched by it again and again.
struct Launcher {
    keeper: Keeper,
    events: UnboundedReceiver<KeeperEvent>,
    plan: Arc<SandboxPlan>,
    next: u64,
}

impl Launcher {
    /// Launches bare, confined, and with each peer, in turn; adds a line for each, the first two with these names.
    async fn measure(&mut self, rounds: usize, peers: &mut [Peer], names: [&str; 2], table: &mut Table) {
        let (mut bare, mut confined) = (Samples::default(), Samples::default());
        for _ in 0..rounds {
            bare.time(spawn_bare);
            confined.add_time(self.launch().await);
            for peer in &mut *peers {
                peer.launch();
            }
        }
        table.row(names[0], &bare, "ms", Some(&bare), "");
        table.row(names[1], &confined, "ms", Some(&bare), if peers.is_empty() { "≤ 1.7×" } else { "" });
        for peer in peers {
            table.row(peer.name, &peer.samples, "ms", Some(&bare), "");
        }
    }

    /// Launches without a port and with one, in turn; adds a line for each.
    async fn measure_port(
        &mut self,
        rounds: usize,
        (without, with): (&Arc<SandboxPlan>, &Arc<SandboxPlan>),
        table: &mut Table,
    ) {
        assert!(with.listen.is_some() && without.listen.is_none(), "one of the two has a port");
        let (mut plain, mut port) = (Samples::default(), Samples::default());
        for _ in 0..rounds {
            for (plan, samples) in [(without, &mut plain), (with, &mut port)] {
                self.plan = Arc::clone(plan);
                samples.add_time(self.launch().await);
            }
        }
        self.plan = Arc::clone(without);
        table.row("toka's keeper, without a port", &plain, "ms", Some(&plain), "");
        table.row("toka's keeper, with a port", &port, "ms", Some(&plain), "≤ 1.3×");
    }

    /// Launches `true` and waits until its groups are gone.
    async fn launch(&mut self) -> Duration {
        self.next += 1;
        let launch = Launch {
            id: ProcessId(self.next),
            program: Program::Path("/bin/true".into()),
            argv: vec!["true".into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            plan: Arc::clone(&self.plan),
            beside: None,
            notification_fd: None,
            terminal: None,
            stop_signal: 15,
            grace: Duration::from_secs(1),
        };
        let begun = Instant::now();
        let started = self.keeper.spawn(launch).await.expect("a start");
        loop {
            match self.events.recv().await {
                Some(KeeperEvent::Gone { .. }) => break,
                Some(KeeperEvent::Exited { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        let took = begun.elapsed();
        drop(started);
        took
    }
}

fn plan(root: &Path, binary: &Path, network: NetworkAccess) -> SandboxPlan {
    let folders = AgentFolders::below(root);
    folders.make().expect("folders");
    let name = |text| Name::new(text).expect("a label");
    SandboxPlan::compile(&CompileInput {
        confinement: &Confinement {
            network: Declared::new(network, Origin::default_of("the benchmark")),
            ..Confinement::default()
        },
        folders: &folders,
        host: &HostFacts::probe(),
        project: &name("bench"),
        agent: &name("true"),
        facts: &toka_sandbox::plan::WorkspaceFacts::plain(&folders.workspace),
        workstream_dir: None,
        toka_exe: binary,
        programs: &[],
        run_as: None,
    })
    .expect("a plan")
}
