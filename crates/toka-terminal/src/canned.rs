//! A short run for the tests of every renderer: success, failure, a blocked agent, a stopped service, and an agent that
//! sends control characters and more text than a line holds.

use std::time::Duration;

use toka_core::event::Usage;
use toka_core::{AgentName, Coverage, Enforcement, Event, EventKind, Exit, Layer, Name, Progress, RunId};

use super::view::RunView;

/// How many events have happened in the middle of the run: one agent has ended, two live, one waits.
pub(crate) const MIDDLE: usize = 11;

pub(crate) fn name(text: &str) -> AgentName {
    Name::new(text).expect("a label")
}

fn full() -> Enforcement {
    let mut enforcement = Enforcement::default();
    for layer in Layer::ALL {
        enforcement.set(layer, Coverage::Full, Vec::new());
    }
    enforcement
}

fn partial() -> Enforcement {
    let mut enforcement = full();
    enforcement.set(Layer::Cgroup, Coverage::Partial, vec!["no cpu controller".into()]);
    enforcement
}

fn ended(exit: Exit, duration_ms: u64, mib: u64, cpu_ms: u64) -> EventKind {
    let usage = Usage { memory_peak: Some(mib << 20), cpu_us: Some(cpu_ms * 1000), oom_kills: 0 };
    EventKind::AgentEnded { exit, duration_ms, usage }
}

fn progress(fraction: Option<f64>, status: &str) -> EventKind {
    EventKind::Progress(Progress { fraction, status: Some(status.into()), task: None })
}

/// The whole run.
pub(crate) fn events() -> Vec<Event> {
    let long = "a-name-that-is-as-long-as-a-name-may-be-in-a-workstream-of-yours";
    let long = &long[..63];
    let agents = ["inventory", "checks", long, "report"].map(name).to_vec();
    let hostile =
        "reading \u{1b}[2Jhistory\u{7} of \u{202e}everything that was ever committed to this repository";
    let kinds: Vec<(&str, EventKind)> = vec![
        ("", EventKind::RunStarted { workspace: "/home/me/widgets".into(), agents, detached: false }),
        ("inventory", EventKind::AgentStarting),
        ("inventory", EventKind::AgentStarted { pid: 4711, enforcement: full() }),
        ("checks", EventKind::AgentStarting),
        ("checks", EventKind::AgentStarted { pid: 4712, enforcement: partial() }),
        ("checks", EventKind::TaskStarted { index: 0, description: "Run the test suite".into(), attempt: 1 }),
        (long, EventKind::AgentStarting),
        (long, EventKind::AgentStarted { pid: 4713, enforcement: full() }),
        ("inventory", ended(Exit::Code { code: 0 }, 840, 12, 400)),
        ("checks", progress(Some(0.42), "test 42 of 100")),
        (long, progress(None, hostile)),
        (long, EventKind::AgentReady),
        ("checks", progress(Some(0.45), "test 45 of 100")),
        ("checks", progress(Some(0.61), "test 61 of 100")),
        (
            "checks",
            EventKind::TaskEnded {
                index: 0,
                exit: Exit::Code { code: 101 },
                duration_ms: 9000,
                usage: Usage::default(),
            },
        ),
        ("checks", EventKind::Warning { message: "asked for 512 MiB, held 500\u{1b}]0;x\u{7}".into() }),
        ("checks", ended(Exit::Code { code: 101 }, 12_300, 500, 31_000)),
        ("report", EventKind::AgentBlocked { by: name("checks"), why: None }),
        (long, EventKind::AgentStopping { exit: Exit::stopped("the end of the run") }),
        (long, ended(Exit::stopped("the end of the run"), 13_000, 3, 5)),
        ("", EventKind::RunEnded { exit_code: 1 }),
    ];
    let run = RunId::from_uuid(uuid::Uuid::from_u128(0x0192_0000_0000_7000_8000_00c0_ffee_0001));
    kinds
        .into_iter()
        .zip(1..)
        .map(|((agent, kind), seq)| Event {
            seq,
            time_ms: 1_795_000_000_000 + 500 * i64::try_from(seq).expect("small"),
            project: name("widgets"),
            run,
            agent: (!agent.is_empty()).then(|| name(agent)),
            kind,
        })
        .collect()
}

/// The moment at which the `at`th event is seen.
pub(crate) fn moment(at: usize) -> Duration {
    Duration::from_millis(500 * at as u64)
}

/// The model of a run of these agents after events of them, each by the agent's place.
pub(crate) fn view_of(agents: &[AgentName], told: impl IntoIterator<Item = (usize, EventKind)>) -> RunView {
    let first = events().remove(0);
    let workspace = "/w".to_owned();
    let kind = EventKind::RunStarted { workspace, agents: agents.to_vec(), detached: false };
    let mut view = RunView::default();
    view.apply(&Event { kind, ..first.clone() }, Duration::ZERO);
    for (seq, (at, kind)) in (first.seq + 1..).zip(told) {
        view.apply(&Event { seq, agent: Some(agents[at].clone()), kind, ..first.clone() }, Duration::ZERO);
    }
    view
}

/// The model after the first `count` events.
pub(crate) fn view_after(count: usize) -> RunView {
    let mut view = RunView::default();
    for (at, event) in events().iter().take(count).enumerate() {
        view.apply(event, moment(at));
    }
    view
}
