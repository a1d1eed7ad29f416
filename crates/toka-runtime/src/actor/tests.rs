//! Lives of agents, with a keeper that the test plays. The clock stands still and jumps to the next deadline.

use std::time::Duration;

use nix::unistd::write;
use toka_core::event::Usage;
use toka_core::rpc::{TaskList, TaskSpec};
use toka_core::{
    ByteSize, Coverage, Decision, EventKind, Exit, LogPolicy, Progress, Request, Restart, RestartPolicy,
};
use toka_keeper::{KeeperEvent, SpawnError, Status};
use toka_logs::{LogPlace, LogReader};
use toka_sandbox::GroupLimits;
use tokio::net::UnixDatagram;
use tokio::time::Instant;

use crate::test_support::{Asked, ID, LIMITS, PID, Rig, enforcement};
use crate::{Adjustment, StopPolicy};

const OWN: Coverage = Coverage::Full;

async fn exit_of(rig: &mut Rig) -> Exit {
    loop {
        if let EventKind::AgentEnded { exit, .. } = rig.event().await {
            return exit;
        }
    }
}

fn me() -> i32 {
    i32::try_from(std::process::id()).expect("a pid")
}

#[tokio::test(start_paused = true)]
async fn a_short_life_with_its_last_words() {
    let mut rig = Rig::running(|_| (), OWN).await;
    let [out, err] = rig.pipes.take().expect("pipes");
    write(&out, b"last words\n").expect("room");
    rig.exited(Status::Code(0));
    rig.gone(Usage::default());
    assert_eq!(exit_of(&mut rig).await, Exit::Code { code: 0 });
    let mut reader = LogReader::open(&rig.folder.path().join("log")).expect("a log");
    assert_eq!(reader.next_line().expect("readable").expect("a line").bytes, b"last words");
    assert_eq!(rig.agent.ask(Request::Stop, "late").await, Decision::Ignore);
    drop((out, err));
}

