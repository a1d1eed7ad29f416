//! Which agent has which of the ids that are handed out to agents with a user of their own, over all projects of a state
//! directory: an id that two agents shared would let each signal the other and read its files.
//!
//! ```text
//! <state>/users/UID      the agent that has it: PROJECT/AGENT, the directories below <state>/projects
//! ```

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toka_core::AgentName;

use crate::folders::ProjectFolders;

/// How long a claim holds whose agent has no directory yet: it is made after the id is chosen.
const FRESH: Duration = Duration::from_secs(600);

/// Whether ids are only looked at, or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nothing is written: a plan.
    Look,
    /// The id is the agent's from now on.
    Take,
}

/// The claims of a state directory, seen from one project.
#[derive(Debug)]
pub(crate) struct UserClaims {
    folder: PathBuf,
    projects: PathBuf,
    project: String,
    claim: Claim,
}

impl UserClaims {
    pub(crate) fn of(folders: &ProjectFolders, claim: Claim) -> Self {
        let root = folders.root();
        Self {
            folder: folders.state_dir.join("users"),
            projects: folders.state_dir.join("projects"),
            project: root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            claim,
        }
    }

    /// Whether the agent may have the id; it is its own then, if ids are taken. What cannot be read or written is nobody's.
    pub(crate) fn grants(&self, id: u32, agent: &AgentName) -> bool {
        let (path, owner) = (self.folder.join(id.to_string()), format!("{}/{agent}", self.project));
        match std::fs::read_to_string(&path) {
            Ok(known) if known == owner => return true,
            Ok(known) if self.is_held(&path, &known) => return false,
            Ok(_) if self.claim == Claim::Take => drop(std::fs::remove_file(&path)),
            _ => {}
        }
        self.claim == Claim::Look || self.take(&path, &owner).is_ok()
    }

    fn is_held(&self, path: &Path, owner: &str) -> bool {
        let home = owner
            .split_once('/')
            .map(|(project, agent)| self.projects.join(project).join("agents").join(agent));
        let is_fresh = || {
            let age = path.metadata().and_then(|it| it.modified()).ok().and_then(|time| time.elapsed().ok());
            age.is_none_or(|age| age < FRESH)
        };
        home.is_some_and(|home| home.exists()) || is_fresh()
    }

    /// In one step, so that of two who want it one has it.
    fn take(&self, path: &Path, owner: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(owner.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use toka_core::ProjectName;

    use super::*;

    #[test]
    fn an_id_is_one_agents_until_that_is_gone() {
        let state = tempfile::tempdir().expect("a folder");
        let project = |name: &str| ProjectFolders {
            state_dir: state.path().to_owned(),
            run_dir: "/nowhere".into(),
            project: ProjectName::new(name).expect("a label"),
            workspace: "/w".into(),
            user_home: "/h".into(),
        };
        let claims = |name: &str, claim| UserClaims::of(&project(name), claim);
        let agent = AgentName::new("a").expect("a label");
        assert!(claims("one", Claim::Look).grants(61_200, &agent));
        assert!(claims("two", Claim::Take).grants(61_200, &agent), "a look takes nothing");
        assert!(claims("two", Claim::Take).grants(61_200, &agent), "it is its own already");
        for claim in [Claim::Look, Claim::Take] {
            assert!(!claims("one", claim).grants(61_200, &agent), "{claim:?}");
        }
        // It never came to a directory, and that was long ago.
        let file =
            std::fs::File::options().write(true).open(state.path().join("users/61200")).expect("a claim");
        file.set_modified(SystemTime::now() - 2 * FRESH).expect("ours");
        assert!(claims("one", Claim::Take).grants(61_200, &agent));
        assert!(!claims("two", Claim::Take).grants(61_200, &agent));
    }
}
