//! A keeper that outlives its daemon, with real processes: what the next daemon finds, that nothing is lost or doubled
//! whenever a daemon dies, and what is left when the keeper itself is killed.

mod keeper_support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use keeper_support::{Bench, PATIENCE, first_line, groups, is_alive, myself, part, read_all, stat};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use toka_keeper::process::start_time;
use toka_keeper::{
    Attach, Keeper, KeeperError, KeeperEvent, KeeperOptions, Launch, Outlive, ProcessId, Program, SpawnError,
    State, Status,
};
use toka_tests::{Need, require, toka_binary, until};
use tokio::time::timeout;

const ONE: ProcessId = ProcessId(1);

#[tokio::test]
async fn agents_go_on_without_a_daemon_and_the_next_one_finds_what_they_did() {
    let bench = Bench::listening().await;
    let flag = bench.folders.path().join("artifacts/go");
    let script =
        format!("echo one; while [ ! -e {} ]; do sleep 0.01; done; echo two; exit 3", flag.display());
    let started = bench.keeper.spawn(bench.launch(1, &script)).await.expect("a start");
    let pid = started.pid;
    drop(started);
    let folders = Arc::clone(&bench.folders);
    let name = bench.groups.clone();
    bench.keeper.detach().await;
    std::fs::write(&flag, "").expect("a file");
    until(PATIENCE, "the agent to end by itself", || (!is_alive(pid)).then_some(()));

    let (mut bench, _) = Bench::attached(&folders, &name).await;
    assert_eq!(bench.end_of(1).await, Status::Code(3));
    let back = bench.keeper.hand_back(ONE).await.expect("its pipes");
    let texts: Vec<(String, String)> = back.into_iter().map(|(name, fd)| (name, read_all(fd))).collect();
    assert_eq!(texts, [("stdout".into(), "one\ntwo\n".into()), ("stderr".into(), String::new())]);
    bench.keeper.settle(ONE).await.expect("settled");
    assert!(bench.keeper.hand_back(ONE).await.is_err());
    bench.finish().await;
}

#[tokio::test]
async fn an_end_is_told_to_each_daemon_until_one_has_settled_it() {
    let mut bench = Bench::listening().await;
    bench.keeper.spawn(bench.launch(1, "exit 5")).await.expect("a start");
    assert_eq!(bench.end_of(1).await, Status::Code(5));
    for _ in 0..2 {
        let holdings;
        (bench, holdings) = bench.again().await;
        assert!(matches!(holdings[0].state, State::Gone { status: Status::Code(5), .. }), "{holdings:?}");
        assert_eq!(bench.end_of(1).await, Status::Code(5));
    }
    let refused = bench.keeper.spawn(bench.launch(1, "true")).await.expect_err("not settled");
    assert!(refused.to_string().contains("not settled"), "{refused}");
    bench.keeper.settle(ONE).await.expect("settled");
    bench.keeper.settle(ONE).await.expect("once more does no harm");
    bench.keeper.spawn(bench.launch(1, "sleep 1000")).await.expect("its number is free");
    assert!(bench.keeper.settle(ONE).await.is_err(), "it is not over");
    bench.keeper.kill(ONE);
    bench.end_of(1).await;
    bench.keeper.settle(ONE).await.expect("settled");
    let (bench, holdings) = bench.again().await;
    assert_eq!(holdings, []);
    bench.finish().await;
}

#[tokio::test]
async fn the_list_tells_all_that_it_takes_to_go_on() {
    if !require(&[Need::Cgroups]) {
        return;
    }
    let bench = Bench::listening().await;
    let started = bench.keeper.spawn(bench.launch(1, "sleep 1000")).await.expect("a start");
    let launch =
        Launch { beside: Some(ONE), plan: bench.launch(1, "").plan, ..bench.launch(2, "sleep 1000") };
    bench.keeper.spawn(launch).await.expect("a start beside it");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    bench.keeper.hold(ONE, "door", vec![ours.into(), theirs.into()]).await.expect("held");
    bench.keeper.freeze(ONE).await.expect("frozen");
    let (bench, holdings) = bench.again().await;
    let [one, two] = &holdings[..] else { panic!("{holdings:?}") };
    assert_eq!((one.id, one.pid, one.start_time), (ONE, started.pid, start_time(started.pid)));
    assert_eq!((one.project.as_str(), one.agent.as_str(), &one.state), ("keeper", "agent-1", &State::Frozen));
    assert_eq!((one.held.clone(), one.beside), (vec!["door".to_owned()], None));
    assert_eq!(one.enforcement, started.enforcement);
    assert_eq!((one.stop_signal, one.grace), (libc::SIGTERM, Duration::from_millis(100)));
    let age = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() - u128::from(one.started_ms);
    assert!(age < PATIENCE.as_millis(), "{age} ms");
    assert_eq!((two.beside, &two.state), (Some(ONE), &State::Running));
    bench.keeper.thaw(ONE).await.expect("thawed");
    assert_eq!(bench.keeper.list().await.expect("a list")[0].state, State::Running);
    bench.finish().await;
}

