//! What can be wrong with the dependencies of a set.

use std::collections::HashSet;
use std::mem::Discriminant;

use toka_core::{AgentName, NetworkAccess, Origin};

use super::locate::locate;
use crate::Need;
use crate::diagnostic::{Code, Diagnostic, Severity, Sources};

/// One declared edge: `agent` depends on `on`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The agent that declares it.
    pub agent: AgentName,
    /// What it depends on.
    pub on: AgentName,
    /// Whether it gates or only orders.
    pub need: Need,
    /// Where it is declared.
    pub origin: Origin,
}

/// Something wrong with the dependencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The set has no agent of that name: an error when required, else a warning.
    Missing {
        /// The edge.
        link: Link,
        /// The name that was perhaps meant.
        suggestion: Option<AgentName>,
    },
    /// Agents that require each other in a circle: an error. Each link leads to the next, the last to the first.
    Cycle(Vec<Link>),
    /// An optional edge that was dropped, because with `path` it would be a circle: a warning.
    Dropped {
        /// The edge.
        link: Link,
        /// From the end of the edge back to its beginning; empty when an agent names itself, with a gap when long.
        path: Vec<Link>,
    },
    /// A wait for objectives of an agent that has none with a check: an error when required, else a warning.
    NothingToCheck {
        /// The edge.
        link: Link,
        /// Where the agent that has no check is declared.
        target: Origin,
    },
    /// A wait for the end of a service, which may run for ever: a warning.
    EndlessWait {
        /// The edge.
        link: Link,
        /// Where the service is declared.
        target: Origin,
    },
    /// A wait for an agent that answers on a port which the one that waits cannot reach: a warning.
    OutOfReach {
        /// The edge.
        link: Link,
        /// Where the agent with the port is declared.
        target: Origin,
        /// What of the network the one that waits reaches, and the other.
        networks: Box<(NetworkAccess, NetworkAccess)>,
    },
    /// A wait for an agent that only a person starts: a warning.
    WaitForAPerson {
        /// The edge.
        link: Link,
        /// Where the agent that a person starts is declared.
        target: Origin,
    },
}

impl Problem {
    /// Whether there can be no plan.
    pub fn is_error(&self) -> bool {
        match self {
            Self::Missing { link, .. } | Self::NothingToCheck { link, .. } => link.need == Need::Required,
            Self::Cycle(_) => true,
            Self::Dropped { .. }
            | Self::EndlessWait { .. }
            | Self::WaitForAPerson { .. }
            | Self::OutOfReach { .. } => false,
        }
    }

    /// What kind it is, and where it comes from.
    fn places(&self) -> (Discriminant<Self>, Vec<Origin>) {
        let of = |links: &[Link]| links.iter().map(|link| link.origin.clone()).collect();
        let places = match self {
            Self::Missing { link, .. } => vec![link.origin.clone()],
            Self::NothingToCheck { link, target }
            | Self::EndlessWait { link, target }
            | Self::OutOfReach { link, target, .. }
            | Self::WaitForAPerson { link, target } => {
                vec![link.origin.clone(), target.clone()]
            }
            Self::Cycle(links) => of(links),
            Self::Dropped { link, path } => of(&[std::slice::from_ref(link), path].concat()),
        };
        (std::mem::discriminant(self), places)
    }

    /// The problem as people see it.
    pub fn diagnostic(&self, sources: &Sources) -> Diagnostic {
        let severity = if self.is_error() { Severity::Error } else { Severity::Warning };
        let place = Places { sources };
        let diagnostic = match self {
            Self::Missing { link, suggestion } => missing(&place, link, suggestion.as_ref()),
            Self::Cycle(links) => cycle(&place, links),
            Self::Dropped { link, path } => dropped(&place, link, path),
            Self::NothingToCheck { link, target } => nothing_to_check(&place, link, target),
            Self::EndlessWait { link, target } => endless_wait(&place, link, target),
            Self::OutOfReach { link, target, networks } => out_of_reach(&place, link, target, networks),
            Self::WaitForAPerson { link, target } => wait_for_a_person(&place, link, target),
        };
        diagnostic.severity(severity)
    }
}

/// The problems without those that the same places have led to before: a document with replicas has each of its own as
/// often.
pub(crate) fn distinct(problems: Vec<Problem>) -> Vec<Problem> {
    let mut seen = HashSet::new();
    problems.into_iter().filter(|problem| seen.insert(problem.places())).collect()
}

/// Labels at the places that origins name.
struct Places<'a> {
    sources: &'a Sources,
}

impl Places<'_> {
    fn label(&self, diagnostic: Diagnostic, origin: &Origin, text: impl Into<String>) -> Diagnostic {
        match locate(self.sources, origin) {
            Some((file, span)) => diagnostic.at(file, span, text),
            None => diagnostic,
        }
    }
}

