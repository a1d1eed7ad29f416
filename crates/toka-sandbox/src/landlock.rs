//! From the plan's path rules to one Landlock ruleset. One, because a second would deny moving files between folders
//! (`REFER`), which cargo, npm and git need (landlock(7)).

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use toka_core::NetworkAccess;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};
use nix::sys::stat::SFlag;

use crate::mounts::Opened;
use crate::places::kind_of;
use crate::plan::{Links, Need, PathRule, Right, SandboxPlan};
use crate::sys;

/// What a ruleset could not be made of.
#[derive(Debug)]
pub(crate) struct RulesetError {
    pub(crate) path: Option<String>,
    pub(crate) source: io::Error,
}

/// The ABI that both the kernel and the library know.
pub(crate) fn abi(version: u32) -> ABI {
    match version {
        0 => ABI::Unsupported,
        1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        _ => ABI::V6,
    }
}

/// What an older kernel's Landlock lacks.
pub(crate) fn shortcomings(version: u32) -> Vec<String> {
    let rows = [
        (2, "cannot allow moving files between folders"),
        (3, "does not deny truncation"),
        (4, "does not deny TCP ports"),
        (5, "does not deny ioctl on devices"),
        (6, "does not deny signals and abstract sockets"),
    ];
    rows.iter()
        .filter(|(needed, _)| version < *needed)
        .map(|(needed, what)| format!("Landlock ABI {version} {what} (ABI {needed} does)"))
        .collect()
}

/// The system's own paths, which every ruleset allows, opened once for all. A file of /etc may be replaced by another,
/// and the rule must be on the new one; replacing it changes its folder's time, so the folders are looked at before each
/// use.
#[derive(Debug, Default)]
pub(crate) struct Anchors {
    opened: Vec<Anchor>,
    folders: Vec<(PathBuf, Option<SystemTime>)>,
}

#[derive(Debug)]
struct Anchor {
    path: PathBuf,
    file: File,
    kind: SFlag,
    right: Right,
}

impl Anchors {
    /// Opens those of `rules` whose paths are there.
    pub(crate) fn open<'p>(rules: impl Iterator<Item = (&'p Path, Right)>) -> Self {
        let mut opened = Vec::new();
        let mut folders = BTreeSet::new();
        for (path, right) in rules {
            folders.extend(path.parent().map(Path::to_owned));
            let (file, kind) = match open_itself(path) {
                Ok((file, kind)) if kind != SFlag::S_IFLNK => (file, kind),
                // It is a link, or one is on the way.
                _ => {
                    let Ok(file) = open(path, Links::Follow) else { continue };
                    let Ok(kind) = kind_of(&file) else { continue };
                    // What it leads to may be replaced in its own folder.
                    folders.extend(real(&file).as_deref().and_then(Path::parent).map(Path::to_owned));
                    (file, kind)
                }
            };
            opened.push(Anchor { path: path.to_owned(), file, kind, right });
        }
        Self {
            opened,
            folders: folders.into_iter().map(|folder| (folder.clone(), changed(&folder))).collect(),
        }
    }

    /// Whether every path still leads where it led.
    pub(crate) fn are_current(&self) -> bool {
        self.folders.iter().all(|(folder, time)| changed(folder) == *time)
    }
}

/// What an open file is called without links (proc_pid_fd(5)): one call, where to follow them one by one is many.
fn real(file: &File) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}

fn changed(folder: &Path) -> Option<SystemTime> {
    folder.metadata().and_then(|found| found.modified()).ok()
}

/// Makes a ruleset of the system's own paths and `rules`, some of which are `mounted` already, with `extra` for paths that are known only by descriptor.
///
/// # Errors
/// When a required path cannot be opened, or the kernel refuses a rule.
pub(crate) fn ruleset(
    version: u32,
    anchors: &Anchors,
    rules: &[PathRule],
    mounted: &[Opened],
    extra: &[(&OwnedFd, Right)],
    ports: Ports,
) -> Result<OwnedFd, RulesetError> {
    let abi = abi(version);
    let made = create(abi, ports).map_err(|error| failed(None, io::Error::other(error)))?;
    let made: Option<OwnedFd> = made.into();
    let made = made.ok_or_else(|| failed(None, io::Error::from(io::ErrorKind::Unsupported)))?;
    for Anchor { path, file, kind, right } in &anchors.opened {
        allow(&made, file, *kind, *right, abi).map_err(|error| failed(Some(path), error))?;
    }
    for rule in rules {
        // What is shown by a mount is open already; a rule is on what a path leads to, not on the path (landlock(7)).
        if let Some(opened) = mounted.iter().find(|opened| opened.source.as_deref() == Some(&rule.path)) {
            allow(&made, &opened.tree, opened.kind, rule.right, abi)
                .map_err(|error| failed(Some(&rule.path), error))?;
            continue;
        }
        let file = match open(&rule.path, rule.links) {
            Ok(file) => file,
            Err(error) if rule.need == Need::Optional && is_absence(&error) => continue,
            Err(error) => return Err(failed(Some(&rule.path), error)),
        };
        kind_of(&file)
            .map_err(io::Error::from)
            .and_then(|kind| allow(&made, &file, kind, rule.right, abi))
            .map_err(|error| failed(Some(&rule.path), error))?;
    }
    for (file, right) in extra {
        kind_of(file)
            .map_err(io::Error::from)
            .and_then(|kind| allow(&made, file, kind, *right, abi))
            .map_err(|error| failed(None, error))?;
    }
    Ok(made)
}

