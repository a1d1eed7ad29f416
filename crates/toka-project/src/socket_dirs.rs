//! The doors of a run's agents, removed with it.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use toka_core::AgentName;
use toka_prepare::FolderError;
use toka_runtime::door::DoorFolder;

/// In a short folder, a link to the run folder of the project whose doors lie in it. The links to these doors are there: as
/// long as both lead to each other, the short folder is somebody's.
pub const OWNER: &str = "of";

/// The doors, and the short folder of those whose paths would be too long.
#[derive(Debug)]
pub(crate) struct SocketDirs {
    /// The project's folder of sockets and secrets.
    run_folder: PathBuf,
    doors: HashMap<AgentName, DoorFolder>,
    short: Option<PathBuf>,
    /// Tells apart those in the short folder.
    made: u64,
}

impl SocketDirs {
    /// None yet, of the project whose sockets and secrets are in `run_folder`.
    pub(crate) fn of(run_folder: PathBuf) -> Self {
        Self { run_folder, doors: HashMap::new(), short: None, made: 0 }
    }

    /// The door of an agent: the one that it has, or a new one at `wanted` if that is not too long.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn make(&mut self, agent: &AgentName, wanted: &Path) -> Result<PathBuf, FolderError> {
        match self.doors.get(agent) {
            Some(door) if door.path().is_dir() => return Ok(door.path().to_owned()),
            // Somebody removed it. It goes before the next is made: it would take that one along.
            Some(_) => drop(self.doors.remove(agent)),
            None => {}
        }
        let short = || short_folder(&mut self.short, &self.run_folder);
        let door = DoorFolder::make(wanted, short, self.made).map_err(|source| FolderError {
            what: "make",
            path: wanted.to_owned(),
            source,
        })?;
        self.made += 1;
        let path = door.path().to_owned();
        self.doors.insert(agent.clone(), door);
        Ok(path)
    }

    /// The door that an agent has from an earlier daemon of the same run.
    ///
    /// # Errors
    /// When it is not there any more.
    pub(crate) fn find(&mut self, agent: &AgentName, wanted: &Path) -> Result<PathBuf, FolderError> {
        let door = DoorFolder::find(wanted).map_err(|source| FolderError {
            what: "find",
            path: wanted.to_owned(),
            source,
        })?;
        let path = door.path().to_owned();
        if path != wanted {
            self.go_on_in(&path);
        }
        self.doors.insert(agent.clone(), door);
        Ok(path)
    }

    /// One in a short folder: that goes with the run, and new doors in it get other names.
    fn go_on_in(&mut self, path: &Path) {
        let number = path.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok());
        self.made = self.made.max(number.map_or(0, |number| number + 1));
        self.short = path.parent().map(Path::to_owned);
    }

    /// Removes the doors of all other agents.
    pub(crate) fn retain(&mut self, keep: impl Fn(&AgentName) -> bool) {
        self.doors.retain(|agent, _| keep(agent));
    }

    /// The short folder, if one was needed.
    pub(crate) fn short(&self) -> Option<&Path> {
        self.short.as_deref()
    }
}

impl Drop for SocketDirs {
    fn drop(&mut self) {
        self.doors.clear();
        if let Some(short) = &self.short {
            let _ = std::fs::remove_file(short.join(OWNER));
            let _ = std::fs::remove_dir(short);
        }
    }
}

/// A private folder with a short name, made once: root's in /run, a user's where the system keeps such, or in /tmp.
fn short_folder(made: &mut Option<PathBuf>, run_folder: &Path) -> io::Result<PathBuf> {
    if let Some(folder) = made {
        return Ok(folder.clone());
    }
    let mine = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let base = if nix::unistd::geteuid().is_root() { Some(PathBuf::from("/run")) } else { mine };
    let base = base.filter(|base| base.is_dir()).unwrap_or_else(|| PathBuf::from("/tmp"));
    let folder = nix::unistd::mkdtemp(&base.join("toka-XXXXXX"))?;
    // From here on it is removed with the doors.
    *made = Some(folder.clone());
    symlink(run_folder, folder.join(OWNER))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_daemon_goes_on_in_the_short_folder_and_removes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let short = folder.path().join("short");
        std::fs::create_dir(&short).expect("a folder");
        let agent = |name: &str| AgentName::new(name).expect("a name");
        let wanted = |name: &str| folder.path().join("long".repeat(30)).join(name);
        let run_folder = folder.path().join("run/shop");
        let mut first = SocketDirs::of(run_folder.clone());
        // As `short_folder` leaves it, below the folder of this test.
        symlink(&run_folder, short.join(OWNER)).expect("a link");
        first.short = Some(short.clone());
        let before = first.make(&agent("a"), &wanted("a")).expect("room");
        assert!(before.starts_with(&short));
        // As one that is killed.
        std::mem::forget(first);

        let mut next = SocketDirs::of(run_folder.clone());
        assert_eq!(next.find(&agent("a"), &wanted("a")).expect("it is there"), before);
        let other = next.make(&agent("b"), &wanted("b")).expect("room");
        assert!(other.starts_with(&short) && other != before, "{other:?}");
        assert_eq!(short.join(OWNER).read_link().expect("whose it is"), run_folder);
        drop(next);
        assert!(!short.exists());
    }
}
