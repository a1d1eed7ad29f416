//! From the members of a set to the [`Plan`], and to everything that is wrong with their dependencies.

use std::collections::{BTreeSet, HashMap};

use toka_core::{AgentName, NetworkAccess};

use super::graph::{Closing, Edge, Graph};
use super::problem::{Link, Problem, distinct};
use super::{Dropped, Gate, GateId, Member, Node, Plan};
use crate::decode::nearest;
use crate::diagnostic::{Diagnostic, Sources};
use crate::{AgentKind, Condition, Dependency, Need, Set, Start};

/// Makes the plan of a set. There is none when any of the diagnostics is an error.
pub fn plan(set: &Set, sources: &Sources) -> (Option<Plan>, Vec<Diagnostic>) {
    let (plan, problems) = arrange(set.agents.iter().map(Member::from).collect());
    (plan, distinct(problems).iter().map(|problem| problem.diagnostic(sources)).collect())
}

/// Makes the plan of any members. There is none when any of the problems is an error.
///
/// # Panics
/// When two members have the same name.
pub fn arrange(mut members: Vec<Member>) -> (Option<Plan>, Vec<Problem>) {
    members.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
    let draft = Draft::new(&members);
    let mut problems = draft.missing.clone();
    problems.extend(draft.doubtful_waits());

    let required = Graph::new(members.len(), &draft.edges, |edge| draft.edges[edge].need == Need::Required);
    problems.extend(required.cycles().iter().map(|cycle| Problem::Cycle(draft.links(cycle))));
    if problems.iter().any(Problem::is_error) {
        return (None, problems);
    }

    let closing = Graph::new(members.len(), &draft.edges, |_| true).closing();
    problems.extend(closing.iter().map(|closing| draft.dropped(closing)));
    let left_out: BTreeSet<usize> = closing.iter().map(|closing| closing.edge).collect();
    let kept = Graph::new(members.len(), &draft.edges, |edge| !left_out.contains(&edge));
    let waves = kept.waves();
    (Some(draft.finish(&waves, &left_out)), problems)
}

/// The members, more urgent ones first, and the edges between those that there are.
struct Draft<'a> {
    members: &'a [Member],
    positions: HashMap<&'a AgentName, usize>,
    edges: Vec<Edge>,
    /// What each edge was declared as.
    declared: Vec<&'a Dependency>,
    missing: Vec<Problem>,
}

impl<'a> Draft<'a> {
    fn new(members: &'a [Member]) -> Self {
        let positions: HashMap<_, _> =
            members.iter().enumerate().map(|(position, member)| (&member.name, position)).collect();
        assert_eq!(positions.len(), members.len(), "the names of agents are unique");
        let mut draft =
            Self { members, positions, edges: Vec::new(), declared: Vec::new(), missing: Vec::new() };
        for (from, member) in members.iter().enumerate() {
            let mut dependencies: Vec<&Dependency> = member.dependencies.iter().collect();
            dependencies.sort_by_key(|dependency| dependency.need);
            for dependency in dependencies {
                draft.add(from, dependency);
            }
        }
        draft
    }

    fn add(&mut self, from: usize, dependency: &'a Dependency) {
        match self.positions.get(&dependency.on) {
            Some(to) => {
                self.edges.push(Edge { from, to: *to, need: dependency.need });
                self.declared.push(dependency);
            }
            None => {
                let link = link(&self.members[from], dependency);
                let suggestion = self.nearest(from, &dependency.on);
                self.missing.push(Problem::Missing { link, suggestion });
            }
        }
    }

    /// The agent that was perhaps meant: never the one that waits, which cannot wait for itself.
    fn nearest(&self, from: usize, wanted: &AgentName) -> Option<AgentName> {
        let others = self.members.iter().enumerate().filter(|(at, _)| *at != from);
        let names = others.map(|(_, member)| member.name.as_str());
        let near = nearest(wanted.as_str(), names)?;
        self.members.iter().map(|member| &member.name).find(|name| name.as_str() == near).cloned()
    }

