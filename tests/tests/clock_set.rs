//! The wall clock is set while the daemon runs: by hours, back and forth. What waits for a span of time goes on as if nothing
//! had happened; what waits for a time of day looks again, and repeats nothing.

mod models_support;

use std::time::{Duration, Instant};

use serde_json::Value;
use toka_tests::{Detached, Document, Scene, User, WallClock, as_both_users, until};

as_both_users!(
    a_clock_that_is_set_back_makes_no_storm_and_stops_nothing,
    a_clock_that_is_set_forward_misses_what_is_not_to_be_made_up_for,
    a_clock_that_is_set_back_uses_up_no_budget_and_breaks_no_record,
);

const HOUR: i64 = 60 * 60;
/// Far above what anything here takes; only a failure waits so long.
const SOON: Duration = Duration::from_secs(40);
/// The wait before each life of the one that flaps.
const BACKOFF: Duration = Duration::from_millis(200);

fn events(detached: &Detached<'_>) -> Vec<Value> {
    detached.toka(&["events", "--json"]).events()
}

fn of<'e>(events: &'e [Value], kind: &str, agent: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["type"] == kind && event["agent"] == agent).collect()
}

fn number(value: &Value, key: &str) -> i64 {
    value[key].as_i64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// The times of its schedule for which an agent was started.
fn dues(events: &[Value], agent: &str) -> Vec<i64> {
    of(events, "schedule_fired", agent).iter().map(|event| number(event, "due_ms")).collect()
}

/// Waits until there are so many more of these events than there were.
fn await_more(detached: &Detached<'_>, kind: &str, agent: &str, more: usize) {
    let before = of(&events(detached), kind, agent).len();
    let what = format!("{more} more {kind} of {agent}");
    until(SOON, &what, || (of(&events(detached), kind, agent).len() >= before + more).then_some(()));
}

fn flaps() -> Document {
    let backoff = format!("{{initial: {0}ms, max: {0}ms, jitter: 0}}", BACKOFF.as_millis());
    Document::shell("flaps", "exit 1")
        .spec(&format!("restart: {{policy: always, max_restarts: 100000, backoff: {backoff}}}"))
}

fn a_clock_that_is_set_back_makes_no_storm_and_stops_nothing(user: User) {
    let (clock, scene) = WallClock::of(Scene::new(user));
    let line = "echo before; while [ ! -e ~/go ]; do sleep 0.05; done; echo after; exec sleep 1000";
    let probed = Document::service("probed", line)
        .spec("liveness_probe: {exec: [sh, -c, 'echo >> ~/asked'], period: 50ms, timeout: 20s}");
    let tick = Document::shell("tick", "true").spec("schedule: {cron: '* * * * * *', timezone: UTC}");
    let begun = Instant::now();
    let detached = scene.detach(&[probed, flaps(), tick]);
    let home = scene.state().join("projects").join(scene.name()).join("agents/probed/home");
    let asked = || std::fs::metadata(home.join("asked")).map_or(0, |file| file.len());
    await_more(&detached, "agent_ended", "tick", 2);
    await_more(&detached, "agent_restarting", "flaps", 2);
    until(SOON, "it was asked", || (asked() > 2).then_some(()));
    let pid = detached.inspect("probed")["pid"].clone();

    let now =
        |events: &[Value]| number(of(events, "agent_restarting", "flaps").last().expect("some"), "time_ms");
    // Read while the clock is right: soon after it is set the newest event has the new time.
    let at_first = now(&events(&detached));
    clock.set(-HOUR);
    let (before, asked_before) = (events(&detached), asked());
    // For longer than the schedule has between two times.
    await_more(&detached, "agent_restarting", "flaps", 10);
    until(SOON, "it is asked again", || (asked() > asked_before + 5).then_some(()));
    scene.write(&home.join("go"), "");
    let shown = || detached.toka(&["logs", "probed"]).stdout;
    until(SOON, "its log goes on", || (shown() == "before\nafter\n").then_some(()));
    let after = events(&detached);
    assert!(now(&after) < at_first - (HOUR - 60) * 1000, "the daemon saw the clock set back");
    assert_eq!(detached.inspect("probed")["pid"], pid);
    assert_eq!(detached.inspect("probed")["restart_count"], 0);
    let fired = dues(&after, "tick");
    assert!(fired.windows(2).all(|pair| pair[0] < pair[1]), "each time once: {fired:?}");
    assert!(fired.len() <= dues(&before, "tick").len() + 1, "what has been is not repeated: {fired:?}");
    let next = number(&detached.inspect("tick"), "next_due_ms");
    assert_eq!(next, fired.last().expect("it ran") + 1000, "it goes on where it was");

    // So far that it must have been wrong before.
    clock.set(-24 * HOUR);
    await_more(&detached, "agent_ended", "tick", 2);
    let fired = dues(&events(&detached), "tick");
    let [.., one, two] = &fired[..] else { panic!("{fired:?}") };
    assert!(one < two && *two < next - 23 * HOUR * 1000, "by the new clock: {fired:?}");

    let all = events(&detached);
    let numbers: Vec<i64> = all.iter().map(|event| number(event, "seq")).collect();
    assert_eq!(
        numbers,
        (1..=i64::try_from(all.len()).expect("few")).collect::<Vec<_>>(),
        "their order is that of their numbers"
    );
    let lives = of(&all, "agent_restarting", "flaps").len();
    let most = begun.elapsed().as_millis() / BACKOFF.as_millis() + 1;
    assert!(lives as u128 <= most, "{lives} lives, and there was time for {most}");
    for restarting in of(&all, "agent_restarting", "flaps") {
        assert_eq!(restarting["delay_ms"], 200, "{restarting}");
        assert!(number(restarting, "duration_ms") < 60_000, "{restarting}");
    }
}

fn a_clock_that_is_set_forward_misses_what_is_not_to_be_made_up_for(user: User) {
    let (clock, scene) = WallClock::of(Scene::new(user));
    // Half an hour from now; it lies too far in the past for "a little late" when the clock is set.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let due = (i64::try_from(now.as_secs()).expect("not so soon") + HOUR / 2) / 60 * 60;
    let at = format!("{} {} * * *", due / 60 % 60, due / HOUR % 24);
    let daily = |name: &str, catch_up: &str| {
        let schedule = format!("schedule: {{cron: '{at}', timezone: UTC, catch_up: {catch_up}}}");
        Document::shell(name, "true").spec(&schedule)
    };
    let tick = Document::shell("tick", "true").spec("schedule: {cron: '* * * * * *', timezone: UTC}");
    let detached = scene.detach(&[flaps(), daily("careful", "last"), daily("careless", "none"), tick]);
    await_more(&detached, "agent_ended", "tick", 1);
    for agent in ["careful", "careless"] {
        assert_eq!(number(&detached.inspect(agent), "next_due_ms"), due * 1000, "{agent}");
    }

    clock.set(HOUR);
    await_more(&detached, "agent_ended", "tick", 2);
    until(SOON, "it is made up for", || (detached.state("careful") == "ended").then_some(()));
    let all = events(&detached);
    assert_eq!(dues(&all, "careful"), [due * 1000], "once");
    assert!(dues(&all, "careless").is_empty(), "it is too late for it");
    let skipped = of(&all, "schedule_skipped", "careless");
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    assert_eq!((number(skipped[0], "due_ms"), &skipped[0]["reason"]), (due * 1000, &"missed".into()));
    for agent in ["careful", "careless"] {
        let next = number(&detached.inspect(agent), "next_due_ms");
        assert_eq!(next, (due + 24 * HOUR) * 1000, "{agent} is due tomorrow");
    }
    let ticks = dues(&all, "tick");
    assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]), "each time once: {ticks:?}");
    assert!(ticks.len() < 60, "a time that was jumped over does not come: {}", ticks.len());
    await_more(&detached, "agent_restarting", "flaps", 2);
}

