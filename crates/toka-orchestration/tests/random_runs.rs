//! Random plans, driven to their end by random happenings, against a slow and obvious oracle.

mod common;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use common::{dependency, plan, task};
use proptest::prelude::*;
use toka_core::state::Happening;
use toka_core::{AgentState, Exit, Priority};
use toka_orchestration::{Action, Fact, Lifetime, Limits, RunState, next_actions};
use toka_workstream::plan::{Member, Node};
use toka_workstream::{AgentKind, Condition, Need, Plan};

const MOST_AGENTS: usize = 12;

/// What the oracle knows of an agent: everything, in plain fields.
#[derive(Debug, Clone, Default)]
struct Known {
    started: bool,
    ready: bool,
    met: bool,
    line: bool,
    succeeded: bool,
    ended: bool,
    restarted: bool,
}

struct Simulation {
    plan: Plan,
    state: RunState,
    limits: Limits,
    known: Vec<Known>,
    finished: bool,
}

impl Simulation {
    fn new(plan: Plan, limits: Limits, lifetime: Lifetime) -> Self {
        let known = vec![Known::default(); plan.len()];
        Self { state: RunState::new(&plan, lifetime), plan, limits, known, finished: false }
    }

    fn states(&self) -> Vec<AgentState> {
        self.state.states().cloned().collect()
    }

    fn apply(&mut self, at: usize, happening: Happening) {
        let agent = self.plan.nodes()[at].agent.clone();
        self.state.apply(&self.plan, &agent, happening).expect("a legal step");
        let known = &mut self.known[at];
        match self.state.state_of(&self.plan, &agent).expect("known") {
            AgentState::Running { ready, .. } => {
                known.started = true;
                known.ready |= ready;
            }
            AgentState::Ended { exit } => {
                known.ended = true;
                known.succeeded = exit.is_success();
            }
            AgentState::Quarantined { .. } => known.ended = true,
            AgentState::Backoff { .. } => known.restarted = true,
            _ => {}
        }
    }

    /// Whether every gate of the agent has opened, by the oracle.
    fn gates_are_open(&self, node: &Node) -> bool {
        node.gates.iter().all(|gate| {
            let known = &self.known[gate.position];
            let state = self.state.states().nth(gate.position).expect("a state");
            let is_final = state.is_final();
            let is_completed = matches!(state, AgentState::Ended { .. });
            let is_met = match gate.condition {
                Condition::ProcessStarted => known.started,
                Condition::Ready => state.is_ready() || (known.ready && known.succeeded),
                Condition::Completed => is_completed && known.started,
                Condition::CompletedSuccessfully => known.succeeded,
                Condition::ObjectiveMet => known.met,
                Condition::LogLine(_) => known.line,
            };
            is_met || (gate.need == Need::Optional && is_final)
        })
    }

    fn counted(&self) -> usize {
        let nodes = self.plan.nodes().iter().zip(self.states()).zip(&self.known);
        nodes
            .filter(|((node, state), known)| match node.kind {
                AgentKind::Task => state.is_alive(),
                AgentKind::Service => *state == AgentState::Starting && !known.restarted,
            })
            .count()
    }

    /// What must start, by the oracle: the most urgent of those whose gates are open, as many as there is room for.
    fn expected_starts(&self) -> Vec<usize> {
        let states = self.states();
        let mut free: Vec<usize> = (0..self.plan.len())
            .filter(|at| states[*at] == AgentState::Pending && self.plan.nodes()[*at].skip.is_none())
            .filter(|at| self.gates_are_open(&self.plan.nodes()[*at]))
            .collect();
        free.sort_by_key(|at| (self.plan.nodes()[*at].priority, *at));
        let most = self.limits.max_concurrent.map_or(usize::MAX, NonZeroUsize::get);
        free.truncate(most.saturating_sub(self.counted()));
        free
    }

    /// Does everything there is to do, until there is nothing, and checks each answer.
    fn settle(&mut self) {
        loop {
            let actions = next_actions(&self.plan, &self.state, &self.limits);
            assert_eq!(actions, next_actions(&self.plan, &self.state, &self.limits));
            self.counted_anew(&actions);
            let is_ending = self.state.ending().is_some();
            let starts: Vec<usize> = actions
                .iter()
                .filter_map(|action| match action {
                    Action::Start(agent) => self.plan.position(agent),
                    _ => None,
                })
                .collect();
            assert_eq!(starts, if is_ending { Vec::new() } else { self.expected_starts() });
            if actions.is_empty() || actions == [Action::Finish] {
                self.finished = !actions.is_empty();
                return;
            }
            actions.into_iter().for_each(|action| self.act(action, is_ending));
            let most = self.limits.max_concurrent.map_or(usize::MAX, NonZeroUsize::get);
            assert!(self.counted() <= most);
            assert_eq!(self.counted(), self.state.running());
        }
    }

