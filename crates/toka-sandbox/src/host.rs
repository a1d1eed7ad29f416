//! What this host can enforce, and where its parts lie. Read once per command; everything after it is pure.

use std::env;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cgroup::Layout;
use crate::plan::SystemPaths;
use crate::sys;

/// Facts about the host, and the caller's variables that say where toolchains lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Landlock's ABI version, 0 when the kernel has none (landlock(7)).
    pub landlock_abi: u32,
    /// Whether a mount namespace can be made: as root, or through a user namespace.
    pub mount_namespace: Namespaces,
    /// How control groups are laid out.
    pub cgroups: Layout,
    /// The system's programs and libraries.
    pub system: SystemPaths,
    /// The caller's search path.
    pub path: Vec<PathBuf>,
    /// The caller's variables that name toolchain folders, such as `CARGO_HOME`.
    pub toolchain_variables: Vec<(String, PathBuf)>,
    /// The version that pyenv would choose, if it is on the search path.
    pub pyenv_version: Option<String>,
}

/// How namespaces can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespaces {
    /// With the privilege of the process itself.
    Privileged,
    /// Inside a user namespace of its own.
    ThroughUserNamespace,
    /// The same, where the kernel does not let it mount a /proc of its own.
    ThroughUserNamespaceWithoutProc,
    /// Not at all.
    Refused,
}

/// Variables that say where a toolchain lies.
const TOOLCHAIN_VARIABLES: [&str; 5] = ["CARGO_HOME", "RUSTUP_HOME", "PYENV_ROOT", "VIRTUAL_ENV", "NVM_DIR"];

impl HostFacts {
    /// Looks at the running system.
    pub fn probe() -> Self {
        let path: Vec<PathBuf> =
            env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
        let pyenv_version = pyenv_version(&path);
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            landlock_abi: sys::landlock_abi(),
            mount_namespace: namespaces(),
            cgroups: Layout::probe(Path::new("/")),
            system: SystemPaths::probe(Path::new("/")),
            path,
            pyenv_version,
            toolchain_variables: TOOLCHAIN_VARIABLES
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), PathBuf::from(env::var_os(name)?))))
                .filter(|(_, path)| path.is_absolute())
                .collect(),
        }
    }
}

/// Root with CAP_SYS_ADMIN needs nothing else; anybody else needs a user namespace, and some kernels refuse it to them.
fn namespaces() -> Namespaces {
    let admin =
        caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN).unwrap_or(false);
    if admin && (in_first_user_namespace() || sys::can_visit_namespaces()) {
        Namespaces::Privileged
    } else {
        match sys::try_user_namespace() {
            sys::UserNamespace::Full => Namespaces::ThroughUserNamespace,
            sys::UserNamespace::WithoutProc => Namespaces::ThroughUserNamespaceWithoutProc,
            sys::UserNamespace::Refused => Namespaces::Refused,
        }
    }
}

/// The first user namespace maps every number to itself (user_namespaces(7)).
fn in_first_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// pyenv keeps the global version in a file beside its `shims` folder; the first line counts.
fn pyenv_version(path: &[PathBuf]) -> Option<String> {
    let root = path.iter().find(|folder| folder.ends_with(".pyenv/shims"))?.parent()?;
    let text = std::fs::read_to_string(root.join("version")).ok()?;
    let version = text.lines().next()?.trim();
    let plain =
        !version.is_empty() && version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    (plain && !version.contains("..")).then(|| version.to_owned())
}
