//! Asks what an agent's probes declare, as long as one life of the agent lasts.
//!
//! ```text
//! startup ──succeeds──▶ readiness: asked again and again, told whenever it turns
//!    │              └─▶ liveness: asked again and again, told when it fails, then over
//!    └────fails───▶ told, then over
//! ```
//!
//! Each probe waits for its answer before it asks again, so that nothing piles up. All that is under way belongs to one
//! task and ends with it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use toka_core::probe::{HttpGet, ProbeKind, TcpSocket};
use toka_core::{Probe, ProbeCheck, Probes};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::ask;
use super::judge::{Change, Judge};
use crate::Said;
use crate::clock::{Clock, Time};
use crate::turns::timed;
use toka_http::{NetworkReach, Way};

/// What follows from an agent's probes. Of a startup probe its success or its failure is told, once; of a readiness probe
/// every turn, from not ready on; of a liveness probe its failure, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeNote {
    /// Which probe.
    pub(crate) probe: ProbeKind,
    /// What it says now.
    pub(crate) ok: bool,
    /// Why, fit to follow a colon.
    pub(crate) reason: String,
}

/// Runs the command of an `exec` check.
pub(crate) trait ExecCheck: Send + Sync + 'static {
    /// Succeeds when the command ends with status 0; the error says how else it ended. The prober drops the future when
    /// `timeout` has passed, not counting pauses, and when the agent's life ends: what was started must end with it.
    fn run(&self, argv: &[String], timeout: Duration) -> impl Future<Output = Result<(), String>> + Send;
}

/// The probes of a running agent. Dropping it ends everything it does.
#[derive(Debug)]
pub(crate) struct Prober {
    clock: watch::Sender<Clock>,
    awaited: Vec<Awaited>,
    /// Until when the agent has asked for patience with its start, on its clock, in microseconds.
    patience: Arc<AtomicU64>,
    task: JoinHandle<()>,
    listener: Option<JoinHandle<()>>,
}

/// What the agent must do by itself, and whether it has.
#[derive(Debug)]
struct Awaited {
    probe: ProbeKind,
    sign: Sign,
    seen: watch::Sender<bool>,
}

impl Awaited {
    fn is_in(&self, text: &str) -> bool {
        matches!(&self.sign, Sign::Line(wanted) if text.contains(wanted.as_str()))
    }
}

/// What the agent does by itself, once.
#[derive(Debug, Clone)]
enum Sign {
    Ready,
    /// A newline on this descriptor of its own.
    Newline(u16),
    Line(String),
}

impl Prober {
    /// Begins to ask; the clock of the agent begins here. To be called in a runtime, when the agent's program executes and
    /// before anything is read of it, since a sign that came earlier is not known.
    pub(crate) fn start<E: ExecCheck>(
        probes: &Probes,
        network: NetworkReach,
        exec: E,
        notes: mpsc::UnboundedSender<ProbeNote>,
    ) -> Self {
        let (clock, watched) = watch::channel(Clock::start(Instant::now()));
        let exec = Arc::new(exec);
        let mut awaited = Vec::new();
        let patience = Arc::<AtomicU64>::default();
        let mut course = |kind, probe: &Option<Probe>| {
            let probe = probe.as_ref()?;
            Some(Course {
                kind,
                judge: Judge::new(kind, probe),
                asked: asked(kind, &probe.check, &network, &mut awaited),
                initial_delay: probe.initial_delay,
                period: probe.period.max(SHORTEST_PERIOD),
                timeout: probe.timeout,
                time: Time(watched.clone()),
                exec: Arc::clone(&exec),
                patience: Arc::clone(&patience),
                notes: notes.clone(),
            })
        };
        let startup = course(ProbeKind::Startup, &probes.startup);
        let readiness = course(ProbeKind::Readiness, &probes.readiness);
        let liveness = course(ProbeKind::Liveness, &probes.liveness);
        Self {
            clock,
            awaited,
            patience,
            task: tokio::spawn(timed(all(startup, readiness, liveness))),
            listener: None,
        }
    }

    /// The agent stands still from now on, and so do the clocks of its probes, also those of answers under way.
    pub(crate) fn pause(&self) {
        self.clock.send_modify(|clock| clock.hold(Instant::now()));
    }

