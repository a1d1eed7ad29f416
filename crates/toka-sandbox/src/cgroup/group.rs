//! One agent's control group, in all the hierarchies of the layout at once.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;
use toka_core::Name;
use toka_core::event::Usage;

use super::{Cgroups, Kind, files, folder_of};
use crate::plan::GroupLimits;

/// Period of the CPU quota in microseconds, the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The weight that a group has when none is written: 1,024 shares of version 1.
const USUAL_WEIGHT: u32 = 100;
/// The same in version 1 (`cpu.shares`).
const USUAL_SHARES: &str = "1024";

/// Something that a control group would not do.
#[derive(Debug, Error)]
#[error("{operation} {}", path.display())]
pub struct GroupError {
    /// What was tried.
    pub operation: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GroupError {
    let path = path.to_owned();
    move |source| GroupError { operation, path, source }
}

/// The group of one agent. Its folders are removed by [`Group::remove`], not on drop: a group outlives whoever looks at it.
#[derive(Debug, Clone)]
pub struct Group {
    pub(super) kind: Kind,
    pub(super) seat: Seating,
    pub(super) memory: Option<PathBuf>,
    pub(super) cpu: Option<PathBuf>,
    pub(super) pids: Option<PathBuf>,
    freezer: Option<PathBuf>,
    pub(super) unified: Option<PathBuf>,
}

/// Whether a group is an agent's, or a leaf of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seating {
    Agent,
    /// Its v1 `cpu` and `pids` groups are the agent's.
    Leaf,
}

/// The ways into a group, chosen so that no other processor has to be waited for ([`crate::sys::fork_into`]).
#[derive(Debug)]
pub struct Entrances {
    /// v1: files to which the child, while it has a single thread, writes `0`. Writing to `cgroup.procs` instead would
    /// move the same and lock every fork and exit on the machine meanwhile.
    pub tasks: Vec<OwnedFd>,
    /// v2: the folder of the group that the child is born into.
    pub birthplace: Option<OwnedFd>,
}

/// A file of the kernel's that limits a group.
#[derive(Debug, PartialEq, Eq)]
struct LimitFile {
    path: PathBuf,
    value: String,
    /// What is so when it cannot be written.
    meaning: &'static str,
}

impl LimitFile {
    /// Why it could not be written, if so.
    fn write(&self) -> Option<String> {
        let error = files::write(&self.path, &self.value).err()?;
        Some(format!("{}: cannot write {}: {error}", self.meaning, self.path.display()))
    }
}

impl Group {
    /// Makes the group with its limits. What could not be limited is returned as reasons; nothing is silently left out.
    ///
    /// # Errors
    /// When a folder cannot be made, or a group of this name still has processes.
    pub fn create(
        cgroups: &Cgroups,
        project: &str,
        agent: &str,
        limits: &GroupLimits,
    ) -> Result<(Self, Vec<String>), GroupError> {
        let layout = cgroups.layout();
        let group = Self::at(cgroups, &Path::new(folder_of(project)).join(folder_of(agent)));
        let mut reasons = Vec::new();
        if let (Kind::Unified, Some(root)) = (layout.kind, &layout.unified) {
            reasons.extend(delegate_controllers(root, &cgroups.name, folder_of(project)));
        }
        for folder in group.folders() {
            make_folder(folder)?;
        }
        reasons.extend(group.apply(limits));
        Ok((group, reasons))
    }

    /// The group of an agent that was started earlier, perhaps by another keeper: nothing is made or limited. Where there
    /// is none any more it behaves as an empty one.
    pub fn open(cgroups: &Cgroups, project: &Name, agent: &Name) -> Self {
        Self::at(cgroups, &Path::new(folder_of(project.as_str())).join(folder_of(agent.as_str())))
    }

    /// Whether it is there, in all hierarchies of the layout.
    pub fn exists(&self) -> bool {
        self.can_kill() && self.own_folders().all(Path::is_dir)
    }

    /// Whether its processes are kept from running, or about to be.
    pub fn is_frozen(&self) -> bool {
        match (&self.unified, &self.freezer) {
            (Some(folder), _) => files::number(&folder.join("cgroup.freeze")) == Some(1),
            (None, Some(folder)) => {
                fs::read_to_string(folder.join("freezer.state")).is_ok_and(|state| state.trim() != "THAWED")
            }
            (None, None) => false,
        }
    }

