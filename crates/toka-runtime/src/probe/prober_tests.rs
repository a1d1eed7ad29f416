//! Probers against a clock that jumps, with checks that are made up.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use toka_core::probe::{ProbeKind, TcpSocket};
use toka_core::{Probe, ProbeCheck, Probes};
use toka_sandbox::namespace::Family;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{Instant, sleep};

use super::{ExecCheck, NetworkReach, ProbeNote, Prober};
use crate::probe::MakesSockets;

const NEVER: Duration = Duration::from_secs(1_000_000);

/// What a made-up check does when it is asked for the n-th time: after how long it answers, and what.
type Script = fn(command: &str, n: usize) -> (Duration, Result<(), String>);

#[derive(Clone)]
struct Fake {
    script: Script,
    begin: Instant,
    /// The command and the second in which it was asked.
    asked: Arc<Mutex<Vec<(String, u64)>>>,
    under_way: Arc<AtomicUsize>,
}

/// One check under way.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ExecCheck for Fake {
    async fn run(&self, argv: &[String], _timeout: Duration) -> Result<(), String> {
        let n = {
            let mut asked = self.asked.lock().expect("no panic");
            asked.push((argv[0].clone(), self.begin.elapsed().as_secs()));
            asked.iter().filter(|(command, _)| *command == argv[0]).count() - 1
        };
        assert_eq!(self.under_way.fetch_add(1, Ordering::SeqCst), 0, "one check at a time");
        let running = Running(Arc::clone(&self.under_way));
        let (takes, answer) = (self.script)(&argv[0], n);
        sleep(takes).await;
        drop(running);
        answer
    }
}

struct Setup {
    prober: Prober,
    notes: UnboundedReceiver<ProbeNote>,
    fake: Fake,
}

fn start(probes: &Probes, script: Script) -> Setup {
    let (sender, notes) = mpsc::unbounded_channel();
    let fake = Fake { script, begin: Instant::now(), asked: Arc::default(), under_way: Arc::default() };
    let prober = Prober::start(probes, NetworkReach::Shared, fake.clone(), sender);
    Setup { prober, notes, fake }
}

impl Setup {
    /// The next note, with the second in which it came; `None` when the prober is done.
    async fn note(&mut self) -> Option<(u64, ProbeKind, bool, String)> {
        let note = self.notes.recv().await?;
        Some((self.fake.begin.elapsed().as_secs(), note.probe, note.ok, note.reason))
    }

    async fn verdict(&mut self) -> Option<(u64, ProbeKind, bool)> {
        self.note().await.map(|(at, probe, ok, _)| (at, probe, ok))
    }

    fn asked(&self, command: &str) -> Vec<u64> {
        let asked = self.fake.asked.lock().expect("no panic");
        asked.iter().filter(|(other, _)| other == command).map(|(_, at)| *at).collect()
    }
}

fn probe(check: ProbeCheck) -> Option<Probe> {
    Some(Probe {
        check,
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
    })
}

fn exec(command: &str) -> Option<Probe> {
    probe(ProbeCheck::Exec(vec![command.to_owned()]))
}

fn with(mut probe: Option<Probe>, change: impl FnOnce(&mut Probe)) -> Option<Probe> {
    if let Some(probe) = &mut probe {
        change(probe);
    }
    probe
}

fn good() -> (Duration, Result<(), String>) {
    (Duration::ZERO, Ok(()))
}

fn bad(reason: &str) -> (Duration, Result<(), String>) {
    (Duration::ZERO, Err(reason.to_owned()))
}

#[tokio::test(start_paused = true)]
async fn readiness_turns_both_ways() {
    let probes = Probes { readiness: exec("ready"), ..Probes::default() };
    let mut it = start(&probes, |_, n| if (2..4).contains(&n) || n > 7 { good() } else { bad("status 503") });
    assert_eq!(it.verdict().await, Some((20, ProbeKind::Readiness, true)));
    let note = it.note().await.expect("it fails again");
    assert_eq!(note, (60, ProbeKind::Readiness, false, "status 503 (3 failures in a row)".to_owned()));
    assert_eq!(it.verdict().await, Some((80, ProbeKind::Readiness, true)));
}

