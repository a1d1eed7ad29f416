//! What the sessions of an agent go by, and what its attempts have in common.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use toka_core::approval::ToolRequest;
use toka_core::{AgentName, RunId, SessionKey, ToolRules};
use toka_gateway::Asker;
use toka_runtime::{EventSink, Sent};

use crate::transcript::{SessionFolder, Transcript};
use toka_core::transcript::Entry;

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

/// Says whether an objective is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCheck {
    /// The objective.
    pub description: String,
    /// The program, as an absolute path, and its arguments; it is met when this ends with 0.
    pub argv: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
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
    /// Where the agent finds what, and what it may do there, in words for a model.
    pub places: String,
    /// What says whether the work is done, when the last task is.
    pub checks: Vec<SessionCheck>,
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

/// What the attempts of one agent have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: SessionConfig,
    /// The session of a life, which is known by its main process.
    pub(crate) session: Mutex<Option<(i32, SessionKey)>>,
    /// The transcript that is being written.
    pub(crate) transcript: Mutex<Option<Arc<Mutex<Transcript>>>>,
    /// What persons have said: it is on record, and whoever writes the transcript has not heard of it.
    pub(crate) inbox: Mutex<Vec<Entry>>,
    /// One attempt at a time writes the transcript.
    pub(crate) lane: tokio::sync::Mutex<()>,
}
