//! Making the folders of an admitted agent before its first start: once, by whoever needs them first.

use std::sync::OnceLock;

use toka_sandbox::AgentFolders;
use toka_sandbox::plan::RunAs;

use crate::FolderError;
use crate::admission::Admitted;
use crate::workplace::{Remains, ShownFiles, give, set_up, tell};

/// What an agent's folders are made from.
#[derive(Debug)]
pub struct Furnishing {
    /// Its folders.
    pub folders: AgentFolders,
    /// What it may know of its declaration.
    pub sections: String,
    /// Files of /etc that it sees in the place of the host's.
    pub shown: ShownFiles,
    /// The other user that it runs as, if it does.
    pub user: Option<RunAs>,
    made: OnceLock<Result<(), String>>,
}

impl Furnishing {
    /// That of an agent that was admitted.
    pub fn of(admitted: &Admitted) -> Self {
        let Admitted { folders, sections, shown, command, .. } = admitted;
        let user = command.plan.run_as.clone();
        let (folders, sections, shown) = (folders.clone(), sections.clone(), shown.clone());
        Self { folders, sections, shown, user, made: OnceLock::new() }
    }

    /// Makes the folders for a new run, once, whoever needs them first.
    ///
    /// # Errors
    /// With the same sentence each time, when it has failed.
    pub fn make_once(&self) -> Result<(), String> {
        let made = self.made.get_or_init(|| {
            self.make(Remains::Nothing).map_err(|error| format!("{error}: {}", error.source))
        });
        made.clone()
    }

    /// Makes the folders, fills them, and gives them to the agent's user.
    ///
    /// # Errors
    /// When one cannot be made, filled or given away.
    pub fn make(&self, remains: Remains) -> Result<(), FolderError> {
        set_up(&self.folders, remains)?;
        tell(&self.folders, &self.sections, &self.shown)?;
        give(&self.folders, self.user.as_ref())
    }
}
