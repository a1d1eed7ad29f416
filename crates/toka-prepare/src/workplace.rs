//! Making, filling and emptying an agent's folders.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};
use thiserror::Error;
use toka_sandbox::AgentFolders;
use toka_sandbox::guard::Guard;
use toka_sandbox::plan::RunAs;

use crate::{hosts_file, passwd, remove_tree, sections};

/// A folder that could not be made or emptied.
#[derive(Debug, Error)]
#[error("{what} {}", path.display())]
pub struct FolderError {
    /// What was tried: `make`, `empty`, `link`, `write`, `remove`, `give away`.
    pub what: &'static str,
    /// Where.
    pub path: PathBuf,
    /// The error.
    #[source]
    pub source: io::Error,
}

/// Makes a folder that nobody else can enter, with those that lead to it.
///
/// # Errors
/// When it cannot be made, or something else is in its place.
pub fn make_private(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| FolderError {
        what: "make",
        path: path.to_owned(),
        source,
    })
}

/// Sees that a folder of Toka's is its user's, or root's, and that nobody else can write to it: whoever can, decides what is
/// trusted and what runs.
///
/// # Errors
/// When it is another user's, or others can write to it.
pub fn must_be_own(path: &Path) -> Result<(), FolderError> {
    let failed = |source| FolderError { what: "use", path: path.to_owned(), source };
    let metadata = path.metadata().map_err(failed)?;
    let (owner, own) = (metadata.uid(), geteuid().as_raw());
    let wrong = if owner != own && owner != 0 {
        format!(
            "it belongs to the user {owner}, and Toka runs as user {own}: name another one with --state-dir"
        )
    } else if metadata.mode() & 0o022 != 0 {
        format!("others can write to it (mode {:o}): `chmod go-w` closes it", metadata.mode() & 0o7777)
    } else {
        return Ok(());
    };
    Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, wrong)))
}

/// What stays in the folders of an agent that is about to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// Its home: a new run begins.
    Nothing,
    /// What it left in this run.
    OfThisRun,
}

/// Makes the folders of an agent that is about to run, empties what does not outlive a run, and links its inputs. The
/// door is made by whoever finds a place for it.
///
/// # Errors
/// When a folder cannot be made or emptied.
pub fn set_up(folders: &AgentFolders, remains: Remains) -> Result<(), FolderError> {
    for folder in [&folders.home, &folders.tmp, &folders.artifacts, &folders.inputs_dir, &folders.credentials]
    {
        make_private(folder)?;
    }
    // The agent may have closed it.
    std::fs::set_permissions(&folders.tmp, Permissions::from_mode(0o700)).map_err(|source| FolderError {
        what: "make",
        path: folders.tmp.clone(),
        source,
    })?;
    empty(&folders.inputs_dir)?;
    if remains == Remains::Nothing {
        [&folders.tmp, &folders.artifacts, &folders.credentials].into_iter().try_for_each(|it| empty(it))?;
    }
    for (name, artifacts) in &folders.inputs {
        let link = folders.inputs_dir.join(name.as_str());
        symlink(artifacts, &link).map_err(|source| FolderError { what: "link", path: link, source })?;
    }
    Ok(())
}

/// Files of /etc that an agent sees in the place of the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShownFiles {
    /// The user database; `None` for the host's.
    pub passwd: Option<String>,
    /// The names of hosts; `None` for the host's.
    pub hosts: Option<String>,
}

/// Writes what the agent may know of its declaration beside its sockets, where it sees everything and changes nothing.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn tell(folders: &AgentFolders, sections: &str, shown: &ShownFiles) -> Result<(), FolderError> {
    put(&folders.door.join(sections::FILE), sections)?;
    let ShownFiles { passwd, hosts } = shown;
    let files = [(passwd::FILE, passwd), (hosts_file::FILE, hosts)];
    files
        .into_iter()
        .filter_map(|(name, text)| Some((name, text.as_ref()?)))
        .try_for_each(|(name, text)| put(&folders.door.join(name), text))
}

