//! What a run is made from.

use std::path::PathBuf;

use toka_api::caller::Caller;
use toka_api::declaration::Declaration;
use toka_core::{AgentName, ProjectName};
use toka_keeper::HostLook;
use toka_orchestration::Lifetime;
use toka_prepare::folders::ProjectFolders;
use toka_workstream::{Plan, Set};

/// One run of one project.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// What was declared.
    pub declaration: Declaration,
    /// The agents of the declaration.
    pub set: Set,
    /// Their order.
    pub plan: Plan,
    /// Who declared it.
    pub caller: Caller,
    /// The project.
    pub project: ProjectName,
    /// Where state is kept; made when it is not there.
    pub state_dir: PathBuf,
    /// Where sockets and secrets are; made when it is not there.
    pub run_dir: PathBuf,
    /// What ends it.
    pub lifetime: Lifetime,
    /// What the host can do.
    pub host: HostLook,
    /// The `toka` binary: it is re-entered as the keeper and as the runner.
    pub toka_exe: PathBuf,
}

impl RunOptions {
    /// Where the output of each agent goes.
    pub fn log_of(&self) -> impl Fn(&AgentName) -> PathBuf + Send + 'static + use<> {
        let folders = self.folders();
        move |agent| folders.log(agent)
    }

    pub(crate) fn folders(&self) -> ProjectFolders {
        ProjectFolders {
            state_dir: self.state_dir.clone(),
            run_dir: self.run_dir.clone(),
            project: self.project.clone(),
            workspace: self.declaration.workspace.clone(),
            user_home: self.caller.home.clone(),
        }
    }
}