    /// What is counted as things happen is what comes out when all is counted from the beginning.
    fn counted_anew(&self, actions: &[Action]) {
        if self.state.ending().is_some() {
            // Who was given up before and who is cancelled now depends on what came first.
            return;
        }
        let anew = self.state.with_plan(&self.plan, &self.plan, |_| true);
        let without_cause = |action: &Action| match action {
            Action::Block { agent, .. } | Action::Skip { agent, .. } => (agent.clone(), true),
            Action::Start(agent) | Action::Cancel { agent, .. } | Action::Stop { agent, .. } => {
                (agent.clone(), false)
            }
            Action::Finish => (self.plan.nodes()[0].agent.clone(), true),
        };
        let of = |actions: &[Action]| -> Vec<_> { actions.iter().map(without_cause).collect() };
        assert_eq!(of(&next_actions(&self.plan, &anew, &self.limits)), of(actions));
        assert_eq!(anew.running(), self.state.running());
    }

    fn act(&mut self, action: Action, is_ending: bool) {
        let position = |agent| self.plan.position(agent).expect("an agent of the plan");
        match action {
            Action::Start(agent) => self.apply(position(&agent), Happening::StartRequested),
            Action::Skip { agent, reason } => {
                self.apply(position(&agent), Happening::StartFailed(Exit::Skipped { reason }));
            }
            Action::Block { agent, by, why } => {
                assert!(self.requires(position(&agent), position(&why.on)), "{agent} does not require {why}");
                let (at, began) = (position(&agent), position(&by));
                assert!(self.requires(at, began), "{agent} does not require {by}");
                assert!(self.known[began].ended, "{by} has not ended");
                self.apply(at, Happening::DependencyFailed(by, Some(why)));
            }
            Action::Cancel { agent, by } => {
                assert!(is_ending);
                self.apply(position(&agent), Happening::StopRequested(Exit::stopped(by)));
            }
            Action::Stop { agent, by } => {
                let at = position(&agent);
                assert!(is_ending);
                let alive: Vec<bool> = self.state.states().map(AgentState::is_alive).collect();
                assert!(self.plan.dependents(at).iter().all(|id| !alive[id.node]), "{agent} is still needed");
                self.apply(at, Happening::StopRequested(Exit::stopped(by)));
            }
            Action::Finish => {}
        }
    }

    /// Whether `at` requires `other`, at once or through others.
    fn requires(&self, at: usize, other: usize) -> bool {
        let gates = &self.plan.nodes()[at].gates;
        let mut required = gates.iter().filter(|gate| gate.need == Need::Required);
        required.any(|gate| gate.position == other || self.requires(gate.position, other))
    }

    /// One thing that can happen, chosen by two numbers. Paused agents and services stay as they are until their turn.
    fn happen(&mut self, who: usize, what: u8) {
        let states = self.states();
        let alive: Vec<usize> = (0..states.len()).filter(|at| states[*at].is_alive()).collect();
        let Some(at) = alive.get(who % alive.len().max(1)).copied() else { return };
        let code = |code| Exit::Code { code };
        let happening = match (&states[at], what % 12) {
            (AgentState::Starting, 0) => Happening::StartFailed(Exit::StartFailed { reason: "test".into() }),
            (AgentState::Starting, _) => Happening::Started { pid: 1 },
            (AgentState::Running { .. }, 0..3) => Happening::BecameReady,
            (AgentState::Running { .. }, 3) => Happening::Frozen,
            (AgentState::Running { .. }, 4) => return self.learn(at, Fact::ObjectivesMet),
            (AgentState::Running { .. }, 5) => return self.learn(at, Fact::LogLine("up".into())),
            (AgentState::Running { .. }, 6) => Happening::Gone(code(1)),
            (AgentState::Running { .. }, 7) => Happening::StopRequested(Exit::stopped("operator")),
            (AgentState::Running { .. }, 8) => Happening::LostReadiness,
            (AgentState::Running { .. }, 9) => Happening::Restarting { restarts: 1 },
            (AgentState::Running { .. }, 10) => Happening::GivenUp { exit: code(1), restarts: 1 },
            (AgentState::Backoff { .. }, 0..11) => Happening::StartRequested,
            (AgentState::Paused { .. }, 0..9) => Happening::Thawed,
            _ => Happening::Gone(code(0)),
        };
        self.apply(at, happening);
    }

