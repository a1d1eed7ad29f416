//! The judgement, case by case, and what holds for every case.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::probe::{ProbeCheck, ProbeKind};
use crate::status::{LastLife, ProbeStatus, StartedBy, Wedged};
use crate::{AgentName, Exit, Pressure, Stage};

/// A moment a minute after the agent began to run.
const NOW: i64 = 100_000;
const STARTED: i64 = 40_000;

fn name(text: &str) -> AgentName {
    AgentName::new(text).expect("a label")
}

fn in_state(state: AgentState) -> AgentStatus {
    AgentStatus { state, started_ms: Some(STARTED), ..AgentStatus::new(name("a"), STARTED) }
}

fn running() -> AgentStatus {
    in_state(AgentState::Running { pid: 7, ready: false })
}

fn ready() -> AgentStatus {
    in_state(AgentState::Running { pid: 7, ready: true })
}

fn found(probe: ProbeKind, ok: bool, since_ms: i64) -> ProbeStatus {
    ProbeStatus { probe, ok, reason: "exit code 1".into(), since_ms }
}

fn within(seconds: u64) -> Expected {
    Expected { readiness: Readiness::Within(Duration::from_secs(seconds)), ..Expected::default() }
}

fn check(status: AgentStatus, used: Option<Resources>, expected: &Expected, verdict: Verdict, why: &[&str]) {
    let report = HealthReport::of(status, used, expected, NOW);
    let told: Vec<String> = report.reasons.iter().map(ToString::to_string).collect();
    assert_eq!((report.verdict, told), (verdict, why.iter().map(|why| (*why).to_owned()).collect()));
}

#[test]
fn each_state_has_its_verdict() {
    let failed = Exit::Code { code: 3 };
    let stopped = Exit::stopped("operator");
    for (state, verdict, why) in [
        (AgentState::Pending, Verdict::Starting, vec![]),
        (AgentState::Starting, Verdict::Starting, vec![]),
        (AgentState::Running { pid: 7, ready: false }, Verdict::Healthy, vec![]),
        (AgentState::Running { pid: 7, ready: true }, Verdict::Healthy, vec![]),
        (AgentState::Paused { pid: 7, ready: true }, Verdict::Degraded, vec!["paused"]),
        (AgentState::Stopping { exit: stopped.clone() }, Verdict::Ended, vec![]),
        (
            AgentState::Stopping { exit: failed.clone() },
            Verdict::Unhealthy,
            vec!["is being stopped: exit code 3"],
        ),
        (AgentState::Ended { exit: Exit::Code { code: 0 } }, Verdict::Ended, vec![]),
        (AgentState::Ended { exit: stopped }, Verdict::Ended, vec![]),
        (AgentState::Ended { exit: failed.clone() }, Verdict::Unhealthy, vec!["exit code 3"]),
        (AgentState::Backoff { restarts: 2 }, Verdict::Unhealthy, vec!["waits for restart 2"]),
        (
            AgentState::Quarantined { exit: failed, restarts: 5 },
            Verdict::Unhealthy,
            vec!["given up after 5 restarts: exit code 3"],
        ),
        (AgentState::Blocked { by: name("db"), why: None }, Verdict::Unhealthy, vec!["db did not succeed"]),
    ] {
        check(in_state(state), None, &Expected::default(), verdict, &why);
    }
}

#[test]
fn one_that_waits_to_be_called_is_as_it_should_be() {
    for by in [StartedBy::Clock, StartedBy::Person] {
        let waiting = AgentStatus { started_by: Some(by), ..in_state(AgentState::Pending) };
        check(waiting, None, &Expected::default(), Verdict::Healthy, &[]);
    }
}

#[test]
fn one_that_should_go_on_and_cannot_is_not_just_stopped() {
    let cut_off = Expected { cut_off: Some("KEY is not set".into()), ..Expected::default() };
    let ended = AgentState::Ended { exit: Exit::stopped("SIGTERM") };
    let why = ["cannot go on: KEY is not set"];
    check(in_state(ended), None, &cut_off, Verdict::Unhealthy, &why);
    check(ready(), None, &cut_off, Verdict::Healthy, &[]);
}

#[test]
fn readiness_has_the_time_that_its_probes_declare() {
    check(running(), None, &within(60), Verdict::Starting, &["not ready yet; its probes allow 1m00s"]);
    check(
        running(),
        None,
        &within(59),
        Verdict::Degraded,
        &["not ready after the 59.0s that its probes allow"],
    );
    check(ready(), None, &within(0), Verdict::Healthy, &[]);
    let lost = AgentStatus { not_ready: Some("busy".into()), ..running() };
    check(lost, None, &within(60), Verdict::Degraded, &["not ready: busy"]);
}