#[tokio::test(start_paused = true)]
async fn the_first_question_waits_and_the_others_keep_the_period() {
    let liveness = with(exec("alive"), |probe| {
        probe.initial_delay = Duration::from_secs(5);
        probe.period = Duration::from_secs(7);
    });
    let mut it = start(&Probes { liveness, ..Probes::default() }, |_, n| {
        let answer = if n < 2 { Ok(()) } else { Err("gone".to_owned()) };
        (Duration::from_millis(500), answer)
    });
    assert_eq!(it.verdict().await, Some((33, ProbeKind::Liveness, false)));
    assert_eq!(it.asked("alive"), [5, 12, 19, 26, 33]);
    assert_eq!(it.verdict().await, None, "a failure of liveness is the end of it");
}

#[tokio::test(start_paused = true)]
async fn the_others_wait_for_startup() {
    let probes =
        Probes { startup: exec("up"), readiness: exec("ready"), liveness: probe(ProbeCheck::Notify) };
    let mut it = start(&probes, |command, n| if command == "up" && n < 2 { bad("no") } else { good() });
    assert_eq!(it.verdict().await, Some((20, ProbeKind::Startup, true)));
    assert_eq!(it.verdict().await, Some((20, ProbeKind::Readiness, true)));
    sleep(Duration::from_secs(15)).await;
    assert_eq!(it.asked("up"), [0, 10, 20], "startup is asked no more");
    assert_eq!(it.asked("ready"), [20, 30]);
}