fn put(path: &Path, text: &str) -> Result<(), FolderError> {
    let path = path.to_owned();
    let beside = path.with_extension("new");
    // In one step: a check of an objective may read it, and the one of an earlier life cannot be written to.
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::set_permissions(&beside, Permissions::from_mode(0o444)))
        .and_then(|()| std::fs::rename(&beside, &path))
        .map_err(|source| FolderError { what: "write", path, source })
}

/// Makes the folder in which an agent's own are, by which it is known, and keeps there what was not there when the run began, for a
/// daemon that comes after all that knew it were killed.
///
/// # Errors
/// When it cannot be made or written.
pub fn register(folders: &AgentFolders, guards: &[Guard]) -> Result<(), FolderError> {
    let path = guards_file(folders);
    if let Some(folder) = path.parent() {
        make_private(folder)?;
    }
    if guards.is_empty() {
        return match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FolderError { what: "remove", path, source })
            }
            _ => Ok(()),
        };
    }
    put(&path, &serde_json::to_string(guards).unwrap_or_default())
}

/// Removes the results that an agent left in an earlier run. An agent that does not start in this run has none for others to find.
///
/// # Errors
/// When it cannot be removed.
pub fn forget_results(folders: &AgentFolders) -> Result<(), FolderError> {
    match std::fs::remove_dir(&folders.artifacts) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => empty(&folders.artifacts),
    }
}

/// What was kept; `None` when nothing was, or when it cannot be read.
pub fn kept_guards(folders: &AgentFolders) -> Option<Vec<Guard>> {
    serde_json::from_str(&std::fs::read_to_string(guards_file(folders)).ok()?).ok()
}

/// Beside the agent's own folders, where it sees nothing.
fn guards_file(folders: &AgentFolders) -> PathBuf {
    folders.home.with_file_name("guards.json")
}

/// The folders that an agent works in and that are not Toka's: they may go while others run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkingDirs {
    /// The workspace.
    pub workspace: PathBuf,
    /// Where its process begins.
    pub working_dir: PathBuf,
}

impl WorkingDirs {
    /// Those of an agent.
    pub fn of(folders: &AgentFolders) -> Self {
        Self { workspace: folders.workspace.clone(), working_dir: folders.working_dir.clone() }
    }

    /// Whether they are still there.
    ///
    /// # Errors
    /// With the folder that is not, in one sentence: an agent would begin in an empty one, or with an error about mounts.
    pub fn check(&self) -> Result<(), String> {
        // The working folder may be one that another agent was to make.
        let gone = [
            ("the workspace", &self.workspace, "is gone since the run began"),
            ("its working folder", &self.working_dir, "is not there"),
        ];
        for (what, path, gone) in gone {
            match path.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(format!("{what} {} {gone}", path.display()));
                }
                Ok(metadata) if !metadata.is_dir() => {
                    return Err(format!("{what} {} is no folder any more", path.display()));
                }
                // What else is wrong with it, the start finds out and tells.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Gives an agent's own folders to the user that it runs as, which is that of Toka itself when there is no other. What
/// it kept as another user becomes its own again.
///
/// Its artifacts can be read by every user, since agents that depend on it may have others; nobody else comes that far:
/// the folder above is closed.
///
/// # Errors
/// When a folder cannot be given away.
pub(crate) fn give(folders: &AgentFolders, user: Option<&RunAs>) -> Result<(), FolderError> {
    let own = || (geteuid().as_raw(), getegid().as_raw());
    let owner = user.map_or_else(own, |user| (user.uid, user.gid));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FolderError { what: "give away", path, source }
    };
    let own = [
        &folders.home,
        &folders.tmp,
        &folders.artifacts,
        &folders.inputs_dir,
        &folders.credentials,
        &folders.door,
    ];
    for folder in own {
        let former = folder.metadata().map_err(failed(folder))?;
        let former = (former.uid(), former.gid());
        if former != owner {
            chown_all(folder, former, owner).map_err(failed(folder))?;
        }
    }
    std::fs::set_permissions(&folders.artifacts, Permissions::from_mode(0o755))
        .map_err(failed(&folders.artifacts))
}

/// Everything in `path` that belonged to `former`, and nothing else: a hard link to somebody else's file stays theirs.
fn chown_all(path: &Path, former: (u32, u32), owner: (u32, u32)) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if metadata.uid() != former.0 || (!metadata.is_dir() && metadata.nlink() > 1) {
        return Ok(());
    }
    if metadata.is_dir() {
        for entry in path.read_dir()? {
            chown_all(&entry?.path(), former, owner)?;
        }
    }
    lchown(path, Some(owner.0), Some(owner.1))
}

