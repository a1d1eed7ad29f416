//! What a doctor looks at before it tries anything. Everything is read here, once, into [`Facts`]; what it means is decided
//! elsewhere, by pure functions.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::wait::waitpid;
use nix::unistd::{AccessFlags, Pid, access};
use toka_api::host::HostFigures;
use toka_core::{Enforcement, LayerReport};
use toka_prepare::host_figures;
use toka_sandbox::HostFacts;
use toka_sandbox::sys::{self, BirthPlace, Forked};

use super::DoctorOptions;
use super::leftovers::{self, Leftover};
use super::test_bed::{SetupError, default_plan};

/// The host as it was found.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// What uname(2) says: `6.12.3-amd64`.
    pub(super) release: String,
    /// The processor's family.
    pub(super) machine: String,
    /// What the sandbox knows of the host.
    pub(super) host: HostFacts,
    /// What an agent with the default sandbox gets, as far as the host's facts tell; else what is wrong.
    pub(super) default: Result<Default, SetupError>,
    /// Whether the kernel filters system calls.
    pub(super) seccomp: bool,
    /// Whether clone3(2) is there and nobody refuses it.
    pub(super) clone3: bool,
    /// Whether there are figures of pressure.
    pub(super) psi: bool,
    /// `kernel.unprivileged_userns_clone`, of Debian's kernels.
    pub(super) userns_clone: Option<u64>,
    /// `user.max_user_namespaces`.
    pub(super) userns_max: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`.
    pub(super) userns_apparmor: Option<u64>,
    /// Whether version 2 of control groups is all there is.
    pub(super) is_unified: bool,
    /// Controllers of our own group in version 2.
    pub(super) controllers: Vec<String>,
    /// Soft and hard limit of open files.
    pub(super) open_files: (u64, u64),
    /// Where state is kept.
    pub(super) state: FolderFacts,
    /// Where sockets and secrets are.
    pub(super) run: FolderFacts,
    /// The wall clock, in seconds of Unix.
    pub(super) now: u64,
    /// Whether local time can be told.
    pub(super) has_zones: bool,
    /// Where git is.
    pub(super) git: Option<PathBuf>,
    /// Processors, load, memory.
    pub(super) figures: Option<HostFigures>,
    /// Toolchains on the search path.
    pub(super) toolchains: Vec<&'static str>,
    /// What dead runs left.
    pub(super) leftovers: Vec<Leftover>,
}

/// What the default sandbox comes to on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Default {
    /// Layer by layer.
    pub(super) enforcement: Enforcement,
    /// The layers of which there is less than such an agent demands.
    pub(super) lacking: Vec<LayerReport>,
}

/// A folder of Toka's, or where it would be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FolderFacts {
    pub(super) path: PathBuf,
    /// Itself when it is there, else the nearest folder above that is.
    pub(super) nearest: PathBuf,
    /// Whether files can be made in that.
    pub(super) is_writable: bool,
    /// The permission bits of the folder itself, if it is there.
    pub(super) mode: Option<u32>,
    /// Room that is left.
    pub(super) free_bytes: Option<u64>,
    /// Files that can still be made; `None` too where the file system does not count them.
    pub(super) free_files: Option<u64>,
    /// Whether it lies in memory.
    pub(super) is_tmpfs: bool,
}

/// Programs by which a toolchain is known.
const TOOLCHAINS: [&str; 8] = ["cargo", "node", "npm", "python3", "go", "java", "gcc", "make"];

impl Facts {
    /// Looks at everything. To be called while the process has a single thread.
    pub(super) fn gather(options: &DoctorOptions) -> Self {
        let host = HostFacts::probe();
        let (release, machine) = uname();
        let find =
            |name: &str| host.path.iter().map(|folder| folder.join(name)).find(|path| is_program(path));
        Self {
            release,
            machine,
            default: default_plan(&host, &options.toka_exe)
                .map(|plan| Default { enforcement: host.enforcement(&plan), lacking: host.lacking(&plan) }),
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            clone3: has_clone3(),
            psi: Path::new("/proc/pressure/cpu").exists(),
            userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            userns_max: number("/proc/sys/user/max_user_namespaces"),
            userns_apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            is_unified: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            controllers: controllers(host.cgroups.unified.as_deref()),
            open_files: getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((0, 0)),
            state: FolderFacts::of(&options.state_dir),
            run: FolderFacts::of(&options.run_dir),
            now: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            has_zones: std::env::var_os("TZ").is_some()
                || ["/etc/localtime", "/usr/share/zoneinfo"].iter().any(|path| Path::new(path).exists()),
            git: find("git"),
            figures: host_figures::look(),
            toolchains: TOOLCHAINS.into_iter().filter(|name| find(name).is_some()).collect(),
            leftovers: leftovers::find(&options.state_dir, &options.run_dir, &host.cgroups),
            host,
        }
    }
}

impl FolderFacts {
    fn of(path: &Path) -> Self {
        let nearest = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        let disk = nix::sys::statvfs::statvfs(nearest).ok();
        let bytes =
            |disk: &nix::sys::statvfs::Statvfs| disk.blocks_available().saturating_mul(disk.fragment_size());
        Self {
            path: path.to_owned(),
            nearest: nearest.to_owned(),
            is_writable: access(nearest, AccessFlags::W_OK | AccessFlags::X_OK).is_ok(),
            mode: path.metadata().ok().map(|metadata| metadata.permissions().mode() & 0o7777),
            free_bytes: disk.as_ref().map(bytes),
            free_files: disk.filter(|disk| disk.files() > 0).map(|disk| disk.files_available()),
            is_tmpfs: statfs(nearest).is_ok_and(|disk| disk.filesystem_type() == TMPFS_MAGIC),
        }
    }
}

fn uname() -> (String, String) {
    let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
    nix::sys::utsname::uname().map_or_else(
        |_| ("unknown".to_owned(), std::env::consts::ARCH.to_owned()),
        |name| (text(name.release()), text(name.machine())),
    )
}

/// Some containers refuse the call for the sake of its flags, which their filter cannot see.
fn has_clone3() -> bool {
    match sys::fork_into(None, BirthPlace::Here) {
        Ok(Forked::Child) => sys::exit_now(0),
        Ok(Forked::Parent(pid)) => waitpid(Pid::from_raw(pid), None).is_ok(),
        Err(_) => false,
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn controllers(unified: Option<&Path>) -> Vec<String> {
    let text = unified.and_then(|group| fs::read_to_string(group.join("cgroup.controllers")).ok());
    text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.mode() & 0o111 != 0)
}
