//! A keeper that outlives its daemon, with real processes: what the next daemon finds, that nothing is lost or doubled
//! whenever a daemon dies, and what is left when the keeper itself is killed.

mod keeper_support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use keeper_support::{Bench, PATIENCE, first_line, groups, read_all};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::Pid;
use serde_json::{Value, json};
use toka_keeper::{
    Attach, Attached, Keeper, KeeperError, KeeperEvent, KeeperOptions, Launch, Outlive, ProcessId, Program,
    SpawnError, State, Status, start_time,
};
use toka_tests::{Need, User, require, toka_binary, until};
use tokio::time::timeout;

const ONE: ProcessId = ProcessId(1);

/// The program that runs this test alone, with a word that tells it so.
fn myself(test: &str, part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test knows itself"));
    command.args([test, "--exact", "--nocapture"]).env("TOKA_TEST_PART", part);
    command
}

/// The part that this process is to play, if it is not the test itself.
fn part() -> Option<String> {
    std::env::var("TOKA_TEST_PART").ok()
}

fn is_alive(pid: i32) -> bool {
    start_time(pid).is_some() && !stat(pid).contains(") Z ")
}

fn stat(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default()
}

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

#[tokio::test]
async fn one_daemon_at_a_time_and_a_successor_by_request() {
    let mut bench = Bench::listening().await;
    bench.keeper.spawn(bench.launch(1, "sleep 1000")).await.expect("a start");
    let own = i32::try_from(std::process::id()).expect("a pid");
    let refused = Keeper::attach(&bench.socket(), Attach::IfFree).await.expect_err("there is one");
    assert!(matches!(refused, KeeperError::Occupied { pid } if pid == own), "{refused:?}");

    let Attached { keeper, holdings, .. } =
        Keeper::attach(&bench.socket(), Attach::Replace).await.expect("the successor");
    assert_eq!(holdings.len(), 1);
    assert_eq!(bench.next().await, KeeperEvent::Replaced);
    assert_eq!(bench.events.recv().await, None, "it is the last word");
    assert!(matches!(bench.keeper.list().await, Err(KeeperError::Gone)));
    drop(bench.keeper);
    assert_eq!(keeper.list().await.expect("the successor is heard")[0].state, State::Running);
    keeper.shutdown().await;
    assert_eq!(toka_tests::cgroups_of(&bench.groups), Vec::<PathBuf>::new());
}

