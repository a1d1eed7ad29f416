//! What follows from the dependencies of a set: which agent waits for which, for what, and in which order they start.
//!
//! *Required* edges gate: the dependent starts only when the condition is met, and never when it cannot be any more.
//! *Optional* edges order: the dependent waits until the dependency has ended or met the condition, whichever is
//! first, and its failure stops nobody. A cycle of required edges is an error; an optional edge that would close a
//! cycle is dropped with a warning.
//!
//! The order is the same for the same files: by waves (an agent is one wave after the last that it waits for), within
//! a wave by priority, then by name.

mod arrange;
mod export;
mod graph;
mod locate;
mod member;
mod problem;

use std::collections::HashMap;

use serde::Serialize;
use toka_core::{AgentName, Origin, Priority};

pub use self::arrange::{arrange, plan};
pub use self::member::Member;
pub(crate) use self::problem::distinct;
pub use self::problem::{Link, Problem};
use crate::{AfterEnd, AgentKind, Condition, IfSkipped, Need, OnEnd, Start};

/// The agents of a set in the order in which they may start, and what each waits for. Positions in that order, from
/// 0, stand for the agents wherever many of them are at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    nodes: Vec<Node>,
    dependents: Vec<Vec<GateId>>,
    positions: HashMap<AgentName, usize>,
    dropped: Vec<Dropped>,
}

/// One agent in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name.
    pub agent: AgentName,
    /// Its title, free text.
    pub title: String,
    /// Whether it ends by itself.
    pub kind: AgentKind,
    /// What starts it.
    pub start: Start,
    /// Whether it runs again after each run of an agent that the clock starts: it depends on that one, at once or through
    /// other tasks, and has no schedule of its own.
    pub follows: bool,
    /// Whether it is a service that a task waits for, at once or through others: then it is there for the tasks, else it is a
    /// purpose of the run.
    pub serves: bool,
    /// What its end means for the run.
    pub on_end: OnEnd,
    /// Whether any end of it is that of the run, also one that somebody asked for (`--exit-code-from`).
    #[serde(skip)]
    pub ends_run: bool,
    /// Why it is skipped instead of started, if there is nothing that it would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip: Option<String>,
    /// Its priority.
    pub priority: Priority,
    /// The wave that it may start in, from 0.
    pub wave: usize,
    /// What it waits for, required ones first, in the order of the file.
    pub gates: Vec<Gate>,
    /// How many of its objectives have a check that can be executed.
    #[serde(skip)]
    pub checks: usize,
}

/// Something that an agent waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gate {
    /// Position of the dependency in the plan.
    #[serde(skip)]
    pub position: usize,
    /// The dependency.
    pub on: AgentName,
    /// Whether it gates or only orders.
    pub need: Need,
    /// What must have happened to it.
    pub condition: Condition,
    /// Why, in the words of the file.
    pub reason: String,
    /// What becomes of the agent when the dependency is skipped.
    pub if_skipped: IfSkipped,
    /// Where it is declared.
    pub origin: Origin,
}

/// The gate number `gate` of the agent at position `node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateId {
    /// Position of the agent that waits.
    pub node: usize,
    /// Number of the gate within [`Node::gates`].
    pub gate: usize,
}

/// An optional edge that the plan leaves out, because it would close a cycle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The agent that declares it.
    pub agent: AgentName,
    /// The agent that it would wait for.
    pub on: AgentName,
    /// Where it is declared.
    pub origin: Origin,
}

impl Plan {
    /// The failure of any agent ends the run.
    pub fn stop_at_failure(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.on_end.failure = AfterEnd::StopRun);
    }

    /// The end of this agent ends the run, whatever it is.
    pub fn stop_at_end_of(&mut self, agent: &AgentName) {
        self.nodes.iter_mut().filter(|node| node.agent == *agent).for_each(|node| node.ends_run = true);
    }

    /// Takes over what the ends of agents mean for the run, for those that the other plan has as well.
    pub fn take_ends_of(&mut self, other: &Self) {
        for node in &mut self.nodes {
            if let Some(at) = other.position(&node.agent) {
                (node.on_end, node.ends_run) = (other.nodes[at].on_end, other.nodes[at].ends_run);
            }
        }
    }

    /// The tasks that run again after each run of `agent`, in the order of the plan: those that depend on it, at once or
    /// through each other, and have no schedule of their own.
    pub fn followers(&self, agent: &AgentName) -> Vec<AgentName> {
        let mut found = std::collections::BTreeSet::new();
        let mut open: Vec<usize> = self.position(agent).into_iter().collect();
        while let Some(at) = open.pop() {
            let behind =
                self.dependents[at].iter().map(|id| id.node).filter(|node| self.nodes[*node].follows);
            open.extend(behind.filter(|node| found.insert(*node)));
        }
        found.into_iter().map(|at| self.nodes[at].agent.clone()).collect()
    }

    /// The agents in their order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The agents wave by wave.
    pub fn waves(&self) -> impl Iterator<Item = &[Node]> {
        self.nodes.chunk_by(|a, b| a.wave == b.wave)
    }

    /// Number of agents.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The position of an agent, if it is in the plan.
    pub fn position(&self, agent: &AgentName) -> Option<usize> {
        self.positions.get(agent).copied()
    }

    /// The gates that wait for the agent at `position`.
    ///
    /// # Panics
    /// When the plan is not that long.
    pub fn dependents(&self, position: usize) -> &[GateId] {
        &self.dependents[position]
    }

    /// The gate of that number.
    ///
    /// # Panics
    /// When the plan has none.
    pub fn gate(&self, id: GateId) -> &Gate {
        &self.nodes[id.node].gates[id.gate]
    }

    /// The optional edges that are not in the plan.
    pub fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }

    /// The texts that others wait for in the output of `agent`: a line opens a gate when it contains the text.
    pub fn watched_lines(&self, agent: &AgentName) -> Vec<&str> {
        let mut lines: Vec<&str> = self
            .awaited(agent)
            .filter_map(|condition| match condition {
                Condition::LogLine(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    /// The conditions that others wait for `agent` to meet, as often as they are declared.
    pub fn awaited(&self, agent: &AgentName) -> impl Iterator<Item = &Condition> {
        self.position(agent)
            .into_iter()
            .flat_map(|position| &self.dependents[position])
            .map(|id| &self.gate(*id).condition)
    }
}
