//! The shapes of the sections. The comment of each field is what editors and the reference show for its key.
#![allow(dead_code, reason = "the fields are read by the derive of the schema only")]

mod kinds;
mod lifetime;
mod metadata;
mod process;
mod schedule;
mod security;
mod spec;
mod work;

use schemars::JsonSchema;

use metadata::Metadata;
use security::Security;
use spec::Spec;
use work::{Capabilities, Dependencies, Logs, ObjectiveEntry, Reporting, TasksSection};

/// One agent. A file may hold several, each a document of its own (`---`). Top-level keys that are not listed
/// are kept and handed to the agent.
#[derive(JsonSchema)]
pub(super) struct Document {
    /// Who the agent is.
    #[schemars(extend("examples" = [{"name": "checks", "version": "v1.0.0"}]))]
    metadata: Metadata,
    /// What the agent is, and the process that it runs.
    #[schemars(extend("examples" = [{"process": {"command": ["cargo", "test"]}}]))]
    spec: Option<Spec>,
    /// What the agent is good at, for people and models.
    #[schemars(extend("examples" = [{"primary": ["testing"]}]))]
    capabilities: Option<Capabilities>,
    /// What the agent is to achieve.
    #[schemars(extend("examples" = [[{"description": "All tests pass", "check": "cargo test"}]]))]
    objectives: Option<Vec<ObjectiveEntry>>,
    /// What the agent is to do: with commands, or, for a model, in words. Without `spec.process`, tasks are
    /// worked through one by one; beside it, they are information.
    #[schemars(extend("examples" = [{"default": [{"description": "Run the tests", "run": "cargo test"}]}]))]
    tasks: Option<TasksSection>,
    /// Which agents come first.
    #[schemars(extend("examples" = [{"required": {"fetch": "sources must be there"}}]))]
    dependencies: Option<Dependencies>,
    /// How often and where the agent reports, and what it measures.
    #[schemars(extend("examples" = [{"frequency": "on-completion"}]))]
    reporting: Option<Reporting>,
    /// What the agent may do. Everything that is not allowed here is denied by the kernel.
    #[schemars(extend("examples" = [{"capabilities_required": ["filesystem-read"]}]))]
    security: Option<Security>,
    /// What is kept of the agent's output: how much, in which form.
    #[schemars(extend("examples" = [{"max_size": "64MB", "total": "1GB"}]))]
    logs: Option<Logs>,
}
