//! Who may talk to a keeper that listens, in which version, and what descriptors come and go between them.

mod keeper_support;

use std::io::{BufRead, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use keeper_support::{Bench, groups, myself, part};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use serde_json::{Value, json};
use toka_keeper::{
    Attach, Attached, Keeper, KeeperError, KeeperEvent, Launch, ProcessId, Program, SpawnError, State, Status,
};
use toka_tests::{Need, require, toka_binary};

const ONE: ProcessId = ProcessId(1);

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
        notification_fd: None,
        terminal: None,
        stop_signal: libc::SIGTERM,
        grace: Duration::from_millis(100),
    };
    serde_json::to_value(launch).expect("JSON")
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