#[tokio::test]
async fn a_start_that_failed_unheard_is_listed_with_its_reason() {
    let bench = Bench::listening().await;
    let missing = Program::Path("/usr/bin/does-not-exist".into());
    let launch = Launch { program: missing, ..bench.launch(1, "") };
    assert!(matches!(bench.keeper.spawn(launch).await, Err(SpawnError::Step(_))));
    let (mut bench, holdings) = bench.again().await;
    let State::NotStarted(error) = &holdings[0].state else { panic!("{holdings:?}") };
    assert!(format!("{error:?}").contains("does-not-exist"), "{error:?}");
    bench.keeper.spawn(bench.launch(1, "exit 0")).await.expect("its number is free");
    assert_eq!(bench.end_of(1).await, Status::Code(0));
    bench.finish().await;
}

/// The whole process group of a daemon is killed, as by a terminal that closes.
#[tokio::test]
async fn a_killed_daemon_is_survived_and_followed() {
    use std::os::unix::process::CommandExt;
    const TEST: &str = "a_killed_daemon_is_survived_and_followed";
    if part().is_some() {
        let socket = PathBuf::from(std::env::var_os("TOKA_TEST_SOCKET").expect("a path"));
        let options = KeeperOptions {
            program: toka_binary().to_owned(),
            cgroup_name: std::env::var("TOKA_TEST_GROUPS").expect("a name"),
            leftovers: vec![socket.parent().expect("a folder").to_owned()],
            outlive: Outlive::Listen { socket },
            host: None,
            adopt: Vec::new(),
        };
        let (keeper, _events) = Keeper::start(&options).await.expect("a keeper");
        println!("\nkeeper: {}", keeper.pid().expect("it says"));
        return std::future::pending().await;
    }
    let folders = tempfile::tempdir().map(Arc::new).expect("a folder");
    let (name, socket) = (groups(), folders.path().join("run/keeper.sock"));
    let mut command = myself(TEST, "daemon");
    command.env("TOKA_TEST_GROUPS", &name).env("TOKA_TEST_SOCKET", &socket);
    let mut daemon = command.process_group(0).stdout(Stdio::piped()).spawn().expect("ourselves");
    let mut lines = BufReader::new(daemon.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let line = lines.find_map(|line| line.strip_prefix("keeper: ").map(str::to_owned)).expect("its keeper");
    let keeper: i32 = line.parse().expect("a pid");
    let group = Pid::from_raw(daemon.id().try_into().expect("a pid"));
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGKILL] {
        // The first may end it already.
        let _ = killpg(group, signal);
    }
    daemon.wait().expect("our child");
    assert!(is_alive(keeper), "the keeper is not of the daemon's group");
    let (mut bench, holdings) = Bench::attached(&folders, &name).await;
    assert_eq!(holdings, []);
    bench.keeper.spawn(bench.launch(1, "exit 4")).await.expect("it goes on");
    assert_eq!(bench.end_of(1).await, Status::Code(4));
    assert_eq!(bench.keeper.pid(), Some(keeper));
    bench.finish().await;
    until(PATIENCE, "the keeper to be gone", || (!is_alive(keeper)).then_some(()));
}

/// Two hundred daemons, each killed at some moment while it starts agents. What ran is known to the last one, and ran once.
#[test]
fn whenever_daemons_die_no_start_is_lost_or_doubled() {
    const ROUNDS: u64 = 200;
    const STARTS: u64 = 3;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let first = runtime();
    let bench = first.block_on(Bench::listening());
    let (folders, name) = (Arc::clone(&bench.folders), bench.groups.clone());
    let record = folders.path().join("artifacts/record");
    let launches: Vec<Launch> = (1..=ROUNDS * STARTS)
        .map(|id| Launch {
            plan: bench.launch(id % 8, "").plan,
            ..bench.launch(id, &format!("echo {id} >> {}; exit {}", record.display(), id % 100))
        })
        .collect();
    drop(bench);
    drop(first);
    let (mut chance, mut settled, mut answered) = (0x9e37_79b9_7f4a_7c15_u64, Vec::new(), Vec::new());
    for round in launches.chunks(STARTS as usize) {
        // xorshift: the same moments in each run of this test, as far as the host allows.
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let life = Duration::from_micros(chance % 25_000);
        let daemon = runtime();
        daemon.block_on(async {
            let (mut bench, _) = Bench::attached(&folders, &name).await;
            let _ = timeout(life, async {
                for launch in round {
                    let id = launch.id;
                    if bench.keeper.spawn(launch.clone()).await.is_ok() {
                        answered.push(id.0);
                    }
                }
                while let Some(event) = bench.events.recv().await {
                    if let KeeperEvent::Gone { id, .. } = event {
                        // On record before it is settled, as in a journal.
                        settled.push(id.0);
                        let _ = bench.keeper.settle(id).await;
                    }
                }
            })
            .await;
            // Nothing is said, nothing is waited for: the runtime goes with its tasks and their sockets.
            std::mem::forget(bench.keeper);
        });
        drop(daemon);
    }
    runtime().block_on(async {
        let (mut bench, _) = Bench::attached(&folders, &name).await;
        let mut ends: BTreeMap<u64, Status> = BTreeMap::new();
        while bench.keeper.list().await.expect("a list").iter().any(|entry| is_unfinished(&entry.state)) {
            bench.next().await;
        }
        for entry in bench.keeper.list().await.expect("a list") {
            match entry.state {
                State::Gone { status, .. } => drop(ends.insert(entry.id.0, status)),
                State::NotStarted(_) => {}
                other => panic!("{other:?}"),
            }
        }
        let text = std::fs::read_to_string(&record).expect("some ran");
        let mut ran: Vec<u64> = text.lines().map(|line| line.parse().expect("a number")).collect();
        ran.sort_unstable();
        let total = ran.len();
        ran.dedup();
        assert_eq!(ran.len(), total, "something ran twice");
        for id in &ran {
            let known = settled.contains(id) || ends.get(id) == Some(&Status::Code((id % 100) as i32));
            assert!(known, "{id} ran, and nobody knows");
        }
        for id in answered.iter().chain(ends.keys()) {
            assert!(ran.contains(id), "{id} was said to have run");
        }
        println!("{total} of {} ran, {} told at the end", ROUNDS * STARTS, ends.len());
        assert!(!ends.is_empty() && !settled.is_empty(), "the moments were all alike");
        bench.finish().await;
    });
}

