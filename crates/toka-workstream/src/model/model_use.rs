//! `spec.model`.

use serde::Serialize;
use toka_core::{Declared, ModelName, Origin};

/// Which models an agent asks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelUse {
    /// The models that it may ask, the first before the others; empty for those that the person has chosen.
    pub chain: Vec<Declared<ModelName>>,
    /// A file that answers in the place of models, relative to the workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Whether requests that are the same, and in flight at one time, are one call.
    pub joins: bool,
    /// Whether requests that want no stream go through the provider's batch interface.
    pub batches: bool,
    /// Most tokens of an answer, for a model that works on the agent's tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// Tokens of a request from which on what is old is left out of it, or summarised.
    pub max_context_tokens: Option<u64>,
    /// How freely it chooses its words, likewise: 0.0 to 2.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Where it is declared.
    pub origin: Origin,
}
