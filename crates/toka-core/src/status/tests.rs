//! The status is what the events say, in whatever order a life takes.

use uuid::Uuid;

use super::*;
use crate::Name;

fn name(text: &str) -> AgentName {
    Name::new(text).expect("a label")
}

struct Story {
    status: RunStatus,
    seq: u64,
}

impl Story {
    fn of(agents: &[&str]) -> Self {
        let mut story = Self { status: RunStatus::default(), seq: 0 };
        let agents = agents.iter().map(|agent| name(agent)).collect();
        story.tell(None, EventKind::RunStarted { workspace: "/w".into(), agents, detached: false });
        story
    }

    fn tell(&mut self, agent: Option<&str>, kind: EventKind) -> &mut Self {
        self.seq += 1;
        let event = Event {
            seq: self.seq,
            time_ms: i64::try_from(self.seq).expect("small") * 1000,
            project: name("p"),
            run: RunId::from_uuid(Uuid::nil()),
            agent: agent.map(name),
            kind,
        };
        self.status.observe(&event);
        // Told twice, as to a reader that begins again somewhere: nothing changes.
        let before = self.status.clone();
        self.status.observe(&event);
        assert_eq!(self.status, before);
        self
    }

    fn agent(&self, agent: &str) -> &AgentStatus {
        self.status.agent(&name(agent)).expect("there")
    }
}

#[test]
fn the_last_life_is_told_apart_from_all_of_them() {
    let mut story = Story::of(&["a"]);
    let (exit, usage) = (Exit::Code { code: 3 }, Usage::default());
    story.tell(Some("a"), EventKind::AgentStarting).tell(Some("a"), started(7));
    let again =
        EventKind::AgentRestarting { exit: exit.clone(), duration_ms: 900, usage, restarts: 1, delay_ms: 1 };
    let last =
        |story: &Story| story.agent("a").last.as_ref().map(|last| (last.duration_ms, last.all_lives_ms));
    story.tell(Some("a"), again);
    assert_eq!(last(&story), Some((900, None)));
    story.tell(Some("a"), EventKind::AgentStarting).tell(Some("a"), started(8));
    story.tell(Some("a"), EventKind::AgentQuarantined { exit, duration_ms: 4000, usage, restarts: 1 });
    // Between two events of a story there is a second.
    assert_eq!(last(&story), Some((1000, Some(4000))));
}

#[test]
fn what_a_watchdog_found_is_forgotten_with_its_daemon() {
    let mut story = Story::of(&["a"]);
    story.tell(Some("a"), EventKind::AgentStarting).tell(Some("a"), started(7));
    story.tell(Some("a"), EventKind::AgentSpinning { quiet_ms: 4000, cpu_us: Some(9) });
    assert_eq!(story.agent("a").wedged, Some(Wedged::Spinning { quiet_ms: 4000, cpu_us: Some(9) }));
    story.tell(None, EventKind::RunAdopted { agents: 1 });
    assert_eq!(story.agent("a").wedged, None);
}

#[test]
fn a_picture_that_was_taken_over_moves_on_like_its_original() {
    let mut story = Story::of(&["a", "b"]);
    story.tell(Some("a"), EventKind::AgentStarting);
    let RunStatus { run, started_ms, seq, agents, .. } = story.status.clone();
    let mut other =
        Story { status: RunStatus::taken_over(run.expect("begun"), started_ms, seq, agents), seq };
    assert_eq!(other.status, story.status);
    for story in [&mut story, &mut other] {
        story
            .tell(Some("a"), started(7))
            .tell(Some("b"), EventKind::AgentBlocked { by: name("a"), why: None });
    }
    assert_eq!(other.status, story.status);
}

fn started(pid: i32) -> EventKind {
    EventKind::AgentStarted { pid, enforcement: Enforcement::default() }
}

fn restarting(restarts: u32) -> EventKind {
    let (exit, usage) = (Exit::Code { code: 3 }, Usage::default());
    EventKind::AgentRestarting { exit, duration_ms: 50, usage, restarts, delay_ms: 500 }
}

#[test]
fn a_life_and_the_next() {
    let mut story = Story::of(&["a", "b"]);
    story.tell(Some("a"), EventKind::AgentStarting).tell(Some("a"), started(7));
    story.tell(Some("a"), EventKind::AgentReady);
    assert_eq!(story.agent("a").state, AgentState::Running { pid: 7, ready: true });
    assert_eq!((story.agent("a").since_ms, story.agent("a").started_ms), (4000, Some(3000)));
    story.tell(Some("a"), EventKind::AgentNotReady { reason: "reloading".into() });
    assert_eq!(story.agent("a").not_ready.as_deref(), Some("reloading"));
    story.tell(Some("a"), restarting(1));
    let agent = story.agent("a");
    assert_eq!((agent.restart_count, agent.next_start_ms), (1, Some(6500)));
    assert_eq!(agent.last.as_ref().map(|last| last.exit.clone()), Some(Exit::Code { code: 3 }));
    story.tell(Some("a"), EventKind::AgentStarting).tell(Some("a"), started(8));
    assert_eq!(story.agent("a").state, AgentState::Running { pid: 8, ready: false });
    assert_eq!(story.agent("a").next_start_ms, None);
    assert_eq!(story.agent("b").state, AgentState::Pending);
}

