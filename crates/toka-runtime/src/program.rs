//! From the first word of a command to the file that will be executed, before anything starts: the one rule for agents, their
//! checks, plans, and `toka exec`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess};
use thiserror::Error;

/// Why a program cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProgramError {
    /// A bare name that is in none of the folders.
    #[error("there is no program {name:?} in PATH ({searched})")]
    NotInPath {
        /// The name.
        name: String,
        /// The folders.
        searched: String,
    },
    /// A path where nothing is.
    #[error("there is no program {}", .0.display())]
    Missing(PathBuf),
    /// A folder.
    #[error("{} is a folder, not a program", .0.display())]
    Folder(PathBuf),
    /// A file without the right to execute it.
    #[error("{} is not executable", .0.display())]
    NotExecutable(PathBuf),
}

impl ProgramError {
    /// The exit status of shells and of env(1) for it: 127 when there is none, 126 when it is no program.
    pub fn status(&self) -> i32 {
        match self {
            Self::NotInPath { .. } | Self::Missing(_) => 127,
            Self::Folder(_) | Self::NotExecutable(_) => 126,
        }
    }
}

/// Finds `word` like a shell: as a path from `working_dir` when it has a slash, else along `path`. A file of the right
/// name that cannot be executed is passed over in favour of a later one, and told when there is none.
///
/// # Errors
/// When there is nothing that can be executed.
pub fn find(word: impl AsRef<OsStr>, working_dir: &Path, path: &OsStr) -> Result<PathBuf, ProgramError> {
    let word = word.as_ref();
    if word.as_encoded_bytes().contains(&b'/') {
        let file: PathBuf = working_dir.join(word).components().collect();
        return check(&file).map(|()| file);
    }
    let text = |text: &OsStr| text.to_string_lossy().into_owned();
    let mut best = ProgramError::NotInPath { name: text(word), searched: text(path) };
    for folder in std::env::split_paths(path).filter(|folder| folder.is_absolute()) {
        let file = folder.join(word);
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(ProgramError::Missing(_) | ProgramError::Folder(_)) => {}
            Err(error) => best = error,
        }
    }
    Err(best)
}

fn check(file: &Path) -> Result<(), ProgramError> {
    match file.metadata() {
        Err(_) => Err(ProgramError::Missing(file.to_owned())),
        Ok(metadata) if metadata.is_dir() => Err(ProgramError::Folder(file.to_owned())),
        Ok(_) if eaccess(file, AccessFlags::X_OK).is_err() => {
            Err(ProgramError::NotExecutable(file.to_owned()))
        }
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_program_is_found_or_the_reason_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        for (path, mode) in
            [(first.join("tool"), 0o644), (second.join("tool"), 0o755), (first.join("data"), 0o644)]
        {
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(&path, "").expect("room");
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
        }
        std::fs::create_dir(first.join("folder")).expect("a folder");
        let path = std::env::join_paths([&first, &second]).expect("no colons");
        let find = |word: &str| find(word, &first, &path);
        assert_eq!(find("tool"), Ok(second.join("tool")));
        assert_eq!(find("../second/tool"), Ok(first.join("../second/tool")));
        assert_eq!(find("data"), Err(ProgramError::NotExecutable(first.join("data"))));
        assert_eq!(find("./data"), Err(ProgramError::NotExecutable(first.join("data"))));
        assert_eq!(find("./folder"), Err(ProgramError::Folder(first.join("folder"))));
        assert_eq!(find("./absent"), Err(ProgramError::Missing(first.join("absent"))));
        assert!(matches!(find("absent"), Err(ProgramError::NotInPath { .. })));
        assert!(matches!(find("folder"), Err(ProgramError::NotInPath { .. })));
        let statuses = ["data", "./data", "./folder", "folder", "absent", "./absent"]
            .map(|word| find(word).expect_err("no program").status());
        assert_eq!(statuses, [126, 126, 126, 127, 127, 127]);
    }
}
