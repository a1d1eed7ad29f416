//! What becomes of agents when the keeper itself is killed, and the next one takes them over.

mod keeper_support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use keeper_support::{Bench, PATIENCE, first_line, groups, is_alive};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use toka_keeper::process::start_time;
use toka_keeper::{Keeper, KeeperOptions, Launch, Orphan, Outlive, ProcessId, State, Status};
use toka_tests::{Need, User, require, tells_exits, toka_binary, until, write_program};

const ONE: ProcessId = ProcessId(1);
const KILLED: Status = Status::Signal { signal: 9, core: false };

/// Whoever loses its parent becomes a child of this process.
fn adopt_orphans() {
    toka_sandbox::sys::become_subreaper().expect("it may");
}

/// Waits for the end of a process, as its parent should.
fn collect(pid: i32) {
    std::thread::spawn(move || waitpid(Pid::from_raw(pid), None));
}

/// How an adopted process ended is told, or that nobody knows: where a kernel before 6.15 had its parent collect it first.
fn assert_told(told: Status, truth: Status) {
    assert!(told == truth || (!tells_exits() && told == Status::Unknown), "{told:?} is not {truth:?}");
}

/// The same for one whose new parent may have collected it before there was a keeper to look.
fn assert_told_if_seen(told: Status, truth: Status) {
    assert!([truth, Status::Unknown].contains(&told), "{told:?} is not {truth:?}");
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
    // Its main process writes elsewhere, as with a `tee` of its own; a child of it has the pipe.
    let script = "sleep 1000 & echo; exec sleep 1000 > /dev/null";
    let two = bench.keeper.spawn(bench.launch(2, script)).await.expect("a start");
    first_line(two.stdout.try_clone().expect("a duplicate")).await;
    bench.keeper.spawn(bench.launch(3, "exit 0")).await.expect("a start");
    assert_eq!(bench.end_of(3).await, Status::Code(0));
    let launch =
        Launch { beside: Some(ONE), plan: bench.launch(1, "").plan, ..bench.launch(4, "sleep 1000") };
    let beside = bench.keeper.spawn(launch).await.expect("a start beside it");
    bench.keeper.freeze(ProcessId(2)).await.expect("frozen");

    adopt_orphans();
    bench.kill_keeper().await;
    [one.pid, two.pid, beside.pid].into_iter().for_each(collect);
    assert!(is_alive(one.pid) && is_alive(two.pid), "they live on");
    assert_told(bench.end_of(4).await, KILLED);
    assert!(!is_alive(beside.pid), "nobody reads its pipes any more");
    let entries = bench.keeper.list().await.expect("a list");
    let of = |id: u64| entries.iter().find(|entry| entry.id.0 == id).expect("an entry");
    assert_eq!((of(1).pid, &of(1).state, of(1).start_time), (one.pid, &State::Running, start_time(one.pid)));
    assert_eq!(of(2).state, State::Frozen);
    assert_eq!(of(1).enforcement, one.enforcement);
    assert!(entries.iter().all(|entry| entry.id.0 != 3), "what was over was no orphan");
    // Its pipes are opened anew, for a daemon that comes later.
    let handed_back = bench.keeper.hand_back(ONE).await.expect("handed back");
    let names: Vec<&str> = handed_back.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["stdout", "stderr"]);
    let handed_back = bench.keeper.hand_back(ProcessId(2)).await.expect("handed back");
    let inode = |fd: &std::os::fd::OwnedFd| nix::sys::stat::fstat(fd).expect("open").st_ino;
    assert_eq!(inode(&handed_back[0].1), inode(&two.stdout), "it is the same pipe");
    assert!(bench.keeper.resources(ONE).await.is_some());

    bench.keeper.thaw(ProcessId(2)).await.expect("thawed");
    bench.keeper.kill(ProcessId(2));
    assert_told(bench.end_of(2).await, KILLED);
    bench.keeper.signal(ONE, libc::SIGTERM);
    assert_told(bench.end_of(1).await, Status::Code(0));
    assert!(polite.exists(), "it was asked");
    assert!(!is_alive(one.pid) && !is_alive(two.pid));
    bench.finish().await;
}