/// What of TCP the rules decide about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// Nothing: the network does that by itself.
    Any,
    /// No port may be connected to or listened at.
    None,
    /// This one may be connected to, at whatever address.
    ConnectTo(u16),
}

impl Ports {
    /// What a plan needs.
    pub(crate) fn of(plan: &SandboxPlan) -> Self {
        match (plan.port_alone, plan.listen) {
            (true, Some(address)) => Self::ConnectTo(address.port()),
            (true, None) => Self::None,
            (false, _) if plan.network == NetworkAccess::None => Self::None,
            (false, _) => Self::Any,
        }
    }
}

fn create(abi: ABI, ports: Ports) -> Result<RulesetCreated, landlock::RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))?;
    if ports != Ports::Any && abi >= ABI::V4 {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi))?;
    }
    if abi >= ABI::V6 {
        ruleset = ruleset.scope(Scope::from_all(abi))?;
    }
    let created = ruleset.create()?;
    match ports {
        Ports::ConnectTo(port) if abi >= ABI::V4 => {
            created.add_rule(NetPort::new(port, AccessNet::ConnectTcp))
        }
        _ => Ok(created),
    }
}

/// Adds one rule. Not through the library, which asks for the kind of each file again: there are sixty rules to a start.
fn allow(ruleset: &OwnedFd, file: impl AsFd, kind: SFlag, right: Right, abi: ABI) -> io::Result<()> {
    let mut access = accesses(right, abi);
    if kind != SFlag::S_IFDIR {
        access &= AccessFs::from_file(abi);
    }
    if kind == SFlag::S_IFREG {
        access &= !BitFlags::from(AccessFs::IoctlDev);
    }
    sys::landlock_allow(ruleset.as_fd(), access.bits(), file.as_fd())
}

/// The kernel's rights behind one of ours. Nobody may make device files.
fn accesses(right: Right, abi: ABI) -> BitFlags<AccessFs> {
    let all = AccessFs::from_all(abi);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let devices = AccessFs::MakeChar | AccessFs::MakeBlock;
    all & match right {
        Right::List => AccessFs::ReadDir.into(),
        Right::Read => read,
        Right::Execute => read | AccessFs::Execute,
        Right::Device => read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev,
        Right::Write => all & !(devices | AccessFs::Execute),
        Right::WriteExecute => all & !devices,
    }
}

/// Opens what is at a path, be it a link, for reference only; and says what kind of file it is.
fn open_itself(path: &Path) -> io::Result<(File, SFlag)> {
    let file = File::from(sys::open_itself(&sys::c_path(path)?)?);
    let kind = kind_of(&file)?;
    Ok((file, kind))
}

/// Opens a path for reference only.
fn open(path: &Path, links: Links) -> io::Result<File> {
    match links {
        Links::Follow => File::options().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path),
        Links::Refuse => sys::open_without_links(&sys::c_path(path)?).map(File::from),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}

fn failed(path: Option<&Path>, source: io::Error) -> RulesetError {
    RulesetError { path: path.map(|path| path.display().to_string()), source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_replaced_is_opened_again_also_behind_a_link() {
        let root = tempfile::tempdir().expect("a folder");
        let (etc, beside) = (root.path().join("etc"), root.path().join("beside"));
        for (folder, name) in [(&etc, "plain"), (&beside, "target")] {
            fs::create_dir(folder).expect("a folder");
            fs::write(folder.join(name), "").expect("a file");
        }
        symlink("../beside/target", etc.join("link")).expect("a link");
        let names = ["plain", "link"].map(|name| etc.join(name));
        let look = || Anchors::open(names.iter().map(|path| (path.as_path(), Right::Read)));
        for folder in [&etc, &beside] {
            // What changes within one tick of the clock has the same time.
            let long_ago = SystemTime::now() - Duration::from_secs(3600);
            File::open(folder).and_then(|it| it.set_modified(long_ago)).expect("ours");
            let anchors = look();
            assert!(anchors.are_current());
            assert!(anchors.opened.iter().all(|anchor| anchor.kind == SFlag::S_IFREG), "{anchors:?}");
            assert_eq!(anchors.opened.len(), 2);
            fs::write(folder.join("new"), "").expect("a file");
            assert!(!anchors.are_current(), "{}", folder.display());
        }
    }
}
