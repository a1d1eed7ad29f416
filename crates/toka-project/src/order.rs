//! What is asked of the owner of a project, and the answer that it owes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use toka_api::declaration::Declaration;
use toka_api::wire::Changes;
use toka_broker::NotAnswered;
use toka_core::approval::Reply;
use toka_core::{
    AgentName, Answers, ApprovalAnswer, BudgetUse, Command, Resources, RunStatus, SessionKey, SessionNews,
    Urgency,
};
use toka_gateway::Rest;
use toka_runtime::Terminal;
use toka_workstream::describe::Described;
use tokio::sync::{mpsc, oneshot};

use crate::error::{ApplyError, CommandError, ExecError, SteerError};
use crate::exec::{Begun, ExecRequest};
use crate::facts::{Facts, Figures};
use crate::steer::Steering;

/// The project's run is over, or its owner is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the run is over")]
pub struct RunOver;

/// What is asked of the owner of a project.
pub(crate) enum Order {
    /// Do something with agents.
    Command { command: Command, by: String, answer: oneshot::Sender<Result<Answers, CommandError>> },
    /// The daemon ends: stop every agent, and leave the run to the next daemon.
    Interrupt { urgency: Urgency, by: String },
    /// Become what the declaration says, or only say what that would change.
    Apply { request: Box<ApplyRequest>, answer: oneshot::Sender<Result<Changes, ApplyError>> },
    /// What is known.
    Status { answer: oneshot::Sender<Arc<RunStatus>> },
    /// What its health is judged by.
    Health { figures: Figures, answer: oneshot::Sender<Facts> },
    /// What an agent holds and uses.
    Resources { agent: AgentName, answer: oneshot::Sender<Option<Resources>> },
    /// What an agent declares.
    Declared { agent: AgentName, answer: oneshot::Sender<Vec<Described>> },
    /// What is used of the budgets of an agent and of the run.
    Budget { agent: AgentName, answer: oneshot::Sender<Vec<BudgetUse>> },
    /// Whom agents do not ask for a while, and whether those are to be asked again.
    Resting { wake: bool, answer: oneshot::Sender<Vec<Rest>> },
    /// Answer what waits for a person.
    Answer {
        id: u64,
        answer: Reply,
        by: String,
        uid: u32,
        reply: oneshot::Sender<Result<ApprovalAnswer, NotAnswered>>,
    },
    /// Tell the model that works on the tasks of an agent something.
    Steer {
        agent: AgentName,
        word: Steering,
        by: (String, u32),
        answer: oneshot::Sender<Result<SessionKey, SteerError>>,
    },
    /// What the session of an agent says, after this line.
    LookOn {
        agent: AgentName,
        after: u64,
        answer: oneshot::Sender<Result<mpsc::Receiver<SessionNews>, SteerError>>,
    },
    /// Run a command beside an agent.
    Exec { request: Box<ExecRequest>, answer: oneshot::Sender<Result<Begun, ExecError>> },
    /// The terminal that an agent runs on.
    Terminal { agent: AgentName, answer: oneshot::Sender<Option<Terminal>> },
}

/// A declaration to become.
pub(crate) struct ApplyRequest {
    pub(crate) declaration: Declaration,
    pub(crate) by: String,
    pub(crate) mode: ApplyMode,
}

/// Whether something is to be done or only to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyMode {
    /// Do it.
    Apply,
    /// Say what would be done.
    DryRun,
}