    /// Whether the kernel has stopped every process in it, and not only been asked to (cgroup-v2, `cgroup.events`).
    pub fn has_frozen(&self) -> bool {
        let reads = |path: PathBuf, wanted: &str| {
            fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line.trim() == wanted))
        };
        match (&self.unified, &self.freezer) {
            (Some(folder), _) => reads(folder.join("cgroup.events"), "frozen 1"),
            (None, Some(folder)) => reads(folder.join("freezer.state"), "FROZEN"),
            (None, None) => false,
        }
    }

    /// All groups of a keeper as one.
    pub(super) fn whole(cgroups: &Cgroups) -> Self {
        Self::at(cgroups, Path::new(""))
    }

    pub(super) fn at(cgroups: &Cgroups, path: &Path) -> Self {
        let layout = cgroups.layout();
        let below = |root: &Option<PathBuf>| root.as_ref().map(|root| root.join(&cgroups.name).join(path));
        Self {
            kind: layout.kind,
            seat: Seating::Agent,
            memory: below(&layout.memory),
            cpu: below(&layout.cpu),
            pids: below(&layout.pids),
            freezer: below(&layout.freezer),
            unified: below(&layout.unified),
        }
    }

    fn folders(&self) -> impl Iterator<Item = &Path> {
        [&self.memory, &self.cpu, &self.pids, &self.freezer, &self.unified]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    /// Those that are removed with it.
    fn own_folders(&self) -> impl Iterator<Item = &Path> {
        let (cpu, pids) = match self.seat {
            Seating::Agent => (&self.cpu, &self.pids),
            Seating::Leaf => (&None, &None),
        };
        [&self.memory, cpu, pids, &self.freezer, &self.unified].into_iter().flatten().map(PathBuf::as_path)
    }

    /// The ways into it.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn entrances(&self) -> Result<Entrances, GroupError> {
        let v1 = [&self.memory, &self.cpu, &self.pids, &self.freezer].into_iter().flatten();
        let tasks = v1.map(|folder| {
            let path = folder.join("tasks");
            File::options().write(true).open(&path).map(OwnedFd::from).map_err(failed("open", &path))
        });
        let birthplace = self.unified.as_ref().map(|folder| {
            let path = self.leaf_of(folder, "main");
            File::open(&path).map(OwnedFd::from).map_err(failed("open", &path))
        });
        Ok(Entrances { tasks: tasks.collect::<Result<_, _>>()?, birthplace: birthplace.transpose()? })
    }

    /// On pure v2 processes live only in leaves; elsewhere in the group itself.
    fn leaf_of(&self, folder: &Path, leaf: &str) -> PathBuf {
        match self.kind {
            Kind::Unified if self.seat == Seating::Agent => folder.join(leaf),
            _ if leaf == "main" => folder.to_owned(),
            _ => folder.join(leaf),
        }
    }

    /// Limits a group that was just made; what could not be limited, in words.
    fn apply(&self, limits: &GroupLimits) -> Vec<String> {
        let files = self.limit_files(limits).into_iter();
        // Most agents have the weight that the kernel gives a new group.
        let mut reasons: Vec<String> = files
            .filter(|file| !(file.path.ends_with("cpu.shares") && file.value == USUAL_SHARES))
            .filter_map(|file| file.write())
            .collect();
        if let (Kind::Unified, Some(folder)) = (self.kind, &self.unified) {
            // Tasks of their own are accounted in leaves; processes may then live only in leaves.
            let meaning = "tasks are not accounted singly";
            let file =
                LimitFile { path: folder.join("cgroup.subtree_control"), value: "+memory".into(), meaning };
            reasons.extend(file.write());
            if let Err(error) = make_folder(&folder.join("main")) {
                reasons.push(error.to_string());
            }
        }
        reasons.extend(self.missing().map(str::to_owned));
        reasons
    }

    /// Puts other limits in force while its processes run; what could not be changed, in words. A limit on memory may only
    /// grow: version 1 refuses one below what is in use, and version 2 kills for it (memory.max).
    pub fn change_limits(&self, limits: &GroupLimits) -> Vec<String> {
        // The limit with swap is the first to grow: in version 1 it is never below that without.
        self.limit_files(limits).iter().rev().filter_map(LimitFile::write).collect()
    }

    fn limit_files(&self, limits: &GroupLimits) -> Vec<LimitFile> {
        let quota = u64::from(limits.cpu_millis) * CPU_PERIOD_US / 1000;
        let memory = limits.memory.to_string();
        let mut files = Vec::new();
        let mut add = |folder: &Path, file: &str, value: String, meaning| {
            files.push(LimitFile { path: folder.join(file), value, meaning });
        };
        let processes = limits.processes.to_string();
        match (self.kind, &self.unified) {
            (Kind::Unified, Some(folder)) => {
                add(folder, "memory.max", memory, "memory is not limited");
                add(folder, "memory.swap.max", "0".into(), "swap is not limited");
                add(folder, "cpu.max", format!("{quota} {CPU_PERIOD_US}"), "CPU is not limited");
                add(folder, "cpu.weight", limits.cpu_weight.to_string(), "CPU has no weight");
                add(folder, "pids.max", processes, "processes are not limited");
            }
            _ => {
                if let Some(folder) = &self.memory {
                    add(folder, "memory.limit_in_bytes", memory.clone(), "memory is not limited");
                    if folder.join("memory.memsw.limit_in_bytes").exists() {
                        add(folder, "memory.memsw.limit_in_bytes", memory, "swap is not limited");
                    }
                }
                if let Some(folder) = &self.cpu {
                    let shares = u64::from(limits.cpu_weight) * 1024 / u64::from(USUAL_WEIGHT);
                    add(folder, "cpu.cfs_quota_us", quota.to_string(), "CPU is not limited");
                    add(folder, "cpu.shares", shares.to_string(), "CPU has no weight");
                }
                if let Some(folder) = &self.pids {
                    add(folder, "pids.max", processes, "processes are not limited");
                }
            }
        }
        files
    }

    fn missing(&self) -> impl Iterator<Item = &'static str> {
        let v1 = self.kind != Kind::Unified;
        let rows = [
            (v1 && self.memory.is_none(), "no memory controller that we may use"),
            (v1 && self.cpu.is_none(), "no cpu controller that we may use"),
            (v1 && self.pids.is_none(), "no pids controller that we may use"),
            (self.unified.is_none() && self.freezer.is_none(), "nothing to freeze with"),
        ];
        rows.into_iter().filter(|(missing, _)| *missing).map(|(_, reason)| reason)
    }

    /// Whether no process is left in it or in any leaf.
    pub fn is_empty(&self) -> bool {
        match &self.unified {
            Some(folder) => files::keyed(&folder.join("cgroup.events"), "populated") != Some(1),
            None => {
                self.first().is_none_or(|folder| tree(folder).iter().all(|f| files::processes(f).is_empty()))
            }
        }
    }

    fn first(&self) -> Option<&Path> {
        self.own_folders().next()
    }

    /// Sends SIGKILL to everything in it, frozen or not. On v2 one write; on v1 a frozen tree is killed and thawed, so
    /// that it can neither fork away meanwhile nor survive frozen. Call again until [`Group::is_empty`].
    ///
    /// # Errors
    /// When the kernel's file cannot be written.
    pub fn kill(&self) -> Result<(), GroupError> {
        if let Some(folder) = &self.unified {
            let path = folder.join("cgroup.kill");
            if path.exists() {
                return files::write(&path, "1").map_err(failed("write", &path));
            }
        }
        if let Some(freezer) = &self.freezer {
            let path = freezer.join("freezer.state");
            files::write(&path, "FROZEN").map_err(failed("write", &path))?;
            self.signal(Signal::SIGKILL);
            return files::write(&path, "THAWED").map_err(failed("write", &path));
        }
        self.signal(Signal::SIGKILL);
        Ok(())
    }

    /// Whether there is any hierarchy through which its processes can be found.
    pub fn can_kill(&self) -> bool {
        self.first().is_some()
    }

    /// Every process in it and its leaves; `None` when there is no hierarchy that tells.
    pub fn processes(&self) -> Option<Vec<i32>> {
        let folders = tree(self.first()?);
        Some(folders.iter().flat_map(|folder| files::processes(folder)).collect())
    }

    /// Sends a signal to every process in it.
    pub fn signal(&self, signal: Signal) {
        for pid in self.processes().unwrap_or_default() {
            // A process that has gone meanwhile needs no signal.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Stops every process in it from running, until [`Group::thaw`]. The kernel may take a moment.
    ///
    /// # Errors
    /// When there is nothing to freeze with, or the kernel's file cannot be written.
    pub fn freeze(&self) -> Result<(), GroupError> {
        self.set_frozen("1", "FROZEN")
    }

    /// Lets a frozen group run again.
    ///
    /// # Errors
    /// As [`Group::freeze`].
    pub fn thaw(&self) -> Result<(), GroupError> {
        self.set_frozen("0", "THAWED")
    }

    fn set_frozen(&self, v2: &str, v1: &str) -> Result<(), GroupError> {
        let (path, value) = match (&self.unified, &self.freezer) {
            (Some(folder), _) => (folder.join("cgroup.freeze"), v2),
            (None, Some(folder)) => (folder.join("freezer.state"), v1),
            (None, None) => {
                let source = io::Error::from(io::ErrorKind::Unsupported);
                return Err(GroupError {
                    operation: "freeze without a freezer",
                    path: PathBuf::new(),
                    source,
                });
            }
        };
        files::write(&path, value).map_err(failed("write", &path))
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        match (self.kind, &self.unified) {
            (Kind::Unified, Some(folder)) => Usage {
                memory_peak: files::number(&folder.join("memory.peak")),
                cpu_us: files::keyed(&folder.join("cpu.stat"), "usage_usec"),
                oom_kills: self.oom_kills(),
            },
            (_, unified) => Usage {
                memory_peak: self
                    .memory
                    .as_ref()
                    .and_then(|f| files::number(&f.join("memory.max_usage_in_bytes"))),
                cpu_us: unified.as_ref().and_then(|f| files::keyed(&f.join("cpu.stat"), "usage_usec")),
                oom_kills: self.oom_kills(),
            },
        }
    }

    /// How many of its processes the kernel has killed for memory, with those in its leaves. Under version 1 a leaf takes its
    /// count along when it is removed ([`Group::forgets_leaves`]).
    pub fn oom_kills(&self) -> u64 {
        let Some(folder) = self.memory_folder() else { return 0 };
        let kills = |folder: &Path, file: &str| files::keyed(&folder.join(file), "oom_kill").unwrap_or(0);
        if !self.forgets_leaves() {
            return kills(folder, "memory.events");
        }
        let leaves = || files::children(folder).into_iter().map(|leaf| kills(&leaf, "memory.oom_control"));
        let of_leaves = if self.seat == Seating::Agent { leaves().sum() } else { 0 };
        kills(folder, "memory.oom_control") + of_leaves
    }

    /// Whether what a leaf counted is gone when it is removed: version 1 counts each group by itself.
    pub fn forgets_leaves(&self) -> bool {
        self.kind != Kind::Unified
    }

    /// Where its memory is counted, if it is.
    pub(super) fn memory_folder(&self) -> Option<&Path> {
        if self.kind == Kind::Unified { self.unified.as_deref() } else { self.memory.as_deref() }
    }

    /// Makes a leaf in which a further process begins: within the limits of this group, accounted and ended by itself.
    /// Where only groups without processes may have leaves with controllers, or the other way round, it still counts for
    /// the whole.
    ///
    /// # Errors
    /// When the name is no plain word, or a folder cannot be made.
    pub fn leaf(&self, name: &str) -> Result<Self, GroupError> {
        check_leaf(name)?;
        let leaf = self.open_leaf(name);
        for folder in leaf.own_folders() {
            make_folder(folder)?;
        }
        Ok(leaf)
    }

    /// The leaf that [`Group::leaf`] made earlier; where there is none any more it behaves as an empty one.
    pub fn open_leaf(&self, name: &str) -> Self {
        let below = |folder: &Option<PathBuf>| folder.as_ref().map(|folder| folder.join(name));
        Self {
            memory: below(&self.memory),
            freezer: below(&self.freezer),
            unified: below(&self.unified),
            // Their limits are the agent's as a whole; there is nothing to account singly.
            cpu: self.cpu.clone(),
            pids: self.pids.clone(),
            seat: Seating::Leaf,
            ..*self
        }
    }

    /// The names of its leaves, whatever they were made for.
    pub fn leaves(&self) -> BTreeSet<String> {
        let below = self.own_folders().flat_map(files::children);
        below.filter_map(|leaf| Some(leaf.file_name()?.to_str()?.to_owned())).collect()
    }

    /// Makes a leaf for one task and moves a process into it with all its threads. Only memory and CPU are accounted
    /// singly, so only those hierarchies get the leaf.
    ///
    /// # Errors
    /// When a folder cannot be made or the process cannot be moved.
    pub fn make_leaf(&self, leaf: &str, pid: i32) -> Result<(), GroupError> {
        check_leaf(leaf)?;
        for folder in self.leaf_folders(leaf) {
            make_folder(&folder)?;
            let path = folder.join("cgroup.procs");
            files::write(&path, &pid.to_string()).map_err(failed("write", &path))?;
        }
        Ok(())
    }

    /// Kills what is left in a leaf and removes it; says what it used.
    ///
    /// # Errors
    /// When it still has processes after the kill; call again.
    pub fn remove_leaf(&self, leaf: &str) -> Result<Usage, GroupError> {
        check_leaf(leaf)?;
        let leaf = Self {
            memory: self.memory.as_ref().map(|f| f.join(leaf)),
            unified: self.unified.as_ref().map(|f| f.join(leaf)),
            cpu: None,
            pids: None,
            freezer: None,
            ..*self
        };
        if !leaf.is_empty() {
            leaf.kill()?;
        }
        let usage = leaf.usage();
        for folder in leaf.folders() {
            remove_folder(folder)?;
        }
        Ok(usage)
    }

    fn leaf_folders(&self, leaf: &str) -> impl Iterator<Item = PathBuf> {
        [&self.memory, &self.unified]
            .into_iter()
            .flatten()
            .map(|folder| folder.join(leaf))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Removes it with its leaves, in every hierarchy.
    ///
    /// # Errors
    /// When a process is still in it.
    pub fn remove(&self) -> Result<(), GroupError> {
        for folder in self.own_folders() {
            if fs::remove_dir(folder).is_err() {
                remove_tree(folder)?;
            }
        }
        Ok(())
    }
}

/// A leaf's name is one plain path component.
fn check_leaf(leaf: &str) -> Result<(), GroupError> {
    match Name::new(leaf) {
        Ok(_) => Ok(()),
        Err(error) => Err(failed("name group", Path::new(leaf))(io::Error::other(error))),
    }
}

/// The folder and all below it.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned()];
    all.extend(files::children(folder).iter().flat_map(|child| tree(child)));
    all
}

/// Makes a group afresh. One that is left from before is removed first: its peaks and counters are somebody else's.
fn make_folder(folder: &Path) -> Result<(), GroupError> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).map_err(failed("make group", folder))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_tree(folder)?;
            fs::create_dir(folder).map_err(failed("make group", folder))
        }
        other => other.map_err(failed("make group", folder)),
    }
}

