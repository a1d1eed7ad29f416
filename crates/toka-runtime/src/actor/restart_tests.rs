//! Lives after the first, with a keeper that the test plays. The clock stands still and jumps to the next deadline.

use std::time::Duration;

use nix::unistd::write;
use toka_core::event::Usage;
use toka_core::{Coverage, Decision, EventKind, Exit, PressureLimits, Request, Restart, RestartPolicy};
use toka_keeper::Status;
use toka_logs::LogReader;
use toka_sandbox::cgroup::PressureFiles;
use tokio::time::Instant;

use crate::test_support::{Asked, Rig, enforcement};
use crate::{Admission, Profile};

const OWN: Coverage = Coverage::Full;
const FAILED: Status = Status::Code(1);

/// Restarts on failure, after exactly one second, two, four.
fn on_failure(profile: &mut Profile) {
    profile.restart = Restart::with_policy(RestartPolicy::OnFailure);
    profile.restart.backoff.jitter = 0.0;
}

/// Ends this life; returns the wait before the next.
async fn fail(rig: &mut Rig) -> Duration {
    rig.exited(FAILED);
    rig.gone(Usage::default());
    loop {
        match rig.event().await {
            EventKind::AgentRestarting { delay_ms, exit, .. } => {
                assert_eq!(exit, Exit::Code { code: 1 });
                return Duration::from_millis(delay_ms);
            }
            EventKind::AgentEnded { .. } => panic!("it should come back"),
            _ => {}
        }
    }
}

/// Waits for the next life.
async fn come_back(rig: &mut Rig) {
    rig.answer_spawn(enforcement(OWN, OWN)).await;
    while !matches!(rig.event().await, EventKind::AgentStarted { .. }) {}
}

