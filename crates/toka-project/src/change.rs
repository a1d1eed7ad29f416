//! A change of a project that is admitted, and waits until the agents that it is about are gone.

use std::collections::BTreeMap;

use toka_api::declaration::{Declaration, Parsed};
use toka_api::wire::Changes;
use toka_core::AgentName;
use toka_core::event::Awaits;
use toka_workstream::Agent;
use tokio::sync::oneshot;

use crate::admit::{AdmittedAgents, RunContext};
use crate::error::ApplyError;

/// A declaration that can be applied.
pub(crate) struct Prepared {
    pub(crate) declaration: Declaration,
    pub(crate) parsed: Parsed,
    pub(crate) context: RunContext,
    pub(crate) admitted: AdmittedAgents,
    /// Agents that are declared as before, and could not be started again until now.
    pub(crate) equipped: AdmittedAgents,
    /// As they were before.
    pub(crate) former: Vec<Agent>,
    pub(crate) changes: Changes,
}

/// A change that begins when those are gone that it is about.
pub(crate) struct Change {
    pub(crate) prepared: Prepared,
    /// Those that had not come to their end before, and what they would wait for if they began anew as they were.
    pub(crate) undone: BTreeMap<AgentName, Awaits>,
    /// Those that somebody stopped meanwhile, and who: they stay stopped, whether the change comes or not.
    pub(crate) stopped: BTreeMap<AgentName, String>,
    pub(crate) answer: oneshot::Sender<Result<Changes, ApplyError>>,
}
