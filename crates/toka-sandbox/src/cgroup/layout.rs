//! Which hierarchies this host has, and where our own group lies in each (cgroups(7)).

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The four ways in which a host may lay out control groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One v2 hierarchy with all controllers.
    Unified,
    /// Controllers on v1, and a v2 hierarchy beside them.
    Hybrid,
    /// v1 alone.
    Legacy,
    /// None that we can write.
    #[default]
    None,
}

/// Our own group in each hierarchy that matters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Which of the four.
    pub kind: Kind,
    /// v1 `memory`.
    pub memory: Option<PathBuf>,
    /// v1 `cpu`.
    pub cpu: Option<PathBuf>,
    /// v1 `pids`.
    pub pids: Option<PathBuf>,
    /// v1 `freezer`, used only where there is no v2.
    pub freezer: Option<PathBuf>,
    /// The v2 hierarchy.
    pub unified: Option<PathBuf>,
}

/// One mounted hierarchy: its controllers, the part of it that is mounted, and where.
struct Mounted {
    controllers: Vec<String>,
    version: Version,
    root: String,
    point: PathBuf,
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Version {
    One,
    Two,
}

impl Layout {
    /// Reads `proc/self/mountinfo` and `proc/self/cgroup` below `root` (`/` on a real host; paths found are taken below it too).
    pub fn probe(root: &Path) -> Self {
        let read = |name: &str| fs::read_to_string(root.join("proc/self").join(name)).unwrap_or_default();
        let mounted = parse_mounts(&read("mountinfo"), root);
        let own = read("cgroup");
        let v1 = |controller: &str| {
            mounted
                .iter()
                .find(|m| m.version == Version::One && m.controllers.iter().any(|c| c == controller))
                .map(|m| m.own_group(&own, controller))
                .filter(|path| is_writable(path))
        };
        let second = mounted.iter().find(|m| m.version == Version::Two);
        let unified = second.map(|m| m.own_group(&own, "")).filter(|path| is_writable(path));
        let mut layout = Self {
            kind: Kind::None,
            memory: v1("memory"),
            cpu: v1("cpu"),
            pids: v1("pids"),
            freezer: v1("freezer"),
            unified,
        };
        layout.kind = layout.classify();
        if layout.kind != Kind::Legacy {
            layout.freezer = None;
        }
        if let (Kind::Unified | Kind::None, Some(second)) = (layout.kind, second) {
            layout.unified = distributor(&second.own_group(&own, ""), &second.point);
            layout.kind = layout.classify();
        }
        layout
    }

    fn classify(&self) -> Kind {
        let v1 = self.memory.is_some() || self.cpu.is_some() || self.pids.is_some();
        match (&self.unified, v1) {
            (Some(_), true) => Kind::Hybrid,
            (Some(_), false) => Kind::Unified,
            (None, true) => Kind::Legacy,
            (None, false) => Kind::None,
        }
    }

    /// Our own group in every hierarchy that is used.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Path> {
        [&self.memory, &self.cpu, &self.pids, &self.freezer, &self.unified]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }
}

/// Our own group in the v2 hierarchy and those above it, the nearest first, whether we may write them or not; `root` as for
/// [`Layout::probe`].
pub(super) fn own_unified(root: &Path) -> Vec<PathBuf> {
    let read = |name: &str| fs::read_to_string(root.join("proc/self").join(name)).unwrap_or_default();
    let mounted = parse_mounts(&read("mountinfo"), root);
    let Some(second) = mounted.iter().find(|m| m.version == Version::Two) else { return Vec::new() };
    let own = second.own_group(&read("cgroup"), "");
    own.ancestors().take_while(|group| group.starts_with(&second.point)).map(Path::to_owned).collect()
}

impl Mounted {
    /// Where our own group is mounted: the line of /proc/self/cgroup for this hierarchy, below the mounted part of it.
    fn own_group(&self, own: &str, controller: &str) -> PathBuf {
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let here = if controller.is_empty() {
                names.is_empty()
            } else {
                names.split(',').any(|n| n == controller)
            };
            here.then_some(path)
        });
        let path = path.unwrap_or("/");
        // A root of `/docker/ab` is no part of `/docker/abc`.
        let path = Path::new(path);
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        self.point.join(below.strip_prefix("/").unwrap_or(below))
    }
}

/// Picks the cgroup mounts out of mountinfo (proc_pid_mountinfo(5)).
fn parse_mounts(mountinfo: &str, root: &Path) -> Vec<Mounted> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let mut right = right.split(' ');
            let version = match right.next()? {
                "cgroup" => Version::One,
                "cgroup2" => Version::Two,
                _ => return None,
            };
            let options = right.nth(1).unwrap_or("");
            Some(Mounted {
                controllers: options.split(',').map(str::to_owned).collect(),
                version,
                root: (*left.get(3)?).to_owned(),
                point: root.join(left.get(4)?.trim_start_matches('/')),
            })
        })
        .collect()
}

