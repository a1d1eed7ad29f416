//! Which agents are listed, and in which order.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use toka_core::{AgentName, AgentState, AgentStatus, ProjectName};

use super::figures::Figures;
use toka_terminal::list::doing;

/// One agent of all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AgentId {
    /// Its project.
    pub(crate) project: ProjectName,
    /// Its name there.
    pub(crate) agent: AgentName,
}

impl std::fmt::Display for AgentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.project, self.agent)
    }
}

/// What the list is ordered by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// The alphabet.
    #[default]
    Name,
    /// What wants attention first.
    State,
    /// Who computes most.
    Cpu,
    /// Who holds most.
    Memory,
    /// Who waits for whom: each below what it waits for.
    Tree,
}

/// One row of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The agent.
    pub(crate) id: AgentId,
    /// How far it is indented.
    pub(crate) depth: usize,
}

impl Order {
    /// The next one, and after the last the first.
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Name => Self::State,
            Self::State => Self::Cpu,
            Self::Cpu => Self::Memory,
            Self::Memory => Self::Tree,
            Self::Tree => Self::Name,
        }
    }

    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::State => "state",
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::Tree => "dependency",
        }
    }

    /// What fits, in this order or the other way round. Equals stay in that of their names, so that rows do not jump.
    pub(crate) fn arrange(self, mut agents: Vec<Known<'_>>, turn: Turn) -> Vec<Row> {
        self.sort(&mut agents);
        if self == Self::Tree {
            return tree(&agents, turn);
        }
        let mut rows: Vec<Row> = agents.into_iter().map(|(id, ..)| Row { id, depth: 0 }).collect();
        if turn == Turn::Back {
            rows.reverse();
        }
        rows
    }

    fn sort(self, rows: &mut [Known<'_>]) {
        let cpu = |figures: Option<&Figures>| figures.and_then(|figures| figures.cpu).unwrap_or(-1.0);
        let memory = |figures: Option<&Figures>| figures.and_then(Figures::memory);
        rows.sort_by(|(a_id, a, a_figures), (b_id, b, b_figures)| {
            let by = match self {
                Self::Name | Self::Tree => Ordering::Equal,
                Self::State => urgency(a).cmp(&urgency(b)),
                Self::Cpu => cpu(*b_figures).total_cmp(&cpu(*a_figures)),
                Self::Memory => Reverse(memory(*a_figures)).cmp(&Reverse(memory(*b_figures))),
            };
            by.then_with(|| a_id.cmp(b_id))
        });
    }
}

/// An agent with what it uses.
pub(crate) type Known<'a> = (AgentId, &'a AgentStatus, Option<&'a Figures>);

/// Which end of an order comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The usual one: a before b, the most before the least.
    #[default]
    Usual,
    /// The other.
    Back,
}

impl Turn {
    /// The other one.
    pub(crate) fn other(self) -> Self {
        if self == Self::Usual { Self::Back } else { Self::Usual }
    }
}

