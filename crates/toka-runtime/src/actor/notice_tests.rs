//! What agents say in datagrams, over the real socket, with a keeper that the test plays.
//!
//! Where a clock is concerned it stands still and jumps to the next deadline; datagrams are then waited for by what
//! follows from them.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use toka_core::event::Usage;
use toka_core::{
    Coverage, EventKind, Exit, Probe, ProbeCheck, Probes, Progress, Request, Restart, RestartPolicy,
};
use toka_keeper::Status;
use tokio::time::Instant;

use crate::Profile;
use crate::test_support::{Asked, ID, PID, Rig, enforcement};

const OWN: Coverage = Coverage::Full;
const SECOND: Duration = Duration::from_secs(1);

/// A rig whose agent this process counts as.
async fn rig(change: impl FnOnce(&mut Profile)) -> Rig {
    let rig = Rig::running(change, OWN).await;
    rig.keeper.own(i32::try_from(std::process::id()).expect("a pid"), ID);
    rig
}

/// Sends a datagram, with a status behind it, and waits until that has been heard, and so all before it.
async fn say(rig: &mut Rig, text: &str) -> Vec<EventKind> {
    send(rig, text.as_bytes());
    send(rig, b"STATUS=heard");
    let mut told = Vec::new();
    loop {
        match rig.event().await {
            EventKind::Progress(Progress { status: Some(status), .. }) if &*status == "heard" => return told,
            event => told.push(event),
        }
    }
}

fn send(rig: &Rig, datagram: &[u8]) {
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.send_to(datagram, rig.folder.path().join("door/notify")).expect("the door is open");
}

async fn exit_of(rig: &mut Rig) -> Exit {
    loop {
        if let EventKind::AgentEnded { exit, .. } = rig.event().await {
            return exit;
        }
    }
}