fn is_unfinished(state: &State) -> bool {
    !matches!(state, State::Gone { .. } | State::NotStarted(_))
}

#[tokio::test]
async fn a_signal_ends_the_keeper_and_its_agents_politely() {
    let bench = Bench::listening().await;
    let asked = bench.folders.path().join("artifacts/asked");
    let script =
        format!("trap 'echo > {}; exit 0' TERM; echo up; while :; do sleep 0.01; done", asked.display());
    let started = bench.keeper.spawn(bench.launch(1, &script)).await.expect("a start");
    first_line(started.stdout).await;
    let (pid, folders, name) =
        (bench.keeper.pid().expect("it says"), Arc::clone(&bench.folders), bench.groups.clone());
    bench.keeper.detach().await;
    assert!(is_alive(pid) && is_alive(started.pid), "without a daemon it goes on");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("our keeper");
    until(PATIENCE, "the keeper to be gone", || (!is_alive(pid)).then_some(()));
    assert!(asked.exists(), "the agent was not asked");
    assert!(!is_alive(started.pid));
    assert_eq!(toka_tests::cgroups_of(&name), Vec::<PathBuf>::new());
    assert!(!folders.path().join("run").exists(), "socket, sockets and secrets are gone");
    assert!(matches!(
        Keeper::attach(&folders.path().join("run/keeper.sock"), Attach::IfFree).await,
        Err(KeeperError::NotThere { .. })
    ));
}

#[tokio::test]
async fn an_end_by_request_waits_until_all_ends_are_on_record() {
    let mut bench = Bench::listening().await;
    bench.keeper.spawn(bench.launch(1, "exec sleep 1000")).await.expect("a start");
    bench.keeper.end().await.expect("it begins to end");
    assert!(matches!(bench.end_of(1).await, Status::Signal { signal: 15, .. }));
    let refused = bench.keeper.spawn(bench.launch(2, "true")).await.expect_err("it ends");
    assert!(refused.to_string().contains("while ending"), "{refused}");
    bench.keeper.settle(ONE).await.expect("settled");
    assert_eq!(bench.next().await, KeeperEvent::Closed);
    bench.finish().await;
}

#[tokio::test]
async fn a_keeper_with_nothing_to_do_does_not_wake_up() {
    let bench = Bench::listening().await;
    for id in 1..=3 {
        bench.keeper.spawn(bench.launch(id, "exec sleep 1000")).await.expect("a start");
    }
    let pid = bench.keeper.pid().expect("it says");
    let (folders, name) = (Arc::clone(&bench.folders), bench.groups.clone());
    bench.keeper.detach().await;
    // Once it waits: what it does last is to close the connection.
    until(PATIENCE, "the keeper to sleep", || stat(pid).contains(") S ").then_some(()));
    let before = switches(pid);
    let begun = std::time::Instant::now();
    until(PATIENCE, "three seconds to pass", || (begun.elapsed() > Duration::from_secs(3)).then_some(()));
    assert_eq!(switches(pid), before, "it woke up");
    let (bench, _) = Bench::attached(&folders, &name).await;
    assert!(switches(pid) > before, "it is woken by a daemon");
    bench.finish().await;
}

/// How often a process gave up its processor (proc_pid_status(5)).
fn switches(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
    counts.filter_map(|line| line.rsplit('\t').next()?.parse::<u64>().ok()).sum()
}