#[tokio::test]
async fn what_ended_between_two_keepers_is_told_and_strangers_are_let_be() {
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let bench = Bench::listening().await;
    for id in 1..=3 {
        bench.keeper.spawn(bench.launch(id, "exec sleep 1000")).await.expect("a start");
    }
    let entries = bench.keeper.list().await.expect("a list");
    let mut orphans: Vec<Orphan> = entries.iter().filter_map(Orphan::of).collect();
    let pids: Vec<i32> = orphans.iter().map(|orphan| orphan.pid).collect();
    let keeper = bench.keeper.pid().expect("it says");
    let (folders, groups, socket) = (Arc::clone(&bench.folders), bench.groups.clone(), bench.socket());
    bench.keeper.detach().await;
    kill(Pid::from_raw(keeper), Signal::SIGKILL).expect("our keeper");
    until(PATIENCE, "the keeper to be gone", || (!is_alive(keeper)).then_some(()));
    // The first ends unseen, the second's number is a stranger's, of the third nobody knows.
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).expect("our agent");
    until(PATIENCE, "the first to be gone", || (!is_alive(pids[0])).then_some(()));
    let mut stranger = Command::new("sleep").arg("1000").spawn().expect("sleep");
    orphans.truncate(2);
    orphans[1].pid = stranger.id().try_into().expect("a pid");
    let options =
        KeeperOptions { outlive: Outlive::Listen { socket }, adopt: orphans, ..KeeperOptions::default() };
    let mut bench = Bench::with(&folders, &groups, options).await;
    assert!(!is_alive(pids[2]), "what nobody knows of is killed before anything begins");
    assert_told_if_seen(bench.end_of(1).await, KILLED);
    assert_eq!(bench.end_of(2).await, Status::Unknown);
    assert!(!is_alive(pids[1]), "its group was emptied");
    assert!(stranger.try_wait().expect("our child").is_none(), "the stranger lives");
    stranger.kill().and_then(|()| stranger.wait()).expect("our child");
    bench.keeper.spawn(bench.launch(4, "exit 0")).await.expect("it goes on");
    assert_eq!(bench.end_of(4).await, Status::Code(0));
    bench.finish().await;
}

#[tokio::test]
async fn what_a_killed_keeper_had_not_done_the_next_one_does() {
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::listening().await;
    let started = bench.keeper.spawn(bench.launch(1, "exec sleep 1000")).await.expect("a start");
    let keeper = Pid::from_raw(bench.keeper.pid().expect("it says"));
    // It hears nothing any more.
    kill(keeper, Signal::SIGSTOP).expect("our keeper");
    bench.keeper.kill(ONE);
    let (late, launch) = (bench.keeper.clone(), bench.launch(2, "echo late; exec sleep 1000"));
    let start = tokio::spawn(async move { late.spawn(launch).await });
    adopt_orphans();
    bench.kill_keeper().await;
    collect(started.pid);
    assert_told(bench.end_of(1).await, KILLED);
    assert!(!is_alive(started.pid), "the kill was not lost");
    let late = start.await.expect("no panic").expect("a start");
    first_line(late.stdout).await;
    assert_eq!(bench.keeper.list().await.expect("a list").len(), 2, "one start, and one end to be settled");
    bench.finish().await;
}

/// The processes in a group and all below it.
fn members(group: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = text.lines().map(|pid| pid.parse().expect("a pid"));
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.path().is_dir()).flat_map(|entry| members(&entry.path()));
    own.chain(below).collect()
}

#[tokio::test]
async fn a_start_that_a_killed_keeper_did_not_tell_of_is_undone_before_it_is_done_again() {
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::listening().await;
    let mut pids = BTreeSet::new();
    for id in 1..=20 {
        let (keeper, launch) = (bench.keeper.clone(), bench.launch(id, "exec sleep 1000"));
        let start = tokio::spawn(async move { keeper.spawn(launch).await });
        tokio::task::yield_now().await;
        bench.kill_keeper().await;
        pids.insert(start.await.expect("no panic").expect("a start").pid);
    }
    let entries = bench.keeper.list().await.expect("a list");
    assert_eq!(entries.iter().map(|entry| entry.pid).collect::<BTreeSet<_>>(), pids);
    let running: BTreeSet<i32> =
        toka_tests::cgroups_of(&bench.groups).iter().flat_map(|it| members(it)).collect();
    assert_eq!(running, pids, "and no other");
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
    write_program(&program, &text);
    let options = KeeperOptions {
        program: program.clone(),
        cgroup_name: groups(),
        outlive: Outlive::Listen { socket: folders.path().join("run/keeper.sock") },
        ..KeeperOptions::default()
    };
    // The file is still open for writing when the keeper is started, as one that is being installed is.
    let writer = std::fs::OpenOptions::new().append(true).open(&program).expect("ours");
    let written = async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(writer);
    };
    let (keeper, ()) = tokio::join!(Keeper::start(&options), written);
    let mut bench = Bench::of(keeper.expect("a keeper"), &folders, &groups());
    let launch = bench.launch(1, "sleep 1000 & echo; exec sleep 1000");
    for name in ["workspace", "home", "tmp", "artifacts", "inputs", "credentials", "door"] {
        user.own(&folders.path().join(name));
    }
    let started = bench.keeper.spawn(launch).await.expect("a start");
    first_line(started.stdout).await;
    assert!(is_alive(started.pid));
    bench.kill_keeper().await;
    assert_told_if_seen(bench.end_of(1).await, KILLED);
    until(PATIENCE, "the agent to be gone", || (!is_alive(started.pid)).then_some(()));
    bench.keeper.shutdown().await;
}