    /// Waits that never end.
    fn doubtful_waits(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (number, edge) in self.edges.iter().enumerate() {
            let target = &self.members[edge.to];
            let for_the_end = matches!(
                self.declared[number].condition,
                Condition::Completed | Condition::CompletedSuccessfully
            );
            if self.declared[number].condition == Condition::ObjectiveMet && target.checks == 0 {
                problems
                    .push(Problem::NothingToCheck { link: self.link(number), target: target.origin.clone() });
            }
            if target.kind == AgentKind::Service && for_the_end {
                problems
                    .push(Problem::EndlessWait { link: self.link(number), target: target.origin.clone() });
            }
            let waiter = &self.members[edge.from];
            let is_for_readiness = self.declared[number].condition == Condition::Ready;
            // One without a network does not mean to talk to it, unless the other has a network only to be talked to.
            if is_for_readiness
                && target.serves_a_port
                && (waiter.network != NetworkAccess::None || target.network == NetworkAccess::Project)
                && !waiter.network.reaches(&target.network)
            {
                let networks = (waiter.network.clone(), target.network.clone());
                problems.push(Problem::OutOfReach {
                    link: self.link(number),
                    target: target.origin.clone(),
                    networks: Box::new(networks),
                });
            }
            if target.start == Start::Manual && self.members[edge.from].start == Start::Plan {
                problems
                    .push(Problem::WaitForAPerson { link: self.link(number), target: target.origin.clone() });
            }
        }
        problems
    }

    /// Services that some task waits for, at once or through others.
    fn serving(&self) -> BTreeSet<usize> {
        let mut targets = vec![Vec::new(); self.members.len()];
        self.edges.iter().for_each(|edge| targets[edge.from].push(edge.to));
        let is_task = |position: &usize| self.members[*position].kind == AgentKind::Task;
        self.reached((0..self.members.len()).filter(is_task).collect(), &targets, |at| !is_task(at))
    }

    /// Tasks without a schedule of their own that wait for one that the clock starts, at once or through each other.
    fn following(&self) -> BTreeSet<usize> {
        let mut sources = vec![Vec::new(); self.members.len()];
        let follows = |at: usize| {
            let member = &self.members[at];
            member.kind == AgentKind::Task && member.start == Start::Plan
        };
        let edges = self.edges.iter().filter(|edge| follows(edge.from));
        edges.for_each(|edge| sources[edge.to].push(edge.from));
        let is_timed = |position: &usize| self.members[*position].start == Start::Clock;
        self.reached((0..self.members.len()).filter(is_timed).collect(), &sources, |_| true)
    }

    /// Everything that is `wanted` of what can be reached from `open` along `edges`.
    fn reached(
        &self,
        mut open: Vec<usize>,
        edges: &[Vec<usize>],
        wanted: impl Fn(&usize) -> bool,
    ) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        while let Some(at) = open.pop() {
            open.extend(edges[at].iter().filter(|next| seen.insert(**next)));
        }
        seen.retain(wanted);
        seen
    }

    fn link(&self, edge: usize) -> Link {
        link(&self.members[self.edges[edge].from], self.declared[edge])
    }

    fn links(&self, edges: &[usize]) -> Vec<Link> {
        edges.iter().map(|edge| self.link(*edge)).collect()
    }

    fn dropped(&self, closing: &Closing) -> Problem {
        Problem::Dropped { link: self.link(closing.edge), path: self.links(&closing.path) }
    }

    /// Puts the members in the order of the plan and the edges, but for those left out, to their gates.
    fn finish(&self, waves: &[usize], left_out: &BTreeSet<usize>) -> Plan {
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        // Stable: within a wave the members keep their order by priority and name.
        order.sort_by_key(|member| waves[*member]);
        let mut position = vec![0; order.len()];
        for (at, member) in order.iter().enumerate() {
            position[*member] = at;
        }

        let (serving, following) = (self.serving(), self.following());
        let of = |at: &usize| Node {
            serves: serving.contains(at),
            follows: following.contains(at),
            ..node(&self.members[*at], waves[*at])
        };
        let mut nodes: Vec<Node> = order.iter().map(of).collect();
        let mut dependents = vec![Vec::new(); nodes.len()];
        let mut dropped = Vec::new();
        for (number, edge) in self.edges.iter().enumerate() {
            let Dependency { on, need, reason, condition, if_skipped, origin } =
                self.declared[number].clone();
            if left_out.contains(&number) {
                dropped.push(Dropped { agent: self.members[edge.from].name.clone(), on, origin });
                continue;
            }
            let (from, to) = (position[edge.from], position[edge.to]);
            dependents[to].push(GateId { node: from, gate: nodes[from].gates.len() });
            nodes[from].gates.push(Gate { position: to, on, need, condition, reason, if_skipped, origin });
        }
        let positions = nodes.iter().enumerate().map(|(at, node)| (node.agent.clone(), at)).collect();
        Plan { nodes, dependents, positions, dropped }
    }
}

