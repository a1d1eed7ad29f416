//! How a keeper is started, and what becomes of it when its daemon goes.

use std::path::PathBuf;

use crate::protocol::Orphan;

/// How to start a keeper.
#[derive(Debug, Clone, Default)]
pub struct KeeperOptions {
    /// The program to re-enter, with `__keeper NAME` as its arguments and the control socket as its standard input.
    pub program: PathBuf,
    /// Name of the control group that agents' groups lie in, such as `toka-1f2e3d4c`. Unique per state folder.
    pub cgroup_name: String,
    /// Folders that the keeper removes when it ends, in case that the daemon could not: sockets, secrets. Absolute.
    pub leftovers: Vec<PathBuf>,
    /// What becomes of it when its daemon goes.
    pub outlive: Outlive,
    /// Agents that an earlier keeper of the same group left when it was killed, and its daemon with it. Everything else
    /// in the group is killed, if there are any or the keeper outlives its daemon.
    pub adopt: Vec<Orphan>,
}

/// What becomes of a keeper when its daemon goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Outlive {
    /// It stops every agent and ends.
    #[default]
    EndWithDaemon,
    /// The keeper and its agents go on, and the keeper waits for the next daemon.
    Listen {
        /// Where. The folder is made if need be; it must be its user's alone (mode 0700). Any length.
        socket: PathBuf,
    },
}
