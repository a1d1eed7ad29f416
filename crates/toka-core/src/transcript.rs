//! The transcript of a session: the lines of its file, and what a list shows of it. Other programs may read the lines: a type that is not
//! known is to be passed over.

use crate::event::{Effect, Usage};
use crate::{Exit, FileChange, ModelName, PlanStep, RunId, SessionKey, Tokens, Wire};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1, each greater than the one before.
    pub id: u64,
    /// The line that it follows; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// When, in milliseconds since the Unix epoch.
    pub at: i64,
    /// What it says.
    #[serde(flatten)]
    pub kind: EntryKind,
}

/// The run of a session that a person has begun from another one: none.
pub const NO_RUN: RunId = RunId::NONE;

/// What a session goes on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkedFrom {
    /// The session.
    pub session: SessionKey,
    /// Its last line that was taken over.
    pub until: u64,
}

/// A request that was sent: what does not follow from the lines before it, and what shows whether it is built the same again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AskedEntry {
    /// The last line that was in it: what was said later came while the model was thinking.
    pub until: u64,
    /// Whether what the model had sealed went back to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seals: bool,
    /// Most tokens of the answer.
    pub max_output_tokens: u64,
    /// From 0.0; `None` for the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// SHA-256 of the request without what was said: instructions, tools, settings.
    pub head: String,
    /// SHA-256 of the whole request, as it left for the gateway.
    pub request: String,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EntryKind {
    /// The first line.
    Session {
        /// The version of this format: 1.
        version: u32,
        /// The name.
        key: SessionKey,
        /// The run in which it began.
        run: RunId,
        /// The main process of the agent in the life in which it began, by its id on the host.
        #[serde(default)]
        pid: i32,
        /// The session that it goes on with, whose lines come next.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<ForkedFrom>,
        /// The instructions, which stay as they are.
        system: String,
        /// The tools that the model is told of.
        tools: Vec<String>,
        /// These tools as it is told of them: a file beside the transcript, named by its SHA-256.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        definitions: Option<String>,
    },
    /// A task is to be done.
    Task {
        /// Its place in the agent's list, from 0.
        index: usize,
        /// Which attempt, from 1.
        attempt: u32,
        /// What the model is told; empty where a person is to say what they want.
        text: String,
    },
    /// A person says something.
    Person {
        /// What.
        text: String,
        /// Who.
        by: String,
    },
    /// A person has interrupted what was under way.
    Interrupted {
        /// Who.
        by: String,
    },
    /// The turn has ended before its time, and waits for what a person says. The model is not told.
    Halted {
        /// Why.
        reason: String,
    },
    /// Toka tells the model something.
    Notice {
        /// What.
        text: String,
    },
    /// A model has answered.
    Assistant {
        /// Which.
        model: ModelName,
        /// The language in which it was asked.
        wire: Wire,
        /// The number of the call in the journal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<u64>,
        /// Its text.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        text: String,
        /// What of its reasoning it shows.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        thinking: String,
        /// What it wants done.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        calls: Vec<CallEntry>,
        /// The blocks as they came, for the same model alone.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blocks: Vec<Value>,
        /// Tokens.
        #[serde(default)]
        tokens: Tokens,
        /// What it was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<AskedEntry>,
    },
    /// A call of a tool is about to be made.
    Intent {
        /// Which.
        call: String,
        /// What the tool is used on, in a line.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        about: String,
    },
    /// What a call gave.
    Result {
        /// Which.
        call: String,
        /// What the model is told.
        text: String,
        /// Whether it failed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        /// Whether it was done, where it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        effect: Option<Effect>,
        /// The whole of what it gave, where the model is told less: a file beside the transcript, named by its SHA-256.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        whole: Option<String>,
        /// Milliseconds.
        duration_ms: u64,
        /// What its own control group used.
        #[serde(default)]
        usage: Usage,
        /// Files that it changed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changes: Vec<FileChange>,
    },
    /// The plan from here on.
    Plan {
        /// Its steps.
        steps: Vec<PlanStep>,
    },
    /// From here on, what tools gave before this line is left out of requests where it is long.
    Pruned {
        /// Lines before this one.
        before: u64,
        /// About so many tokens.
        #[serde(default)]
        freed: u64,
    },
    /// From here on, a summary stands in requests in the place of the lines before this one.
    Compacted {
        /// Lines before this one.
        before: u64,
        /// The summary.
        summary: String,
        /// Who has written it; nobody where the last calls and the changed files stand for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelName>,
        /// The number of the call in the journal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<u64>,
        /// Tokens that it took.
        #[serde(default)]
        tokens: Tokens,
        /// About so many tokens that later requests do not have.
        #[serde(default)]
        freed: u64,
    },
    /// The attempt at a task has ended.
    Ended {
        /// The task.
        index: usize,
        /// Which attempt.
        attempt: u32,
        /// How.
        exit: Exit,
    },
    /// A type that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A call of a tool, as a model wants it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallEntry {
    /// Unique in the session.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Map<String, Value>,
    /// What the model wrote in their place, where that is no JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonsense: Option<String>,
}

/// What a list shows of a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionInfo {
    /// Its name.
    pub key: SessionKey,
    /// The run in which it began; none when its first line cannot be read.
    pub run: Option<RunId>,
    /// The main process of the life in which it began, likewise.
    pub pid: Option<i32>,
    /// When it began, in milliseconds since the Unix epoch.
    pub began_ms: Option<i64>,
    /// When it was written last, likewise.
    pub changed_ms: i64,
    /// Lines.
    pub entries: u64,
    /// Bytes of the transcript.
    pub bytes: u64,
    /// How its last task has ended; none when that has not.
    pub ended: Option<Exit>,
}