async fn end_of(rig: &mut Rig) -> EventKind {
    loop {
        let event = rig.event().await;
        if matches!(event, EventKind::AgentEnded { .. } | EventKind::AgentQuarantined { .. }) {
            return event;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_life_waits_longer_and_the_last_one_is_quarantined() {
    let limited = |profile: &mut Profile| {
        on_failure(profile);
        profile.restart.max_restarts = toka_core::restart::MaxRestarts::Limited(3);
    };
    let mut rig = Rig::running(limited, OWN).await;
    for expected in [1, 2, 4] {
        let ended = Instant::now();
        assert_eq!(fail(&mut rig).await, Duration::from_secs(expected));
        come_back(&mut rig).await;
        assert_eq!(ended.elapsed().as_secs(), expected);
    }
    rig.exited(FAILED);
    rig.gone(Usage::default());
    assert!(matches!(end_of(&mut rig).await, EventKind::AgentQuarantined { restarts: 3, .. }));
}

/// A gate, and the folder that looks like its host.
fn gate() -> (Admission, tempfile::TempDir) {
    let root = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(root.path().join("proc/pressure")).expect("a folder");
    press(&root, "0.00");
    (Admission::new(PressureFiles::probe(root.path()), PressureLimits::default()), root)
}

fn press(root: &tempfile::TempDir, percent: &str) {
    let text = format!("some avg10={percent} avg60=0.00 avg300=0.00 total=0\n");
    std::fs::write(root.path().join("proc/pressure/memory"), text).expect("a file");
}

#[tokio::test(start_paused = true)]
async fn the_next_life_waits_for_room_unless_somebody_asks_for_it() {
    let (gate, root) = gate();
    let mut rig = Rig::admitted_by(gate, on_failure);
    rig.start(enforcement(OWN, OWN)).await;
    for asks in [false, true] {
        press(&root, "33.00");
        fail(&mut rig).await;
        let EventKind::AgentWaiting { hold } = rig.event().await else { panic!("it should wait") };
        assert_eq!((hold.percent, hold.limit), (33, 20));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(rig.asked.try_recv().is_err(), "nothing is started");
        assert!(rig.events.try_recv().is_err(), "a wait is told once");
        if asks {
            assert_eq!(rig.agent.ask(Request::Start, "test").await, Decision::Accept);
        } else {
            press(&root, "0.00");
        }
        come_back(&mut rig).await;
    }
    press(&root, "33.00");
    fail(&mut rig).await;
    assert!(matches!(rig.event().await, EventKind::AgentWaiting { .. }));
    rig.agent.ask(Request::Stop, "test").await;
    assert!(matches!(end_of(&mut rig).await, EventKind::AgentEnded { exit: Exit::Stopped { .. }, .. }));
}

#[tokio::test(start_paused = true)]
async fn after_a_stable_life_it_comes_back_at_once() {
    let mut rig = Rig::running(on_failure, OWN).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(fail(&mut rig).await, Duration::ZERO);
    come_back(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_good_end_is_the_end() {
    let mut rig = Rig::running(on_failure, OWN).await;
    rig.exited(Status::Code(0));
    rig.gone(Usage::default());
    assert!(matches!(end_of(&mut rig).await, EventKind::AgentEnded { exit: Exit::Code { code: 0 }, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_wait_ends_it_without_another_life() {
    let mut rig = Rig::running(on_failure, OWN).await;
    fail(&mut rig).await;
    assert_eq!(rig.agent.ask(Request::Stop, "operator").await, Decision::Accept);
    let EventKind::AgentEnded { exit, .. } = end_of(&mut rig).await else { panic!("it ends") };
    assert_eq!(exit, Exit::stopped("operator"));
    assert!(rig.asked.try_recv().is_err(), "nothing is started, signalled or killed");
}

#[tokio::test(start_paused = true)]
async fn a_stop_between_the_exit_and_the_end_of_the_tree_is_heard() {
    let mut rig = Rig::running(on_failure, OWN).await;
    rig.exited(FAILED);
    assert_eq!(rig.agent.ask(Request::Stop, "operator").await, Decision::Accept);
    rig.gone(Usage::default());
    let EventKind::AgentEnded { exit, .. } = end_of(&mut rig).await else { panic!("it ends") };
    assert_eq!(exit, Exit::stopped("operator"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_stop_of_a_clock_is_the_last_word() {
    let timed = |profile: &mut Profile| {
        on_failure(profile);
        profile.timeout = Some(Duration::from_secs(5));
    };
    let mut rig = Rig::running(timed, OWN).await;
    assert!(matches!(rig.asked().await, Asked::Signal(15)), "the timeout");
    assert_eq!(rig.agent.ask(Request::Stop, "operator").await, Decision::Accept);
    rig.gone(Usage::default());
    let EventKind::AgentEnded { exit, .. } = end_of(&mut rig).await else { panic!("it ends") };
    assert_eq!(exit, Exit::stopped("operator"));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_a_failure_that_is_restarted_with_its_time_anew() {
    let timed = |profile: &mut Profile| {
        on_failure(profile);
        profile.timeout = Some(Duration::from_secs(5));
    };
    let mut rig = Rig::running(timed, OWN).await;
    for _ in 0..2 {
        assert!(matches!(rig.asked().await, Asked::Signal(15)));
        rig.gone(Usage::default());
        come_back(&mut rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_to_start_shortens_the_wait() {
    let mut rig = Rig::running(on_failure, OWN).await;
    fail(&mut rig).await;
    let asked = Instant::now();
    assert_eq!(rig.agent.ask(Request::Start, "operator").await, Decision::Accept);
    come_back(&mut rig).await;
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn one_log_holds_all_lives() {
    let mut rig = Rig::running(on_failure, OWN).await;
    for line in [&b"first\n"[..], b"second\n"] {
        let [out, err] = rig.pipes.take().expect("pipes");
        write(&out, line).expect("room");
        drop((out, err));
        fail(&mut rig).await;
        come_back(&mut rig).await;
    }
    let mut reader = LogReader::open(&rig.folder.path().join("log")).expect("a log");
    for line in [&b"first"[..], b"second"] {
        assert_eq!(reader.next_line().expect("readable").expect("a line").bytes, line);
    }
}
