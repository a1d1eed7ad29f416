//! Plans for tests, from a few words.

use toka_core::{AgentName, Name, Origin, Priority};
use toka_workstream::plan::{Member, arrange};
use toka_workstream::{AgentKind, Condition, Dependency, Need, Plan, Start};

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
        network: Default::default(),
        serves_a_port: false,
        on_end: Default::default(),
        skip: None,
        origin: Origin::default_of("test"),
    }
}

/// An edge.
pub(crate) fn dependency(on: &str, need: Need, condition: Condition) -> Dependency {
    let (if_skipped, origin) = (Default::default(), Origin::default_of("test"));
    Dependency { on: name(on), need, reason: String::new(), condition, if_skipped, origin }
}

/// A plan that has no errors.
pub(crate) fn plan(members: Vec<Member>) -> Plan {
    let (plan, problems) = arrange(members);
    plan.unwrap_or_else(|| panic!("{problems:?}"))
}
