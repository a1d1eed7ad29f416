//! `spec.replicas`: one document, several agents.
//!
//! `web` with three replicas becomes `web-1`, `web-2` and `web-3`: agents in their own right from here on, so that nothing
//! after this knows of replicas but by their numbers. An edge to `web` becomes an edge to each of them.

use std::collections::{BTreeSet, HashMap};

use toka_core::{AgentName, Name};

use crate::decode::{Decoded, Place, Replicas};
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{Dependency, Replica};

/// Most replicas of one document.
pub(crate) const MOST: u32 = 1000;
/// Most agents, and most edges between them, that replicas may lead to: a few lines could ask for millions.
const MOST_AGENTS: usize = 10_000;
const MOST_EDGES: usize = 100_000;

/// The agents that the documents stand for, in their order, and what is wrong with the names of replicas. What has an error
/// stays as it was declared.
pub(crate) fn expand(documents: Vec<Decoded>) -> (Vec<Decoded>, Vec<Diagnostic>) {
    if documents.iter().all(|document| document.replicas.is_none()) {
        return (documents, Vec::new());
    }
    let declared: HashMap<AgentName, Place> =
        documents.iter().map(|document| (document.agent.name.clone(), document.name.clone())).collect();
    let mut problems = Vec::new();
    let mut groups = HashMap::new();
    let (mut agents, mut edges) = (0, 0);
    for document in &documents {
        let Some(replicas) = &document.replicas else { continue };
        agents += replicas.count as usize;
        match names(&document.agent.name, replicas) {
            Err(problem) => problems.push(problem),
            Ok(_) if agents > MOST_AGENTS => problems.push(too_many(&replicas.place, "agents", MOST_AGENTS)),
            Ok(names) => {
                let clash = names.iter().find_map(|name| Some((name, declared.get(name)?)));
                match clash {
                    Some((name, place)) => problems.push(taken(document, replicas, name, place)),
                    None => drop(groups.insert(document.agent.name.clone(), names)),
                }
            }
        }
    }
    let mut out = Vec::new();
    for document in documents {
        let (document, width) = with_edges(document, &groups);
        let names = groups.get(&document.agent.name).map_or(1, Vec::len);
        edges += width * names;
        if edges > MOST_EDGES {
            problems.push(too_many(&document.name, "dependencies", MOST_EDGES));
            return (out, problems);
        }
        match groups.get(&document.agent.name) {
            Some(names) => out.extend(copies(&document, names)),
            None => out.push(document),
        }
    }
    (out, problems)
}

/// `name-1` to `name-N`.
fn names(base: &AgentName, replicas: &Replicas) -> Result<Vec<AgentName>, Diagnostic> {
    let count = replicas.count;
    (1..=count).map(|number| Name::new(&format!("{base}-{number}"))).collect::<Result<_, _>>().map_err(|_| {
        let message = format!("the replicas of `{base}` have names that are too long");
        let length = format!("{base}-{count}").len();
        Diagnostic::new(Code::BadName, message)
            .at(
                replicas.place.file,
                replicas.place.span.clone(),
                format!("the last one would be called `{base}-{count}`, which has {length} characters"),
            )
            .help("names have at most 63 characters: shorten `metadata.name`")
    })
}

fn taken(document: &Decoded, replicas: &Replicas, name: &AgentName, other: &Place) -> Diagnostic {
    let message = format!("two agents are called `{name}`");
    Diagnostic::new(Code::DuplicateAgent, message)
        .at(
            replicas.place.file,
            replicas.place.span.clone(),
            format!("a replica of `{}`", document.agent.name),
        )
        .at(other.file, other.span.clone(), "the other")
        .help(format!(
            "replicas are called `{0}-1`, `{0}-2` and so on; rename one of the two",
            document.agent.name
        ))
}

fn too_many(place: &Place, what: &str, most: usize) -> Diagnostic {
    Diagnostic::new(Code::TooComplex, format!("replicas lead to more than {most} {what}"))
        .at(place.file, place.span.clone(), "too many with this one")
        .help("declare fewer")
}

/// The same document with an edge to each replica in the place of one to all, and how many edges it then has. An edge that
/// names one of them counts before one that names all.
fn with_edges(mut document: Decoded, groups: &HashMap<AgentName, Vec<AgentName>>) -> (Decoded, usize) {
    let open: BTreeSet<usize> = document.open_conditions.iter().copied().collect();
    let declared = std::mem::take(&mut document.agent.dependencies);
    let named: BTreeSet<AgentName> = declared.iter().map(|edge| edge.on.clone()).collect();
    let mut still_open = Vec::new();
    let edges = &mut document.agent.dependencies;
    for (at, edge) in declared.into_iter().enumerate() {
        let begin = edges.len();
        match groups.get(&edge.on) {
            Some(names) => edges.extend(
                names
                    .iter()
                    .filter(|name| !named.contains(*name))
                    .map(|on| Dependency { on: on.clone(), ..edge.clone() }),
            ),
            None => edges.push(edge),
        }
        if open.contains(&at) {
            still_open.extend(begin..edges.len());
        }
    }
    document.open_conditions = still_open;
    let width = document.agent.dependencies.len();
    (document, width)
}

fn copies<'a>(document: &'a Decoded, names: &'a [AgentName]) -> impl Iterator<Item = Decoded> + 'a {
    let base = &document.agent.name;
    let untitled = document.agent.title == base.as_str();
    let count = u32::try_from(names.len()).unwrap_or(MOST);
    (1..).zip(names).map(move |(number, name)| {
        let mut agent = document.agent.clone();
        if untitled {
            agent.title = name.to_string();
        }
        agent.replica = Some(Replica { of: base.clone(), number, count });
        agent.name = name.clone();
        Decoded {
            agent,
            name: document.name.clone(),
            open_conditions: document.open_conditions.clone(),
            groups: document.groups.clone(),
            replicas: document.replicas.clone(),
        }
    })
}