fn missing(place: &Places<'_>, link: &Link, suggestion: Option<&AgentName>) -> Diagnostic {
    let Link { agent, on, need, origin } = link;
    let message = format!("`{agent}` {} `{on}`, which is not among the agents", need.verb());
    let diagnostic = place.label(Diagnostic::new(Code::MissingDependency, message), origin, "no such agent");
    match suggestion {
        Some(name) => diagnostic.help(format!("did you mean `{name}`?")),
        None => diagnostic.help(format!("name the file that declares `{on}` as well")),
    }
}

fn cycle(place: &Places<'_>, links: &[Link]) -> Diagnostic {
    let message = format!("these agents wait for each other: {}", circle(links));
    links
        .iter()
        .fold(Diagnostic::new(Code::DependencyCycle, message), |diagnostic, link| {
            edge(place, diagnostic, link)
        })
        .help("remove one of these edges, or make it optional: optional ones only order")
}

fn dropped(place: &Places<'_>, link: &Link, path: &[Link]) -> Diagnostic {
    let whole: Vec<Link> = std::iter::once(link).chain(path).cloned().collect();
    let message = format!(
        "`{}` does not wait for `{}`: the optional dependency would close the circle {}",
        link.agent,
        link.on,
        circle(&whole)
    );
    let start = place.label(Diagnostic::new(Code::DroppedDependency, message), &link.origin, "left out");
    path.iter().fold(start, |diagnostic, link| edge(place, diagnostic, link))
}

fn nothing_to_check(place: &Places<'_>, link: &Link, target: &Origin) -> Diagnostic {
    let Link { agent, on, origin, .. } = link;
    let message = format!("`{agent}` waits for the objectives of `{on}`, none of which has a check");
    let diagnostic = place.label(Diagnostic::new(Code::Conflict, message), origin, "can never be met");
    place
        .label(diagnostic, target, "declared here")
        .help(format!("give an objective of `{on}` a `check`, or wait for `completed_successfully`"))
}

fn endless_wait(place: &Places<'_>, link: &Link, target: &Origin) -> Diagnostic {
    let Link { agent, on, origin, .. } = link;
    let message = format!("`{agent}` waits for the end of `{on}`, a service, which may run for ever");
    let diagnostic = place.label(Diagnostic::new(Code::Conflict, message), origin, "waits for its end");
    place.label(diagnostic, target, "a service").help("wait for `ready` or `process_started`")
}

fn out_of_reach(
    place: &Places<'_>,
    link: &Link,
    target: &Origin,
    (own, other): &(NetworkAccess, NetworkAccess),
) -> Diagnostic {
    let Link { agent, on, origin, .. } = link;
    let message = format!("`{agent}` waits until `{on}` answers on its port, and cannot reach that port");
    let diagnostic =
        place.label(Diagnostic::new(Code::Conflict, message), origin, format!("its network is `{own}`"));
    let help = match other {
        NetworkAccess::Project => {
            "give it `network: project`, too: those that declare it share a loopback interface"
        }
        _ => {
            "each agent with `network: loopback` has a loopback of its own; give both `network: project`, which they share"
        }
    };
    place.label(diagnostic, target, format!("its network is `{other}`")).help(help)
}

fn wait_for_a_person(place: &Places<'_>, link: &Link, target: &Origin) -> Diagnostic {
    let Link { agent, on, origin, .. } = link;
    let message = format!("`{agent}` waits for `{on}`, which only a person starts");
    let diagnostic = place.label(Diagnostic::new(Code::Conflict, message), origin, "waits for it");
    place.label(diagnostic, target, "`start: manual`").help(format!(
        "`{agent}` starts after somebody has typed `toka start {on}`; the run goes on until then"
    ))
}

fn edge(place: &Places<'_>, diagnostic: Diagnostic, link: &Link) -> Diagnostic {
    let text = format!("`{}` {} `{}`", link.agent, link.need.verb(), link.on);
    place.label(diagnostic, &link.origin, text)
}

impl Need {
    /// What an agent does to its dependency: `requires`, or `comes after`.
    fn verb(self) -> &'static str {
        match self {
            Self::Required => "requires",
            Self::Optional => "optionally comes after",
        }
    }
}

/// `a → b → c → a`: the way along the links, back to where it began; `…` where links are left out.
fn circle(links: &[Link]) -> String {
    let mut way = String::new();
    for (at, link) in links.iter().enumerate() {
        way.push_str(link.agent.as_str());
        let goes_on = links.get(at + 1).is_none_or(|next| next.agent == link.on);
        way.push_str(if goes_on { " → " } else { " → … → " });
    }
    way.push_str(links.last().map_or("", |link| link.on.as_str()));
    way
}
