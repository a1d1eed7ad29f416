//! Making the folders of an agent: right before its first start in a run, by whoever needs them first, and anew when it is declared
//! or begun anew. One at a time, whatever becomes of the start for which it is done.

use std::sync::{Mutex, MutexGuard, PoisonError};

use toka_sandbox::AgentFolders;
use toka_sandbox::plan::RunAs;

use crate::FolderError;
use crate::admission::Admitted;
use crate::workplace::{Remains, ShownFiles, give, set_up, tell};

/// The folders of one agent in one run, as far as they are made.
#[derive(Debug)]
pub struct Furnishing(Mutex<Stage>);

#[derive(Debug)]
enum Stage {
    /// What they would be made from is not known: the agent is not admitted.
    Lacking,
    /// They are those of an earlier run, or not there.
    Due(Box<Contents>),
    /// They were made in this run.
    Made,
}

/// What they are made from.
#[derive(Debug)]
struct Contents {
    folders: AgentFolders,
    sections: String,
    shown: ShownFiles,
    user: Option<RunAs>,
}

/// Makes the folders of an agent that was admitted.
///
/// # Errors
/// When one cannot be made, filled, emptied or given away.
pub fn make(admitted: &Admitted, remains: Remains) -> Result<(), FolderError> {
    Contents::of(admitted).make(remains)
}

impl Furnishing {
    /// Those of an agent that was admitted, and that are not made yet.
    pub fn due(admitted: &Admitted) -> Self {
        Self(Mutex::new(Stage::Due(Box::new(Contents::of(admitted)))))
    }

    /// Those that were made in this run.
    pub fn made() -> Self {
        Self(Mutex::new(Stage::Made))
    }

    /// Those of an agent that is not admitted, and that are not made yet.
    pub fn lacking() -> Self {
        Self(Mutex::new(Stage::Lacking))
    }

    /// The agent is admitted now.
    pub fn supply(&self, admitted: &Admitted) {
        // A thread that makes them holds the lock, and has been told from what.
        if let Ok(mut stage) = self.0.try_lock()
            && let Stage::Lacking = *stage
        {
            *stage = Stage::Due(Box::new(Contents::of(admitted)));
        }
    }

    /// Makes the folders for a new run, unless that was done. It may wait for a disk, and for another that does the same.
    ///
    /// # Errors
    /// When one cannot be made, filled, emptied or given away; the next call tries again.
    pub fn make_once(&self) -> Result<(), String> {
        let mut stage = self.stage();
        if let Stage::Due(contents) = &*stage {
            contents.make(Remains::Nothing).map_err(|error| format!("{error}: {}", error.source))?;
            *stage = Stage::Made;
        }
        Ok(())
    }

    /// Makes them for an agent that is declared or begun anew: what it left in this run stays, what an earlier run left does not. It
    /// may wait as [`Furnishing::make_once`] does.
    ///
    /// # Errors
    /// As there.
    pub fn make_anew(&self, admitted: &Admitted) -> Result<(), FolderError> {
        let mut stage = self.stage();
        let remains = match *stage {
            Stage::Made => Remains::OfThisRun,
            Stage::Due(_) | Stage::Lacking => Remains::Nothing,
        };
        make(admitted, remains)?;
        *stage = Stage::Made;
        Ok(())
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        // Whoever panicked had not said that they are made.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn of(admitted: &Admitted) -> Self {
        let Admitted { folders, sections, shown, command, .. } = admitted;
        let user = command.plan.run_as.clone();
        Self { folders: folders.clone(), sections: sections.clone(), shown: shown.clone(), user }
    }

    fn make(&self, remains: Remains) -> Result<(), FolderError> {
        set_up(&self.folders, remains)?;
        tell(&self.folders, &self.sections, &self.shown)?;
        give(&self.folders, self.user.as_ref())
    }
}