/// Calls go on, a budget of time is not used up by it, a question waits no less than it says, and the record holds.
fn a_clock_that_is_set_back_uses_up_no_budget_and_breaks_no_record(user: User) {
    let (clock, scene) = WallClock::of(models_support::scene(user));
    let budget = "security: {capabilities_required: [filesystem-read], budget: {calls: 40, wall: 30m}}";
    let asks = "import time
while True:
    print(ask() == 'the script speaks', flush=True)
    time.sleep(0.02)";
    let agent = models_support::asks_within("asker", asks, budget).spec("type: service");
    let detached = scene.detach(&[models_support::scripted(agent)]);
    await_more(&detached, "model_answered", "asker", 3);
    clock.set(-2 * HOUR);
    await_more(&detached, "model_answered", "asker", 5);
    let asked = || of(&events(&detached), "approval_asked", "asker").len();
    until(SOON, "its calls are used up", || (asked() == 1).then_some(()));
    let all = events(&detached);
    let approval = of(&all, "approval_asked", "asker")[0];
    assert_eq!(approval["measure"], "calls", "the time is not what is used up: {approval}");
    let (now, expires) = (number(approval, "time_ms"), number(approval, "expires_ms"));
    assert!((29 * 60_000..=31 * 60_000).contains(&(expires - now)), "{approval}");
    assert_eq!(detached.toka(&["approvals", "approve", "--raise", "5"]).code, Some(0));
    await_more(&detached, "model_answered", "asker", 1);
    let verified = scene.toka(&["audit", "--verify", "--project", scene.name()]);
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}