fn link(member: &Member, dependency: &Dependency) -> Link {
    Link {
        agent: member.name.clone(),
        on: dependency.on.clone(),
        need: dependency.need,
        origin: dependency.origin.clone(),
    }
}

fn node(member: &Member, wave: usize) -> Node {
    Node {
        agent: member.name.clone(),
        title: member.title.clone(),
        kind: member.kind,
        start: member.start,
        priority: member.priority,
        wave,
        follows: false,
        serves: false,
        on_end: member.on_end,
        ends_run: false,
        skip: member.skip.clone(),
        gates: Vec::new(),
        checks: member.checks,
    }
}

#[cfg(test)]
mod tests {
    use toka_core::{Name, Origin, Priority};

    use super::*;

    /// Members from lines such as `!db web?ready cache`: `!` a service, `?` an optional dependency, a word after it
    /// the condition.
    fn members(lines: &[&str]) -> Vec<Member> {
        lines.iter().map(|line| member(line)).collect()
    }

    fn member(line: &str) -> Member {
        let mut words = line.split(' ');
        let name = words.next().expect("a name");
        let kind = if name.starts_with('!') { AgentKind::Service } else { AgentKind::Task };
        let name = name.trim_start_matches('!');
        Member {
            name: Name::new(name).expect("a label"),
            title: name.to_uppercase(),
            kind,
            start: Default::default(),
            priority: if name.starts_with("hot") { Priority::High } else { Priority::Medium },
            dependencies: words.map(dependency).collect(),
            checks: usize::from(name.ends_with("checked")),
            network: Default::default(),
            serves_a_port: false,
            on_end: Default::default(),
            skip: None,
            origin: Origin::default_of("test"),
        }
    }

    fn dependency(word: &str) -> Dependency {
        let (word, condition) = word.split_once('=').unwrap_or((word, "done"));
        let need = if word.ends_with('?') { Need::Optional } else { Need::Required };
        Dependency {
            on: Name::new(word.trim_end_matches('?')).expect("a label"),
            need,
            reason: String::new(),
            if_skipped: Default::default(),
            condition: match condition {
                "ready" => Condition::Ready,
                "met" => Condition::ObjectiveMet,
                _ => Condition::CompletedSuccessfully,
            },
            origin: Origin::default_of("test"),
        }
    }

    /// The waves as words, or every problem.
    fn arranged(lines: &[&str]) -> (Vec<String>, Vec<String>) {
        let (plan, problems) = arrange(members(lines));
        let waves = plan.iter().flat_map(Plan::waves);
        let words =
            waves.map(|wave| wave.iter().map(|node| node.agent.as_str()).collect::<Vec<_>>().join(" "));
        let sources = Sources::default();
        (words.collect(), problems.iter().map(|problem| problem.diagnostic(&sources).message).collect())
    }