#[tokio::test(start_paused = true)]
async fn a_duration_is_the_monotonic_clocks_whatever_the_wall_says() {
    let wall = std::time::SystemTime::now();
    let mut rig = Rig::running(|_| (), OWN).await;
    // A minute passes for the one clock, and next to nothing for the other.
    tokio::time::sleep(Duration::from_secs(60)).await;
    rig.exited(Status::Code(0));
    rig.gone(Usage::default());
    let duration_ms = loop {
        if let EventKind::AgentEnded { duration_ms, .. } = rig.event().await {
            break duration_ms;
        }
    };
    assert!((60_000..70_000).contains(&duration_ms), "{duration_ms}");
    assert!(wall.elapsed().unwrap_or_default() < Duration::from_secs(50), "the wall's went on by itself");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_told_before_the_start_is_kept() {
    let mut rig = Rig::new(|_| ());
    rig.agent.ask(Request::Start, "test").await;
    assert_eq!(rig.event().await, EventKind::AgentStarting);
    rig.exited(Status::Code(3));
    rig.gone(Usage::default());
    rig.answer_spawn(enforcement(OWN, OWN)).await;
    assert!(matches!(rig.event().await, EventKind::AgentStarted { .. }));
    assert_eq!(exit_of(&mut rig).await, Exit::Code { code: 3 });
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_a_signal_then_a_kill_and_ends_only_when_all_are_gone() {
    let mut rig = Rig::running(|_| (), OWN).await;
    let began = Instant::now();
    assert_eq!(rig.agent.ask(Request::Stop, "operator").await, Decision::Accept);
    assert!(matches!(rig.asked().await, Asked::Signal(15)));
    assert_eq!(rig.agent.ask(Request::Stop, "operator").await, Decision::Ignore);
    assert!(matches!(rig.asked().await, Asked::Kill));
    assert_eq!(began.elapsed().as_secs(), 10);
    rig.exited(Status::Signal { signal: 9, core: false });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(matches!(rig.event().await, EventKind::AgentStopping { .. }));
    assert!(rig.events.try_recv().is_err(), "not before the last process is gone");
    rig.gone(Usage::default());
    assert_eq!(exit_of(&mut rig).await, Exit::stopped("operator").killed(Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn a_kill_does_not_wait_for_the_grace_period() {
    let mut rig = Rig::running(|_| (), OWN).await;
    rig.agent.ask(Request::Stop, "operator").await;
    assert!(matches!(rig.asked().await, Asked::Signal(15)));
    let began = Instant::now();
    rig.agent.ask(Request::Kill, "operator").await;
    assert!(matches!(rig.asked().await, Asked::Kill));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_start_is_done_after_it() {
    let mut rig = Rig::new(|_| ());
    rig.agent.ask(Request::Start, "test").await;
    rig.agent.ask(Request::Stop, "operator").await;
    rig.answer_spawn(enforcement(OWN, OWN)).await;
    assert!(matches!(rig.asked().await, Asked::Signal(15)));
    rig.gone(Usage::default());
    assert_eq!(exit_of(&mut rig).await, Exit::stopped("operator"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_before_the_start_needs_no_process() {
    let mut rig = Rig::new(|_| ());
    rig.agent.ask(Request::Stop, "SIGINT").await;
    assert_eq!(exit_of(&mut rig).await, Exit::NotStarted { by: "SIGINT".into() });
    assert!(rig.asked.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_timeout_stands_still_while_it_is_paused() {
    let limit = Duration::from_secs(60);
    let mut rig = Rig::running(|agent| agent.timeout = Some(limit), OWN).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(rig.agent.ask(Request::Pause, "operator").await, Decision::Accept);
    assert!(matches!(rig.asked().await, Asked::Freeze));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(rig.agent.ask(Request::Resume, "operator").await, Decision::Accept);
    assert!(matches!(rig.asked().await, Asked::Thaw));
    let resumed = Instant::now();
    assert!(matches!(rig.asked().await, Asked::Signal(15)));
    assert_eq!(resumed.elapsed().as_secs(), 20);
    rig.exited(Status::Code(0));
    rig.gone(Usage::default());
    assert_eq!(exit_of(&mut rig).await, Exit::Timeout { limit });
}

#[tokio::test(start_paused = true)]
async fn a_paused_agent_is_thawed_before_it_is_asked_to_stop() {
    let mut rig = Rig::running(|_| (), OWN).await;
    rig.agent.ask(Request::Pause, "operator").await;
    assert!(matches!(rig.asked().await, Asked::Freeze));
    rig.agent.ask(Request::Stop, "operator").await;
    assert!(matches!(rig.asked().await, Asked::Thaw));
    assert!(matches!(rig.asked().await, Asked::Signal(15)));
}

#[tokio::test(start_paused = true)]
async fn limits_are_changed_under_it_and_in_what_is_told_of_it() {
    let mut rig = Rig::running(|_| (), OWN).await;
    let limits = GroupLimits { memory: 128 << 20, cpu_weight: 400, ..LIMITS };
    let adjustment = |limits| Adjustment {
        stop: StopPolicy { signal: 15, grace: Duration::from_secs(10) },
        restart: Restart::with_policy(RestartPolicy::No),
        success: Vec::new(),
        logs: LogPolicy::default(),
        limits,
    };
    rig.agent.adjust(adjustment(LIMITS));
    rig.agent.adjust(adjustment(limits));
    let Asked::Limit(asked) = rig.asked().await else { panic!("only what is different is asked") };
    assert_eq!(asked, limits);
    rig.exited(Status::Signal { signal: 9, core: false });
    rig.gone(Usage { memory_peak: Some(99), cpu_us: None, oom_kills: 1 });
    let limit = ByteSize::mib(128);
    assert_eq!(exit_of(&mut rig).await, Exit::Oom { peak: Some(ByteSize(99)), limit });
}

#[tokio::test(start_paused = true)]
async fn a_death_by_the_memory_limit_is_told_with_peak_and_limit() {
    let mut rig = Rig::running(|_| (), OWN).await;
    rig.exited(Status::Signal { signal: 9, core: false });
    rig.gone(Usage { memory_peak: Some(99), cpu_us: None, oom_kills: 1 });
    let limit = ByteSize::mib(64);
    assert_eq!(exit_of(&mut rig).await, Exit::Oom { peak: Some(ByteSize(99)), limit });
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_dies_leaves_an_unknown_exit() {
    let mut rig = Rig::running(|_| (), OWN).await;
    rig.says.send(KeeperEvent::Closed).expect("the runtime lives");
    assert_eq!(exit_of(&mut rig).await, Exit::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_says_why() {
    let mut rig = Rig::new(|_| ());
    rig.agent.ask(Request::Start, "test").await;
    let Asked::Spawn(answer) = rig.asked().await else { panic!("expected a spawn") };
    answer.send(Err(SpawnError::Keeper(toka_keeper::KeeperError::Gone))).expect("the actor waits");
    assert!(matches!(exit_of(&mut rig).await, Exit::StartFailed { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_made_fails_the_start() {
    let mut rig = Rig::new(|agent| agent.log = LogPlace::alone("/proc/no/such/log".into()));
    rig.agent.ask(Request::Start, "test").await;
    let Exit::StartFailed { reason } = exit_of(&mut rig).await else { panic!("it cannot start") };
    assert!(reason.contains("/proc/no/such/log"), "{reason}");
}

#[tokio::test]
async fn progress_is_thinned_out_and_its_last_word_is_kept() {
    let mut rig = Rig::running(|_| (), OWN).await;
    rig.keeper.own(me(), ID);
    let socket = UnixDatagram::unbound().expect("a socket");
    let notify = rig.folder.path().join("door/notify");
    for percent in 0..=100 {
        let text = format!("X_TOKA_PROGRESS={}", f64::from(percent) / 100.0);
        socket.send_to(text.as_bytes(), &notify).await.expect("the door is open");
    }
    rig.exited(Status::Code(0));
    rig.gone(Usage::default());
    let mut told = Vec::new();
    loop {
        match rig.event().await {
            EventKind::Progress(progress) => told.extend(progress.fraction),
            EventKind::AgentEnded { .. } => break,
            _ => {}
        }
    }
    assert_eq!(told.last(), Some(&1.0));
    assert!(told.len() < 50, "{} events for 101 reports", told.len());
}

#[tokio::test]
async fn strangers_are_not_heard() {
    let mut rig = Rig::running(|_| (), OWN).await;
    rig.keeper.own(me(), toka_keeper::ProcessId(2));
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.send_to(b"READY=1", rig.folder.path().join("door/notify")).await.expect("the door is open");
    rig.exited(Status::Code(0));
    rig.gone(Usage::default());
    assert!(matches!(rig.event().await, EventKind::AgentEnded { .. }));
}

#[tokio::test]
async fn a_sender_that_has_exited_is_believed_only_where_nobody_else_can_knock() {
    for (mounts, heard) in [(Coverage::Full, true), (Coverage::None, false)] {
        let mut rig = Rig::running(|_| (), mounts).await;
        let notify = rig.folder.path().join("door/notify");
        let script = "import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); \
                      s.sendto(b'READY=1',sys.argv[1])";
        let sent = std::process::Command::new("python3").args(["-c", script]).arg(notify).status();
        assert!(sent.expect("python").success());
        rig.exited(Status::Code(0));
        rig.gone(Usage::default());
        let first = rig.event().await;
        assert_eq!(first == EventKind::AgentReady, heard, "{mounts:?}: {first:?}");
    }
}

fn one_task(agent: &mut crate::Profile) {
    let task = TaskSpec {
        index: 0,
        description: "test".into(),
        run: Some("true".into()),
        talk: false,
        timeout_ms: None,
        retry: Default::default(),
        depends_on: Vec::new(),
    };
    agent.tasks = TaskList { tasks: vec![task], ..TaskList::default() };
}

#[tokio::test]
async fn without_groups_a_task_runs_all_the_same() {
    let mut rig = Rig::running_behind(one_task, enforcement(OWN, Coverage::None)).await;
    rig.keeper.own(me(), ID);
    let mut client = crate::door::tests::Client::connect(&rig.folder.path().join("door/agent")).await;
    // Its pid in a namespace of its own: nobody here knows it.
    assert!(client.ask("task/enter", r#"{"index":0,"attempt":1,"pid":4}"#).await.contains("\"result\":{}"));
    let end = r#"{"index":0,"attempt":1,"exit":{"cause":"code","code":3},"duration_ms":5}"#;
    assert!(client.ask("task/end", end).await.contains("\"result\""));
    assert!(matches!(rig.event().await, EventKind::TaskStarted { .. }));
    assert!(matches!(rig.event().await, EventKind::TaskEnded { exit: Exit::Code { code: 3 }, .. }));
    assert!(rig.asked.try_recv().is_err(), "the keeper is not asked");
}

#[tokio::test]
async fn what_was_said_before_a_task_is_told_before_it() {
    let mut rig = Rig::running_behind(one_task, enforcement(OWN, Coverage::None)).await;
    rig.keeper.own(me(), ID);
    let mut client = crate::door::tests::Client::connect(&rig.folder.path().join("door/agent")).await;
    // The second report is held back; the task begins before its time has come.
    for status in ["first", "second"] {
        let report = format!(r#"{{"status":"{status}"}}"#);
        assert!(client.ask("progress", &report).await.contains("\"result\":{}"));
    }
    assert!(client.ask("task/enter", r#"{"index":0,"attempt":1,"pid":4}"#).await.contains("\"result\":{}"));
    let mut status = Progress::default();
    loop {
        match rig.event().await {
            EventKind::Progress(progress) => status.observe(progress),
            EventKind::TaskStarted { .. } => break,
            _ => {}
        }
    }
    assert_eq!(status.status.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_task_gets_a_group_of_its_own_and_its_usage_is_told() {
    let mut rig = Rig::running(one_task, OWN).await;
    rig.keeper.own(me(), ID);
    rig.keeper.own(PID + 1, ID);
    let mut client = crate::door::tests::Client::connect(&rig.folder.path().join("door/agent")).await;
    assert!(client.ask("tasks/get", "{}").await.contains("\"description\":\"test\""));
    let stranger = format!(r#"{{"index":0,"attempt":1,"pid":{}}}"#, PID + 9);
    assert!(client.ask("task/enter", &stranger).await.contains("not this agent's"));
    let enter = format!(r#"{{"index":0,"attempt":1,"pid":{}}}"#, PID + 1);
    assert!(client.ask("task/enter", &enter).await.contains("\"result\":{}"));
    assert!(matches!(rig.asked().await, Asked::MakeLeaf(leaf, pid) if leaf == "call-2" && pid == PID + 1));
    assert!(client.ask("task/enter", &enter).await.contains("under way already"));
    let end = r#"{"index":0,"attempt":1,"exit":{"cause":"code","code":0},"duration_ms":5}"#;
    assert!(client.ask("task/end", end).await.contains("\"cpu_us\":7"));
    assert!(matches!(rig.asked().await, Asked::RemoveLeaf(leaf) if leaf == "call-2"));
    assert!(client.ask("task/end", end).await.contains("not under way"));
    assert!(matches!(rig.event().await, EventKind::TaskStarted { index: 0, attempt: 1, .. }));
    assert!(matches!(rig.event().await, EventKind::TaskEnded { exit: Exit::Code { code: 0 }, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_failed_blocks() {
    let mut rig = Rig::new(|_| ());
    let by = toka_core::Name::new("dep").expect("a label");
    rig.agent.block(by.clone(), None);
    assert_eq!(rig.event().await, EventKind::AgentBlocked { by, why: None });
}
