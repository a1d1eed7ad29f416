//! Graph algorithms on plain numbers, so that they can be tested without a workstream: cycles of required edges, the
//! optional edges that can be kept, and the wave of each node.
//!
//! A set may have 10,000 agents: everything is iterative (no recursion to overflow) and linear in nodes and edges,
//! but for the search of a path per optional edge that stands in a cycle.

use std::collections::{BTreeSet, VecDeque};

use crate::Need;

/// `from` depends on `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) need: Need,
}

/// Nodes `0..n`, more urgent ones first, and the edges between them.
pub(super) struct Graph<'a> {
    edges: &'a [Edge],
    /// Per node, the edges to what it depends on.
    out: Vec<Vec<usize>>,
    /// Per node, the edges from what depends on it.
    into: Vec<Vec<usize>>,
}

/// An optional edge that cannot be kept: `path` leads from its end back to its beginning, edge by edge. A path of more
/// than [`LONGEST_PATH`] edges has a gap before its last edge: nobody reads it, and thousands of them fill the memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) edge: usize,
    pub(super) path: Vec<usize>,
}

const LONGEST_PATH: usize = 16;

impl<'a> Graph<'a> {
    /// The graph of those `edges` that `wanted` takes.
    pub(super) fn new(nodes: usize, edges: &'a [Edge], wanted: impl Fn(usize) -> bool) -> Self {
        let mut graph = Self { edges, out: vec![Vec::new(); nodes], into: vec![Vec::new(); nodes] };
        (0..edges.len()).filter(|edge| wanted(*edge)).for_each(|edge| graph.add(edge));
        graph
    }

    fn add(&mut self, edge: usize) {
        let Edge { from, to, .. } = self.edges[edge];
        self.out[from].push(edge);
        self.into[to].push(edge);
    }

    fn len(&self) -> usize {
        self.out.len()
    }

    /// One cycle, as short as any, per knot of nodes that depend on each other; each cycle is a list of edges that
    /// begins at the knot's first node.
    pub(super) fn cycles(&self) -> Vec<Vec<usize>> {
        let component = self.components();
        let mut seen = BTreeSet::new();
        let mut paths = Paths::new(self.len());
        (0..self.len())
            .filter(|node| {
                let knot = component[*node];
                self.out[*node].iter().any(|edge| component[self.edges[*edge].to] == knot)
                    && seen.insert(knot)
            })
            .filter_map(|node| {
                self.out[node]
                    .iter()
                    .filter_map(|first| {
                        let mut cycle = vec![*first];
                        cycle.extend(paths.find(self, self.edges[*first].to, node)?);
                        Some(cycle)
                    })
                    .min_by_key(Vec::len)
            })
            .collect()
    }

    /// The optional edges that would close a cycle. Those that close none are kept whatever the order; of a cycle,
    /// the edge goes whose beginning is the most urgent of those that wait for nothing but optional edges.
    pub(super) fn closing(&self) -> Vec<Closing> {
        let candidates = self.breakers();
        let mut rest = Graph::new(self.len(), self.edges, |edge| candidates.binary_search(&edge).is_err());
        let mut paths = Paths::new(self.len());
        let mut closing = Vec::new();
        for edge in candidates {
            let Edge { from, to, .. } = self.edges[edge];
            match paths.find(&rest, to, from) {
                Some(mut path) => {
                    if path.len() > LONGEST_PATH {
                        path.drain(LONGEST_PATH - 1..path.len() - 1);
                        path.shrink_to_fit();
                    }
                    closing.push(Closing { edge, path });
                }
                None => rest.add(edge),
            }
        }
        closing
    }

    /// A set of optional edges without which there is no cycle, in their order of declaration: nodes are taken as
    /// soon as all they depend on is taken, and when none is left, the first that waits only for optional edges
    /// within its own knot.
    fn breakers(&self) -> Vec<usize> {
        let component = self.components();
        let breakable = |edge: usize| {
            let Edge { from, to, need } = self.edges[edge];
            need == Need::Optional && component[from] == component[to]
        };
        let (mut hard, mut soft) = (vec![0usize; self.len()], vec![0usize; self.len()]);
        for edge in self.out.iter().flatten() {
            let unmet = if breakable(*edge) { &mut soft } else { &mut hard };
            unmet[self.edges[*edge].from] += 1;
        }
        let mut free: BTreeSet<(usize, usize)> =
            (0..self.len()).filter(|node| hard[*node] == 0).map(|node| (soft[node].min(1), node)).collect();
        let mut taken = vec![false; self.len()];
        let mut breakers = Vec::new();
        while let Some((_, node)) = free.pop_first() {
            taken[node] = true;
            breakers.extend(
                self.out[node].iter().filter(|edge| !taken[self.edges[**edge].to] || self.is_loop(**edge)),
            );
            for edge in &self.into[node] {
                let from = self.edges[*edge].from;
                if taken[from] {
                    continue;
                }
                free.remove(&(soft[from].min(1), from));
                let unmet = if breakable(*edge) { &mut soft } else { &mut hard };
                unmet[from] -= 1;
                if hard[from] == 0 {
                    free.insert((soft[from].min(1), from));
                }
            }
        }
        breakers.sort_unstable();
        breakers
    }