    #[test]
    fn waves_then_priority_then_name() {
        for (lines, waves) in [
            (&["b", "a", "hot"][..], &["hot a b"][..]),
            (
                &["report checks history", "checks fetch", "history", "fetch"],
                &["fetch history", "checks", "report"],
            ),
            (&["a b?", "b"], &["b", "a"]),
            (&["a db=ready", "z", "!db"], &["db z", "a"]),
        ] {
            assert_eq!(
                arranged(lines),
                (waves.iter().map(ToString::to_string).collect(), vec![]),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn without_a_plan_every_error_is_told() {
        let (waves, problems) = arranged(&["a b", "b c", "c a", "d d", "e fetsh", "fetch", "x fetch=met"]);
        assert!(waves.is_empty());
        assert_eq!(
            problems,
            [
                "`e` requires `fetsh`, which is not among the agents",
                "`x` waits for the objectives of `fetch`, none of which has a check",
                "these agents wait for each other: a → b → c → a",
                "these agents wait for each other: d → d",
            ]
        );
    }

    #[test]
    fn nobody_is_suggested_to_wait_for_itself() {
        let suggestion = |lines: &[&str]| {
            let problems = arrange(members(lines)).1;
            problems.into_iter().find_map(|problem| match problem {
                Problem::Missing { suggestion, .. } => suggestion.map(|name| name.to_string()),
                _ => None,
            })
        };
        for (lines, expected) in [
            (&["a b"][..], None),
            (&["lint lind"], None),
            (&["fetsh fetch2", "x"], None),
            (&["lint lind", "link"], Some("link")),
            (&["report fetsh", "fetch"], Some("fetch")),
        ] {
            assert_eq!(suggestion(lines).as_deref(), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_only_orders_never_stops_the_plan() {
        let (waves, problems) = arranged(&["a b?", "b a", "c nobody?", "d d?", "e a?=met"]);
        assert_eq!(waves, ["a c d", "b e"]);
        assert_eq!(
            problems,
            [
                "`c` optionally comes after `nobody`, which is not among the agents",
                "`e` waits for the objectives of `a`, none of which has a check",
                "`a` does not wait for `b`: the optional dependency would close the circle a → b → a",
                "`d` does not wait for `d`: the optional dependency would close the circle d → d",
            ]
        );
    }

    #[test]
    fn waits_that_make_no_sense_are_told() {
        let (_, problems) = arranged(&["a db", "!db", "!page a"]);
        assert_eq!(problems, ["`a` waits for the end of `db`, a service, which may run for ever"]);
        assert_eq!(
            arranged(&["!db prepare", "a db=ready", "prepare", "x b-checked=met", "b-checked"]).1,
            [""; 0]
        );
    }

    #[test]
    fn services_that_tasks_need_serve_and_all_others_are_a_purpose() {
        let plan =
            arrange(members(&["test api=ready", "!api db=ready", "!db", "!page api=ready", "!alone"])).0;
        let plan = plan.expect("a plan");
        let serving = plan.nodes().iter().filter(|node| node.serves).map(|node| node.agent.as_str());
        assert_eq!(serving.collect::<Vec<_>>(), ["db", "api"]);
    }

    #[test]
    fn tasks_behind_one_that_the_clock_starts_follow_it() {
        let mut members =
            members(&["extract", "load extract", "report load?", "!web load", "own load", "other"]);
        for at in [0, 4] {
            members[at].start = Start::Clock;
        }
        let plan = arrange(members).0.expect("a plan");
        let names = |names: Vec<AgentName>| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let extract = Name::new("extract").expect("a label");
        assert_eq!(names(plan.followers(&extract)), ["load", "report"]);
        let follows = plan.nodes().iter().filter(|node| node.follows).map(|node| node.agent.clone());
        assert_eq!(names(follows.collect()), ["load", "report"]);
    }

    #[test]
    fn gates_and_dependents_mirror_each_other() {
        let (plan, _) = arrange(members(&["c a b?", "b a=ready", "a"]));
        let plan = plan.expect("a plan");
        for (at, node) in plan.nodes().iter().enumerate() {
            assert_eq!(plan.position(&node.agent), Some(at));
            for id in plan.dependents(at) {
                assert_eq!((plan.gate(*id).position, &plan.gate(*id).on), (at, &node.agent));
            }
        }
        let counted: usize = (0..plan.len()).map(|at| plan.dependents(at).len()).sum();
        assert_eq!(counted, plan.nodes().iter().map(|node| node.gates.len()).sum::<usize>());
        assert_eq!(counted, 3);
    }

    #[test]
    fn ten_thousand_agents() {
        let lines: Vec<String> = (0..10_000)
            .map(|at| format!("n{at} n{} n{}?", (at + 1) % 10_001, (at + 7_919) % 10_001))
            .collect();
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        lines.push("n10000");
        let (plan, problems) = arrange(members(&lines));
        let plan = plan.expect("a plan");
        assert_eq!(plan.len(), 10_001);
        assert_eq!(plan.dropped().len(), problems.len());
        assert!(
            plan.nodes()
                .iter()
                .enumerate()
                .all(|(at, node)| node.gates.iter().all(|gate| gate.position < at))
        );
    }
}
