//! The system's programs, libraries and harmless configuration: what every agent may read and execute.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Right;
use super::etc::Etc;

/// Folders of programs and libraries (file-hierarchy(7); the last two are NixOS and Guix).
const PROGRAMS: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store"];

/// Where the host's configuration lies.
const ETC: &str = "/etc";

/// Where systemd's resolver keeps what /etc/resolv.conf leads to.
const RESOLVER: [&str; 2] = ["/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Facts about processors and memory that runtimes ask for.
const FACTS: [&str; 2] = ["/sys/devices/system", "/sys/kernel/mm/transparent_hugepage"];

/// Device files that are safe to share (null(4), random(4)). /dev/tty stands for the controlling terminal of whoever opens
/// it (tty(4)): an agent has one of its own or none.
pub(crate) const DEVICES: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", TTY];
/// A host without terminals does not have it.
pub(crate) const TTY: &str = "/dev/tty";

/// What of the system is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemPaths {
    /// Folders of programs and libraries; symbolic links such as `/bin → usr/bin` are kept as links.
    pub programs: Vec<PathBuf>,
    /// Files and folders of configuration.
    pub configuration: Vec<PathBuf>,
    /// Files and folders below /etc that nobody is to see.
    pub secrets: Vec<PathBuf>,
    /// Facts about the machine.
    pub facts: Vec<PathBuf>,
}

/// Whether a path without links belongs to the system's programs, which every agent may execute.
pub fn is_system_program(path: &Path) -> bool {
    PROGRAMS.iter().any(|folder| path.starts_with(folder))
}

impl SystemPaths {
    /// Looks which of the known paths exist below `root`, and what of its /etc may be read.
    pub fn probe(root: &Path) -> Self {
        let there = |paths: &[&str]| -> Vec<PathBuf> {
            paths
                .iter()
                .filter(|path| root.join(path.trim_start_matches('/')).exists())
                .map(PathBuf::from)
                .collect()
        };
        let Etc { shown: mut configuration, secret: secrets } = Etc::look(root);
        configuration.extend(there(&RESOLVER));
        Self { programs: there(&PROGRAMS), configuration, secrets, facts: there(&FACTS) }
    }

    /// What every agent may do with the system's own paths and devices. Not part of a plan: whoever puts a plan in force
    /// adds it, so that it is not copied for every agent.
    pub fn rules(&self) -> impl Iterator<Item = (&Path, Right)> {
        let programs = self.programs.iter().map(|path| (path.as_path(), Right::Execute));
        let read = self.configuration.iter().chain(&self.facts).map(|path| (path.as_path(), Right::Read));
        // Names in it are no secret; patterns of them (`/etc/*release`) and programs that look around work.
        let list = self
            .configuration
            .iter()
            .any(|path| path.starts_with(ETC))
            .then_some((Path::new(ETC), Right::List));
        programs.chain(list).chain(read).chain(DEVICES.iter().map(|path| (Path::new(*path), Right::Device)))
    }
}