    /// The agent goes on.
    pub(crate) fn resume(&self) {
        self.clock.send_modify(|clock| clock.resume(Instant::now()));
    }

    /// The agent asks for so much more time to start (`EXTEND_TIMEOUT_USEC=`): its startup probe does not fail before.
    pub(crate) fn extend(&self, by: Duration) {
        let until = self.clock.borrow().elapsed(Instant::now()).saturating_add(by);
        let micros = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
        self.patience.fetch_max(micros, Ordering::Relaxed);
    }

    /// The agent has said `READY=1`.
    pub(crate) fn on_notify_ready(&self) {
        self.see(|awaited| matches!(awaited.sign, Sign::Ready));
    }

    /// Waits for the agent's newline on the pipe at its notification descriptor, and then closes it.
    pub(crate) fn listen(&mut self, pipe: OwnedFd) {
        let newline = self.awaited.iter().find(|awaited| matches!(awaited.sign, Sign::Newline(_)));
        let Some(seen) = newline.map(|awaited| awaited.seen.clone()) else { return };
        let Ok(pipe) = pipe::Receiver::from_owned_fd(pipe) else { return };
        self.listener = Some(tokio::spawn(async move {
            // A pipe that was closed without a word is no sign, and the probe goes on waiting.
            if has_newline(pipe).await {
                seen.send_replace(true);
            }
        }));
    }

    /// The agent has written this: a line, or a part of one.
    pub(crate) fn on_log_line(&self, text: &str) {
        self.see(|awaited| awaited.is_in(text));
    }

    /// The agent has said this to whoever asked before.
    pub(crate) fn recall(&self, said: &Said) {
        self.see(|awaited| {
            said.probes.contains(&awaited.probe) || said.lines.iter().any(|line| awaited.is_in(line))
        });
    }

