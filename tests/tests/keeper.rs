//! The keeper over its socket, with real processes in real control groups: start, end, kill, freeze, exact errors, held
//! descriptors, and what becomes of agents when the daemon's side closes.

mod keeper_support;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use keeper_support::{Bench, PATIENCE, first_line, plan, read_all};
use toka_core::{Confinement, Coverage, Declared};
use toka_keeper::{KeeperEvent, Launch, ProcessId, Program, SpawnError, Status};
use toka_tests::{Need, require};

#[tokio::test]
async fn output_and_exit_status_come_back() {
    let mut bench = Bench::new().await;
    let started =
        bench.keeper.spawn(bench.launch(1, "echo out; echo err >&2; exit 7")).await.expect("a start");
    assert_eq!(bench.end_of(1).await, Status::Code(7));
    assert_eq!((read_all(started.stdout).as_str(), read_all(started.stderr).as_str()), ("out\n", "err\n"));
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn a_signal_is_told_from_a_code() {
    let mut bench = Bench::new().await;
    bench.keeper.spawn(bench.launch(1, "kill -SEGV $$")).await.expect("a start");
    assert!(matches!(bench.end_of(1).await, Status::Signal { signal: 11, .. }));
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn what_a_process_left_behind_is_killed_with_it() {
    let mut bench = Bench::new().await;
    let script =
        "mkfifo /tmp/f; setsid sh -c 'echo $$; echo up > /tmp/f; sleep 1000' & read -r _ < /tmp/f; exit 0";
    let started = bench.keeper.spawn(bench.launch(1, script)).await.expect("a start");
    assert_eq!(bench.end_of(1).await, Status::Code(0));
    let orphan: i32 = read_all(started.stdout).trim().parse().expect("the orphan's pid");
    if require(&[Need::Root]) {
        // In a process namespace of its own, as an ordinary user's agents are, the number would mean nothing here.
        assert!(kill(Pid::from_raw(orphan), None).is_err(), "{orphan} is still there");
    }
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_named_with_its_error() {
    let bench = Bench::new().await;
    let file = bench.folders.path().join("workspace-script");
    std::fs::write(&file, "#!/does/not/exist\n").expect("a script");
    let launch = Launch { program: Program::Path("/usr/bin/does-not-exist".into()), ..bench.launch(1, "") };
    let Err(SpawnError::Step(error)) = bench.keeper.spawn(launch).await else { panic!("it started") };
    assert_eq!((error.step.as_str(), error.errno), ("exec", libc::ENOENT));
    assert_eq!(error.path.as_deref(), Some("/usr/bin/does-not-exist"));
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn a_missing_working_folder_is_the_step_that_failed() {
    let bench = Bench::new().await;
    let mut launch = bench.launch(1, "true");
    let mut plan = (*launch.plan).clone();
    plan.working_dir = "/usr/no-such-folder".into();
    launch.plan = Arc::new(plan);
    let error = bench.keeper.spawn(launch).await.expect_err("no such folder");
    assert!(error.to_string().contains("/usr/no-such-folder"), "{error}");
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn kill_ends_a_process_that_ignores_everything() {
    let mut bench = Bench::new().await;
    let script = "trap '' TERM INT HUP; echo ready; while :; do sleep 1000; done";
    let started = bench.keeper.spawn(bench.launch(1, script)).await.expect("a start");
    first_line(started.stdout).await;
    bench.keeper.signal(ProcessId(1), libc::SIGTERM);
    bench.keeper.kill(ProcessId(1));
    assert!(matches!(bench.end_of(1).await, Status::Signal { signal: 9, .. }));
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn a_frozen_process_can_be_killed() {
    if !require(&[Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::new().await;
    bench.keeper.spawn(bench.launch(1, "sleep 1000")).await.expect("a start");
    bench.keeper.freeze(ProcessId(1)).await.expect("a freezer");
    bench.keeper.kill(ProcessId(1));
    assert!(matches!(bench.end_of(1).await, Status::Signal { signal: 9, .. }));
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn out_of_memory_is_counted_with_its_peak() {
    if !require(&[Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::new().await;
    let memory = Declared::by_default(toka_core::ByteSize::mib(16), "test");
    let limits = toka_core::Limits { memory, ..toka_core::Limits::default() };
    let confinement = Confinement { limits, ..Confinement::default() };
    let mut launch = bench.launch(1, "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}");
    launch.plan = Arc::new(plan(bench.folders.path(), 1, &confinement));
    bench.keeper.spawn(launch).await.expect("a start");
    let usage = loop {
        if let KeeperEvent::Gone { usage, .. } = bench.next().await {
            break usage;
        }
    };
    assert!(usage.oom_kills > 0, "{usage:?}");
    assert!(usage.memory_peak.is_some_and(|peak| peak > 10 << 20), "{usage:?}");
    bench.keeper.shutdown().await;
}

/// The process shares the keeper's memory until it executes its program, so the limit of its group must not reach it.
#[tokio::test]
async fn a_limit_too_small_for_anything_ends_the_agent_and_never_the_keeper() {
    if !require(&[Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::new().await;
    for (id, bytes) in (1..).zip([0, 4096, 16_384, 65_536, 262_144].repeat(4)) {
        let mut confinement = Confinement::default();
        confinement.limits.memory = Declared::by_default(toka_core::ByteSize(bytes), "test");
        let plan = Arc::new(plan(bench.folders.path(), id, &confinement));
        let launch = Launch { plan, ..bench.launch(id, "exit 0") };
        // Too little may keep it from starting, or end it: either is an answer.
        if let Ok(started) = bench.keeper.spawn(launch).await {
            drop(started);
            bench.end_of(id).await;
        }
    }
    let started = bench.keeper.spawn(bench.launch(99, "exit 7")).await.expect("the keeper goes on");
    drop(started);
    assert_eq!(bench.end_of(99).await, Status::Code(7));
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn starts_leave_nothing_in_the_keepers_memory() {
    if !require(&[Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::new().await;
    // A process of its own says whose child it is: the keeper's.
    let witness = bench.keeper.spawn(bench.launch(1, "sleep 1000")).await.expect("a start");
    let keeper = parent_of(witness.pid);
    let (mut settled, mut id) = (0, 1);
    for round in 0..2 {
        for _ in 0..200 {
            id += 1;
            let launch = Launch {
                // One half fails at the last step, in the child.
                program: Program::Path(if id % 2 == 0 { "/bin/true" } else { "/no/such" }.into()),
                env: vec![("FILLER".into(), "x".repeat(4096).into())],
                ..bench.launch(id, "")
            };
            if bench.keeper.spawn(launch).await.is_ok() {
                bench.end_of(id).await;
            }
        }
        let heap = private_memory(keeper);
        assert!(round == 0 || heap < settled + 256, "{settled} KiB grew to {heap}");
        settled = heap;
    }
    bench.keeper.kill(ProcessId(1));
    bench.end_of(1).await;
    bench.keeper.shutdown().await;
}

/// What a process has written in memory of its own, in KiB (proc_pid_smaps(5)).
fn private_memory(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn a_leaf_takes_the_agents_own_processes_and_ends_them() {
    if !require(&[Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::new().await;
    let script = "sh -c 'while :; do :; done' & echo $!; wait; sleep 1000";
    let started = bench.keeper.spawn(bench.launch(1, script)).await.expect("a start");
    let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(started.stdout).expect("a pipe");
    let mut line = String::new();
    let read = tokio::io::AsyncBufReadExt::read_line(&mut tokio::io::BufReader::new(pipe), &mut line).await;
    read.expect("a line");
    let busy: i32 = line.trim().parse().expect("a pid");
    let groups_of = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();

    // A process of the test's own, so that a keeper that moves it after all harms nobody.
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
    let number = stranger.id().try_into().expect("a pid");
    let before = groups_of(number);
    let moved = bench.keeper.make_leaf(ProcessId(1), "call-1", number).await;
    let after = groups_of(number);
    stranger.kill().and_then(|()| stranger.wait()).expect("our child");
    assert!(moved.is_err(), "a stranger is not moved");
    assert_eq!(before, after);
    assert!(bench.keeper.make_leaf(ProcessId(1), "../x", busy).await.is_err(), "a leaf has a plain name");
    bench.keeper.make_leaf(ProcessId(1), "call-1", busy).await.expect("a leaf");
    assert!(groups_of(busy).contains("/agent-1/call-1"), "{}", groups_of(busy));
    assert_eq!(bench.keeper.owner_of(busy).await, Some(ProcessId(1)), "it is the agent's still");
    assert_eq!(bench.keeper.owner_of(1).await, None);

    let begun = ticks_of(busy);
    toka_tests::until(PATIENCE, "some of its time to be counted", || {
        (ticks_of(busy) > begun + 1).then_some(())
    });
    let deadline = Instant::now() + PATIENCE;
    let usage = loop {
        match bench.keeper.remove_leaf(ProcessId(1), "call-1").await {
            Ok(usage) => break usage,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    // Its memory was charged before it was moved; its time is counted from then on.
    assert!(usage.cpu_us.is_some_and(|spent| spent > 0), "{usage:?}");
    toka_tests::until(PATIENCE, "what was in it to be reaped", || groups_of(busy).is_empty().then_some(()));
    assert!(groups_of(started.pid).contains("/agent-1"), "what was beside it is not");
    bench.keeper.kill(ProcessId(1));
    bench.end_of(1).await;
    bench.keeper.shutdown().await;
}

/// A launch beside agent 1, with its rules.
fn beside(bench: &Bench, id: u64, script: &str, confinement: &Confinement) -> Launch {
    let plan = Arc::new(plan(bench.folders.path(), 1, confinement));
    Launch { plan, beside: Some(ProcessId(1)), ..bench.launch(id, script) }
}

#[tokio::test]
async fn what_runs_beside_an_agent_shares_its_groups_and_network_and_ends_with_it() {
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::new().await;
    let network = Declared::by_default(toka_core::NetworkAccess::Loopback, "test");
    let confinement = Confinement { network, ..Confinement::default() };
    let place = "cat /proc/self/cgroup; readlink /proc/self/ns/net";
    let mut agent = bench.launch(1, &format!("{place}; echo; exec sleep 1000"));
    agent.plan = Arc::new(plan(bench.folders.path(), 1, &confinement));
    let agent = bench.keeper.spawn(agent).await.expect("a start");
    let agents_network = std::fs::read_link(format!("/proc/{}/ns/net", agent.pid)).expect("it runs");
    first_line(agent.stdout).await;

    let probe = bench.keeper.spawn(beside(&bench, 2, place, &confinement)).await.expect("a start");
    assert_eq!(bench.end_of(2).await, Status::Code(0));
    let text = read_all(probe.stdout);
    assert!(text.contains("/agent-1/beside-2"), "{text}");
    assert!(text.contains(&*agents_network.to_string_lossy()), "{text}");
    let left = toka_tests::cgroups_of(&bench.groups);
    assert!(!left.iter().any(|group| group.ends_with("beside-2")), "{left:?}");

    // It would stand still with the agent, and the keeper must not.
    bench.keeper.freeze(ProcessId(1)).await.expect("a freezer");
    let refused = bench.keeper.spawn(beside(&bench, 5, "true", &confinement)).await.expect_err("frozen");
    assert!(refused.to_string().contains("frozen"), "{refused}");
    bench.keeper.thaw(ProcessId(1)).await.expect("thawed");

    let lasting = bench.keeper.spawn(beside(&bench, 3, "sleep 1000 & wait", &confinement)).await;
    let lasting = lasting.expect("a start");
    assert_eq!(bench.keeper.owner_of(lasting.pid).await, Some(ProcessId(1)), "it speaks for the agent");
    bench.keeper.kill(ProcessId(1));
    let mut gone = [1, 3].map(|id| (id, false));
    while gone.iter().any(|(_, gone)| !gone) {
        if let KeeperEvent::Gone { id, .. } = bench.next().await {
            gone.iter_mut().filter(|(known, _)| *known == id.0).for_each(|(_, gone)| *gone = true);
        }
    }
    let refused = bench.keeper.spawn(beside(&bench, 4, "true", &confinement)).await;
    assert!(refused.is_err(), "there is nobody any more to run beside");
    bench.keeper.shutdown().await;
    assert_eq!(toka_tests::cgroups_of(&bench.groups), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn when_the_keeper_is_killed_nothing_outlives_it() {
    let mut bench = Bench::new().await;
    let script = "trap '' TERM; setsid sleep 1000 & echo; while :; do sleep 1000; done";
    let started = bench.keeper.spawn(bench.launch(1, script)).await.expect("a start");
    first_line(started.stdout).await;
    let parent = parent_of(started.pid);
    kill(Pid::from_raw(parent), Signal::SIGKILL).expect("our keeper");
    assert_eq!(bench.next().await, KeeperEvent::Closed);
    toka_tests::until(PATIENCE, "the agent to be gone", || {
        kill(Pid::from_raw(started.pid), None).is_err().then_some(())
    });
    assert_eq!(toka_tests::cgroups_of(&bench.groups), Vec::<std::path::PathBuf>::new());
    bench.keeper.shutdown().await;
}

/// A number among the fields behind a process's name (proc_pid_stat(5)); the state is field 0.
fn field_of(pid: i32, field: usize) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a living process");
    let fields = stat.rsplit_once(") ").expect("a name").1;
    fields.split(' ').nth(field).and_then(|number| number.parse().ok()).expect("a number")
}

fn parent_of(pid: i32) -> i32 {
    field_of(pid, 1)
}

/// The time that it has spent itself, in clock ticks.
fn ticks_of(pid: i32) -> i32 {
    field_of(pid, 11) + field_of(pid, 12)
}

#[tokio::test]
async fn descriptors_are_held_and_handed_back() {
    let mut bench = Bench::new().await;
    bench.keeper.spawn(bench.launch(1, "sleep 1000")).await.expect("a start");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    bench.keeper.hold(ProcessId(1), "door", vec![theirs.into()]).await.expect("held");
    let back = bench.keeper.hand_back(ProcessId(1)).await.expect("handed back");
    let names: Vec<&str> = back.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["stdout", "stderr", "door"]);
    assert_eq!(bench.keeper.list().await.expect("a list")[0].agent, "agent-1");
    drop(ours);
    bench.keeper.kill(ProcessId(1));
    bench.end_of(1).await;
    assert!(bench.keeper.hand_back(ProcessId(1)).await.is_err());
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn when_the_daemon_goes_agents_are_asked_and_then_killed() {
    let bench = Bench::new().await;
    let folder = bench.folders.path().join("artifacts");
    let polite = format!(
        "trap 'echo asked > {}/asked; exit 0' TERM; echo up; while :; do sleep 0.01; done",
        folder.display()
    );
    let started = bench.keeper.spawn(bench.launch(1, &polite)).await.expect("a start");
    first_line(started.stdout).await;
    bench.keeper.spawn(bench.launch(2, "trap '' TERM; while :; do sleep 1000; done")).await.expect("a start");
    let asked = folder.join("asked");
    // Dropping the handle closes the socket, as the death of the daemon does; `shutdown` also waits for the keeper.
    bench.keeper.shutdown().await;
    assert!(asked.exists(), "the polite agent was not asked to stop");
    assert_eq!(toka_tests::cgroups_of(&bench.groups), Vec::<std::path::PathBuf>::new());
    assert!(!bench.folders.path().join("run").exists(), "sockets and secrets do not stay");
}

#[tokio::test]
async fn everything_is_enforced_for_root() {
    if !require(&[Need::Root, Need::Cgroups]) {
        return;
    }
    let mut bench = Bench::new().await;
    let started = bench.keeper.spawn(bench.launch(1, "true")).await.expect("a start");
    assert_eq!(started.enforcement.overall(), Coverage::Full, "{:?}", started.enforcement);
    bench.end_of(1).await;
    bench.keeper.shutdown().await;
}

#[tokio::test]
async fn arguments_and_environment_arrive_as_they_are() {
    let mut bench = Bench::new().await;
    let mut launch = bench.launch(1, "printf '%s|' \"$1\" \"$ODD\"; env | wc -l");
    launch.argv.extend([OsString::from("sh"), OsString::from("a b\n$x")]);
    launch.env.push(("ODD".into(), "=\u{1f980}=".into()));
    let started = bench.keeper.spawn(launch).await.expect("a start");
    bench.end_of(1).await;
    let text = read_all(started.stdout);
    assert!(text.starts_with("a b\n$x|=\u{1f980}=|"), "{text}");
    bench.keeper.shutdown().await;
}