/// Removes everything in `folder`, whatever an agent made of it.
///
/// # Errors
/// When something cannot be removed.
pub fn empty(folder: &Path) -> Result<(), FolderError> {
    remove_tree::empty(folder).map_err(|source| FolderError {
        what: "empty",
        path: folder.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belonged_to_others_stays_theirs() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        let root = tempfile::tempdir().expect("a folder");
        let (home, alien) = (root.path().join("home"), root.path().join("alien"));
        make_private(&home.join("deep")).expect("a folder");
        std::fs::write(&alien, "").expect("room");
        for (file, content) in [("mine", "x"), ("deep/mine", "x"), ("theirs", "x")] {
            std::fs::write(home.join(file), content).expect("room");
        }
        symlink(&alien, home.join("link")).expect("a link");
        std::fs::hard_link(&alien, home.join("hard")).expect("a link");
        lchown(home.join("theirs"), Some(7), Some(7)).expect("root may");
        let (user, former) = ((61_200, 61_200), (geteuid().as_raw(), getegid().as_raw()));
        chown_all(&home, former, user).expect("root may");
        let owner = |path: &str| home.join(path).symlink_metadata().expect("there").uid();
        for (path, expected) in [
            ("", user.0),
            ("mine", user.0),
            ("deep/mine", user.0),
            ("link", user.0),
            ("theirs", 7),
            ("hard", former.0),
            ("../alien", former.0),
        ] {
            assert_eq!(owner(path), expected, "{path}");
        }
    }

    #[test]
    fn grounds_that_are_gone_are_named() {
        let root = tempfile::tempdir().expect("a folder");
        let (workspace, working_dir) = (root.path().join("w"), root.path().join("w/deep"));
        make_private(&working_dir).expect("a folder");
        let grounds = WorkingDirs { workspace: workspace.clone(), working_dir: working_dir.clone() };
        assert_eq!(grounds.check(), Ok(()));
        std::fs::remove_dir(&working_dir).expect("ours");
        std::fs::write(&working_dir, "").expect("room");
        let why = grounds.check().expect_err("a file");
        assert_eq!(why, format!("its working folder {} is no folder any more", working_dir.display()));
        std::fs::remove_dir_all(&workspace).expect("ours");
        let why = grounds.check().expect_err("nothing");
        assert_eq!(why, format!("the workspace {} is gone since the run began", workspace.display()));
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let root = tempfile::tempdir().expect("a folder");
        must_be_own(root.path()).expect("it is ours");
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o777)).expect("ours");
        let error = must_be_own(root.path()).expect_err("open to all").source.to_string();
        assert!(error.contains("mode 777"), "{error}");
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o755)).expect("ours");
        if geteuid().is_root() {
            lchown(root.path(), Some(7), Some(7)).expect("root may");
            let error = must_be_own(root.path()).expect_err("another's").source.to_string();
            assert!(error.contains("belongs to the user 7"), "{error}");
        }
    }

    #[test]
    fn folders_are_private() {
        let root = tempfile::tempdir().expect("a folder");
        make_private(&root.path().join("a/b")).expect("a folder");
        for path in ["a", "a/b"] {
            let mode = root.path().join(path).metadata().expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{path}");
        }
    }
}