#[test]
fn a_probe_that_fails_counts_in_the_life_that_it_was_asked_in() {
    let asked = |kind, since_ms| AgentStatus { probes: vec![found(kind, false, since_ms)], ..running() };
    for kind in [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness] {
        let why = format!("{kind} probe fails: exit code 1");
        check(asked(kind, NOW), None, &Expected::default(), Verdict::Unhealthy, &[&why]);
        check(asked(kind, STARTED - 1), None, &Expected::default(), Verdict::Healthy, &[]);
    }
    let well = AgentStatus { probes: vec![found(ProbeKind::Readiness, true, NOW)], ..ready() };
    check(well, None, &within(1), Verdict::Healthy, &[]);
    // One reason for one trouble.
    let lost = AgentStatus { not_ready: Some("exit code 1".into()), ..asked(ProbeKind::Readiness, NOW) };
    check(lost, None, &within(1), Verdict::Unhealthy, &["readiness probe fails: exit code 1"]);
}

#[test]
fn figures_count_above_their_threshold() {
    let of = |used: Resources, verdict, why: &[&str]| {
        check(ready(), Some(used), &Expected::default(), verdict, why);
    };
    let memory = |current| Resources {
        memory_current: Some(current),
        memory_limit: Some(1000),
        ..Resources::default()
    };
    of(memory(909), Verdict::Healthy, &[]);
    of(memory(910), Verdict::Degraded, &["memory at 91 % of its limit"]);
    of(Resources { memory_limit: None, ..memory(910) }, Verdict::Healthy, &[]);
    let pressure = |memory, io| Resources {
        pressure: Pressure { cpu: Some(100.0), memory: Some(memory), io: Some(io) },
        ..Resources::default()
    };
    of(pressure(40.0, 70.0), Verdict::Healthy, &[]);
    of(
        pressure(41.0, 71.0),
        Verdict::Degraded,
        &["waits for memory 41 % of the time", "waits for storage 71 % of the time"],
    );
    let throttled = |us| Resources { throttled_us: Some(us), ..Resources::default() };
    of(throttled(30_000_000), Verdict::Healthy, &[]);
    of(throttled(31_000_000), Verdict::Degraded, &["held back by its CPU quota 51 % of the time"]);
    // Several CPUs can be held back at once.
    of(throttled(u64::MAX), Verdict::Degraded, &["held back by its CPU quota 100 % of the time"]);
    let processes = Resources { processes: Some(99), processes_limit: Some(100), ..Resources::default() };
    of(processes, Verdict::Degraded, &["processes at 99 % of their limit"]);
}

#[test]
fn a_share_of_a_life_that_has_just_begun_says_nothing() {
    let young = AgentStatus { started_ms: Some(NOW - 9_999), ..ready() };
    let used = Resources { throttled_us: Some(9_999_000), ..Resources::default() };
    check(young, Some(used), &Expected::default(), Verdict::Healthy, &[]);
}

#[test]
fn a_layer_counts_where_it_is_demanded() {
    let weak = |layer, coverage| {
        let mut enforcement = Enforcement::default();
        Layer::ALL.into_iter().for_each(|layer| enforcement.set(layer, Coverage::Full, Vec::new()));
        enforcement.set(layer, coverage, vec!["no such thing here".into()]);
        AgentStatus { enforcement: Some(Arc::new(enforcement)), ..ready() }
    };
    let demanding = |compatibility| Expected { compatibility, ..Expected::default() };
    let verdict = |layer, coverage, compatibility| {
        HealthReport::of(weak(layer, coverage), None, &demanding(compatibility), NOW).verdict
    };
    for (layer, coverage, by_default, strict) in [
        (Layer::Cgroup, Coverage::None, Verdict::Healthy, Verdict::Degraded),
        (Layer::Seccomp, Coverage::None, Verdict::Degraded, Verdict::Degraded),
        (Layer::Seccomp, Coverage::Partial, Verdict::Healthy, Verdict::Degraded),
        // Landlock is there.
        (Layer::Mounts, Coverage::None, Verdict::Healthy, Verdict::Degraded),
        (Layer::Mounts, Coverage::Full, Verdict::Healthy, Verdict::Healthy),
    ] {
        assert_eq!(verdict(layer, coverage, Compatibility::Default), by_default, "{layer:?}");
        assert_eq!(verdict(layer, coverage, Compatibility::Strict), strict, "{layer:?}");
        assert_eq!(verdict(layer, coverage, Compatibility::BestEffort), Verdict::Healthy, "{layer:?}");
    }
    let why = ["cgroup is weaker than it demands: no such thing here"];
    let status = weak(Layer::Cgroup, Coverage::Partial);
    check(status, None, &demanding(Compatibility::Strict), Verdict::Degraded, &why);
}

#[test]
fn the_time_that_probes_allow_is_that_of_all_who_decide() {
    let probe = |delay, failures| Probe {
        check: ProbeCheck::Notify,
        initial_delay: Duration::from_secs(delay),
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold: failures,
    };
    let allowed = |startup, readiness, liveness| Readiness::of(&Probes { startup, readiness, liveness });
    let seconds = |seconds| Readiness::Within(Duration::from_secs(seconds));
    assert_eq!(allowed(None, None, Some(probe(0, 3))), Readiness::Unasked);
    assert_eq!(allowed(None, Some(probe(5, 3)), None), seconds(36));
    assert_eq!(allowed(Some(probe(0, 30)), Some(probe(5, 0)), None), seconds(301 + 16));
}

