//! Who runs Toka, as far as agents may know: what a command hands to the daemon along with a declaration.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The variables of the caller that every agent gets, whichever user it runs as.
pub const BASE: [&str; 4] = ["PATH", "LANG", "TERM", "TZ"];
/// Who runs Toka, as far as agents may know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// The home folder.
    pub home: PathBuf,
}

impl Caller {
    /// The user of this process.
    pub fn of_this_process() -> Self {
        Self { environment: std::env::vars_os().collect(), home: user_home() }
    }

    /// A variable.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment.get(OsStr::new(name)).map(OsString::as_os_str)
    }
}

/// The home of the user who runs Toka: `HOME` when it names a folder, else what the user database says.
pub fn user_home() -> PathBuf {
    let variable = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let database = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.dir);
    variable.or_else(database).unwrap_or_else(|| PathBuf::from("/"))
}