    fn is_loop(&self, edge: usize) -> bool {
        self.edges[edge].from == self.edges[edge].to
    }

    /// The wave of each node of a graph without cycles: 0 when it depends on nothing, else one more than the last
    /// wave that it depends on.
    pub(super) fn waves(&self) -> Vec<usize> {
        let mut unmet: Vec<usize> = self.out.iter().map(Vec::len).collect();
        let mut wave = vec![0; self.len()];
        let mut free: VecDeque<usize> = (0..self.len()).filter(|node| unmet[*node] == 0).collect();
        while let Some(node) = free.pop_front() {
            for edge in &self.into[node] {
                let from = self.edges[*edge].from;
                wave[from] = wave[from].max(wave[node] + 1);
                unmet[from] -= 1;
                if unmet[from] == 0 {
                    free.push_back(from);
                }
            }
        }
        wave
    }

    /// A number per node, equal for nodes that depend on each other (Tarjan's strongly connected components, with
    /// the stack of calls kept on the heap).
    fn components(&self) -> Vec<usize> {
        let mut search = Search::new(self.len());
        for root in 0..self.len() {
            if search.order[root] == UNSEEN {
                search.visit_from(self, root);
            }
        }
        search.component
    }
}

const UNSEEN: usize = usize::MAX;

/// Breadth-first searches, one after the other, that share their memory: what an earlier search left behind counts
/// as unseen.
struct Paths {
    search: usize,
    seen_in: Vec<usize>,
    came_by: Vec<usize>,
}

impl Paths {
    fn new(nodes: usize) -> Self {
        Self { search: 0, seen_in: vec![0; nodes], came_by: vec![UNSEEN; nodes] }
    }

    /// The edges of a shortest way from one node to another, if there is any; none are needed to stay.
    fn find(&mut self, graph: &Graph<'_>, from: usize, to: usize) -> Option<Vec<usize>> {
        self.search += 1;
        self.seen_in[from] = self.search;
        self.came_by[from] = UNSEEN;
        let mut open = VecDeque::from([from]);
        while let Some(node) = open.pop_front() {
            if node == to {
                return Some(self.walk_back(graph, to));
            }
            for edge in &graph.out[node] {
                let next = graph.edges[*edge].to;
                if self.seen_in[next] != self.search {
                    self.seen_in[next] = self.search;
                    self.came_by[next] = *edge;
                    open.push_back(next);
                }
            }
        }
        None
    }

    fn walk_back(&self, graph: &Graph<'_>, end: usize) -> Vec<usize> {
        let mut path = Vec::new();
        let mut edge = self.came_by[end];
        while edge != UNSEEN {
            path.push(edge);
            edge = self.came_by[graph.edges[edge].from];
        }
        path.reverse();
        path
    }
}

/// The state of Tarjan's depth-first search.
struct Search {
    order: Vec<usize>,
    low: Vec<usize>,
    component: Vec<usize>,
    pending: Vec<usize>,
    calls: Vec<(usize, usize)>,
    seen: usize,
    components: usize,
}

impl Search {
    fn new(nodes: usize) -> Self {
        Self {
            order: vec![UNSEEN; nodes],
            low: vec![UNSEEN; nodes],
            component: vec![UNSEEN; nodes],
            pending: Vec::new(),
            calls: Vec::new(),
            seen: 0,
            components: 0,
        }
    }

    fn enter(&mut self, node: usize) {
        self.order[node] = self.seen;
        self.low[node] = self.seen;
        self.seen += 1;
        self.pending.push(node);
        self.calls.push((node, 0));
    }

    fn visit_from(&mut self, graph: &Graph<'_>, root: usize) {
        self.enter(root);
        while let Some((node, at)) = self.calls.last_mut() {
            let node = *node;
            let Some(edge) = graph.out[node].get(*at) else {
                self.leave(node);
                continue;
            };
            *at += 1;
            let next = graph.edges[*edge].to;
            if self.order[next] == UNSEEN {
                self.enter(next);
            } else if self.component[next] == UNSEEN {
                self.low[node] = self.low[node].min(self.order[next]);
            }
        }
    }

