//! The system's programs, libraries and harmless configuration: what every agent may read and execute.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Right;

/// Folders of programs and libraries (file-hierarchy(7); the last two are NixOS and Guix).
const PROGRAMS: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store"];

/// Configuration that programs need to start, resolve names and users, and trust certificates. Nothing in it is secret;
/// the rest of /etc is not shown, since root owns host keys, password hashes and VPN keys there.
const CONFIGURATION: [&str; 38] = [
    "/etc/alternatives",
    "/etc/apache2/mime.types",
    "/etc/bash.bashrc",
    "/etc/bash_completion.d",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/default/locale",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/gitattributes",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/java-17-openjdk",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/locale.alias",
    "/etc/locale.conf",
    "/etc/localtime",
    "/etc/machine-info",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/perl",
    "/etc/pki/tls",
    "/etc/profile",
    "/etc/protocols",
    "/etc/python3",
    "/etc/python3.11",
    "/etc/services",
    "/etc/shells",
];

/// More of the same that is only needed to reach the network or to find time and terminals.
const CONFIGURATION_MORE: [&str; 8] = [
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
    "/etc/timezone",
    "/etc/resolv.conf",
    "/run/systemd/resolve/stub-resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/etc/xdg",
];

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
    /// Facts about the machine.
    pub facts: Vec<PathBuf>,
}

impl SystemPaths {
    /// Looks which of the known paths exist below `root`.
    pub fn probe(root: &Path) -> Self {
        let there = |paths: &[&str]| -> Vec<PathBuf> {
            paths
                .iter()
                .filter(|path| root.join(path.trim_start_matches('/')).exists())
                .map(PathBuf::from)
                .collect()
        };
        let mut configuration = there(&CONFIGURATION);
        configuration.extend(there(&CONFIGURATION_MORE));
        Self { programs: there(&PROGRAMS), configuration, facts: there(&FACTS) }
    }

    /// What every agent may do with the system's own paths and devices. Not part of a plan: whoever puts a plan in force
    /// adds it, so that it is not copied for every agent.
    pub fn rules(&self) -> impl Iterator<Item = (&Path, Right)> {
        let programs = self.programs.iter().map(|path| (path.as_path(), Right::Execute));
        let read = self.configuration.iter().chain(&self.facts).map(|path| (path.as_path(), Right::Read));
        programs.chain(read).chain(DEVICES.iter().map(|path| (Path::new(*path), Right::Device)))
    }
}
