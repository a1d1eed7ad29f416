//! The watchdog against agents that one can write down in a line, and against any sequence of looks.

use proptest::prelude::*;

use super::*;
use crate::EventKind;

const N: Duration = Duration::from_secs(40);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An agent whose figures are known, with so much CPU time used.
fn with_cpu(cpu_us: u64) -> Signs {
    Signs { cpu_us: Some(cpu_us), io_bytes: Some(0), ..Signs::default() }
}

/// Looks exactly when it is asked to, for `long`; tells each event with its time in seconds.
fn watch(signs: impl Fn(Duration) -> Signs, long: Duration) -> Vec<(u64, EventKind)> {
    let mut watchdog = Watchdog::new(N).expect("a limit");
    let (mut now, mut before, mut told) = (Duration::ZERO, Finding::Alive, Vec::new());
    loop {
        now += watchdog.next_look(now);
        if now > long {
            return told;
        }
        let finding = watchdog.observe(now, signs(now));
        told.extend(finding.event_after(&before).map(|event| (now.as_secs(), event)));
        before = finding;
    }
}

fn stages(told: &[(u64, EventKind)]) -> Vec<(u64, Stage)> {
    told.iter()
        .map(|(at, event)| match event {
            EventKind::AgentWedged { stage, .. } => (*at, *stage),
            other => panic!("{other:?}"),
        })
        .collect()
}

const ALL: [(u64, Stage); 3] = [(40, Stage::Warn), (80, Stage::Signal), (120, Stage::Restart)];

#[test]
fn an_agent_that_does_nothing_goes_through_all_stages_with_its_figures() {
    let told = watch(|_| with_cpu(0), seconds(200));
    assert_eq!(stages(&told), ALL);
    let expected = EventKind::AgentWedged {
        stage: Stage::Signal,
        quiet_ms: 80_000,
        cpu_us: Some(0),
        output_bytes: 0,
        io_bytes: Some(0),
    };
    assert_eq!(told[1].1, expected);
}

#[test]
fn a_few_wake_ups_are_no_sign_of_life() {
    let told = watch(|now| with_cpu(now.as_secs() * 500), seconds(200));
    assert_eq!(stages(&told), ALL);
    assert!(matches!(told[2].1, EventKind::AgentWedged { cpu_us: Some(60_000), .. }), "{told:?}");
}

#[test]
fn what_a_handler_of_our_signal_uses_is_no_sign_of_life() {
    // Right after the second stage, in a quarter of N in which 10 ms are no work anyway; and then more than a handler uses.
    let told =
        |at_once: u64| watch(move |now| with_cpu(if now > seconds(80) { at_once } else { 0 }), seconds(125));
    assert_eq!(stages(&told(15_000)), ALL);
    let told = told(50_000);
    assert_eq!(stages(&told[..2]), ALL[..2]);
    assert!(told[2..].iter().all(|(_, event)| !matches!(event, EventKind::AgentWedged { .. })), "{told:?}");
}

#[test]
fn one_that_only_computes_spins_and_is_left_alone() {
    let told = watch(|now| with_cpu(now.as_secs() * 1_000_000), seconds(2000));
    assert_eq!(told, [(40, EventKind::AgentSpinning { quiet_ms: 40_000, cpu_us: Some(40_000_000) })]);
}

#[test]
fn one_that_worked_at_first_and_sleeps_does_not_spin() {
    for used in [28_000, 5_000_000] {
        let told = watch(|_| with_cpu(used), seconds(200));
        assert_eq!(stages(&told), [(50, Stage::Warn), (90, Stage::Signal), (130, Stage::Restart)]);
    }
}

#[test]
fn one_that_rests_between_its_work_spins_once_and_is_wedged_when_it_rests_for_long() {
    // Ten seconds of work, twenty of rest, until it only rests.
    let used = |now: Duration| with_cpu(now.as_secs().min(200).div_ceil(30) * 1_000_000);
    let told = watch(used, seconds(300));
    assert!(matches!(told[0], (40, EventKind::AgentSpinning { .. })), "{told:?}");
    assert_eq!(stages(&told[1..]), [(230, Stage::Warn), (270, Stage::Signal)]);
}

