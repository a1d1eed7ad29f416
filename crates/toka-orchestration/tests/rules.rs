//! Each rule of the scheduler on a plan small enough to follow by eye.

mod common;

use common::{dependency, name, plan, task};
use toka_core::event::Awaits;
use toka_core::state::Happening;
use toka_core::{AgentState, END_OF_RUN, EventKind, Exit, ExitCode, Priority};
use toka_orchestration::{Action, ApplyError, Fact, Lifetime, Limits, RunState, exit_code, next_actions};
use toka_workstream::plan::Member;
use toka_workstream::{AfterEnd, AgentKind, Condition, IfSkipped, Need, OnEnd, Plan, Start};

/// A run that does at once what it is told.
struct Run {
    plan: Plan,
    state: RunState,
    limits: Limits,
}

impl Run {
    /// Members from lines such as `!db` (a service), `@a` (started by the clock), `^a` (by a person), `a b c?` (requires b, after c), `a db=ready`.
    fn new(lines: &[&str]) -> Self {
        let plan = plan(lines.iter().map(|line| member(line)).collect());
        Self { state: RunState::new(&plan, Lifetime::UntilTasksEnd), plan, limits: Limits::default() }
    }

    /// The same, until all its purposes have ended.
    fn whole(lines: &[&str]) -> Self {
        Self::whole_of(lines.iter().map(|line| member(line)).collect())
    }

    fn whole_of(members: Vec<Member>) -> Self {
        let plan = plan(members);
        Self { state: RunState::new(&plan, Lifetime::UntilDone), plan, limits: Limits::default() }
    }

    /// The same, until somebody stops it.
    fn lasting(lines: &[&str]) -> Self {
        let run = Self::new(lines);
        Self { state: RunState::new(&run.plan, Lifetime::UntilStopped), ..run }
    }

