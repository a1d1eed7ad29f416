//! What is said over the control socket, besides [`Command`](toka_core::Command), [`Declaration`](crate::declaration::Declaration) and
//! events.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use toka_core::{
    AgentName, AgentStatus, ApprovalAnswer, BudgetUse, Lasting, ProjectName, Resources, RunId, RunStatus,
    SessionKey, TerminalSize,
};
use toka_workstream::describe::Described;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonView {
    /// Toka's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// What it is.
    pub role: RoleName,
    /// The projects that run in it.
    pub projects: Vec<ProjectName>,
}

/// What answers at a control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// `toka run`, for one project.
    Foreground,
    /// `toka serve`.
    Service,
}

/// A project and all of its agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectView {
    /// What never changes.
    #[serde(flatten)]
    pub overview: RunInfo,
    /// When the run began, in milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// The number of the last event that is in here.
    pub seq: u64,
    /// Its agents, in the order of the plan.
    pub agents: Vec<AgentStatus>,
    /// Why nothing can be done with its agents at this moment: its keeper does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl ProjectView {
    /// A run and how its agents are.
    pub fn of(overview: &RunInfo, status: &RunStatus) -> Self {
        Self {
            overview: overview.clone(),
            started_ms: status.started_ms,
            seq: status.seq,
            agents: status.agents().to_vec(),
            trouble: None,
        }
    }

    /// With why nothing can be done with its agents, if anything keeps from it.
    pub fn troubled_by(self, trouble: Option<String>) -> Self {
        Self { trouble, ..self }
    }

    /// The same as a status, which the events after [`Self::seq`] move on.
    pub fn into_status(self) -> (RunInfo, RunStatus) {
        let status = RunStatus::taken_over(self.overview.run, self.started_ms, self.seq, self.agents);
        (self.overview, status)
    }
}

/// An agent with what it uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its project.
    pub project: ProjectName,
    /// What is known of it.
    #[serde(flatten)]
    pub status: AgentStatus,
    /// What it holds and uses at this moment; absent when it has no process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What is used of its budget, then of that of the run; nothing for an agent that asks no models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budget: Vec<BudgetUse>,
    /// What it declares, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declared: Vec<Described>,
}

/// Whom the agents of a run ask at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelsView {
    /// Those that are not asked for a while, since they refused or could not be reached.
    pub resting: Vec<RestView>,
}

/// A model, or a provider, that is not asked for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestView {
    /// The provider.
    pub provider: String,
    /// The model; absent for all of the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How long, in milliseconds.
    pub left_ms: u64,
    /// Why, in the words of the provider; escape it before a terminal.
    pub reason: String,
}

/// An answer of a person's to an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerBody {
    /// Yes or no.
    pub answer: PersonsAnswer,
    /// Words for the model: with a yes to a question, the answer; with a no to a call, why. At most [`MAX_STEER`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
}

/// What a person can answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PersonsAnswer {
    /// Yes.
    Approve {
        /// For a budget: so much more, in the unit of its measure; absent for as much as there was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        raise: Option<u64>,
        /// For a host: how long it holds beyond the run; absent for not at all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lasting: Option<Lasting>,
    },
    /// No.
    Deny {},
}

impl AnswerBody {
    /// This answer; whatever is no yes is a no.
    pub fn of(answer: ApprovalAnswer) -> Self {
        let answer = match answer {
            ApprovalAnswer::Approved { raise, lasting } => PersonsAnswer::Approve { raise, lasting },
            ApprovalAnswer::Denied | ApprovalAnswer::Expired | ApprovalAnswer::Withdrawn => {
                PersonsAnswer::Deny {}
            }
        };
        Self { answer, words: None }
    }

    /// With words for the model.
    pub fn with(self, words: Option<String>) -> Self {
        Self { words, ..self }
    }
}

impl From<PersonsAnswer> for ApprovalAnswer {
    fn from(answer: PersonsAnswer) -> Self {
        match answer {
            PersonsAnswer::Approve { raise, lasting } => Self::Approved { raise, lasting },
            PersonsAnswer::Deny {} => Self::Denied,
        }
    }
}

/// What a person tells the model that works on an agent's tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SteerBody {
    /// The text; at most [`MAX_STEER`] bytes. Empty only with `interrupt`, and where a person talks to the model.
    #[serde(default)]
    pub text: String,
    /// Whether what is under way ends now: the answer that comes, or the tool that is at work. Else it comes to its end first.
    #[serde(default)]
    pub interrupt: bool,
}

/// The longest text that a person can tell a model at once, in bytes.
pub const MAX_STEER: usize = 32 * 1024;

/// To whom it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteeredView {
    /// The session.
    pub session: SessionKey,
}

/// What counts of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsweredView {
    /// The approval.
    pub id: u64,
    /// The answer.
    #[serde(flatten)]
    pub answer: ApprovalAnswer,
}

/// What agents use at this moment; one that has no process is not in it.
pub type ResourcesView = BTreeMap<AgentName, Resources>;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For people.
    pub error: String,
    /// What would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The exit status of a command that failed so.
    pub exit_code: u8,
    /// What it consists of: diagnostics and problems, as `toka validate --json` and `toka run --json` print them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Value>,
    /// The same as text with carets, for a terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendered: Option<String>,
}

/// What never changes of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The project.
    pub project: ProjectName,
    /// The run.
    pub run: RunId,
    /// The workspace.
    pub workspace: PathBuf,
    /// The folder of what is kept of it.
    pub root: PathBuf,
    /// Whether the run ends by itself when its purposes have ended: it runs in the foreground.
    pub ends_by_itself: bool,
}

/// What another declaration changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Agents that are new.
    pub added: Vec<AgentName>,
    /// Those of them that wait for `toka start`.
    #[serde(default)]
    pub by_hand: Vec<AgentName>,
    /// Agents whose declaration is another: they are restarted.
    pub changed: Vec<AgentName>,
    /// Agents whose declaration is another, and that go on: what is different is taken over in place.
    #[serde(default)]
    pub adjusted: Vec<AgentName>,
    /// Agents that are no more: they are stopped.
    pub removed: Vec<AgentName>,
    /// Agents that go on undisturbed.
    pub unchanged: Vec<AgentName>,
    /// What is different of the run itself, in the words of the command line.
    #[serde(default)]
    pub run: Vec<String>,
    /// The keys that are different, of each agent that is changed or adjusted, or removed although its
    /// document is there.
    #[serde(default)]
    pub keys: BTreeMap<AgentName, Vec<String>>,
}

impl Changes {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.changed.is_empty()
            && self.removed.is_empty()
            && self.adjusted.is_empty()
    }

    /// Those that go on.
    pub fn going_on(&self) -> impl Iterator<Item = &AgentName> {
        self.unchanged.iter().chain(&self.adjusted)
    }
}

/// A command to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecBody {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The first size of its terminal, if it gets one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// What that terminal is called (`TERM`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
    /// Whether it gets input.
    #[serde(default)]
    pub input: bool,
}
