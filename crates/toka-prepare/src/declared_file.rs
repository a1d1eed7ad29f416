//! A file that a declaration names, such as a secret or an environment file. Where it lies is decided once, together with
//! whether it may be read; what is read later is that file and no other, whatever an agent did to the path meanwhile.

use std::path::{Path, PathBuf};

use toka_core::demand::{Ground, is_home_secret};
use toka_files::{Directory, ReadError, read_real};

/// A file that a declaration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeclaredFile {
    /// It lies in the workspace, at this path below it. No link is followed on the way: agents can make some.
    InWorkspace(PathBuf),
    /// It lies elsewhere, at this path without links: a person must have granted that.
    Outside(PathBuf),
}

impl DeclaredFile {
    /// The file that `declared` means.
    pub fn find(declared: &str, ground: &Ground<'_>) -> Self {
        let path = ground.locate(declared);
        match path.strip_prefix(ground.workspace) {
            // The user's keys are not the project's, even where the home is the workspace.
            Ok(below) if !is_home_secret(&path, ground.user_home) => Self::InWorkspace(below.to_owned()),
            _ => Self::Outside((ground.resolve)(&path)),
        }
    }

    /// Reads it to its end.
    ///
    /// # Errors
    /// When it is not there, is no regular file, is longer than `limit` bytes, or a link is on the way.
    pub fn read(&self, workspace: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
        match self {
            Self::InWorkspace(below) => Directory::open(workspace)?.read(below, limit),
            Self::Outside(path) => read_real(path, limit),
        }
    }

    /// Its absolute path.
    pub fn path(&self, workspace: &Path) -> PathBuf {
        match self {
            Self::InWorkspace(below) => workspace.join(below),
            Self::Outside(path) => path.clone(),
        }
    }
}