/// Who may not attach: a process of an agent, and another user.
#[tokio::test]
async fn agents_and_other_users_are_turned_away() {
    const TEST: &str = "agents_and_other_users_are_turned_away";
    if let Some(part) = part() {
        // Waits for its turn, since the test moves it.
        std::io::stdin().lock().read_line(&mut String::new()).expect("a line");
        if part == "user" {
            nix::unistd::setuid(12_345.into()).expect("root may");
        }
        let socket = PathBuf::from(std::env::var_os("TOKA_TEST_SOCKET").expect("the path"));
        match Keeper::attach(&socket, Attach::Replace).await {
            Ok(_) => println!("\nanswer: attached"),
            Err(error) => println!("\nanswer: {error}"),
        }
        return;
    }
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let bench = Bench::listening().await;
    bench.keeper.spawn(bench.launch(1, "sleep 1000")).await.expect("a start");
    let run = |part: &str| {
        let mut command = myself(TEST, part);
        command.env("TOKA_TEST_SOCKET", bench.socket()).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().expect("ourselves")
    };
    let answer = |mut child: Child| {
        writeln!(child.stdin.take().expect("a pipe"), "go").expect("it waits");
        let output = child.wait_with_output().expect("our child");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find_map(|line| line.strip_prefix("answer: ").map(str::to_owned)).expect("an answer")
    };
    let agent = run("agent");
    let its = |group: &PathBuf| group.to_string_lossy().contains(&bench.groups);
    let main = toka_tests::cgroups_of("agent-1").into_iter().find(its).expect("its group");
    let leaf = if main.join("main").is_dir() { main.join("main") } else { main };
    std::fs::write(leaf.join("cgroup.procs"), agent.id().to_string()).expect("moved");
    assert_eq!(answer(agent), "agents have no business with their keeper");

    let user = run("user");
    // The folder alone keeps others out; here it does not, so that the keeper is asked.
    for path in [bench.folders.path(), &bench.folders.path().join("run"), &bench.socket()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("ours");
    }
    assert_eq!(answer(user), "the keeper is not of user 12345");
    assert_eq!(bench.keeper.list().await.expect("the daemon is still ours").len(), 1);
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
async fn when_the_keeper_is_killed_the_next_one_takes_its_agents_over() {
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::listening().await;
    let polite = bench.folders.path().join("artifacts/asked");
    let script = format!("trap 'echo > {}; exit 0' TERM; sleep 1000 & echo up; wait", polite.display());
    let one = bench.keeper.spawn(bench.launch(1, &script)).await.expect("a start");
    first_line(one.stdout.try_clone().expect("a duplicate")).await;
    let two =
        bench.keeper.spawn(bench.launch(2, "sleep 1000 & echo; exec sleep 1000")).await.expect("a start");
    bench.keeper.spawn(bench.launch(3, "exit 0")).await.expect("a start");
    assert_eq!(bench.end_of(3).await, Status::Code(0));
    let launch =
        Launch { beside: Some(ONE), plan: bench.launch(1, "").plan, ..bench.launch(4, "sleep 1000") };
    let beside = bench.keeper.spawn(launch).await.expect("a start beside it");
    bench.keeper.freeze(ProcessId(2)).await.expect("frozen");

    let mut bench = bench.with_keeper_killed().await;
    assert!(is_alive(one.pid) && is_alive(two.pid), "they live on");
    assert_eq!(bench.end_of(4).await, Status::Unknown);
    assert!(!is_alive(beside.pid), "nobody reads its pipes any more");
    let entries = bench.keeper.list().await.expect("a list");
    let of = |id: u64| entries.iter().find(|entry| entry.id.0 == id).expect("an entry");
    assert_eq!((of(1).pid, &of(1).state, of(1).start_time), (one.pid, &State::Running, start_time(one.pid)));
    assert_eq!(of(2).state, State::Frozen);
    assert_eq!(of(1).enforcement, one.enforcement);
    assert!(entries.iter().all(|entry| entry.id.0 != 3), "what was over was no orphan");
    // Its pipes are those that the daemon still had.
    bench.keeper.hold(ONE, "stdout", vec![one.stdout]).await.expect("held");
    assert_eq!(bench.keeper.hand_back(ONE).await.expect("handed back")[0].0, "stdout");
    assert!(bench.keeper.resources(ONE).await.is_some());

    bench.keeper.thaw(ProcessId(2)).await.expect("thawed");
    bench.keeper.kill(ProcessId(2));
    assert_eq!(bench.end_of(2).await, Status::Unknown, "nobody can wait for another's child");
    bench.keeper.signal(ONE, libc::SIGTERM);
    assert_eq!(bench.end_of(1).await, Status::Unknown);
    assert!(polite.exists(), "it was asked");
    assert!(!is_alive(one.pid) && !is_alive(two.pid));
    bench.finish().await;
}

#[tokio::test]
async fn what_ended_between_two_keepers_is_told_and_strangers_are_let_be() {
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::listening().await;
    for id in 1..=3 {
        bench.keeper.spawn(bench.launch(id, "exec sleep 1000")).await.expect("a start");
    }
    let mut orphans = bench.keeper.orphans();
    let pids: Vec<i32> = orphans.iter().map(|orphan| orphan.pid).collect();
    kill(Pid::from_raw(bench.keeper.pid().expect("it says")), Signal::SIGKILL).expect("our keeper");
    assert_eq!(bench.next().await, KeeperEvent::Closed);
    // The first ends unseen, the second's number is a stranger's, of the third nobody knows.
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).expect("our agent");
    until(PATIENCE, "the first to be gone", || (!is_alive(pids[0])).then_some(()));
    let mut stranger = Command::new("sleep").arg("1000").spawn().expect("sleep");
    orphans.truncate(2);
    orphans[1].pid = stranger.id().try_into().expect("a pid");
    let outlive = Outlive::Listen { socket: bench.socket() };
    let options = KeeperOptions { outlive, adopt: orphans, ..KeeperOptions::default() };
    let mut bench = Bench::with(&bench.folders, &bench.groups, options).await;
    assert!(!is_alive(pids[2]), "what nobody knows of is killed before anything begins");
    assert_eq!(bench.end_of(1).await, Status::Unknown);
    assert_eq!(bench.end_of(2).await, Status::Unknown);
    assert!(!is_alive(pids[1]), "its group was emptied");
    assert!(stranger.try_wait().expect("our child").is_none(), "the stranger lives");
    stranger.kill().and_then(|()| stranger.wait()).expect("our child");
    bench.keeper.spawn(bench.launch(4, "exit 0")).await.expect("it goes on");
    assert_eq!(bench.end_of(4).await, Status::Code(0));
    bench.finish().await;
}