#[tokio::test(start_paused = true)]
async fn when_startup_fails_nothing_else_is_asked() {
    let probes = Probes { startup: exec("up"), readiness: exec("ready"), liveness: exec("alive") };
    let mut it = start(&probes, |_, _| bad("no"));
    assert_eq!(it.verdict().await, Some((20, ProbeKind::Startup, false)));
    assert_eq!(it.verdict().await, None);
    assert!(it.asked("ready").is_empty() && it.asked("alive").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_is_a_failure_and_does_not_pile_up() {
    let liveness = with(exec("alive"), |probe| {
        probe.period = Duration::from_secs(2);
        probe.timeout = Duration::from_secs(5);
        probe.failure_threshold = 2;
    });
    let mut it = start(&Probes { liveness, ..Probes::default() }, |_, _| (NEVER, Ok(())));
    let reason = "no answer within 5s (2 failures in a row)".to_owned();
    assert_eq!(it.note().await, Some((10, ProbeKind::Liveness, false, reason)));
    assert_eq!(it.asked("alive"), [0, 5]);
    assert_eq!(it.fake.under_way.load(Ordering::SeqCst), 0, "what hung was dropped");
}

#[tokio::test(start_paused = true)]
async fn a_pause_stops_the_clocks_also_of_an_answer_under_way() {
    let liveness = with(exec("alive"), |probe| {
        probe.initial_delay = Duration::from_secs(4);
        probe.timeout = Duration::from_secs(3);
        probe.failure_threshold = 2;
    });
    let mut it = start(&Probes { liveness, ..Probes::default() }, |_, _| (NEVER, Ok(())));
    sleep(Duration::from_secs(1)).await;
    it.prober.pause();
    it.prober.pause();
    sleep(Duration::from_secs(100)).await;
    assert!(it.asked("alive").is_empty());
    it.prober.resume();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(it.asked("alive"), [104]);
    // Two of three seconds have passed since it was asked.
    it.prober.pause();
    sleep(Duration::from_secs(50)).await;
    it.prober.resume();
    // The first answer is missing at 157, ten seconds of its own after the question the next one is due.
    assert_eq!(it.verdict().await, Some((167, ProbeKind::Liveness, false)));
    assert_eq!(it.asked("alive"), [104, 164]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_prober_drops_what_is_under_way() {
    let probes = Probes { liveness: exec("alive"), ..Probes::default() };
    let mut it = start(&probes, |_, _| (Duration::from_millis(900), Ok(())));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(it.fake.under_way.load(Ordering::SeqCst), 1);
    drop(it.prober);
    assert_eq!(it.notes.recv().await, None);
    assert_eq!(it.fake.under_way.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_word_of_the_agent_counts_at_once() {
    let probes = Probes {
        startup: probe(ProbeCheck::LogLine("listening".to_owned())),
        readiness: with(probe(ProbeCheck::Notify), |probe| probe.success_threshold = 5),
        ..Probes::default()
    };
    let mut it = start(&probes, |_, _| bad("never asked"));
    it.prober.on_log_line("starting");
    sleep(Duration::from_secs(3)).await;
    it.prober.on_log_line("now listening on 80");
    let line = "it wrote \"listening\"".to_owned();
    assert_eq!(it.note().await, Some((3, ProbeKind::Startup, true, line)));
    sleep(Duration::from_secs(60)).await;
    it.prober.on_notify_ready();
    it.prober.on_notify_ready();
    // Whoever waited was told meanwhile.
    let missing = it.note().await.expect("three periods without a word");
    assert_eq!((missing.1, missing.2), (ProbeKind::Readiness, false));
    let said = "it said READY=1".to_owned();
    assert_eq!(it.note().await, Some((63, ProbeKind::Readiness, true, said)));
    assert_eq!(it.note().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_word_that_came_before_its_turn_is_not_forgotten() {
    let probes = Probes { startup: exec("up"), readiness: probe(ProbeCheck::Notify), ..Probes::default() };
    let mut it = start(&probes, |_, n| if n == 0 { bad("no") } else { good() });
    it.prober.on_notify_ready();
    assert_eq!(it.verdict().await, Some((10, ProbeKind::Startup, true)));
    assert_eq!(it.verdict().await, Some((10, ProbeKind::Readiness, true)));
}

#[tokio::test(start_paused = true)]
async fn a_startup_without_the_word_fails_after_its_periods() {
    let startup = with(probe(ProbeCheck::Notify), |probe| probe.initial_delay = Duration::from_secs(5));
    let mut it = start(&Probes { startup, ..Probes::default() }, |_, _| good());
    let reason = "it has not said READY=1 (3 failures in a row)".to_owned();
    assert_eq!(it.note().await, Some((35, ProbeKind::Startup, false, reason)));
    it.prober.on_notify_ready();
    assert_eq!(it.note().await, None);
}

/// In real time, since a clock that jumps does not wait for the kernel.
#[tokio::test]
async fn a_server_is_found_and_missed() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let socket = ProbeCheck::TcpSocket(TcpSocket { host: "127.0.0.1".to_owned(), port });
    let readiness = with(probe(socket), |probe| {
        probe.period = Duration::from_millis(1);
        probe.timeout = Duration::from_secs(10);
        probe.failure_threshold = 1;
    });
    let mut it = start(&Probes { readiness, ..Probes::default() }, |_, _| good());
    let note = it.notes.recv().await.expect("it is there");
    assert_eq!((note.probe, note.ok), (ProbeKind::Readiness, true));
    drop(listener);
    let note = it.notes.recv().await.expect("it is gone");
    assert!(!note.ok && note.reason.ends_with("connection refused"), "{note:?}");
}

/// A keeper that makes no socket: it says why, or nothing at all.
struct MakesNone {
    answers: bool,
}

impl MakesSockets for MakesNone {
    fn tcp_socket(&self, _: Family) -> Pin<Box<dyn Future<Output = Result<OwnedFd, String>> + Send + '_>> {
        Box::pin(async {
            match self.answers {
                true => Err("the process has gone".to_owned()),
                false => std::future::pending().await,
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_hangs_is_no_failure_of_the_agent() {
    let check = ProbeCheck::TcpSocket(TcpSocket { host: "127.0.0.1".to_owned(), port: 1 });
    let probes = Probes { liveness: probe(check), ..Probes::default() };
    let watched = |answers| {
        let (sender, notes) = mpsc::unbounded_channel();
        let fake = Fake {
            script: |_, _| good(),
            begin: Instant::now(),
            asked: Arc::default(),
            under_way: Arc::default(),
        };
        let reach = NetworkReach::Kept(Arc::new(MakesNone { answers }));
        Setup { prober: Prober::start(&probes, reach, fake.clone(), sender), notes, fake }
    };
    assert_eq!(watched(true).verdict().await, Some((20, ProbeKind::Liveness, false)));
    let mut silent = watched(false);
    let said = tokio::time::timeout(NEVER, silent.note()).await;
    assert!(said.is_err(), "nobody has heard of the agent: {said:?}");
}

#[tokio::test(start_paused = true)]
async fn without_probes_there_is_nothing_to_do() {
    let mut it = start(&Probes::default(), |_, _| good());
    assert_eq!(it.note().await, None);
}