    fn leave(&mut self, node: usize) {
        self.calls.pop();
        if let Some((caller, _)) = self.calls.last() {
            self.low[*caller] = self.low[*caller].min(self.low[node]);
        }
        if self.low[node] != self.order[node] {
            return;
        }
        while let Some(member) = self.pending.pop() {
            self.component[member] = self.components;
            if member == node {
                break;
            }
        }
        self.components += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    fn edges(nodes: usize) -> impl Strategy<Value = Vec<Edge>> {
        let need = prop_oneof![Just(Need::Required), Just(Need::Optional)];
        let edge = (0..nodes, 0..nodes, need).prop_map(|(from, to, need)| Edge { from, to, need });
        prop::collection::vec(edge, 0..24)
    }

    /// Edges without a cycle among those that `turned` picks: these all point down a random order of the nodes.
    fn descending(nodes: usize, turned: fn(&Edge) -> bool) -> impl Strategy<Value = Vec<Edge>> {
        let order = Just((0..nodes).collect::<Vec<_>>()).prop_shuffle();
        (edges(nodes), order).prop_map(move |(edges, order)| {
            let turn = |edge: Edge| {
                let (from, to) = match order[edge.from].cmp(&order[edge.to]) {
                    Ordering::Less => (edge.to, edge.from),
                    _ => (edge.from, edge.to),
                };
                Edge { from, to, ..edge }
            };
            let kept = edges.into_iter().filter(|edge| !turned(edge) || edge.from != edge.to);
            kept.map(|edge| if turned(&edge) { turn(edge) } else { edge }).collect()
        })
    }

    /// Whether a node reaches itself, by the slow and obvious way.
    fn has_cycle(nodes: usize, edges: &[Edge]) -> bool {
        let mut reaches = vec![vec![false; nodes]; nodes];
        for edge in edges {
            reaches[edge.from][edge.to] = true;
        }
        for via in 0..nodes {
            for from in 0..nodes {
                for to in 0..nodes {
                    reaches[from][to] |= reaches[from][via] && reaches[via][to];
                }
            }
        }
        (0..nodes).any(|node| reaches[node][node])
    }

    fn required(edges: &[Edge]) -> Vec<Edge> {
        edges.iter().copied().filter(|edge| edge.need == Need::Required).collect()
    }

    proptest! {
        #[test]
        fn a_cycle_is_found_exactly_when_there_is_one(edges in edges(8)) {
            let cycles = Graph::new(8, &edges, |_| true).cycles();
            prop_assert_eq!(cycles.is_empty(), !has_cycle(8, &edges));
            for cycle in cycles {
                for (at, edge) in cycle.iter().enumerate() {
                    let next = cycle[(at + 1) % cycle.len()];
                    prop_assert_eq!(edges[*edge].to, edges[next].from);
                }
                let nodes: BTreeSet<usize> = cycle.iter().map(|edge| edges[*edge].from).collect();
                prop_assert_eq!(nodes.len(), cycle.len(), "no node twice");
            }
        }

        #[test]
        fn only_optional_edges_that_close_a_cycle_are_left_out(
            all in descending(8, |edge| edge.need == Need::Required),
        ) {
            prop_assert!(!has_cycle(8, &required(&all)));
            let closing = Graph::new(8, &all, |_| true).closing();
            let left_out: BTreeSet<usize> = closing.iter().map(|closing| closing.edge).collect();
            let kept: Vec<Edge> =
                (0..all.len()).filter(|edge| !left_out.contains(edge)).map(|edge| all[edge]).collect();
            prop_assert!(!has_cycle(8, &kept));
            for Closing { edge, path } in closing {
                prop_assert_eq!(all[edge].need, Need::Optional);
                let mut with_it = kept.clone();
                with_it.push(all[edge]);
                prop_assert!(has_cycle(8, &with_it));
                let end = path.iter().fold(all[edge].to, |at, step| {
                    assert!(all[*step].from == at && !left_out.contains(step));
                    all[*step].to
                });
                prop_assert_eq!(end, all[edge].from);
            }
        }

        #[test]
        fn a_node_is_one_wave_after_the_last_it_depends_on(all in descending(8, |_| true)) {
            prop_assert!(!has_cycle(8, &all));
            let graph = Graph::new(8, &all, |_| true);
            let waves = graph.waves();
            for node in 0..8 {
                let after = graph.out[node].iter().map(|edge| waves[all[*edge].to] + 1).max();
                prop_assert_eq!(waves[node], after.unwrap_or(0));
            }
        }
    }

    fn ring(nodes: usize, need: Need) -> Vec<Edge> {
        (0..nodes).map(|from| Edge { from, to: (from + 1) % nodes, need }).collect()
    }

    #[test]
    fn ten_thousand_in_a_ring() {
        let nodes = 10_000;
        let required = ring(nodes, Need::Required);
        assert_eq!(Graph::new(nodes, &required, |_| true).cycles(), [(0..nodes).collect::<Vec<_>>()]);

        let optional = ring(nodes, Need::Optional);
        let closing = Graph::new(nodes, &optional, |_| true).closing();
        assert_eq!(closing, [Closing { edge: 0, path: (1..16).chain([nodes - 1]).collect() }]);
        let waves = Graph::new(nodes, &optional, |edge| edge != 0).waves();
        assert_eq!(waves.iter().max(), Some(&(nodes - 1)));
    }
}
