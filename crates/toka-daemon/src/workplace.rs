//! Making, filling and emptying an agent's folders.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use thiserror::Error;
use toka_sandbox::AgentFolders;

use crate::sections;

/// A folder that could not be made or emptied.
#[derive(Debug, Error)]
#[error("{what} {}", path.display())]
pub struct FolderError {
    /// What was tried: `make`, `empty`, `link`, `write`.
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
pub(crate) fn make_private(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| FolderError {
        what: "make",
        path: path.to_owned(),
        source,
    })
}

/// Makes the folders of an agent that is about to run, empties what does not outlive a run, and links its inputs. The
/// door is made by whoever finds a place for it.
///
/// # Errors
/// When a folder cannot be made or emptied.
pub(crate) fn set_up(folders: &AgentFolders) -> Result<(), FolderError> {
    make_private(&folders.home)?;
    for folder in [&folders.tmp, &folders.artifacts, &folders.inputs_dir, &folders.credentials] {
        make_private(folder)?;
        empty(folder)?;
    }
    for (name, artifacts) in &folders.inputs {
        let link = folders.inputs_dir.join(name.as_str());
        symlink(artifacts, &link).map_err(|source| FolderError { what: "link", path: link, source })?;
    }
    Ok(())
}

/// Writes what the agent may know of its declaration beside its sockets, where it sees everything and changes nothing.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn tell(folders: &AgentFolders, sections: &str) -> Result<(), FolderError> {
    let path = folders.door.join(sections::FILE);
    std::fs::write(&path, sections)
        .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o444)))
        .map_err(|source| FolderError { what: "write", path, source })
}

/// Removes everything in `folder`; links are removed, not followed. What an agent made unreadable is made readable.
///
/// # Errors
/// When something cannot be removed.
pub(crate) fn empty(folder: &Path) -> Result<(), FolderError> {
    let failed = |source| FolderError { what: "empty", path: folder.to_owned(), source };
    for entry in folder.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let removed = match remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                open_up(&path);
                remove(&path)
            }
            other => other,
        };
        removed.map_err(failed)?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

/// Lets us into folders that an agent closed. Its processes are gone; nobody exchanges a folder for a link meanwhile.
fn open_up(path: &Path) {
    if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return;
    }
    // What still fails shows when it is removed.
    let _ = std::fs::set_permissions(path, Permissions::from_mode(0o700));
    for entry in path.read_dir().into_iter().flatten().flatten() {
        open_up(&entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_removed_and_what_it_leads_to_stays() {
        let root = tempfile::tempdir().expect("a folder");
        let (folder, precious) = (root.path().join("tmp"), root.path().join("precious"));
        make_private(&folder.join("deep/er")).expect("a folder");
        make_private(&precious).expect("a folder");
        std::fs::write(precious.join("file"), "kept").expect("room");
        symlink(&precious, folder.join("link")).expect("a link");
        symlink(&precious, folder.join("deep/link")).expect("a link");
        std::fs::set_permissions(folder.join("deep/er"), Permissions::from_mode(0o000)).expect("ours");
        std::fs::set_permissions(folder.join("deep"), Permissions::from_mode(0o500)).expect("ours");
        empty(&folder).expect("emptied");
        assert_eq!(folder.read_dir().expect("there").count(), 0);
        assert!(precious.join("file").exists());
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