/// Each agent below the one that it waits for and that comes last; those that wait for nobody who is listed are at the left.
fn tree(agents: &[Known<'_>], turn: Turn) -> Vec<Row> {
    let places: HashMap<&AgentId, usize> = agents.iter().enumerate().map(|(at, (id, ..))| (id, at)).collect();
    let above = |at: usize| -> Vec<usize> {
        let (id, agent, _) = &agents[at];
        let of = |name: &AgentName| places.get(&AgentId { project: id.project.clone(), agent: name.clone() });
        agent.depends_on.iter().filter_map(of).copied().collect()
    };
    let mut depths = vec![None; agents.len()];
    for at in 0..agents.len() {
        depth(at, &above, &mut depths);
    }
    let mut below = vec![Vec::new(); agents.len()];
    let mut tops = Vec::new();
    for at in 0..agents.len() {
        // Of several the first of the deepest, so that the row stands where its turn comes.
        match above(at).into_iter().rev().max_by_key(|on| depths[*on]) {
            Some(on) => below[on].push(at),
            None => tops.push(at),
        }
    }
    if turn == Turn::Back {
        below.iter_mut().chain([&mut tops]).for_each(|places| places.reverse());
    }
    let mut rows = Vec::with_capacity(agents.len());
    let mut open: Vec<(usize, usize)> = tops.into_iter().rev().map(|at| (at, 0)).collect();
    while let Some((at, depth)) = open.pop() {
        rows.push(Row { id: agents[at].0.clone(), depth });
        open.extend(below[at].iter().rev().map(|at| (*at, depth + 1)));
    }
    rows
}

/// How many come before it at most. A circle, which no plan has, is not followed.
fn depth(at: usize, above: &impl Fn(usize) -> Vec<usize>, depths: &mut [Option<usize>]) -> usize {
    if let Some(known) = depths[at] {
        return known;
    }
    depths[at] = Some(0);
    let deepest = above(at).into_iter().map(|on| depth(on, above, depths) + 1).max().unwrap_or(0);
    depths[at] = Some(deepest);
    deepest
}

/// How soon a person wants to see it, the most urgent as 0.
fn urgency(agent: &AgentStatus) -> u8 {
    if agent.wedged.is_some() {
        return 0;
    }
    match &agent.state {
        AgentState::Quarantined { .. } => 0,
        AgentState::Ended { exit } if exit.is_failure() => 1,
        AgentState::Blocked { .. } => 2,
        AgentState::Backoff { .. } => 3,
        AgentState::Stopping { .. } => 4,
        AgentState::Paused { .. } => 5,
        AgentState::Running { .. } if agent.not_ready.is_some() => 6,
        AgentState::Starting => 7,
        AgentState::Running { ready: false, .. } => 8,
        AgentState::Running { ready: true, .. } => 9,
        AgentState::Pending => 10,
        AgentState::Ended { .. } => 11,
    }
}

/// Whether an agent is meant by the text that somebody filters by: every word of it is in its name, its state or what is
/// shown that it does.
pub(crate) fn fits(filter: &str, id: &AgentId, agent: &AgentStatus, now_ms: i64) -> bool {
    if filter.is_empty() {
        return true;
    }
    let doing = doing(agent, now_ms);
    let text = format!("{id} {} {} {doing}", agent.state.as_str(), agent.title).to_lowercase();
    filter.to_lowercase().split_whitespace().all(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use toka_core::{Exit, Name, Resources};

    use super::*;

    fn id(agent: &str) -> AgentId {
        AgentId { project: Name::new("shop").expect("a label"), agent: Name::new(agent).expect("a label") }
    }

    fn agent(name: &str, state: AgentState) -> AgentStatus {
        AgentStatus { state, ..AgentStatus::new(Name::new(name).expect("a label"), 0) }
    }

    #[test]
    fn each_order_has_its_first() {
        let agents = [
            agent("api", AgentState::Running { pid: 1, ready: true }),
            agent("db", AgentState::Running { pid: 2, ready: false }),
            agent("job", AgentState::Ended { exit: Exit::Code { code: 3 } }),
            agent("later", AgentState::Pending),
        ];
        let figures = |cpu: f64, memory_current: u64| {
            let now = Resources { memory_current: Some(memory_current), ..Resources::default() };
            let mut figures = Figures::default();
            (figures.cpu, figures.now) = (Some(cpu), Some(now));
            figures
        };
        let known = [Some(figures(1.0, 900)), Some(figures(50.0, 10)), None, None];
        let both = |order: Order, turn: Turn| -> Vec<String> {
            let of = |(agent, known): (_, _)| {
                let (agent, known): (&AgentStatus, &Option<Figures>) = (agent, known);
                (id(agent.name.as_str()), agent, known.as_ref())
            };
            let rows: Vec<_> = agents.iter().zip(&known).rev().map(of).collect();
            order.arrange(rows, turn).iter().map(|row| row.id.agent.to_string()).collect()
        };
        let names = |order| both(order, Turn::Usual);
        assert_eq!(names(Order::Name), ["api", "db", "job", "later"]);
        assert_eq!(names(Order::State), ["job", "db", "api", "later"]);
        assert_eq!(names(Order::Cpu), ["db", "api", "job", "later"]);
        assert_eq!(names(Order::Memory), ["api", "db", "job", "later"]);
        assert_eq!(both(Order::Memory, Turn::Back), ["later", "job", "db", "api"]);
    }

    #[test]
    fn in_a_tree_each_is_below_the_last_that_it_waits_for() {
        let waiting = |name: &str, on: &[&str]| AgentStatus {
            depends_on: on.iter().map(|on| Name::new(on).expect("a label")).collect(),
            ..agent(name, AgentState::Pending)
        };
        let agents = [
            waiting("api", &["db", "schema"]),
            waiting("db", &[]),
            waiting("mail", &["absent"]),
            waiting("schema", &["db"]),
            waiting("web", &["api", "db"]),
        ];
        let rows = |turn: Turn| -> Vec<String> {
            let known = agents.iter().rev().map(|agent| (id(agent.name.as_str()), agent, None)).collect();
            let rows = Order::Tree.arrange(known, turn);
            rows.iter().map(|row| format!("{}{}", "-".repeat(row.depth), row.id.agent)).collect()
        };
        assert_eq!(rows(Turn::Usual), ["db", "-schema", "--api", "---web", "mail"]);
        assert_eq!(rows(Turn::Back), ["mail", "db", "-schema", "--api", "---web"]);
    }

    #[test]
    fn a_filter_is_about_everything_that_is_read() {
        let mut status = agent("billing-api", AgentState::Running { pid: 1, ready: true });
        status.progress.task = Some("Fetch Invoices".into());
        let id = id("billing-api");
        for fitting in ["", "bill", "READY", "shop/billing", "invoices", "ready api", "  "] {
            assert!(fits(fitting, &id, &status, 0), "{fitting}");
        }
        for other in ["paused", "db", "ready db"] {
            assert!(!fits(other, &id, &status, 0), "{other}");
        }
    }
}