fn not_ready(reason: &str) -> EventKind {
    EventKind::AgentNotReady { reason: reason.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_reload_takes_readiness_away_until_it_is_ready_again() {
    let mut rig = rig(|_| ()).await;
    assert_eq!(say(&mut rig, "READY=1").await, [EventKind::AgentReady]);
    assert_eq!(say(&mut rig, "RELOADING=1\nMONOTONIC_USEC=17").await, [not_ready("reloading")]);
    assert_eq!(say(&mut rig, "READY=1\nX_UNKNOWN=1").await, [EventKind::AgentReady]);
}

#[tokio::test(start_paused = true)]
async fn one_that_stops_by_itself_is_not_ready_and_ends_as_it_ends() {
    let on_failure = |profile: &mut Profile| profile.restart = Restart::with_policy(RestartPolicy::OnFailure);
    let mut rig = rig(on_failure).await;
    say(&mut rig, "READY=1").await;
    assert_eq!(say(&mut rig, "STOPPING=1").await, [not_ready("stopping")]);
    assert_eq!(say(&mut rig, "READY=1").await, []);
    rig.exited(Status::Code(0));
    rig.gone(Usage::default());
    assert_eq!(exit_of(&mut rig).await, Exit::Code { code: 0 }, "a clean end, not restarted");
}

#[tokio::test(start_paused = true)]
async fn one_that_says_that_it_stops_and_does_not_is_killed_after_the_grace_period() {
    let mut rig = rig(|_| ()).await;
    let said = Instant::now();
    say(&mut rig, "STOPPING=1").await;
    assert!(matches!(rig.asked().await, Asked::Kill), "and no signal before");
    assert_eq!(said.elapsed().as_secs(), 10);
    rig.exited(Status::Signal { signal: 9, core: false });
    rig.gone(Usage::default());
    assert_eq!(exit_of(&mut rig).await, Exit::Timeout { limit: 10 * SECOND });
}

#[tokio::test(start_paused = true)]
async fn the_timeout_is_extended_and_never_shortened() {
    let mut rig = rig(|profile| profile.timeout = Some(5 * SECOND)).await;
    let began = Instant::now();
    let told = say(&mut rig, "EXTEND_TIMEOUT_USEC=8000000").await;
    assert!(
        matches!(&told[..], [EventKind::Warning { message }] if message.contains("extended")),
        "{told:?}"
    );
    assert_eq!(say(&mut rig, "EXTEND_TIMEOUT_USEC=1000").await, []);
    assert!(matches!(rig.asked().await, Asked::Signal(15)));
    assert_eq!(began.elapsed().as_secs(), 8);
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_is_extended() {
    let mut rig = rig(|_| ()).await;
    let began = Instant::now();
    rig.agent.ask(Request::Stop, "operator").await;
    assert!(matches!(rig.asked().await, Asked::Signal(15)));
    say(&mut rig, "EXTEND_TIMEOUT_USEC=30000000").await;
    assert!(matches!(rig.asked().await, Asked::Kill));
    assert_eq!(began.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_kill_waits_for_no_extension() {
    let mut rig = rig(|_| ()).await;
    rig.agent.ask(Request::Stop, "operator").await;
    assert!(matches!(rig.asked().await, Asked::Signal(15)));
    say(&mut rig, "EXTEND_TIMEOUT_USEC=30000000").await;
    rig.agent.ask(Request::Kill, "operator").await;
    assert!(matches!(rig.asked().await, Asked::Kill));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_longer_than_its_probe_allows_is_extended() {
    let probe = Probe {
        check: ProbeCheck::Notify,
        initial_delay: Duration::ZERO,
        period: SECOND,
        timeout: SECOND,
        success_threshold: 1,
        failure_threshold: 3,
    };
    let slow = |profile: &mut Profile| profile.probes = Probes { startup: Some(probe), ..Probes::default() };
    let mut rig = rig(slow).await;
    let began = Instant::now();
    assert_eq!(say(&mut rig, "EXTEND_TIMEOUT_USEC=7500000").await, []);
    assert!(matches!(rig.asked().await, Asked::Signal(15)));
    assert_eq!(began.elapsed().as_secs(), 8, "the first answer after the extension decides");
}

#[tokio::test(start_paused = true)]
async fn a_watchdog_is_patient_for_as_long_as_it_is_asked_to_be() {
    let mut rig = rig(|profile| profile.watchdog = Some(SECOND)).await;
    let began = Instant::now();
    say(&mut rig, "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=20000000").await;
    assert!(matches!(rig.asked().await, Asked::Signal(6)));
    assert!(began.elapsed() >= 20 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn only_a_process_of_its_own_can_be_its_main_one() {
    let mut rig = rig(|_| ()).await;
    rig.keeper.own(PID + 1, ID);
    rig.keeper.own(PID + 2, toka_keeper::ProcessId(2));
    let named = EventKind::AgentMainProcess { pid: PID + 1 };
    assert_eq!(say(&mut rig, &format!("MAINPID={}", PID + 1)).await, [named]);
    for stranger in [PID + 2, 1] {
        let told = say(&mut rig, &format!("MAINPID={stranger}")).await;
        let expected = usize::from(stranger != 1);
        assert_eq!(told.len(), expected, "told once: {told:?}");
    }
    assert!(matches!(rig.asked().await, Asked::SetMain(pid) if pid == PID + 1));
    assert!(rig.asked.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn what_went_wrong_is_told_with_its_status() {
    let mut rig = rig(|_| ()).await;
    send(&rig, b"STATUS=no configuration\nERRNO=2\nBUSERROR=org.example.Gone\nEXIT_STATUS=78");
    let EventKind::Progress(Progress { status: Some(status), .. }) = rig.event().await else {
        panic!("a status")
    };
    let expected = "no configuration: it met the error No such file or directory (os error 2): org.example.Gone: exit status 78";
    assert_eq!(&*status, expected);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_told_once() {
    let mut rig = rig(|_| ()).await;
    let long = vec![b'X'; 20 * 1024];
    for datagram in [&long[..], &long, b"STATUS=\xff", b"STATUS=\xff\nSTATUS=heard"] {
        send(&rig, datagram);
    }
    let told = say(&mut rig, "READY=1").await;
    let warnings = told.iter().filter(|event| matches!(event, EventKind::Warning { .. }));
    assert_eq!(warnings.count(), 2, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn the_next_life_begins_without_what_the_last_one_said() {
    let again = |profile: &mut Profile| profile.restart = Restart::with_policy(RestartPolicy::Always);
    let mut rig = rig(again).await;
    say(&mut rig, "STOPPING=1").await;
    rig.exited(Status::Code(0));
    rig.gone(Usage::default());
    rig.answer_spawn(enforcement(OWN, OWN)).await;
    while !matches!(rig.event().await, EventKind::AgentStarted { .. }) {}
    assert_eq!(say(&mut rig, "READY=1").await, [EventKind::AgentReady]);
}