/// Agents of ordinary users live in a process namespace whose first process ends with the keeper, and all others with it.
#[tokio::test]
async fn agents_of_an_ordinary_user_end_with_a_killed_keeper_and_that_is_told() {
    let Some(user) = User::ordinary() else { return };
    let folders = tempfile::tempdir().map(Arc::new).expect("a folder");
    user.own(folders.path());
    let program = folders.path().join("toka");
    let words: Vec<String> = user.prefix().iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let text = format!("#!/bin/sh\nexec {} {} \"$@\"\n", words.join(" "), toka_binary().display());
    std::fs::write(&program, text).expect("a script");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let options = |adopt| KeeperOptions {
        program: program.clone(),
        cgroup_name: groups(),
        outlive: Outlive::Listen { socket: folders.path().join("run/keeper.sock") },
        adopt,
        ..KeeperOptions::default()
    };
    let (keeper, events) = Keeper::start(&options(Vec::new())).await.expect("a keeper");
    let mut bench = Bench::of((keeper, events), &folders, &groups());
    let launch = bench.launch(1, "sleep 1000 & echo; exec sleep 1000");
    for name in ["workspace", "home", "tmp", "artifacts", "inputs", "credentials", "door"] {
        user.own(&folders.path().join(name));
    }
    let started = bench.keeper.spawn(launch).await.expect("a start");
    first_line(started.stdout).await;
    assert!(is_alive(started.pid));
    kill(Pid::from_raw(bench.keeper.pid().expect("it says")), Signal::SIGKILL).expect("our keeper");
    assert_eq!(bench.next().await, KeeperEvent::Closed);
    let (keeper, events) = Keeper::start(&options(bench.keeper.orphans())).await.expect("another");
    bench = Bench::of((keeper, events), &folders, &groups());
    assert_eq!(bench.end_of(1).await, Status::Unknown);
    until(PATIENCE, "the agent to be gone", || (!is_alive(started.pid)).then_some(()));
    bench.keeper.shutdown().await;
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

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").expect("null").into()
}

#[tokio::test]
async fn descriptors_of_the_keeper_itself_outlive_the_daemon() {
    let bench = Bench::listening().await;
    for number in 0..40 {
        bench.keeper.hold(None, &format!("door-{number}"), vec![null()]).await.expect("held");
    }
    bench.keeper.hold(None, "lock", vec![null()]).await.expect("held");
    bench.keeper.hold(None, "lock", vec![null(), null()]).await.expect("in its place");
    bench.keeper.release(None, "door-7").await.expect("released");
    let too_many = std::iter::repeat_with(null).take(16).collect();
    assert!(bench.keeper.hold(None, "many", too_many).await.is_err());
    let (bench, _) = bench.again().await;
    for _ in 0..2 {
        let back = bench.keeper.hand_back(None).await.expect("handed back");
        let names: Vec<&str> = back.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names.len(), &names[39..]), (41, &["lock", "lock"][..]));
        assert!(!names.contains(&"door-7"));
    }
    bench.finish().await;
}

/// A daemon without room for descriptors gets an error, keeps its connection, and can ask again.
#[tokio::test]
async fn without_room_for_descriptors_nothing_is_mixed_up_or_lost() {
    const TEST: &str = "without_room_for_descriptors_nothing_is_mixed_up_or_lost";
    if part().is_none() {
        // Alone, since the limit is the process's.
        assert!(myself(TEST, "alone").status().expect("ourselves").success());
        return;
    }
    let mut bench = Bench::listening().await;
    bench.keeper.spawn(bench.launch(1, "sleep 1000")).await.expect("a start");
    bench.keeper.hold(ONE, "door", vec![null(), null()]).await.expect("held");
    bench.keeper.hold(None, "lock", vec![null()]).await.expect("held");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let open = || std::fs::read_dir("/proc/self/fd").expect("ours").count();
    let (before, launch) = (open(), bench.launch(2, "sleep 1000"));
    for room in 0..4 {
        let highest = u64::try_from(null().as_raw_fd()).expect("a number");
        setrlimit(Resource::RLIMIT_NOFILE, highest + room, hard).expect("lowered");
        let refused = bench.keeper.hand_back(ONE).await;
        let late = if room < 2 { bench.keeper.spawn(launch.clone()).await.err() } else { None };
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("raised");
        assert!(matches!(refused, Err(KeeperError::Descriptors { sent: 4, .. })), "{room}: {refused:?}");
        if let Some(late) = late {
            assert!(matches!(late, SpawnError::Keeper(KeeperError::Descriptors { .. })), "{late:?}");
            assert!(matches!(bench.end_of(2).await, Status::Signal { signal: 9, .. }));
            bench.keeper.settle(ProcessId(2)).await.expect("settled");
        }
        assert_eq!(open(), before, "what had arrived was closed");
        assert_eq!(bench.keeper.hand_back(ONE).await.expect("there is room again").len(), 4);
    }
    assert_eq!(bench.keeper.hand_back(None).await.expect("and for its own").len(), 1);
    bench.finish().await;
}