#[test]
fn one_that_writes_a_line_now_and_then_is_never_spoken_of() {
    let told = watch(|now| Signs { output: now.as_secs() / 30, ..with_cpu(0) }, seconds(2000));
    assert_eq!(told, []);
    let told = watch(|now| Signs { progress: now.as_secs() / 30, ..with_cpu(0) }, seconds(2000));
    assert_eq!(told, []);
    let told = watch(|now| Signs { io_bytes: Some(9000 - now.as_secs() / 30), ..with_cpu(0) }, seconds(2000));
    assert_eq!(told, []);
}

#[test]
fn a_recovery_is_told_and_begins_a_new_silence() {
    let told = watch(|now| Signs { output: u64::from(now >= seconds(65)), ..with_cpu(0) }, seconds(111));
    assert_eq!(stages(&told[..1]), ALL[..1]);
    assert_eq!(told[1], (70, EventKind::AgentRecovered { quiet_ms: 60_000 }));
    assert_eq!(stages(&told[2..]), [(110, Stage::Warn)]);
}

#[test]
fn without_the_cpu_time_nothing_is_done_but_told() {
    assert_eq!(stages(&watch(|_| Signs::default(), seconds(2000))), ALL[..1]);
}

#[test]
fn a_stage_once_reached_is_not_forgotten_by_a_look_without_figures() {
    let mut watchdog = Watchdog::new(N).expect("a limit");
    let stage = [(40, Some(0)), (80, Some(0)), (81, None), (130, None), (150, Some(0))]
        .map(|(at, cpu_us)| watchdog.observe(seconds(at), Signs { cpu_us, ..Signs::default() }).stage());
    assert_eq!(stage, [Stage::Warn, Stage::Signal, Stage::Signal, Stage::Signal, Stage::Restart].map(Some));
}

#[test]
fn whoever_sends_keep_alives_is_judged_by_them_alone() {
    let mut watchdog = Watchdog::new(N).expect("a limit");
    let busy = |now: u64, keep_alives| Signs {
        progress: now,
        keep_alives,
        output: now * 100,
        cpu_us: Some(now * 1_000_000),
        io_bytes: Some(now),
    };
    assert_eq!(watchdog.observe(seconds(7), busy(7, 1)), Finding::Alive);
    assert_eq!(watchdog.next_look(seconds(7)), N);
    assert_eq!(watchdog.observe(seconds(30), busy(30, 2)), Finding::Alive);
    assert!(matches!(watchdog.observe(seconds(69), busy(69, 2)), Finding::Quiet { .. }));
    assert_eq!(watchdog.next_look(seconds(69)), seconds(1));
    let silence = Silence {
        since: seconds(30),
        quiet_for: N,
        cpu_us: Some(40_000_000),
        output_bytes: 4000,
        io_bytes: Some(40),
    };
    let wedged = Finding::Wedged { stage: Stage::Warn, silence };
    assert_eq!(watchdog.observe(seconds(70), busy(70, 2)), wedged);
    assert_eq!(watchdog.next_look(seconds(70)), N);
    assert_eq!(watchdog.observe(seconds(71), Signs { cpu_us: None, ..busy(71, 3) }), Finding::Alive);
}

#[test]
fn one_that_says_that_it_is_not_well_is_signalled_at_once() {
    let mut watchdog = Watchdog::new(N).expect("a limit");
    let said = |output| Signs { output, ..with_cpu(0) };
    watchdog.observe(seconds(10), said(1));
    assert_eq!(watchdog.trigger(seconds(12)).stage(), Some(Stage::Signal));
    assert_eq!(watchdog.observe(seconds(13), said(2)).stage(), Some(Stage::Signal));
    assert_eq!(watchdog.trigger(seconds(14)).stage(), Some(Stage::Signal));
    assert_eq!(watchdog.next_look(seconds(14)), seconds(38));
    let mut recovered = watchdog.clone();
    assert_eq!(recovered.observe(seconds(20), Signs { keep_alives: 1, ..said(2) }), Finding::Alive);
    assert_eq!(watchdog.observe(seconds(52), said(3)).stage(), Some(Stage::Restart));
}

#[test]
fn no_limit_is_no_watchdog_and_any_other_is_bearable() {
    assert_eq!(Watchdog::new(Duration::ZERO), None);
    assert_eq!(Stage::after(Duration::MAX, Duration::ZERO), None);
    for limit in [Duration::from_nanos(1), seconds(u64::MAX / 4)] {
        let mut watchdog = Watchdog::new(limit).expect("a limit");
        assert!(watchdog.next_look(Duration::ZERO) >= SHORTEST_LOOK);
        watchdog.observe(seconds(1), with_cpu(0));
        assert_eq!(watchdog.trigger(seconds(2)).stage(), Some(Stage::Signal));
        assert!(watchdog.next_look(seconds(2)) >= SHORTEST_LOOK);
    }
}