/// Removes a group with all below it, the deepest first: an agent without a sandbox, or a Toka in one, makes groups of its own.
fn remove_tree(folder: &Path) -> Result<(), GroupError> {
    tree(folder).iter().rev().try_for_each(|folder| remove_folder(folder))
}

fn remove_folder(folder: &Path) -> Result<(), GroupError> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove group", folder)(error)),
        _ => Ok(()),
    }
}

/// Hands controllers down from our own group to the project's; says which it could not.
fn delegate_controllers(root: &Path, name: &str, project: &str) -> Vec<String> {
    let base = root.join(name);
    let project = base.join(project);
    if project.exists() {
        return Vec::new();
    }
    let mut reasons = Vec::new();
    if let Err(error) = fs::create_dir_all(&project) {
        reasons.push(format!("cannot make {}: {error}", project.display()));
    }
    for folder in [root, &base, &project] {
        for controller in ["+memory", "+cpu", "+pids"] {
            let path = folder.join("cgroup.subtree_control");
            if let Err(error) = files::write(&path, controller) {
                reasons.push(format!("cannot write {controller} to {}: {error}", path.display()));
            }
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::super::Layout;
    use super::*;

    const LIMITS: GroupLimits =
        GroupLimits { memory: 1 << 20, cpu_millis: 750, cpu_weight: 200, processes: 16 };

    /// A folder that stands for a hierarchy. Ordinary folders have no kernel files, so a write fails unless the file is
    /// made first; what is missing must therefore be reported.
    fn with_files(root: &Path, files: &[&str]) -> PathBuf {
        fs::create_dir_all(root).expect("a folder");
        for file in files {
            fs::write(root.join(file), "").expect("a file");
        }
        root.to_owned()
    }

    #[test]
    fn what_cannot_be_limited_is_said() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let layout =
            Layout { kind: Kind::Legacy, memory: Some(temp.path().join("memory")), ..Layout::default() };
        let (_, reasons) = Group::create(&Cgroups::new(layout, "t"), "p", "a", &LIMITS).expect("a group");
        let text = reasons.join("\n");
        for expected in
            ["memory is not limited", "no cpu controller", "no pids controller", "nothing to freeze with"]
        {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn no_layout_limits_nothing_and_says_so() {
        let (group, reasons) =
            Group::create(&Cgroups::new(Layout::default(), "t"), "p", "a", &LIMITS).expect("a group");
        assert_eq!(reasons.len(), 4);
        assert!(group.entrances().expect("no files").tasks.is_empty());
        assert!(group.is_empty());
        assert!(group.freeze().is_err());
    }

    #[test]
    fn limits_are_written_in_the_layouts_own_files() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let unified = with_files(
            &temp.path().join("t/p/a"),
            &["memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max", "cgroup.subtree_control"],
        );
        let group = Group {
            kind: Kind::Unified,
            seat: Seating::Agent,
            memory: None,
            cpu: None,
            pids: None,
            freezer: None,
            unified: Some(unified.clone()),
        };
        assert_eq!(group.apply(&LIMITS), Vec::<String>::new());
        let read = |file: &str| fs::read_to_string(unified.join(file)).expect("the file");
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("cpu.max"), "75000 100000");
        assert_eq!(read("cpu.weight"), "200");
        assert_eq!(read("pids.max"), "16");
        assert!(unified.join("main").is_dir());
        let more = GroupLimits { memory: 2 << 20, cpu_weight: 100, ..LIMITS };
        assert_eq!(group.change_limits(&more), Vec::<String>::new());
        assert_eq!((read("memory.max"), read("cpu.weight")), ("2097152".to_owned(), "100".to_owned()));
    }

    #[test]
    fn an_agents_group_is_opened_without_making_or_emptying_it() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let layout =
            Layout { kind: Kind::Unified, unified: Some(temp.path().to_owned()), ..Layout::default() };
        let cgroups = Cgroups::new(layout, "t");
        let name = |text: &str| Name::new(text).expect("a label");
        let group = Group::open(&cgroups, &name("p"), &name("a"));
        assert!(!group.exists() && group.is_empty() && !group.is_frozen());
        assert!(!temp.path().join("t").exists(), "nothing was made");
        group.remove().expect("what is not there is removed");

        let folder = with_files(&temp.path().join("t/p/a"), &[]);
        fs::write(folder.join("cgroup.freeze"), "1\n").expect("a file");
        assert!(group.exists() && group.is_frozen());
        assert_eq!(cgroups.agents(), [("p".to_owned(), "a".to_owned())]);
    }

    #[test]
    fn usage_is_read_from_either_version() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let write = |file: &str, text: &str| fs::write(temp.path().join(file), text).expect("a file");
        write("memory.peak", "4096\n");
        write("cpu.stat", "usage_usec 1500\nuser_usec 1000\n");
        write("memory.events", "low 0\noom 1\noom_kill 2\n");
        write("memory.max_usage_in_bytes", "8192\n");
        write("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
        let here = Some(temp.path().to_owned());
        let none = Group {
            kind: Kind::Unified,
            seat: Seating::Agent,
            memory: None,
            cpu: None,
            pids: None,
            freezer: None,
            unified: here.clone(),
        };
        assert_eq!(none.usage(), Usage { memory_peak: Some(4096), cpu_us: Some(1500), oom_kills: 2 });
        let hybrid = Group { kind: Kind::Hybrid, memory: here, ..none };
        assert_eq!(hybrid.usage(), Usage { memory_peak: Some(8192), cpu_us: Some(1500), oom_kills: 3 });
    }
}