/// A daemon of version 1, by hand: packets as that version wrote them.
#[test]
fn a_daemon_of_version_1_is_served() {
    let bench_plan = tempfile::tempdir().expect("a folder");
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
    let name = groups();
    let mut process = Command::new(toka_binary())
        .args(["__keeper", &name])
        .stdin(Stdio::from(theirs))
        .spawn()
        .expect("a keeper");
    let say = |value: Value| {
        let text = value.to_string();
        assert!(text.len() < 65_536, "it fits into a packet");
        send(ours.as_raw_fd(), text.as_bytes(), MsgFlags::empty()).expect("sent");
    };
    let hear = || -> Value {
        let mut buffer = vec![0; 65_536];
        let length = recv(ours.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("received");
        serde_json::from_slice(&buffer[..length]).expect("JSON")
    };
    assert!(hear()["body"]["hello"]["version"].as_u64() >= Some(1));
    let launch = by_hand(bench_plan.path());
    say(json!({"call": 1, "request": {"spawn": launch}}));
    let started = hear();
    assert_eq!(started["call"], 1);
    assert!(started["body"]["started"]["pid"].as_i64() > Some(1), "{started}");
    say(json!({"call": 2, "request": "list"}));
    let entry = &hear()["body"]["list"][0];
    assert_eq!(
        (&entry["id"], &entry["project"], &entry["agent"]),
        (&json!(1), &json!("keeper"), &json!("agent-1"))
    );
    say(json!({"call": 3, "request": {"hold": {"id": 1, "name": "door"}}}));
    assert_eq!(hear(), json!({"call": 3, "body": "done"}));
    say(json!({"call": 4, "request": {"hand_back": {"id": 1}}}));
    assert_eq!(hear()["body"]["hand_back"]["names"], json!([]));
    say(json!({"call": 5, "request": {"levitate": {"id": 1}}}));
    let refused = hear();
    assert_eq!(refused["call"], 5);
    assert!(
        refused["body"]["failed"]["reason"].as_str().expect("a reason").contains("levitate"),
        "{refused}"
    );
    send(ours.as_raw_fd(), b"no JSON at all", MsgFlags::empty()).expect("sent");
    assert!(hear()["body"]["failed"]["reason"].is_string());
    say(json!({"call": 6, "request": {"kill": {"id": 1}}}));
    assert_eq!(hear(), json!({"call": 6, "body": "done"}));
    assert_eq!(
        hear(),
        json!({"body": {"exited": {"id": 1, "status": {"signal": {"signal": 9, "core": false}}}}})
    );
    assert_eq!(hear()["body"]["gone"]["id"], 1);
    say(json!({"call": 7, "request": "list"}));
    assert_eq!(hear()["body"]["list"], json!([]), "it forgets what is gone, as that version expects");
    drop(ours);
    assert!(process.wait().expect("our child").success());
    assert_eq!(toka_tests::cgroups_of(&name), Vec::<PathBuf>::new());
}

/// A launch as text, with only what version 1 had.
fn by_hand(folder: &Path) -> Value {
    let launch = Launch {
        id: ONE,
        program: Program::Path("/bin/sleep".into()),
        argv: vec!["sleep".into(), "1000".into()],
        env: Vec::new(),
        plan: Arc::new(keeper_support::plan(folder, 1, &toka_core::Confinement::default())),
        beside: None,
        stop_signal: libc::SIGTERM,
        grace: Duration::from_millis(100),
    };
    serde_json::to_value(launch).expect("JSON")
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