/// What happens between two looks.
#[derive(Debug, Clone, Copy)]
enum Step {
    Nothing,
    Progress,
    Output,
    Io,
    Work,
    /// The clock stands still.
    Pause,
    /// A look without the figures of the group.
    Blind,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => Just(Step::Nothing),
        1 => Just(Step::Progress),
        1 => Just(Step::Output),
        1 => Just(Step::Io),
        2 => Just(Step::Work),
        3 => Just(Step::Pause),
        3 => Just(Step::Blind),
    ]
}

/// One more stage than `stage`, at most the last.
fn next(stage: Option<Stage>) -> Option<Stage> {
    match stage {
        None => Some(Stage::Warn),
        Some(Stage::Warn) => Some(Stage::Signal),
        Some(Stage::Signal | Stage::Restart) => Some(Stage::Restart),
    }
}

proptest! {
    #[test]
    fn stages_rise_one_by_one_a_sign_ends_them_and_a_pause_moves_nothing(
        steps in prop::collection::vec((0u64..150, step()), 1..80)
    ) {
        let mut watchdog = Watchdog::new(N).expect("a limit");
        let mut signs = with_cpu(0);
        let (mut now, mut before) = (Duration::ZERO, watchdog.observe(Duration::ZERO, signs));
        let (mut silent, mut work, mut blind_before) = (Duration::ZERO, 0, false);
        for (passed, step) in steps {
            let passed = if matches!(step, Step::Pause) { Duration::ZERO } else { seconds(passed) };
            now += passed;
            silent += passed;
            match step {
                Step::Progress => signs.progress += 1,
                Step::Output => signs.output += 10,
                Step::Io => signs.io_bytes = signs.io_bytes.map(|bytes| bytes + 1),
                Step::Work => work += 1_000_000 * passed.as_secs(),
                Step::Nothing | Step::Pause | Step::Blind => {}
            }
            signs.cpu_us = Some(work);
            let blind = Signs { cpu_us: None, io_bytes: None, ..signs };
            let finding = watchdog.observe(now, if matches!(step, Step::Blind) { blind } else { signs });
            match step {
                Step::Progress | Step::Output | Step::Io => {
                    prop_assert_eq!(finding, Finding::Alive);
                    silent = Duration::ZERO;
                }
                // Only figures that were held back may still come.
                Step::Pause => prop_assert!(blind_before || finding.stage() == before.stage()),
                Step::Blind => prop_assert!(finding.stage() <= before.stage().max(Some(Stage::Warn))),
                Step::Nothing | Step::Work => {}
            }
            if let Finding::Wedged { silence, .. } = finding {
                prop_assert!(finding.stage() >= before.stage() && finding.stage() <= next(before.stage()));
                prop_assert!(silence.quiet_for >= N && silence.quiet_for <= silent);
            } else if !matches!(finding, Finding::Alive) {
                // A silence that was wedged ends only by work.
                let spins = matches!(finding, Finding::Spinning { .. });
                prop_assert!(spins || before.stage().is_none());
            }
            (before, blind_before) = (finding, matches!(step, Step::Blind));
        }
    }

    #[test]
    fn looks_are_a_quarter_apart_and_a_silence_is_known_a_quarter_late_at_most(last_sign in 0u64..4000) {
        let mut watchdog = Watchdog::new(N).expect("a limit");
        let (mut now, mut looks) = (Duration::ZERO, 0);
        let last_sign = Duration::from_millis(last_sign * 100);
        let found = loop {
            now += watchdog.next_look(now);
            looks += 1;
            let output = now.min(last_sign).as_millis() as u64;
            if watchdog.observe(now, Signs { output, ..with_cpu(0) }).stage().is_some() {
                break now;
            }
        };
        prop_assert!(found >= last_sign + N && found <= last_sign + N + N / 4, "{found:?}");
        prop_assert_eq!(looks, found.as_secs() / (N.as_secs() / 4));
    }

    #[test]
    fn the_stage_is_a_monotone_function_of_the_silence(a in 0u64..1000, b in 0u64..1000, limit in 1u64..200) {
        let stage = |quiet| Stage::after(seconds(quiet), seconds(limit));
        prop_assert!(stage(a.min(b)) <= stage(a.max(b)));
        prop_assert_eq!(stage(a).is_none(), a < limit);
    }
}
