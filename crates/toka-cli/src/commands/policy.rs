//! The policy of a run: what the policy file says, and what the command line grants besides.

use std::path::{Path, PathBuf};

use toka_core::capability::Policy;
use toka_core::{Capability, ExitCode};
use toka_workstream::{POLICY_FILE, load_policy};

use super::workstreams::{Tell, as_data, show};
use crate::failure::Failure;

/// Reads `given`, or `toka.yaml` in the workspace if it is there, and adds the grants of the command line. Problems of
/// the file are told on stderr.
///
/// # Errors
/// When the file cannot be read, or any part of it is wrong: half a policy is none.
pub(crate) fn read(given: Option<&Path>, workspace: &Path, allow: &[Capability]) -> Result<Policy, Failure> {
    let default = workspace.join(POLICY_FILE);
    let file: Option<PathBuf> = match given {
        Some(path) => Some(path.to_owned()),
        // Not `exists`: a file that may not be looked at must not count as none.
        None => default.symlink_metadata().is_ok().then_some(default),
    };
    let mut policy = match file {
        Some(file) => of_file(&file)?,
        None => Policy::default(),
    };
    policy.allow.extend(allow.iter().cloned());
    Ok(policy)
}

fn of_file(file: &Path) -> Result<Policy, Failure> {
    let loaded = load_policy(file);
    show(&loaded.diagnostics, &loaded.sources, Tell::Everything);
    loaded.policy.ok_or_else(|| {
        let message = format!("the policy {} is not valid; nothing was started", file.display());
        Failure::new(ExitCode::Invalid, message).parts(as_data(&loaded.diagnostics, &loaded.sources))
    })
}

/// A capability that can be granted; a name that nobody knows would grant nothing, and is refused.
///
/// # Errors
/// When no capability has the name, with the nearest one that has.
pub(crate) fn grant(text: &str) -> Result<Capability, String> {
    let capability = Capability::parse(text);
    if capability.known().is_some() {
        return Ok(capability);
    }
    let hint = capability.suggestion().map_or_else(
        || "`toka explain capabilities` lists the names".to_owned(),
        |name| format!("did you mean {name}?"),
    );
    Err(format!("no capability has this name; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_and_the_command_line_add_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let grants = [Capability::NetworkFull];
        let policy = read(None, folder.path(), &grants).expect("no file, no problem");
        assert_eq!(policy.allow, grants.iter().cloned().collect());

        std::fs::write(folder.path().join(POLICY_FILE), "deny: [cargo-execution]\n").expect("a file");
        let policy = read(None, folder.path(), &grants).expect("a policy");
        assert!(policy.decide(&Capability::NetworkFull).is_ok());
        assert!(policy.decide(&Capability::Cargo).is_err());
    }

    #[test]
    fn a_broken_or_absent_file_is_never_taken_for_none() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(read(Some(&folder.path().join("absent.yaml")), folder.path(), &[]).is_err());
        std::fs::write(folder.path().join(POLICY_FILE), "alow: [network:full]\n").expect("a file");
        assert!(read(None, folder.path(), &[]).is_err());
    }
}