    /// Begins an agent anew, and tells which were.
    fn requeue(&mut self, agent: &str) -> String {
        let anew = self.state.to_requeue(&self.plan, [&name(agent)]).expect("a known agent");
        anew.iter().for_each(|agent| self.tell(agent.as_str(), Happening::Requeued));
        anew.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Goes over to another plan, in which all but `changed` go on.
    fn becomes(&mut self, lines: &[&str], changed: &[&str]) -> String {
        let next = Self::new(lines);
        self.state = self.state.with_plan(&self.plan, &next.plan, |name| !changed.contains(&name.as_str()));
        self.plan = next.plan;
        self.step()
    }

    fn at_most(mut self, most: usize) -> Self {
        self.limits.max_concurrent = std::num::NonZeroUsize::new(most);
        self
    }

    /// Does all that there is to do, and tells it: `+a` started, `-a` stop, `xa` cancelled, `a!b` blocked,
    /// `~a` skipped, `.` the end.
    fn step(&mut self) -> String {
        let actions = next_actions(&self.plan, &self.state, &self.limits);
        assert_eq!(actions, next_actions(&self.plan, &self.state, &self.limits), "asking changes nothing");
        let words: Vec<String> = actions.into_iter().map(|action| self.act(action)).collect();
        words.join(" ")
    }

    fn act(&mut self, action: Action) -> String {
        match action {
            Action::Start(agent) => {
                self.tell(agent.as_str(), Happening::StartRequested);
                self.tell(agent.as_str(), Happening::Started { pid: 1 });
                format!("+{agent}")
            }
            Action::Skip { agent, reason } => {
                self.tell(agent.as_str(), Happening::StartFailed(Exit::Skipped { reason }));
                format!("~{agent}")
            }
            Action::Block { agent, by, .. } => {
                self.tell(agent.as_str(), Happening::DependencyFailed(by.clone(), None));
                format!("{agent}!{by}")
            }
            Action::Cancel { agent, by } => {
                self.tell(agent.as_str(), Happening::StopRequested(Exit::stopped(by)));
                format!("x{agent}")
            }
            Action::Stop { agent, by } => {
                self.tell(agent.as_str(), Happening::StopRequested(Exit::stopped(by)));
                format!("-{agent}")
            }
            Action::Finish => ".".to_owned(),
        }
    }

    fn tell(&mut self, agent: &str, happening: Happening) {
        self.state.apply(&self.plan, &name(agent), happening).expect("a legal step");
    }

    fn ends(&mut self, agent: &str, code: i32) -> String {
        self.tell(agent, Happening::Gone(Exit::Code { code }));
        self.step()
    }

    fn is_ready(&mut self, agent: &str) -> String {
        self.tell(agent, Happening::BecameReady);
        self.step()
    }

    fn learns(&mut self, agent: &str, fact: Fact) -> String {
        self.state.learn(&self.plan, &name(agent), fact).expect("a known agent");
        self.step()
    }

    /// Its time has come.
    fn is_called(&mut self, agent: &str) -> String {
        self.state.call(&self.plan, &name(agent)).expect("a known agent");
        self.step()
    }

    fn exit_code(&self) -> ExitCode {
        exit_code(&self.plan, &self.state)
    }
}

fn member(line: &str) -> Member {
    let mut words = line.split(' ');
    let first = words.next().expect("a name");
    let mut member = task(first.trim_start_matches(['!', '@', '^']));
    if first.starts_with('!') {
        member.kind = AgentKind::Service;
    }
    if first.starts_with('^') {
        member.start = Start::Manual;
    }
    if first.starts_with('@') {
        member.start = Start::Clock;
    }
    if first.starts_with("hot") {
        member.priority = Priority::Critical;
    }
    for word in words {
        let (on, condition) = word.split_once('=').unwrap_or((word, "success"));
        let need = if on.ends_with('?') { Need::Optional } else { Need::Required };
        let condition = match condition {
            "started" => Condition::ProcessStarted,
            "ready" => Condition::Ready,
            "end" => Condition::Completed,
            "met" => Condition::ObjectiveMet,
            "success" => Condition::CompletedSuccessfully,
            text => Condition::LogLine(text.to_owned()),
        };
        member.dependencies.push(dependency(on.trim_end_matches('?'), need, condition));
    }
    member
}

#[test]
fn a_diamond() {
    let mut run = Run::new(&["report left right", "left fetch", "right fetch", "fetch"]);
    assert_eq!(run.step(), "+fetch");
    assert_eq!(run.step(), "");
    assert_eq!(run.ends("fetch", 0), "+left +right");
    assert_eq!(run.ends("right", 0), "");
    assert_eq!(run.ends("left", 0), "+report");
    assert_eq!(run.ends("report", 0), ".");
    assert_eq!(run.exit_code(), ExitCode::Success);
}

#[test]
fn each_condition_opens_its_gate() {
    for (condition, opened_by) in [
        ("started", None),
        ("ready", Some(Happening::BecameReady)),
        ("success", Some(Happening::Gone(Exit::Code { code: 0 }))),
        ("end", Some(Happening::Gone(Exit::Code { code: 7 }))),
    ] {
        let mut run = Run::new(&[&format!("a b={condition}"), "b"]);
        assert_eq!(run.step(), "+b");
        let opened = match opened_by {
            None => run.step(),
            Some(happening) => {
                assert_eq!(run.step(), "", "{condition} is not met yet");
                run.tell("b", happening);
                run.step()
            }
        };
        assert_eq!(opened, "+a", "{condition}");
    }
    let mut run = Run::new(&["a b=met", "c b=up", "b"]);
    assert_eq!(run.step(), "+b");
    assert_eq!(run.learns("b", Fact::LogLine("down".into())), "");
    assert_eq!(run.learns("b", Fact::LogLine("up".into())), "+c");
    assert_eq!(run.learns("b", Fact::ObjectivesMet), "+a");
}

#[test]
fn objectives_are_met_when_every_check_passed() {
    let members: Vec<Member> = ["a b=met", "b"].map(member).into();
    let checked = |index, met| EventKind::ObjectiveChecked {
        index,
        description: "b is done".into(),
        met,
        exit: Exit::Code { code: i32::from(!met) },
    };
    for (second, expected) in [(true, "+a"), (false, "a!b")] {
        let plan = plan(members.iter().cloned().map(|member| Member { checks: 2, ..member }).collect());
        let mut run =
            Run { state: RunState::new(&plan, Lifetime::UntilTasksEnd), plan, limits: Limits::default() };
        assert_eq!(run.step(), "+b");
        // The same check twice is not two checks.
        for event in [checked(0, true), checked(0, true)] {
            run.state.observe(&run.plan, &name("b"), &event).expect("a known agent");
            assert_eq!(run.step(), "");
        }
        run.state.observe(&run.plan, &name("b"), &checked(2, second)).expect("a known agent");
        let told = run.step();
        let told = if told.is_empty() { run.ends("b", 0) } else { told };
        assert_eq!(told.split(' ').next(), Some(expected));
    }
}

#[test]
fn a_gate_stays_open_but_readiness_is_what_is_so_now() {
    let mut run = Run::new(&["a b=started c", "b", "c"]);
    assert_eq!(run.step(), "+b +c");
    assert_eq!(run.ends("b", 1), "");
    assert_eq!(run.ends("c", 0), "+a");

    let mut run = Run::new(&["a b=ready c", "!b", "c"]);
    assert_eq!(run.step(), "+b +c");
    assert_eq!(run.is_ready("b"), "");
    run.tell("b", Happening::LostReadiness);
    assert_eq!(run.ends("c", 0), "", "not while b is not ready");
    run.tell("b", Happening::Restarting { restarts: 1 });
    run.tell("b", Happening::StartRequested);
    run.tell("b", Happening::Started { pid: 2 });
    assert_eq!(run.step(), "");
    assert_eq!(run.is_ready("b"), "+a");
    run.tell("b", Happening::LostReadiness);
    assert_eq!(run.step(), "", "what runs goes on");
}

#[test]
fn who_waits_for_a_service_that_is_quarantined_is_blocked() {
    let mut run = Run::new(&["a b=ready", "!b"]);
    assert_eq!(run.step(), "+b");
    run.tell("b", Happening::GivenUp { exit: Exit::Code { code: 0 }, restarts: 5 });
    assert_eq!(run.step(), "a!b");
    assert_eq!(run.step(), ".");
    assert_eq!(run.exit_code(), ExitCode::AgentFailed);
}

#[test]
fn an_agent_that_waits_for_its_next_life_is_stopped_with_the_run() {
    let mut run = Run::new(&["!b", "a"]);
    assert_eq!(run.step(), "+a +b");
    run.tell("b", Happening::Restarting { restarts: 1 });
    assert_eq!(run.ends("a", 0), "-b");
    assert_eq!(run.step(), ".");
}

#[test]
fn what_is_blocked_names_where_it_began() {
    let mut run = Run::new(&["d c", "c b", "b a", "a", "e d?", "f c=end"]);
    assert_eq!(run.step(), "+a");
    assert_eq!(run.ends("a", 3), "b!a c!a d!a f!a");
    assert_eq!(run.step(), "+e");
    assert_eq!(run.ends("e", 0), ".");
    assert_eq!(run.exit_code(), ExitCode::AgentFailed);
}

#[test]
fn a_dependency_that_ends_well_without_being_ready_blocks_too() {
    let mut run = Run::new(&["a b=ready", "b"]);
    assert_eq!(run.step(), "+b");
    assert_eq!(run.ends("b", 0), "a!b");
    assert_eq!(run.step(), ".");
    assert_eq!(run.exit_code(), ExitCode::AgentFailed);
}

#[test]
fn a_start_that_failed_is_no_completion() {
    let mut run = Run::new(&["a b=end", "b"]);
    let reason = "no such file".to_owned();
    run.tell("b", Happening::StartRequested);
    run.tell("b", Happening::StartFailed(Exit::StartFailed { reason }));
    assert_eq!(run.step(), "a!b");
}

#[test]
fn optional_dependencies_order_and_never_block() {
    let mut run = Run::new(&["a b? c?=ready", "b", "c"]);
    assert_eq!(run.step(), "+b +c");
    assert_eq!(run.ends("b", 9), "");
    assert_eq!(run.is_ready("c"), "+a");
}

#[test]
fn the_urgent_go_first_within_the_limit() {
    let mut run = Run::new(&["a", "b", "hot", "hot-too a"]).at_most(2);
    assert_eq!(run.step(), "+hot +a");
    assert_eq!(run.ends("a", 0), "+hot-too");
    assert_eq!(run.ends("hot-too", 0), "+b");
}

#[test]
fn a_task_counts_to_its_end() {
    let mut run = Run::new(&["a", "b"]).at_most(1);
    run.tell("a", Happening::StartRequested);
    assert_eq!(run.step(), "");
    run.tell("a", Happening::Started { pid: 1 });
    assert_eq!(run.step(), "");
    run.tell("a", Happening::Frozen);
    assert_eq!(run.step(), "", "a paused one keeps its place");
    run.tell("a", Happening::Gone(Exit::Code { code: 0 }));
    assert_eq!(run.step(), "+b");
}

#[test]
fn services_count_only_while_they_start() {
    let mut run = Run::new(&["a s=started", "!s", "!t"]).at_most(1);
    run.tell("s", Happening::StartRequested);
    assert_eq!(run.step(), "");
    run.tell("s", Happening::Started { pid: 1 });
    assert_eq!(run.step(), "+t");
    assert_eq!(run.step(), "+a");
    assert_eq!(run.state.running(), 1);
}

#[test]
fn services_are_stopped_in_reverse_when_the_last_task_has_ended() {
    let mut run = Run::new(&["a page=ready", "!page db=ready", "!db", "!late a", "!other"]);
    assert_eq!(run.step(), "+db +other");
    assert_eq!(run.is_ready("db"), "+page");
    assert_eq!(run.is_ready("page"), "+a");
    run.tell("a", Happening::Gone(Exit::Code { code: 0 }));
    assert_eq!(run.step(), "xlate -page -other");
    assert_eq!(run.ends("other", 1), "");
    assert_eq!(run.ends("page", 0), "-db");
    assert_eq!(run.ends("db", 143), ".");
    assert_eq!(run.exit_code(), ExitCode::Success);
    let stopped = AgentState::Ended { exit: Exit::stopped(END_OF_RUN) };
    assert_eq!(run.state.state_of(&run.plan, &name("db")), Some(&stopped));
}

#[test]
fn without_tasks_the_last_service_ends_the_run() {
    let mut run = Run::new(&["!a", "!b"]);
    assert_eq!(run.step(), "+a +b");
    assert_eq!(run.ends("a", 0), "");
    assert_eq!(run.ends("b", 1), ".");
    assert_eq!(run.exit_code(), ExitCode::AgentFailed);
    let mut nothing = Run::new(&[]);
    assert_eq!(nothing.step(), ".");
}

#[test]
fn a_stop_ends_everything_in_reverse() {
    let mut run = Run::new(&["c b", "b db=started", "!db"]);
    assert_eq!(run.step(), "+db");
    assert_eq!(run.step(), "+b");
    run.state.request_stop("SIGINT");
    run.state.request_stop("SIGTERM");
    assert_eq!(run.state.ending(), Some("SIGINT"));
    assert_eq!(run.step(), "xc -b");
    assert_eq!(run.step(), "", "the database waits for what uses it");
    assert_eq!(run.ends("b", 130), "-db");
    assert_eq!(run.ends("db", 0), ".");
}

#[test]
fn only_timeouts_are_told_apart() {
    let mut run = Run::new(&["a b", "b", "c"]);
    assert_eq!(run.step(), "+b +c");
    run.tell("b", Happening::Gone(Exit::Timeout { limit: std::time::Duration::from_secs(1) }));
    assert_eq!(run.step(), "a!b");
    assert_eq!(run.ends("c", 0), ".");
    assert_eq!(run.exit_code(), ExitCode::TimedOut);
}

#[test]
fn a_journal_can_be_read_twice() {
    let mut run = Run::new(&["a b=up", "b"]);
    let exit = Exit::Code { code: 0 };
    let events = [
        EventKind::AgentStarting,
        EventKind::AgentStarted { pid: 7, enforcement: Default::default() },
        EventKind::AgentReady,
        EventKind::AgentPaused { by: String::new() },
        EventKind::AgentResumed,
        EventKind::LogLineSeen { text: "up".into() },
        EventKind::AgentEnded { exit: exit.clone(), duration_ms: 5, usage: Default::default() },
    ];
    for event in events.iter().flat_map(|event| [event, event]).chain(&events) {
        run.state.observe(&run.plan, &name("b"), event).expect("known or new");
    }
    assert_eq!(run.state.state_of(&run.plan, &name("b")), Some(&AgentState::Ended { exit }));
    assert_eq!(run.step(), "+a");
}

#[test]
fn nonsense_changes_nothing() {
    let mut run = Run::new(&["a"]);
    let before = run.state.clone();
    let illegal = run.state.apply(&run.plan, &name("a"), Happening::BecameReady);
    assert!(matches!(illegal, Err(ApplyError::IllegalStep { .. })));
    let unknown = run.state.apply(&run.plan, &name("b"), Happening::StartRequested);
    assert_eq!(unknown, Err(ApplyError::UnknownAgent(name("b"))));
    assert_eq!(run.state, before);
}

#[test]
fn one_that_has_ended_begins_anew_when_somebody_asks() {
    let mut run = Run::lasting(&["a", "b a"]);
    assert_eq!(run.step(), "+a");
    assert_eq!(run.ends("a", 0), "+b");
    assert_eq!(run.ends("b", 3), ".");
    assert_eq!(run.requeue("b"), "b");
    assert_eq!(run.step(), "+b", "what it waits for was done");
    assert_eq!(run.requeue("b"), "", "it runs");
    assert_eq!(run.ends("b", 0), ".");
}

#[test]
fn what_it_needs_and_failed_begins_anew_with_it() {
    let mut run = Run::lasting(&["z", "a z", "b a", "other"]);
    assert_eq!(run.step(), "+other +z");
    assert_eq!(run.ends("z", 0), "+a");
    assert_eq!(run.ends("a", 1), "b!a");
    assert_eq!(run.requeue("b"), "a b");
    assert_eq!(run.step(), "+a");
    assert_eq!(run.ends("a", 0), "+b");
}

#[test]
fn what_its_daemon_cut_off_goes_on_alone_and_asks_nobody() {
    let mut run = Run::lasting(&["!db", "!api db=ready", "@nightly", "task", "after task", "report nightly"]);
    assert_eq!(run.step(), "+db +task");
    assert_eq!(run.is_ready("db"), "+api");
    let stop = |run: &mut Run, agent: &str, by: &str| {
        run.tell(agent, Happening::StopRequested(Exit::stopped(by)));
        run.state.apply(&run.plan, &name(agent), Happening::Gone(Exit::Unknown)).ok();
    };
    run.state.hold();
    stop(&mut run, "db", "operator");
    for agent in ["api", "nightly", "task", "after", "report"] {
        stop(&mut run, agent, "SIGTERM");
    }
    let goes_on = |run: &mut Run, agent: &str, awaits| {
        run.state.requeue(&run.plan, &name(agent), awaits).expect("a known agent");
    };
    for agent in ["after", "report"] {
        goes_on(&mut run, agent, Awaits::Dependencies);
    }
    goes_on(&mut run, "nightly", Awaits::Clock);
    goes_on(&mut run, "api", Awaits::Room);
    run.state.release(&run.plan);
    assert_eq!(run.step(), "after!task +api", "db was stopped by a person, task is never run again");
    assert_eq!(run.is_called("nightly"), "+nightly");
    assert_eq!(run.ends("nightly", 0), "+report");
}

#[test]
fn a_run_that_lasts_goes_on_after_its_last_task_until_it_is_stopped() {
    let mut run = Run::lasting(&["!db", "a"]);
    assert_eq!(run.step(), "+a +db");
    assert_eq!(run.ends("a", 0), "");
    run.state.request_stop("operator");
    assert_eq!(run.step(), "-db");
}

#[test]
fn another_plan_starts_what_is_new_and_leaves_alone_what_is_not() {
    let mut run = Run::lasting(&["!db", "!api db=ready", "old"]);
    assert_eq!(run.step(), "+db +old");
    assert_eq!(run.is_ready("db"), "+api");
    run.ends("old", 0);
    run.tell("api", Happening::StopRequested(Exit::stopped("apply")));
    run.tell("api", Happening::Gone(Exit::Unknown));
    assert_eq!(run.becomes(&["!cache", "!db", "!api db=ready cache=ready"], &["api"]), "+cache");
    assert_eq!(run.is_ready("cache"), "+api");
    run.state.request_stop("operator");
    assert_eq!(run.step(), "-api");
}

#[test]
fn nobody_is_given_up_because_of_one_that_begins_anew() {
    let mut run = Run::new(&["!db", "a", "b a"]);
    assert_eq!(run.step(), "+a +db");
    run.state.hold();
    assert_eq!(run.ends("a", 1), "", "neither is b blocked nor db stopped");
    assert_eq!(run.requeue("a"), "a");
    run.state.release(&run.plan);
    assert_eq!(run.step(), "+a");
    run.state.hold();
    run.ends("a", 1);
    run.state.release(&run.plan);
    assert_eq!(run.step(), "b!a");
    assert_eq!(run.step(), "-db");
}

#[test]
fn what_the_clock_starts_waits_for_it_and_the_run_goes_on() {
    let mut run = Run::new(&["@nightly"]);
    assert_eq!(run.step(), "");
    assert_eq!(run.is_called("nightly"), "+nightly");
    assert_eq!(run.ends("nightly", 0), "", "its next time will come");
    assert!(!run.state.is_finished());
    assert_eq!(run.requeue("nightly"), "nightly");
    assert_eq!(run.step(), "+nightly", "one that was begun anew does not wait for the clock");
    run.state.forgo_clock(&run.plan, &name("nightly"));
    assert_eq!(run.ends("nightly", 0), ".", "nothing will ever start it again");
}

#[test]
fn a_task_ends_the_run_whatever_the_clock_would_start() {
    let mut run = Run::new(&["@nightly", "job"]);
    assert_eq!(run.step(), "+job");
    assert_eq!(run.ends("job", 0), "xnightly");
    assert_eq!(run.step(), ".");
    assert_eq!(run.exit_code(), ExitCode::Success);
}

#[test]
fn when_its_time_has_come_it_waits_for_its_gates() {
    let mut run = Run::lasting(&["!db", "@nightly db=ready"]);
    assert_eq!(run.step(), "+db");
    assert_eq!(run.is_called("nightly"), "", "db is not ready");
    assert_eq!(run.is_ready("db"), "+nightly");
    let mut early = Run::lasting(&["!db", "@nightly db=ready"]);
    early.step();
    assert_eq!(early.is_ready("db"), "", "its time has not come");
    assert_eq!(early.is_called("nightly"), "+nightly");
}

#[test]
fn what_failed_before_its_time_can_be_mended_until_then() {
    let mut run = Run::lasting(&["seed", "@nightly seed", "after nightly"]);
    assert_eq!(run.step(), "+seed");
    assert_eq!(run.ends("seed", 1), "", "it is not blocked before its time, nor is who waits for it");
    assert!(run.state.lacks_required(&run.plan, &name("nightly")).is_some());
    run.requeue("seed");
    assert_eq!(run.state.lacks_required(&run.plan, &name("nightly")), None);
    assert_eq!(run.step(), "+seed");
    assert_eq!(run.ends("seed", 1), "");
    assert_eq!(run.is_called("nightly"), "nightly!seed after!seed");
}

#[test]
fn another_plan_leaves_those_waiting_that_the_clock_starts() {
    let mut run = Run::lasting(&["@nightly", "!api"]);
    assert_eq!(run.step(), "+api");
    run.is_called("nightly");
    assert_eq!(run.becomes(&["@nightly", "!api", "@weekly"], &["weekly"]), "");
    assert!(run.state.waits_to_be_called(&run.plan, &name("weekly")));
    assert!(!run.state.waits_to_be_called(&run.plan, &name("nightly")));
    assert_eq!(run.is_called("weekly"), "+weekly");
}

#[test]
fn services_that_no_task_needs_are_what_the_run_is_for() {
    // Compose's `migrate`, then `api`.
    let mut run = Run::whole(&["migrate", "!api migrate", "!db", "test db=started"]);
    assert_eq!(run.step(), "+db +migrate");
    assert_eq!(run.step(), "+test");
    assert_eq!(run.ends("test", 0), "", "the migration runs");
    assert_eq!(run.ends("migrate", 0), "+api");
    assert_eq!(run.step(), "", "it goes on as long as api");
    assert_eq!(run.ends("api", 0), "-db");
    assert_eq!(run.ends("db", 0), ".");
    assert_eq!(run.exit_code(), ExitCode::Success);
}

#[test]
fn what_has_not_started_at_the_end_of_a_run_is_told_so() {
    let mut run = Run::whole(&["!db late=ready", "!late", "a db?=ready"]);
    assert_eq!(run.step(), "+late");
    run.state.request_stop("SIGINT");
    assert_eq!(run.step(), "xdb xa -late");
    let state = run.state.state_of(&run.plan, &name("db")).expect("an agent");
    assert_eq!(
        (state.as_str(), state),
        ("not started", &AgentState::Ended { exit: Exit::NotStarted { by: "SIGINT".into() } })
    );
}

#[test]
fn a_run_with_a_schedule_goes_on_until_it_has_no_more_times() {
    let mut run = Run::whole(&["@nightly", "job"]);
    assert_eq!(run.step(), "+job");
    assert_eq!(run.ends("job", 0), "", "its time will come");
    assert_eq!(run.is_called("nightly"), "+nightly");
    run.state.forgo_clock(&run.plan, &name("nightly"));
    assert_eq!(run.ends("nightly", 0), ".");
    assert_eq!(run.exit_code(), ExitCode::Success);
}

#[test]
fn who_follows_one_that_the_clock_starts_is_no_reason_to_end_the_run() {
    for mut run in [Run::whole(&["@extract", "load extract"]), Run::new(&["@extract", "load extract"])] {
        assert_eq!(run.step(), "");
        assert_eq!(run.is_called("extract"), "+extract");
        assert_eq!(run.ends("extract", 0), "+load");
        assert_eq!(run.ends("load", 0), "");
        assert_eq!(run.requeue("extract"), "extract");
        assert_eq!(run.requeue("load"), "load");
        assert_eq!(run.step(), "+extract", "load waits for the new run");
        assert_eq!(run.ends("extract", 1), "load!extract");
        assert!(!run.state.is_finished());
    }
}

#[test]
fn what_a_person_starts_is_waited_for_from_then_on() {
    let mut run = Run::whole(&["^deploy", "job"]);
    assert_eq!(run.step(), "+job");
    assert_eq!(run.is_called("deploy"), "+deploy");
    assert_eq!(run.ends("job", 0), "", "deploy was started");
    assert_eq!(run.ends("deploy", 0), ".");

    let mut run = Run::whole(&["^deploy", "job"]);
    run.step();
    assert_eq!(run.ends("job", 0), "xdeploy");
    assert_eq!(run.step(), ".");
    assert_eq!(run.exit_code(), ExitCode::Success, "nobody wanted it");
}

#[test]
fn who_waits_for_one_that_a_person_starts_says_how() {
    let mut run = Run::whole(&["^deploy", "after deploy"]);
    assert_eq!(run.step(), "");
    let waits = run.state.waits_for(&run.plan, &name("after")).expect("it waits");
    assert_eq!(waits.text, "deploy has not started; `toka start deploy` starts it");
    assert_eq!(run.state.waits_for(&run.plan, &name("deploy")), None);
}

fn idle(line: &str) -> Member {
    Member { skip: Some("its tasks are not enabled".into()), ..member(line) }
}

#[test]
fn an_agent_with_nothing_to_do_is_skipped_and_blocks_who_requires_it() {
    let mut run = Run::whole_of(vec![idle("admin"), member("after admin"), member("beside admin?")]);
    assert_eq!(run.step(), "~admin");
    assert_eq!(run.step(), "after!admin +beside");
    let state = run.state.state_of(&run.plan, &name("after")).expect("an agent");
    let AgentState::Blocked { why: None, .. } = state else { panic!("{state:?}") };
    assert_eq!(run.ends("beside", 0), ".");
    assert_eq!(run.exit_code(), ExitCode::AgentFailed, "what was asked for was not done");

    let mut alone = Run::whole_of(vec![idle("admin"), member("beside admin?")]);
    assert_eq!([alone.step(), alone.step()].join(" "), "~admin +beside");
    assert_eq!(alone.ends("beside", 0), ".");
    assert_eq!(alone.exit_code(), ExitCode::Success);
}

#[test]
fn who_says_so_is_skipped_or_started_with_it() {
    let with = |line: &str, if_skipped| {
        let mut member = member(line);
        member.dependencies[0].if_skipped = if_skipped;
        member
    };
    let members = vec![
        idle("admin"),
        with("too admin", IfSkipped::Skip),
        with("then too", IfSkipped::Skip),
        with("all-the-same admin", IfSkipped::Start),
    ];
    let mut run = Run::whole_of(members);
    assert_eq!(run.step(), "~admin");
    assert_eq!(run.step(), "~too +all-the-same");
    assert_eq!(run.step(), "~then");
    assert_eq!(run.ends("all-the-same", 0), ".");
    assert_eq!(run.exit_code(), ExitCode::Success);
}

fn ending(line: &str, success: AfterEnd, failure: AfterEnd) -> Member {
    Member { on_end: OnEnd { success, failure }, ..member(line) }
}

#[test]
fn the_end_of_an_agent_may_be_that_of_the_run() {
    let (on, stop) = (AfterEnd::Continue, AfterEnd::StopRun);
    let members =
        || vec![ending("main", stop, on), member("!helper"), member("other"), member("later other")];
    let mut run = Run::whole_of(members());
    assert_eq!(run.step(), "+helper +main +other");
    assert_eq!(run.ends("main", 0), "xlater -other -helper");
    assert_eq!(run.state.ending(), Some("the end of main"));
    run.tell("other", Happening::Gone(Exit::Unknown));
    assert_eq!(run.ends("helper", 0), ".");
    assert_eq!(run.exit_code(), ExitCode::Success, "that is what was declared");

    let mut run = Run::whole_of(members());
    run.step();
    assert_eq!(run.ends("main", 1), "", "its failure is not that of the run");

    let mut run = Run::whole_of(vec![ending("main", on, stop), member("other")]);
    run.step();
    assert_eq!(run.ends("main", 3), "-other");
    assert_eq!(run.ends("other", 0), ".");
    assert_eq!(run.exit_code(), ExitCode::AgentFailed);
}

#[test]
fn the_first_failure_may_end_the_run() {
    let mut run = Run::whole(&["a", "b", "c b", "!db"]);
    run.plan.stop_at_failure();
    assert_eq!(run.step(), "+a +b +db");
    run.tell("a", Happening::Restarting { restarts: 1 });
    assert_eq!(run.step(), "", "it comes back");
    run.tell("b", Happening::StopRequested(Exit::stopped("operator")));
    run.tell("b", Happening::Gone(Exit::Unknown));
    assert_eq!(run.step(), "c!b");
    assert_eq!(run.state.ending(), Some("the end of c"), "what is blocked has failed");
}

#[test]
fn the_next_life_waits_for_what_is_to_be_ready() {
    let mut run = Run::whole(&["!web", "!worker web=ready", "!other web=started"]);
    assert_eq!(run.step(), "+web");
    assert_eq!(run.step(), "+other");
    assert_eq!(run.is_ready("web"), "+worker");
    let may = |run: &Run, agent: &str| run.state.may_restart(&run.plan, &name(agent));
    assert!(may(&run, "worker"));
    run.tell("web", Happening::Restarting { restarts: 1 });
    run.tell("worker", Happening::Restarting { restarts: 1 });
    assert!(!may(&run, "worker") && may(&run, "other"), "other only wanted it to have started once");
    let waits = run.state.waits_for(&run.plan, &name("worker")).expect("it waits");
    assert_eq!(waits.text, "web is not ready");
    run.tell("web", Happening::StartRequested);
    run.tell("web", Happening::Started { pid: 2 });
    run.tell("web", Happening::BecameReady);
    assert!(may(&run, "worker"));
}
