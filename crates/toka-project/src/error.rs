//! Why something that was asked of a project was not done.

use thiserror::Error;
use toka_api::declaration::Unparsed;
use toka_core::AgentName;
use toka_keeper::SpawnError;
use toka_prepare::RunError;
use toka_prepare::problem::names;

/// What keeps agents from being started, where others run and go on.
fn unchanged(error: &RunError) -> String {
    match error {
        RunError::Refused(problems) => {
            format!("nothing was changed\n{}", toka_prepare::problem::list(problems))
        }
        other => other.to_string(),
    }
}

/// Why a declaration was not applied.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// Its files have errors.
    #[error("the workstreams have errors; nothing was changed")]
    Unparsed(Box<Unparsed>),
    /// An agent of it cannot be started.
    #[error("{}", unchanged(.0))]
    Refused(RunError),
    /// The disk does not take the new declaration or its folders, after agents were stopped for it: they begin anew as before.
    #[error("{0}")]
    Undone(#[source] RunError),
    /// With `--only`: agents that were not named are declared otherwise now, or no more.
    #[error(
        "--only leaves all other agents as they are, and these are declared otherwise now: {}",
        names(agents)
    )]
    Others {
        /// The agents.
        agents: Vec<AgentName>,
    },
    /// Another one is being applied.
    #[error("another change of the project is under way; nothing was changed")]
    Busy,
    /// It is about another folder.
    #[error("the project {project} runs in {}, not in {}", running.display(), declared.display())]
    Workspace {
        /// The project.
        project: toka_core::ProjectName,
        /// Where it runs.
        running: std::path::PathBuf,
        /// What was declared.
        declared: std::path::PathBuf,
    },
    /// The run ends.
    #[error("the run is ending; nothing was changed")]
    Ending,
}

/// Why a command was not carried out at all.
#[derive(Debug, Error)]
pub enum CommandError {
    /// It names an agent that the project has not.
    #[error("the project has no agent {agent}")]
    UnknownAgent {
        /// The name.
        agent: AgentName,
        /// The names that there are.
        known: Vec<AgentName>,
    },
    /// There is no such signal.
    #[error("{0} is no number of a signal (1 to 31)")]
    NoSignal(i32),
    /// An agent cannot be started any more.
    #[error("{0}")]
    Refused(RunError),
    /// What was declared cannot be read again.
    #[error("what the project was declared to be cannot be read any more")]
    Undeclared,
    /// A bug of ours.
    #[error(transparent)]
    State(toka_orchestration::ApplyError),
}

/// Why a command was not run.
#[derive(Debug, Error)]
pub enum ExecError {
    /// There is no such program.
    #[error("{0}")]
    NotFound(String),
    /// There is something, and it cannot be executed.
    #[error("{0}")]
    NotExecutable(String),
    /// The agent could not be started again, so that its rules are not known.
    #[error("{0}")]
    Refused(RunError),
    /// What was declared cannot be read again.
    #[error("what the project was declared to be cannot be read any more")]
    Undeclared,
    /// It could not be started.
    #[error("the command did not start: {0}")]
    Start(SpawnError),
}

/// Why a model cannot be told something.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SteerError {
    /// There is no such agent.
    #[error("the project has no such agent")]
    Undeclared,
    /// Its own program, or commands, do its work.
    #[error("no model of Toka's works on its tasks: its own program does, or commands do")]
    NoModel,
    /// The session says no.
    #[error(transparent)]
    Session(#[from] toka_session::SteerError),
}
