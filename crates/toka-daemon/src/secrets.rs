//! Secrets: read when the agent starts, written as files that only it can read, removed when it has ended. Their values
//! are never in an environment, an event, a log or an error.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use thiserror::Error;
use toka_workstream::{Secret, SecretSource};

use crate::environment::Caller;

/// Most bytes of a secret: a key or a token, not a file of data.
const MAX_SECRET: u64 = 1024 * 1024;

/// Why a secret cannot be had.
#[derive(Debug, Error)]
pub(crate) enum SecretError {
    /// Its file cannot be read.
    #[error("the secret {name:?} cannot be read from {}: {why}", path.display())]
    File {
        /// The secret's name.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the kernel says; never the contents.
        why: io::ErrorKind,
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

/// The value of a secret.
///
/// # Errors
/// When its source is not there, or holds too much.
pub(crate) fn read(secret: &Secret, caller: &Caller) -> Result<Vec<u8>, SecretError> {
    let name = || secret.name.clone();
    let value = match &secret.source {
        SecretSource::Env(variable) => caller
            .variable(variable)
            .map(|value| value.as_bytes().to_vec())
            .ok_or_else(|| SecretError::Variable { name: name(), variable: variable.clone() })?,
        SecretSource::File(path) => {
            let path = expand(path, &caller.home);
            read_file(&path).map_err(|error| SecretError::File { name: name(), path, why: error.kind() })?
        }
    };
    if value.len() as u64 > MAX_SECRET {
        return Err(SecretError::TooLong { name: name() });
    }
    Ok(value)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    std::fs::File::open(path)?.take(MAX_SECRET + 1).read_to_end(&mut value)?;
    Ok(value)
}

fn expand(path: &str, home: &Path) -> PathBuf {
    path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), |rest| home.join(rest))
}

/// Writes the secrets of an agent into `folder`, which is empty and private; they belong to whom the folder belongs.
///
/// # Errors
/// When one cannot be had or written.
pub(crate) fn write(secrets: &[Secret], folder: &Path, caller: &Caller) -> Result<(), String> {
    for secret in secrets {
        let value = read(secret, caller).map_err(|error| error.to_string())?;
        let path = folder.join(&secret.name);
        let mut open = OpenOptions::new();
        let owner = folder.metadata().map(|metadata| (metadata.uid(), metadata.gid()));
        let file = open.write(true).create_new(true).mode(0o400).open(&path);
        file.and_then(|mut file| hand_over(&file, owner?).and_then(|()| file.write_all(&value)))
            .map_err(|error| format!("write the secret {:?} to {}: {error}", secret.name, path.display()))?;
    }
    Ok(())
}

fn hand_over(file: &std::fs::File, owner: (u32, u32)) -> io::Result<()> {
    let now = file.metadata()?;
    if (now.uid(), now.gid()) == owner { Ok(()) } else { fchown(file, Some(owner.0), Some(owner.1)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use toka_core::Origin;

    use super::*;

    fn secret(source: SecretSource) -> Secret {
        Secret { name: "key".into(), source, origin: Origin::default_of("test") }
    }

    #[test]
    fn a_secret_becomes_a_file_that_only_its_owner_can_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().to_owned();
        std::fs::write(home.join("token"), "hunter2\n").expect("room");
        let environment = [("KEY".into(), "s3cret".into())].into();
        let caller = Caller { environment, home };
        for (source, value) in
            [(SecretSource::File("~/token".into()), "hunter2\n"), (SecretSource::Env("KEY".into()), "s3cret")]
        {
            let target = tempfile::tempdir().expect("a folder");
            write(&[secret(source)], target.path(), &caller).expect("a secret");
            let path = target.path().join("key");
            assert_eq!(std::fs::read_to_string(&path).expect("readable"), value);
            assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o400);
        }
    }

    #[test]
    fn an_error_tells_the_source_and_not_the_value() {
        let caller =
            Caller { environment: [("OTHER".into(), "s3cret".into())].into(), home: "/nowhere".into() };
        for source in [SecretSource::File("~/absent".into()), SecretSource::Env("KEY".into())] {
            let error = read(&secret(source), &caller).expect_err("absent").to_string();
            assert!(error.contains("absent") || error.contains("KEY"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let caller = Caller { environment: [("KEY".into(), "x".repeat(2 << 20).into())].into(), ..caller };
        let error = read(&secret(SecretSource::Env("KEY".into())), &caller).expect_err("too long");
        assert!(error.to_string().len() < 100);
    }
}
