//! The program that `toka exec` executes, found as execvp(3) does; and the exit status of one that cannot be executed,
//! which is that of shells and of env(1): 127 when there is none, 126 when it is no program.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess};
use thiserror::Error;
use toka_keeper::SpawnError;

/// A command that was not executed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Unexecuted {
    /// There is no such program.
    #[error("{0}")]
    NotFound(String),
    /// There is something, and it cannot be executed.
    #[error("{0}")]
    NotExecutable(String),
}

impl Unexecuted {
    /// The status that `toka exec` ends with.
    pub(super) fn status(&self) -> i32 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable(_) => 126,
        }
    }

    /// What the last step of a start failed with, if it was that one; a script can lack its interpreter.
    pub(super) fn of_start(error: &SpawnError) -> Option<Self> {
        let SpawnError::Step(step) = error else { return None };
        let text = format!("the command did not start: {step}");
        match Errno::from_raw(step.errno) {
            _ if step.step != "exec" => None,
            Errno::ENOENT => Some(Self::NotFound(text)),
            _ => Some(Self::NotExecutable(text)),
        }
    }
}

/// Finds `name`: as a path from `working_dir` when it has a slash, else along `path`.
///
/// # Errors
/// When there is none, or what there is cannot be executed.
pub(super) fn find(name: &OsStr, path: &str, working_dir: &Path) -> Result<PathBuf, Unexecuted> {
    let shown = name.to_string_lossy();
    if shown.contains('/') {
        let file = working_dir.join(name);
        return match look(&file) {
            Found::Program => Ok(file),
            Found::Other => Err(Unexecuted::NotExecutable(format!("{shown} cannot be executed"))),
            Found::Nothing => Err(Unexecuted::NotFound(format!("there is no program {shown}"))),
        };
    }
    let mut worst = Unexecuted::NotFound(format!("{shown} is no program on the search path ({path})"));
    for file in std::env::split_paths(path).map(|folder| folder.join(name)) {
        match look(&file) {
            Found::Program => return Ok(file),
            Found::Other if file.is_file() => {
                worst = Unexecuted::NotExecutable(format!("{} cannot be executed", file.display()));
            }
            _ => {}
        }
    }
    Err(worst)
}

enum Found {
    Program,
    Other,
    Nothing,
}

fn look(file: &Path) -> Found {
    match file.metadata() {
        Err(_) => Found::Nothing,
        Ok(data) if data.is_file() && eaccess(file, AccessFlags::X_OK).is_ok() => Found::Program,
        Ok(_) => Found::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn absent_is_127_and_not_executable_is_126() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for (name, mode) in [("program", 0o755), ("data", 0o644)] {
            std::fs::write(path(name), "").expect("room");
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).expect("ours");
        }
        std::fs::create_dir(path("folder")).expect("a folder");
        let search = format!("/nonexistent:{}", folder.path().display());
        let find = |name: &OsStr| find(name, &search, folder.path()).map_err(|error| error.status());
        for (name, expected) in [
            ("program", Ok(path("program"))),
            ("./program", Ok(path("./program"))),
            ("data", Err(126)),
            ("./data", Err(126)),
            ("./folder", Err(126)),
            ("folder", Err(127)),
            ("absent", Err(127)),
            ("./absent", Err(127)),
        ] {
            assert_eq!(find(OsStr::new(name)), expected, "{name}");
        }
        assert_eq!(find(path("absent").as_os_str()), Err(127), "an absolute path");
    }
}
