//! Plans for tests, from a few words.

use toka_core::{AgentName, Name, Origin, Priority};
use toka_workstream::plan::{Member, Start, arrange};
use toka_workstream::{AgentKind, Condition, Dependency, Need, Plan};

/// A name that is known to be one.
pub(crate) fn name(text: &str) -> AgentName {
    Name::new(text).expect("a label")
}

/// A task with no dependencies.
pub(crate) fn task(text: &str) -> Member {
    Member {
        name: name(text),
        title: text.to_owned(),
        kind: AgentKind::Task,
        start: Start::Plan,
        priority: Priority::Medium,
        dependencies: Vec::new(),
        checks: 1,
        origin: Origin::default_of("test"),
    }
}

/// An edge.
pub(crate) fn dependency(on: &str, need: Need, condition: Condition) -> Dependency {
    Dependency { on: name(on), need, reason: String::new(), condition, origin: Origin::default_of("test") }
}

/// A plan that has no errors.
pub(crate) fn plan(members: Vec<Member>) -> Plan {
    let (plan, problems) = arrange(members);
    plan.unwrap_or_else(|| panic!("{problems:?}"))
}
