//! Who runs the program under test.

use std::ffi::OsString;
use std::path::Path;

use crate::{Need, require};

/// A user, and what it takes to run a command as that user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Root, as the test itself is.
    Root,
    /// An ordinary user. When the test is root: a number that nobody has, so that nothing on the host belongs to it.
    Ordinary,
}

/// Has no entry in any passwd file, and is no overflow id of user namespaces.
const STRANGER: u32 = 12_345;

impl User {
    /// Root, where the test may be root.
    pub fn root() -> Option<Self> {
        require(&[Need::Root]).then_some(Self::Root)
    }

    /// An ordinary user, where the kernel gives them namespaces: without, there is little to test.
    pub fn ordinary() -> Option<Self> {
        require(&[Need::UserNamespaces]).then_some(Self::Ordinary)
    }

    /// The user's number.
    pub fn uid(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::Ordinary if nix::unistd::geteuid().is_root() => STRANGER,
            Self::Ordinary => nix::unistd::geteuid().as_raw(),
        }
    }

    /// What to put before a command so that it runs as this user.
    pub fn prefix(self) -> Vec<OsString> {
        if self.uid() == nix::unistd::geteuid().as_raw() {
            return Vec::new();
        }
        let uid = self.uid().to_string();
        ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", "--"].map(OsString::from).to_vec()
    }

    /// Gives a path to this user. An agent that waited for it may have removed it by then.
    ///
    /// # Panics
    /// When that fails, which it does not for paths that the test made.
    pub fn own(self, path: &Path) {
        if nix::unistd::geteuid().is_root() {
            let given = std::os::unix::fs::lchown(path, Some(self.uid()), Some(self.uid()));
            let is_gone = given.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
            assert!(is_gone || given.is_ok(), "a path of the test's: {given:?}");
        }
    }
}
