//! Secrets: read when the agent starts, written as files that only it can read, removed when it has ended (`sweeper.rs`). Their values
//! are never in an environment, an event, a log or an error.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use thiserror::Error;
use toka_api::caller::Caller;
use toka_core::Capability;
use toka_core::demand::Ground;
use toka_files::ReadError;
use toka_workstream::{Secret, SecretSource};

use crate::declared_file::DeclaredFile;

/// Most bytes of a secret: a key or a token, not a file of data.
const MAX_SECRET: u64 = 1024 * 1024;

/// Where the value of a secret is found, as it was decided when the agent was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(DeclaredFile),
    /// A variable of whoever declared the agent.
    Variable(String),
}

impl Source {
    /// Where the secret is found.
    pub fn of(secret: &Secret, ground: &Ground<'_>) -> Self {
        match &secret.source {
            SecretSource::Env(name) => Self::Variable(name.clone()),
            SecretSource::File(path) => Self::File(DeclaredFile::find(path, ground)),
        }
    }

    /// What a person must have granted for it. A secret of the workspace is the project's own.
    pub fn demands(&self) -> Option<Capability> {
        match self {
            Self::Variable(name) => Some(Capability::SecretVariable(name.clone())),
            Self::File(DeclaredFile::Outside(path)) => {
                Some(Capability::SecretFile(path.to_string_lossy().into_owned()))
            }
            Self::File(DeclaredFile::InWorkspace(_)) => None,
        }
    }
}

/// A secret that an agent was admitted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSecret {
    /// Its file name.
    pub name: String,
    /// Where its value is found.
    pub source: Source,
}

/// Why a secret cannot be had.
#[derive(Debug, Error)]
pub enum SecretError {
    /// Its file cannot be read.
    #[error("the secret {name:?} cannot be read from {}: {why}", path.display())]
    File {
        /// The secret's name.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong; never the contents.
        why: ReadError,
    },
    /// Its variable is not set.
    #[error("the secret {name:?} needs the variable {variable}, which is not set")]
    Variable {
        /// The secret's name.
        name: String,
        /// The variable.
        variable: String,
    },
    /// It is too long.
    #[error("the secret {name:?} is longer than 1 MiB")]
    TooLong {
        /// The secret's name.
        name: String,
    },
}

/// The value of a secret; `workspace` is where files of the workspace are looked up.
///
/// # Errors
/// When its source is not there, or holds too much.
pub fn read(secret: &FoundSecret, caller: &Caller, workspace: &Path) -> Result<Vec<u8>, SecretError> {
    let name = || secret.name.clone();
    let value = match &secret.source {
        Source::Variable(variable) => caller
            .variable(variable)
            .map(|value| value.as_bytes().to_vec())
            .ok_or_else(|| SecretError::Variable { name: name(), variable: variable.clone() })?,
        Source::File(file) => file.read(workspace, MAX_SECRET).map_err(|why| match why {
            ReadError::TooLong(_) => SecretError::TooLong { name: name() },
            why => SecretError::File { name: name(), path: file.path(workspace), why },
        })?,
    };
    if value.len() as u64 > MAX_SECRET {
        return Err(SecretError::TooLong { name: name() });
    }
    Ok(value)
}

/// The values of an agent's secrets, by name.
///
/// # Errors
/// When one cannot be had.
pub fn values(
    secrets: &[FoundSecret],
    caller: &Caller,
    workspace: &Path,
) -> Result<Vec<(String, Vec<u8>)>, String> {
    let value = |secret: &FoundSecret| Ok((secret.name.clone(), read(secret, caller, workspace)?));
    secrets.iter().map(value).collect::<Result<_, SecretError>>().map_err(|error| error.to_string())
}

/// Writes the secrets of an agent into `folder`, which is empty and private; they belong to whom the folder belongs. What was written is
/// returned.
///
/// # Errors
/// When one cannot be had or written.
pub fn write(
    secrets: &[FoundSecret],
    folder: &Path,
    caller: &Caller,
    workspace: &Path,
) -> Result<Vec<(String, Vec<u8>)>, String> {
    let values = values(secrets, caller, workspace)?;
    for (name, value) in &values {
        let path = folder.join(name);
        let mut open = OpenOptions::new();
        let owner = folder.metadata().map(|metadata| (metadata.uid(), metadata.gid()));
        let file = open.write(true).create_new(true).mode(0o400).open(&path);
        file.and_then(|mut file| hand_over(&file, owner?).and_then(|()| file.write_all(value)))
            .map_err(|error| format!("write the secret {name:?} to {}: {error}", path.display()))?;
    }
    Ok(values)
}

fn hand_over(file: &std::fs::File, owner: (u32, u32)) -> io::Result<()> {
    let now = file.metadata()?;
    if (now.uid(), now.gid()) == owner { Ok(()) } else { fchown(file, Some(owner.0), Some(owner.1)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn secret(source: Source) -> FoundSecret {
        FoundSecret { name: "key".into(), source }
    }

    fn variable() -> Source {
        Source::Variable("KEY".into())
    }

    #[test]
    fn a_secret_becomes_a_file_that_only_its_owner_can_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = folder.path().canonicalize().expect("a path");
        std::fs::write(workspace.join("token"), "hunter2\n").expect("room");
        let environment = [("KEY".into(), "s3cret".into())].into();
        let caller = Caller { environment, home: "/nowhere".into() };
        let inside = Source::File(DeclaredFile::InWorkspace("token".into()));
        let outside = Source::File(DeclaredFile::Outside(workspace.join("token")));
        for (source, value) in [(inside, "hunter2\n"), (outside, "hunter2\n"), (variable(), "s3cret")] {
            let target = tempfile::tempdir().expect("a folder");
            write(&[secret(source)], target.path(), &caller, &workspace).expect("a secret");
            let path = target.path().join("key");
            assert_eq!(std::fs::read_to_string(&path).expect("readable"), value);
            assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o400);
        }
    }

    #[test]
    fn an_error_tells_the_source_and_not_the_value() {
        let workspace = Path::new("/nowhere");
        let caller =
            Caller { environment: [("OTHER".into(), "s3cret".into())].into(), home: "/nowhere".into() };
        for source in [Source::File(DeclaredFile::Outside("/nowhere/absent".into())), variable()] {
            let error = read(&secret(source), &caller, workspace).expect_err("absent").to_string();
            assert!(error.contains("/nowhere/absent") || error.contains("KEY"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let caller = Caller { environment: [("KEY".into(), "x".repeat(2 << 20).into())].into(), ..caller };
        let error = read(&secret(variable()), &caller, workspace).expect_err("too long");
        assert!(error.to_string().len() < 100);
    }

    #[test]
    fn what_a_link_of_the_workspace_leads_to_is_no_secret_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = folder.path().join("w");
        std::fs::create_dir(&workspace).expect("a folder");
        std::fs::write(folder.path().join("host"), "host-secret").expect("room");
        std::os::unix::fs::symlink("../host", workspace.join("token")).expect("a link");
        let source = Source::File(DeclaredFile::InWorkspace("token".into()));
        let error = read(&secret(source), &Caller::default(), &workspace).expect_err("a link").to_string();
        assert!(error.ends_with("a symbolic link is on the way to it"), "{error}");
    }
}
