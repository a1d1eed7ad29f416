//! What will be enforced for one agent, resolved to the paths and numbers of this host.
//!
//! A plan is data: it is compiled by a pure function, shown by `toka plan`, sent to the keeper, and put in force there.

mod compile;
mod etc;
mod network;
mod protect;
mod system;
mod toolchain;
mod workspace_facts;

#[cfg(test)]
mod tests;

use std::net::SocketAddrV4;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toka_core::{Compatibility, Confinement, Declared, Layer, Name, NetworkAccess, Origin, SandboxMode};

use crate::guard::Guard;

pub use compile::{AgentFolders, CompileError, CompileInput};
pub(crate) use network::KEPT_TO_A_PORT;
pub(crate) use system::{DEVICES, TTY};
pub use system::{SystemPaths, is_system_program};
pub use workspace_facts::{GitInit, WorkspaceFacts};

/// In the folder of an agent's sockets: the user database that it sees at /etc/passwd, if there is one.
pub const PASSWD: &str = "passwd";
/// In the same folder: the names of hosts that it sees at /etc/hosts, if there are any.
pub const HOSTS: &str = "hosts";

/// Everything that will be put in force around one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxPlan {
    /// Whether the file and call layers are there at all.
    pub mode: SandboxMode,
    /// What to do about a layer that the host cannot enforce.
    pub compatibility: Compatibility,
    /// The project, first component of the control group.
    pub project: Name,
    /// The agent, second component of the control group.
    pub agent: Name,
    /// The process's working folder.
    pub working_dir: PathBuf,
    /// Bind mounts in the order they are made; a later one covers an earlier.
    pub binds: Vec<Bind>,
    /// Landlock rules on paths, besides those of the system ([`SystemPaths::rules`]).
    pub files: Vec<PathRule>,
    /// Reach of the network.
    pub network: NetworkAccess,
    /// The loopback address in that network at which its daemon listens, for what it asks models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddrV4>,
    /// There is no network namespace to be had: it is in the host's network, and kept to the number of that port.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub port_alone: bool,
    /// The loopback addresses in that network at which its daemon stands for hosts, for programs that know no proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<SocketAddrV4>,
    /// Limits of the control group.
    pub group: GroupLimits,
    /// Limits of each process.
    pub process: ProcessLimits,
    /// Another user to run as.
    pub run_as: Option<RunAs>,
    /// What the agent must not make, and is not there: looked for when it has ended.
    pub guards: Vec<Guard>,
    /// What it may write and is not there: made before it starts.
    pub to_make: Vec<ToMake>,
    /// Declared but beyond what any layer does in full; reported as partial.
    pub gaps: Vec<(Layer, String)>,
    /// Environment that goes with the rules: toolchain homes, git's configuration, PATH.
    environment: Vec<(String, String)>,
    #[serde(skip)]
    rules: Vec<Rule>,
    #[serde(skip)]
    absent: Vec<Declared<PathBuf>>,
}

impl SandboxPlan {
    /// The same without what is only for people and for the environment: what is sent to the keeper, and kept.
    pub fn bare(mut self) -> Self {
        self.rules = Vec::new();
        self.absent = Vec::new();
        self.environment = Vec::new();
        self
    }

    /// Every rule, with the place that it comes from.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Declared paths that the agent may only read, and that are not there: nothing of them is granted.
    pub fn absent(&self) -> &[Declared<PathBuf>] {
        &self.absent
    }

    /// Variables that the rules need to be useful: PATH, toolchain homes, git's configuration. They replace the
    /// caller's variables of the same names and are replaced by what the agent declares itself.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }
}

/// One rule for people: what is enforced, by which layer, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The layer that enforces it.
    pub layer: Layer,
    /// The rule in a few words: `read /srv/app`, `memory ≤ 512 MiB`.
    pub rule: String,
    /// Where it was declared.
    pub origin: Origin,
}

/// Whether writing is possible. Ordered: more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Reading only, under a name that nobody can give to something else: where it is a link, the link itself is kept.
    Protected,
    /// Reading only.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// What to do when a path is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// The start fails.
    Required,
    /// It is left out.
    Optional,
}

/// What to do about symbolic links on the way to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Links {
    /// Follow them: the path is the system's own, such as `/bin`.
    Follow,
    /// There were none when the plan was made, and one that has appeared since fails the start: whoever can write
    /// below the workspace must not lead a later start elsewhere.
    Refuse,
}

/// One bind mount. Its source has no symbolic link in it.
///
/// Without a source the target is covered: something empty and read-only lies over it, in which the targets of deeper
/// binds still have their places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// What is shown, if anything.
    pub source: Option<PathBuf>,
    /// Where.
    pub target: PathBuf,
    /// Whether it can be written.
    pub access: Access,
    /// Whether it must be there.
    pub need: Need,
    /// Whether the mount lets programs in it be executed.
    pub execution: Execution,
}

/// Whether what a mount shows can be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Execution {
    /// As far as Landlock's rules allow it.
    Allowed,
    /// Never: the mount has `MOUNT_ATTR_NOEXEC` (mount_setattr(2)), which also keeps shared libraries from being loaded.
    Refused,
}

/// What a Landlock rule allows below its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// List folders, and read nothing in them.
    List,
    /// Read files and list folders.
    Read,
    /// Read, list and execute.
    Execute,
    /// Read, list and write into what is there, such as a device.
    Device,
    /// Everything but execute.
    Write,
    /// Everything.
    WriteExecute,
}

/// One Landlock rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRule {
    /// The file or folder; a folder stands for all below it.
    pub path: PathBuf,
    /// What is allowed.
    pub right: Right,
    /// Whether links on the way are followed.
    pub links: Links,
    /// Whether it must be there.
    pub need: Need,
}

/// A file or folder that a grant names and that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToMake {
    /// Where, without links in it; the folder above is there.
    pub path: PathBuf,
    /// What.
    pub kind: Made,
}

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// An empty folder.
    Folder,
    /// An empty file.
    File,
}

/// Limits of the control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLimits {
    /// Bytes of memory, swap included.
    pub memory: u64,
    /// Thousandths of one CPU.
    pub cpu_millis: u32,
    /// `cpu.weight`, 1–10,000.
    pub cpu_weight: u32,
    /// Processes and threads.
    pub processes: u32,
}

impl GroupLimits {
    /// What a declaration says of them.
    pub fn of(confinement: &Confinement) -> Self {
        let limits = &confinement.limits;
        Self {
            memory: limits.memory.value.0,
            cpu_millis: limits.cpu.value.millis,
            cpu_weight: confinement.priority.value.cpu_weight(),
            processes: limits.processes.value,
        }
    }
}

/// Limits of each process (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimits {
    /// `RLIMIT_NOFILE`.
    pub open_files: u32,
    /// `RLIMIT_FSIZE` in bytes.
    pub file_size: Option<u64>,
}

/// A user to become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}
