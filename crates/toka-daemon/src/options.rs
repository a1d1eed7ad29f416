//! What a run is asked for.

use std::path::PathBuf;

use toka_core::capability::Policy;
use toka_core::{AgentName, ProjectName};
use toka_workstream::{Plan, Set};

use crate::Caller;
use crate::folders::ProjectFolders;

/// One run of one project.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The agents.
    pub set: Set,
    /// Their order.
    pub plan: Plan,
    /// The project.
    pub project: ProjectName,
    /// The workspace: absolute, without links, a folder.
    pub workspace: PathBuf,
    /// Where state is kept; made when it is not there.
    pub state_dir: PathBuf,
    /// Where sockets and secrets are; made when it is not there.
    pub run_dir: PathBuf,
    /// Most agents at once; `None` and 0 are as many as there are.
    pub max_concurrent: Option<usize>,
    /// What a person allowed and denied.
    pub policy: Policy,
    /// The `toka` binary: it is re-entered as the keeper and as the runner.
    pub toka_exe: PathBuf,
}

impl RunOptions {
    /// Where the output of each agent goes.
    pub fn log_of(&self) -> impl Fn(&AgentName) -> PathBuf + Send + 'static + use<> {
        let folders = self.folders(&Caller::default());
        move |agent| folders.log(agent)
    }

    pub(crate) fn folders(&self, caller: &Caller) -> ProjectFolders {
        ProjectFolders {
            state_dir: self.state_dir.clone(),
            run_dir: self.run_dir.clone(),
            project: self.project.clone(),
            workspace: self.workspace.clone(),
            user_home: caller.home.clone(),
        }
    }
}

/// What can be asked of a run while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunCommand {
    /// Stop every agent gracefully, those first that others do not need.
    Stop {
        /// Who asks, for the record: `SIGINT`, `operator`.
        by: String,
    },
    /// Kill every agent at once.
    Kill,
}