    fn learn(&mut self, at: usize, fact: Fact) {
        let agent = self.plan.nodes()[at].agent.clone();
        self.known[at].met |= fact == Fact::ObjectivesMet;
        self.known[at].line |= fact != Fact::ObjectivesMet;
        self.state.learn(&self.plan, &agent, fact).expect("an agent of the plan");
    }

    /// Lets everything that is alive end, one after the other, until the run has finished.
    fn wind_down(&mut self) {
        for _ in 0..10 * self.plan.len() + 10 {
            self.settle();
            if self.finished {
                return;
            }
            let states = self.states();
            let at = states.iter().position(AgentState::is_alive).expect("no deadlock: something is alive");
            match states[at] {
                AgentState::Starting => self.apply(at, Happening::Started { pid: 1 }),
                _ => self.apply(at, Happening::Gone(Exit::Code { code: 0 })),
            }
        }
        panic!("the run does not finish");
    }
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::ProcessStarted),
        Just(Condition::Ready),
        Just(Condition::Completed),
        Just(Condition::CompletedSuccessfully),
        Just(Condition::ObjectiveMet),
        Just(Condition::LogLine("up".into())),
    ]
}

/// Members that require only those before them; optional dependencies may point anywhere.
fn members() -> impl Strategy<Value = Vec<Member>> {
    let edges = prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), condition()), 0..4);
    let kind = prop_oneof![3 => Just(AgentKind::Task), 1 => Just(AgentKind::Service)];
    let skip = prop::option::weighted(0.1, Just("test".to_owned()));
    let one = (kind, prop::sample::select(Priority::ALL.to_vec()), edges, skip);
    prop::collection::vec(one, 1..MOST_AGENTS).prop_map(|drawn| {
        let count = drawn.len();
        let members = drawn.into_iter().enumerate().map(|(at, (kind, priority, edges, skip))| {
            let edges = edges.into_iter().filter_map(|(to, is_required, condition)| {
                let (need, below) = if is_required { (Need::Required, at) } else { (Need::Optional, count) };
                (below > 0).then(|| dependency(&format!("a{}", to.index(below)), need, condition))
            });
            Member { kind, priority, skip, dependencies: edges.collect(), ..task(&format!("a{at}")) }
        });
        members.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_run_keeps_the_rules_and_finishes(
        members in members(),
        most in 0usize..4,
        happenings in prop::collection::vec((any::<usize>(), any::<u8>()), 0..80),
        stop_at in prop::option::of(0usize..80),
        lifetime in prop::sample::select(vec![Lifetime::UntilDone, Lifetime::UntilTasksEnd]),
    ) {
        let limits = Limits { max_concurrent: NonZeroUsize::new(most) };
        let mut run = Simulation::new(plan(members), limits, lifetime);
        for (step, (who, what)) in happenings.into_iter().enumerate() {
            if stop_at == Some(step) {
                run.state.request_stop("SIGINT");
            }
            run.settle();
            run.happen(who, what);
        }
        run.wind_down();
        prop_assert!(run.states().iter().all(AgentState::is_final));
        prop_assert!(run.state.is_finished());
    }

    #[test]
    fn the_order_of_the_files_does_not_matter(members in members(), seed in any::<u64>()) {
        let mut shuffled = members.clone();
        shuffled.sort_by_key(|member| {
            member.name.as_str().bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
        });
        let names = |plan: &Plan| -> Vec<String> { plan.nodes().iter().map(|node| node.agent.to_string()).collect() };
        prop_assert_eq!(names(&plan(members)), names(&plan(shuffled)));
    }
}

/// With work per happening that grows with the plan, this takes minutes.
#[test]
fn ten_thousand_agents_one_after_the_other() {
    let count = 10_000;
    let members = (0..count).map(|at| {
        let mut member = task(&format!("a{at}"));
        if at > 0 {
            member.dependencies.push(dependency(
                &format!("a{}", at - 1),
                Need::Required,
                Condition::CompletedSuccessfully,
            ));
        }
        member
    });
    let plan = plan(members.collect());
    let mut state = RunState::new(&plan, Lifetime::UntilTasksEnd);
    let mut started = BTreeSet::new();
    loop {
        match next_actions(&plan, &state, &Limits::default()).as_slice() {
            [Action::Start(agent)] => {
                for happening in [
                    Happening::StartRequested,
                    Happening::Started { pid: 1 },
                    Happening::Gone(Exit::Code { code: 0 }),
                ] {
                    state.apply(&plan, agent, happening).expect("a legal step");
                }
                started.insert(agent.clone());
            }
            [Action::Finish] => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(started.len(), count);
}