    fn see(&self, is_it: impl Fn(&Awaited) -> bool) {
        for awaited in self.awaited.iter().filter(|awaited| is_it(awaited)) {
            awaited.seen.send_replace(true);
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

/// No file can declare a period of zero; one would never let anything else run.
const SHORTEST_PERIOD: Duration = Duration::from_millis(1);

fn asked(probe: ProbeKind, check: &ProbeCheck, network: &NetworkReach, awaited: &mut Vec<Awaited>) -> Asked {
    let mut wait_for = |sign: Sign| {
        let (seen, watched) = watch::channel(false);
        awaited.push(Awaited { probe, sign: sign.clone(), seen });
        Asked::Sign(sign, watched)
    };
    match check {
        ProbeCheck::Notify => wait_for(Sign::Ready),
        ProbeCheck::NotificationFd(number) => wait_for(Sign::Newline(*number)),
        ProbeCheck::LogLine(text) => wait_for(Sign::Line(text.clone())),
        ProbeCheck::Exec(argv) => Asked::Exec(argv.clone()),
        ProbeCheck::HttpGet(get) => Asked::HttpGet(get.clone(), Way::new(network.clone())),
        ProbeCheck::TcpSocket(socket) => Asked::TcpSocket(socket.clone(), Way::new(network.clone())),
    }
}

async fn all<E: ExecCheck>(
    startup: Option<Course<E>>,
    readiness: Option<Course<E>>,
    liveness: Option<Course<E>>,
) {
    if follow(startup).await == End::Bad {
        return;
    }
    tokio::join!(follow(readiness), follow(liveness));
}

async fn follow<E: ExecCheck>(course: Option<Course<E>>) -> End {
    match course {
        // Boxed, so that the task has no room for probes that an agent does not have.
        Some(course) => Box::pin(course.run()).await,
        None => End::Good,
    }
}

/// What a probe asks, with all that it takes.
enum Asked {
    /// Nothing: the agent tells by itself.
    Sign(Sign, watch::Receiver<bool>),
    Exec(Vec<String>),
    HttpGet(HttpGet, Way),
    TcpSocket(TcpSocket, Way),
}

impl Asked {
    /// Whether a question reaches the agent at all.
    async fn leads_there(&self) -> bool {
        match self {
            Self::HttpGet(_, way) | Self::TcpSocket(_, way) => way.is_open().await,
            Self::Sign(..) | Self::Exec(_) => true,
        }
    }
}

/// How a probe was the last time, when it is not asked any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Good,
    Bad,
}

/// One probe from the agent's start to its last answer.
struct Course<E> {
    kind: ProbeKind,
    judge: Judge,
    asked: Asked,
    initial_delay: Duration,
    period: Duration,
    timeout: Duration,
    time: Time,
    exec: Arc<E>,
    patience: Arc<AtomicU64>,
    notes: mpsc::UnboundedSender<ProbeNote>,
}

impl<E: ExecCheck> Course<E> {
    async fn run(mut self) -> End {
        self.time.until(self.initial_delay).await;
        match &self.asked {
            Asked::Sign(sign, seen) => {
                let (sign, seen) = (sign.clone(), seen.clone());
                self.wait(&sign, seen).await
            }
            _ => self.keep_asking().await,
        }
    }

    async fn keep_asking(&mut self) -> End {
        loop {
            let began = self.time.elapsed();
            // What was not the agent's to answer says nothing about it.
            if let Some(answer) = self.ask().await
                && let Some(end) = self.hear(answer)
            {
                return end;
            }
            self.time.until(began.saturating_add(self.period)).await;
        }
    }

    /// A period without the sign is a failure; the sign is success whatever the threshold, since it comes only once.
    async fn wait(&mut self, sign: &Sign, mut seen: watch::Receiver<bool>) -> End {
        loop {
            let end_of_period = self.time.elapsed().saturating_add(self.period);
            tokio::select! {
                biased;
                () = sight(&mut seen) => {
                    self.tell(Change { ok: true, reason: sign.seen() });
                    return End::Good;
                }
                () = self.time.until(end_of_period) => {}
            }
            if let Some(end) = self.hear(Err(sign.missing())) {
                return end;
            }
        }
    }

    /// The answer; `None` when the agent could not be asked.
    async fn ask(&mut self) -> Option<Result<(), String>> {
        let Self { asked, time, exec, timeout, .. } = self;
        let answer = async {
            match asked {
                Asked::Sign(..) => Ok(()),
                Asked::Exec(argv) => exec.run(argv, *timeout).await,
                Asked::HttpGet(get, way) => ask::http_get(way, get).await,
                Asked::TcpSocket(socket, way) => ask::tcp_socket(way, socket).await,
            }
        };
        match time.within(*timeout, answer).await {
            Some(answer) => Some(answer),
            None if !asked.leads_there().await => None,
            None => Some(Err(format!("no answer within {timeout:?}"))),
        }
    }

    /// The end of the probe, if this answer is its last.
    fn hear(&mut self, answer: Result<(), String>) -> Option<End> {
        if answer.is_err() && self.is_patient() && self.judge.would_fail() {
            return None;
        }
        let change = self.judge.hear(answer)?;
        let end = if change.ok { End::Good } else { End::Bad };
        self.tell(change);
        (self.kind != ProbeKind::Readiness).then_some(end)
    }

    /// Whether the agent has time left that it has asked for.
    fn is_patient(&self) -> bool {
        let patience = Duration::from_micros(self.patience.load(Ordering::Relaxed));
        self.kind == ProbeKind::Startup && self.time.elapsed() < patience
    }

    fn tell(&self, Change { ok, reason }: Change) {
        // An actor that has gone wants to know nothing.
        let _ = self.notes.send(ProbeNote { probe: self.kind, ok, reason });
    }
}

impl Sign {
    fn seen(&self) -> String {
        match self {
            Self::Ready => "it said READY=1".to_owned(),
            Self::Newline(number) => format!("it wrote a newline on descriptor {number}"),
            Self::Line(text) => format!("it wrote {text:?}"),
        }
    }

    fn missing(&self) -> String {
        match self {
            Self::Ready => "it has not said READY=1".to_owned(),
            Self::Newline(number) => format!("it has not written a newline on descriptor {number}"),
            Self::Line(text) => format!("it has not written {text:?}"),
        }
    }
}

/// Whether there is a newline before the end.
async fn has_newline(mut pipe: pipe::Receiver) -> bool {
    let mut buffer = [0; 64];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        if buffer[..read].contains(&b'\n') {
            return true;
        }
    }
    false
}

async fn sight(seen: &mut watch::Receiver<bool>) {
    if seen.wait_for(|seen| *seen).await.is_err() {
        std::future::pending::<()>().await;
    }
}
