//! A log of calls and connections that is the journal of a run, on a disk, for the benches of the gateway.

use std::future::Future;
use std::pin::Pin;

use toka_core::{AgentName, EventKind};
use toka_gateway::CallLog;
use toka_project::Journal;

/// Records in the journal what the gateway tells of the agent.
pub(crate) struct InJournal(pub(crate) Journal, pub(crate) AgentName);

impl std::fmt::Debug for InJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("InJournal").field(&self.1).finish()
    }
}

impl CallLog for InJournal {
    fn record(&self, kind: EventKind) -> Pin<Box<dyn Future<Output = toka_core::Kept> + Send + 'static>> {
        Box::pin(self.0.record(Some(self.1.clone()), kind))
    }
}