#[test]
fn a_wait_for_the_host_ends_with_the_start_or_the_end() {
    let hold = Hold { scarce: crate::Scarce::Memory, percent: 34, limit: 20 };
    let mut story = Story::of(&["a", "b"]);
    for agent in ["a", "b"] {
        story.tell(Some(agent), EventKind::AgentWaiting { hold });
        assert_eq!((story.agent(agent).state.as_str(), story.agent(agent).held), ("pending", Some(hold)));
    }
    story.tell(Some("a"), EventKind::AgentStarting).tell(Some("a"), started(7));
    assert_eq!(story.agent("a").held, None);
    story.tell(Some("a"), restarting(1)).tell(Some("a"), EventKind::AgentWaiting { hold });
    assert_eq!((story.agent("a").next_start_ms, story.agent("a").held), (None, Some(hold)));
    story.tell(Some("b"), EventKind::AgentBlocked { by: name("a"), why: None });
    assert_eq!(story.agent("b").held, None);
}

#[test]
fn what_changed_begins_anew_and_what_did_not_goes_on() {
    let mut story = Story::of(&["a", "b", "c"]);
    for agent in ["a", "b", "c"] {
        story.tell(Some(agent), EventKind::AgentStarting).tell(Some(agent), started(7));
    }
    let ended =
        EventKind::AgentEnded { exit: Exit::stopped("apply"), duration_ms: 9, usage: Usage::default() };
    story.tell(Some("b"), ended.clone()).tell(Some("c"), ended);
    story.tell(
        None,
        EventKind::RunChanged {
            by: "apply".into(),
            agents: vec![name("d"), name("b"), name("a")],
            added: vec![name("d")],
            changed: vec![name("b")],
            adjusted: Vec::new(),
            removed: vec![name("c")],
        },
    );
    let states: Vec<(&str, &str)> =
        story.status.agents().iter().map(|agent| (agent.name.as_str(), agent.state.as_str())).collect();
    assert_eq!(states, [("d", "pending"), ("b", "pending"), ("a", "running")]);
    assert!(story.agent("b").last.is_some());
    assert!(story.status.agent(&name("c")).is_none());
}

#[test]
fn one_that_is_started_again_by_a_person_has_a_clean_record() {
    let mut story = Story::of(&["a"]);
    story
        .tell(Some("a"), EventKind::AgentStarting)
        .tell(Some("a"), started(7))
        .tell(Some("a"), restarting(1));
    story.tell(Some("a"), EventKind::AgentStarting).tell(Some("a"), started(8));
    let (exit, usage) = (Exit::Code { code: 3 }, Usage::default());
    story.tell(Some("a"), EventKind::AgentQuarantined { exit, duration_ms: 5, usage, restarts: 1 });
    assert_eq!(story.agent("a").state.as_str(), "quarantined");
    story.tell(Some("a"), EventKind::AgentRequeued { by: "operator".into(), awaits: Default::default() });
    assert_eq!((story.agent("a").state.as_str(), story.agent("a").restart_count), ("pending", 0));
    assert!(!story.status.is_over());
}

#[test]
fn the_next_time_of_a_schedule_outlives_what_it_does() {
    let mut story = Story::of(&["a"]);
    story.tell(Some("a"), EventKind::ScheduleArmed { next_ms: Some(3000) });
    assert_eq!(story.agent("a").next_due_ms, Some(3000));
    story.tell(Some("a"), EventKind::ScheduleFired { due_ms: 3000, next_ms: Some(6000) });
    story.tell(Some("a"), EventKind::AgentStarting).tell(Some("a"), started(7));
    assert_eq!(story.agent("a").next_due_ms, Some(6000));
    story.tell(Some("a"), EventKind::ScheduleArmed { next_ms: None });
    assert_eq!(story.agent("a").next_due_ms, None);
}

#[test]
fn it_is_read_as_it_is_written() {
    let mut story = Story::of(&["a"]);
    story.tell(Some("a"), EventKind::AgentStarting).tell(Some("a"), started(7));
    let text = serde_json::to_string(story.agent("a")).expect("it can be written");
    assert!(text.contains(r#""state":"running","pid":7,"ready":false"#), "{text}");
    assert_eq!(&serde_json::from_str::<AgentStatus>(&text).expect("it can be read"), story.agent("a"));
}

#[test]
fn an_agent_that_invents_names_is_held_to_so_many() {
    use crate::rpc::MAX_METRICS;
    let mut story = Story::of(&["a"]);
    let values = |names: std::ops::Range<usize>, value: f64| EventKind::Metrics {
        values: names.map(|number| (format!("m{number:04}"), value)).collect(),
    };
    story.tell(Some("a"), values(0..100, 1.0));
    assert_eq!((story.agent("a").metrics.len(), story.agent("a").metrics_dropped), (100, 0));
    for batch in 1..20 {
        story.tell(Some("a"), values(100 * batch..100 * (batch + 1), 2.0));
    }
    let agent = story.agent("a");
    assert_eq!(agent.metrics.len(), MAX_METRICS);
    assert_eq!(agent.metrics_dropped, (2000 - MAX_METRICS) as u64);
    // Those that are known go on.
    story.tell(Some("a"), values(0..3, 3.0));
    let agent = story.agent("a");
    assert_eq!((agent.metrics["m0002"], agent.metrics["m0003"]), (3.0, 1.0));
    assert_eq!(agent.metrics_dropped, (2000 - MAX_METRICS) as u64);
    story.tell(Some("a"), EventKind::AgentRequeued { by: "operator".into(), awaits: Default::default() });
    assert!(story.agent("a").metrics.is_empty() && story.agent("a").metrics_dropped == 0);
}
