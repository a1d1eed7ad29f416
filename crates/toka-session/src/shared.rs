//! What the sessions of an agent go by, and what its attempts have in common.

use std::fmt::Debug;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use toka_core::approval::ToolRequest;
use toka_core::{AgentName, RunId, SessionKey, ToolRules};
use toka_gateway::Asker;
use toka_runtime::{EventSink, Sent};

use crate::transcript::SessionFolder;

/// Opens the way to the models of an agent.
pub trait OpensModels: Debug + Send + Sync + 'static {
    /// What asks them; calls are recorded in `sink`.
    ///
    /// # Errors
    /// Why there is no way, in words.
    fn open(&self, agent: &AgentName, sink: Arc<dyn EventSink>) -> Result<Asker, String>;
}

/// Asks a person whether a model may use a tool.
pub trait AsksPersons: Debug + Send + Sync + 'static {
    /// Waits for the answer.
    ///
    /// # Errors
    /// Why it may not, in words.
    fn ask(&self, agent: &AgentName, request: ToolRequest) -> Sent<Result<(), String>>;
}

/// What the sessions of an agent go by.
#[derive(Debug)]
pub struct SessionConfig {
    /// The run.
    pub run: RunId,
    /// Where transcripts are kept.
    pub folder: SessionFolder,
    /// What the work is, and what is aimed at.
    pub about: String,
    /// `spec.domain`.
    pub domain: String,
    /// The tools that it has.
    pub rules: ToolRules,
    /// Most tokens of an answer.
    pub max_output_tokens: u64,
    /// From 0.0; `None` for the model's own.
    pub temperature: Option<f64>,
    /// The way to its models.
    pub models: Arc<dyn OpensModels>,
    /// Who is asked about calls of tools.
    pub persons: Arc<dyn AsksPersons>,
}

/// What a person has said, and who.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) by: String,
}

/// What the attempts of one agent have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: SessionConfig,
    /// Which life of the agent it is.
    pub(crate) life: AtomicU64,
    /// The session of a life.
    pub(crate) session: Mutex<Option<(u64, SessionKey)>>,
    /// What persons have said and the model has not been told.
    pub(crate) inbox: Mutex<Vec<Said>>,
    /// One attempt at a time writes the transcript.
    pub(crate) lane: tokio::sync::Mutex<()>,
}
