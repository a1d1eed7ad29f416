//! What a test needs of the host. Where it is missing, the test says so and passes, or fails if CI demands it.

use std::path::Path;
use std::process::Command;

use crate::User;

/// Set to anything, it turns a missing need into a failure: a skipped test must not look like a passed one in CI.
const REQUIRED: &str = "TOKA_REQUIRE_PRIVILEGED";

/// Something that not every host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The test runs as root.
    Root,
    /// Control groups that this user can make groups in, with a memory controller.
    Cgroups,
    /// User namespaces for ordinary users.
    UserNamespaces,
    /// A program in the search path.
    Program(&'static str),
}

impl Need {
    /// Why the host does not have it.
    fn missing(self) -> Option<String> {
        let root = nix::unistd::geteuid().is_root();
        match self {
            Self::Root => (!root).then(|| "not root".to_owned()),
            Self::Cgroups => cgroups_missing(),
            Self::UserNamespaces => user_namespaces_missing(),
            Self::Program(name) => program_missing(name),
        }
    }
}

/// Whether the host has all of it.
///
/// # Panics
/// When it has not, and `TOKA_REQUIRE_PRIVILEGED` is set.
#[must_use]
pub fn require(needs: &[Need]) -> bool {
    let missing: Vec<String> =
        needs.iter().filter_map(|need| need.missing().map(|reason| format!("{need:?}: {reason}"))).collect();
    if missing.is_empty() {
        return true;
    }
    let reasons = missing.join("; ");
    assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, but: {reasons}");
    eprintln!("skipped: {reasons}");
    false
}

fn cgroups_missing() -> Option<String> {
    let writable = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].into_iter().map(Path::new).any(|folder| {
        let limits =
            folder.join("memory.limit_in_bytes").exists() || folder.join("cgroup.controllers").exists();
        limits && nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).is_ok()
    });
    (!writable).then(|| "no control group hierarchy with memory that this user can write".to_owned())
}

fn user_namespaces_missing() -> Option<String> {
    let mut words = User::Ordinary.prefix();
    words.extend(["unshare", "--user", "true"].map(Into::into));
    let status = Command::new(&words[0]).args(&words[1..]).output();
    match status {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("util-linux: {error}")),
    }
}

fn program_missing(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    (!found).then(|| format!("no {name} in the search path"))
}