/// The nearest group from our own upwards that may hand controllers to groups below it. One that has processes of its own
/// must not: with the controllers that allow it, it would turn into a thread root, in which no group below can be joined
/// (cgroups(7), "no internal processes"). Such is our own group in a login session; the slice above it will do.
fn distributor(own: &Path, top: &Path) -> Option<PathBuf> {
    own.ancestors()
        .take_while(|group| group.starts_with(top))
        .find(|group| can_distribute(group))
        .map(Path::to_owned)
}

fn can_distribute(group: &Path) -> bool {
    // Only the true root, which has no type, may have both processes and groups with controllers.
    let is_root = !group.join("cgroup.type").exists();
    let is_empty = || fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|text| text.trim().is_empty());
    is_writable(group) && (is_root || is_empty())
}

fn is_writable(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like a host: its mountinfo, its /proc/self/cgroup, and the folders of the own groups.
    fn host(mountinfo: &str, cgroup: &str, folders: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(root.path().join("proc/self")).expect("proc");
        fs::write(root.path().join("proc/self/mountinfo"), mountinfo).expect("mountinfo");
        fs::write(root.path().join("proc/self/cgroup"), cgroup).expect("cgroup");
        for folder in folders {
            fs::create_dir_all(root.path().join(folder)).expect("a group");
        }
        root
    }

    const V2: &str = "30 1 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn unified() {
        let root = host(V2, "0::/user.slice/app\n", &["sys/fs/cgroup/user.slice/app"]);
        let layout = Layout::probe(root.path());
        assert_eq!(layout.kind, Kind::Unified);
        assert_eq!(layout.unified, Some(root.path().join("sys/fs/cgroup/user.slice/app")));
    }

    #[test]
    fn a_group_with_processes_leaves_it_to_the_one_above() {
        let own = "sys/fs/cgroup/user.slice/app.slice/shell.scope";
        let root = host(V2, "0::/user.slice/app.slice/shell.scope\n", &[own]);
        let file = |group: &str, name: &str, text: &str| {
            fs::write(root.path().join("sys/fs/cgroup").join(group).join(name), text).expect("a file");
        };
        for (group, processes) in
            [("user.slice", ""), ("user.slice/app.slice", ""), ("user.slice/app.slice/shell.scope", "77\n")]
        {
            file(group, "cgroup.type", "domain\n");
            file(group, "cgroup.procs", processes);
        }
        let chosen = |root: &Path| Layout::probe(root).unified;
        assert_eq!(chosen(root.path()), Some(root.path().join("sys/fs/cgroup/user.slice/app.slice")));
        file("user.slice/app.slice", "cgroup.procs", "78\n");
        assert_eq!(chosen(root.path()), Some(root.path().join("sys/fs/cgroup/user.slice")));
        file("user.slice", "cgroup.procs", "79\n");
        assert_eq!(chosen(root.path()), Some(root.path().join("sys/fs/cgroup")));
        file("", "cgroup.type", "domain\n");
        file("", "cgroup.procs", "80\n");
        assert_eq!(Layout::probe(root.path()).kind, Kind::None);
    }

    #[test]
    fn hybrid_takes_limits_from_v1_and_no_freezer() {
        let mounts = "31 1 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 1 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      33 1 0:29 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
                      34 1 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/box/7\n3:cpu,cpuacct:/\n2:freezer:/\n0::/\n";
        let folders = [
            "sys/fs/cgroup/memory/box/7",
            "sys/fs/cgroup/cpu,cpuacct",
            "sys/fs/cgroup/freezer",
            "sys/fs/cgroup/unified",
        ];
        let root = host(mounts, own, &folders);
        let layout = Layout::probe(root.path());
        assert_eq!(layout.kind, Kind::Hybrid);
        assert_eq!(layout.memory, Some(root.path().join("sys/fs/cgroup/memory/box/7")));
        assert_eq!(layout.cpu, Some(root.path().join("sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!((layout.pids, layout.freezer), (None, None));
    }

    #[test]
    fn legacy_keeps_the_freezer() {
        let mounts = "31 1 0:27 / /cg/pids rw - cgroup cgroup rw,pids\n32 1 0:28 / /cg/freezer rw - cgroup cgroup rw,freezer\n";
        let root = host(mounts, "5:pids:/\n6:freezer:/\n", &["cg/pids", "cg/freezer"]);
        let layout = Layout::probe(root.path());
        assert_eq!(layout.kind, Kind::Legacy);
        assert_eq!(layout.freezer, Some(root.path().join("cg/freezer")));
    }

    #[test]
    fn a_mounted_part_of_a_hierarchy_is_stripped_from_our_path() {
        let mounts = "30 1 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let root = host(mounts, "0::/docker/abc/inner\n", &["sys/fs/cgroup/inner"]);
        assert_eq!(Layout::probe(root.path()).unified, Some(root.path().join("sys/fs/cgroup/inner")));
    }

    #[test]
    fn nothing_mounted_or_nothing_writable_is_none() {
        assert_eq!(Layout::probe(host("", "", &[]).path()), Layout::default());
        assert_eq!(Layout::probe(host(V2, "0::/gone\n", &[]).path()).kind, Kind::None);
    }
}
