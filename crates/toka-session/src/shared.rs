//! What the sessions of an agent go by, and what its attempts have in common.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use toka_core::approval::Subject;
use toka_core::{AgentName, RunId, SessionKey, SessionNews, SessionState, ToolRules};
use toka_gateway::Asker;
use toka_runtime::{EventSink, Sent};
use tokio::sync::{Notify, broadcast, watch};

use crate::tools::McpServer;
use crate::transcript::{SessionFolder, Transcript, TranscriptError};
use toka_core::transcript::{Entry, EntryKind};

/// Opens the way to the models of an agent.
pub trait OpensModels: Debug + Send + Sync + 'static {
    /// What asks them; calls are recorded in `sink`.
    ///
    /// # Errors
    /// Why there is no way, in words.
    fn open(&self, agent: &AgentName, sink: Arc<dyn EventSink>) -> Result<Asker, String>;
}

/// Asks a person whether a model may use a tool, or what it wants to know.
pub trait AsksPersons: Debug + Send + Sync + 'static {
    /// Waits for the answer; the words of the person.
    ///
    /// # Errors
    /// Why it may not, or gets no answer, in words.
    fn ask(&self, agent: &AgentName, subject: Subject) -> Sent<Result<Option<String>, String>>;
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
    /// Whether a person talks to it when its tasks are done.
    pub talks: bool,
    /// The session with which a life begins that a person talks to.
    pub resume: Option<SessionKey>,
    /// What says whether the work is done, when the last task is.
    pub checks: Vec<SessionCheck>,
    /// `spec.domain`.
    pub domain: String,
    /// Servers of further tools, which run in its sandbox.
    pub mcp: Vec<McpServer>,
    /// The tools that it has.
    pub rules: ToolRules,
    /// Tokens of a request from which on what is old is left out of it, or summarised.
    pub max_context_tokens: u64,
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
    /// Knows what must not be on record, while somebody writes.
    pub(crate) asker: Mutex<Option<Arc<Asker>>>,
    /// Lines that are on record, and of which the driver has not taken note.
    pub(crate) written: Mutex<Vec<Entry>>,
    /// A person has said something.
    pub(crate) said: Notify,
    /// How often a person has interrupted.
    pub(crate) interrupts: watch::Sender<u64>,
    /// Where the session is in its turn.
    pub(crate) state: watch::Sender<SessionState>,
    /// Whether it waits for what a person says.
    listens: AtomicBool,
    /// Tells those who look on.
    news: broadcast::Sender<SessionNews>,
    /// One attempt at a time writes the transcript.
    pub(crate) lane: tokio::sync::Mutex<()>,
}

/// News that wait for one who looks on; one who is slower misses some.
const NEWS: usize = 1024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(config: SessionConfig) -> Self {
        Self {
            config,
            session: Mutex::default(),
            transcript: Mutex::default(),
            asker: Mutex::default(),
            written: Mutex::default(),
            said: Notify::new(),
            interrupts: watch::Sender::new(0),
            state: watch::Sender::new(SessionState::Idle),
            listens: AtomicBool::new(false),
            news: broadcast::Sender::new(NEWS),
            lane: tokio::sync::Mutex::default(),
        }
    }

    /// From now on it waits for what a person says.
    pub(crate) fn listen(&self) {
        self.listens.store(true, Ordering::Relaxed);
        self.tell(SessionNews::Listens);
    }

    /// The session is elsewhere in its turn.
    pub(crate) fn enter(&self, to: SessionState) {
        self.listens.store(false, Ordering::Relaxed);
        self.state.send_replace(to);
        self.tell(SessionNews::StateChange { to });
    }

    /// Where it is, as one is told who begins to look on.
    pub(crate) fn now(&self) -> SessionNews {
        match self.listens.load(Ordering::Relaxed) {
            true => SessionNews::Listens,
            false => SessionNews::StateChange { to: *self.state.borrow() },
        }
    }

    /// Tells those who look on.
    pub(crate) fn tell(&self, news: SessionNews) {
        // Mostly nobody does.
        let _ = self.news.send(news);
    }

    /// What those are told who look on.
    pub(crate) fn look_on(&self) -> broadcast::Receiver<SessionNews> {
        self.news.subscribe()
    }

    /// Adds lines to the transcript that is being written. Blocks.
    ///
    /// # Errors
    /// When they cannot be written: then none of them is there.
    pub(crate) fn append(
        &self,
        transcript: &Mutex<Transcript>,
        kinds: Vec<EntryKind>,
        durable: bool,
    ) -> Result<(), TranscriptError> {
        let mut transcript = lock(transcript);
        let added = transcript.append(kinds, durable)?;
        // Under the lock, so that whoever writes next knows of them.
        for entry in &added {
            self.tell(SessionNews::Entry { entry: Box::new(entry.clone()) });
        }
        lock(&self.written).extend(added);
        Ok(())
    }
}