#[test]
fn a_report_can_be_read_again() {
    let last = LastLife {
        exit: Exit::Code { code: 3 },
        ended_ms: 1,
        duration_ms: 2,
        all_lives_ms: None,
        usage: crate::event::Usage::default(),
    };
    let status = AgentStatus {
        last: Some(Box::new(last)),
        next_start_ms: Some(NOW + 5),
        ..in_state(AgentState::Backoff { restarts: 1 })
    };
    let used = Resources { cpu_us: Some(1), ..Resources::default() };
    let report = HealthReport::of(status, Some(used), &Expected::default(), NOW);
    let text = serde_json::to_string(&report).expect("it can be written");
    assert!(
        text.starts_with(r#"{"verdict":"unhealthy","reasons":[{"reason":"backoff","restarts":1,"#),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<HealthReport>(&text).expect("it can be read"), report);
}

fn state() -> impl Strategy<Value = AgentState> {
    let exit = prop_oneof![
        (0..2).prop_map(|code| Exit::Code { code }),
        Just(Exit::stopped("test")),
        Just(Exit::Unknown)
    ];
    prop_oneof![
        Just(AgentState::Pending),
        Just(AgentState::Blocked { by: name("dep"), why: None }),
        Just(AgentState::Starting),
        any::<bool>().prop_map(|ready| AgentState::Running { pid: 7, ready }),
        any::<bool>().prop_map(|ready| AgentState::Paused { pid: 7, ready }),
        exit.clone().prop_map(|exit| AgentState::Stopping { exit }),
        exit.clone().prop_map(|exit| AgentState::Ended { exit }),
        (1..9u32).prop_map(|restarts| AgentState::Backoff { restarts }),
        exit.prop_map(|exit| AgentState::Quarantined { exit, restarts: 3 }),
    ]
}

fn resources() -> impl Strategy<Value = Resources> {
    let figure = || prop::option::of(any::<u64>());
    let share = || prop::option::of(prop::num::f64::ANY);
    (figure(), figure(), figure(), figure(), figure(), share(), share()).prop_map(
        |(memory_current, memory_limit, throttled_us, processes, processes_limit, memory, io)| Resources {
            memory_current,
            memory_limit,
            throttled_us,
            processes,
            processes_limit,
            pressure: Pressure { cpu: None, memory, io },
            ..Resources::default()
        },
    )
}

proptest! {
    #[test]
    fn every_agent_has_a_verdict_and_a_reason_for_a_bad_one(
        state in state(),
        used in prop::option::of(resources()),
        started_ms in prop::option::of(any::<i64>()),
        since_ms in any::<i64>(),
        ok in any::<bool>(),
        wedged in any::<bool>(),
        allowed in prop::option::of(any::<u32>()),
        now_ms in any::<i64>(),
    ) {
        let status = AgentStatus {
            started_ms,
            probes: vec![found(ProbeKind::Readiness, ok, since_ms)],
            wedged: wedged.then_some(Wedged::Silent { stage: Stage::Warn, quiet_ms: 5 }),
            ..in_state(state)
        };
        let expected = allowed.map(|seconds| within(u64::from(seconds))).unwrap_or_default();
        let report = HealthReport::of(status.clone(), used, &expected, now_ms);
        prop_assert_eq!(report.verdict > Verdict::Starting, report.reasons.iter().any(|r| r.verdict() > Verdict::Starting));
        prop_assert!(report.reasons.is_sorted_by_key(|reason| std::cmp::Reverse(reason.verdict())));
        for reason in &report.reasons {
            prop_assert!(report.verdict >= reason.verdict());
            prop_assert!(!reason.to_string().is_empty());
        }
        // JSON has no numbers that are none.
        let pressure = Pressure::default();
        let finite = HealthReport { resources: used.map(|used| Resources { pressure, ..used }), ..report.clone() };
        let text = serde_json::to_string(&finite).expect("it can be written");
        prop_assert_eq!(&serde_json::from_str::<HealthReport>(&text).expect("it can be read"), &finite);
        // Whoever knows less finds nothing worse.
        let unasked = HealthReport::of(status, None, &Expected::default(), now_ms);
        prop_assert!(unasked.verdict <= report.verdict);
    }

    #[test]
    fn a_further_reason_is_never_better(state in state(), used in resources()) {
        let reasons: Vec<Reason> = of_resources(Some(&used), Shares::of(&used, Some(60_000))).collect();
        let status = in_state(state);
        let mut before = worst_of(&status, &[]);
        for count in 1..=reasons.len() {
            let with_more = worst_of(&status, &reasons[..count]);
            prop_assert!(with_more >= before);
            before = with_more;
        }
    }
}
