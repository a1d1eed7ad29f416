//! Control groups of projects, wherever they are: they lie below the group of whoever ran the project, which need not be ours.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::entries;

/// Where hierarchies are mounted, by `proc/self/mountinfo` below `root` (`/` on a real host).
pub(super) fn hierarchies(root: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let point = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let is_one = matches!(right.split(' ').next(), Some("cgroup" | "cgroup2"));
        is_one.then(|| left.split(' ').nth(4)).flatten().map(|path| root.join(path.trim_start_matches('/')))
    };
    mounts.lines().filter_map(point).collect()
}

/// The groups of these names, in all hierarchies. A hierarchy that is mounted twice gives them twice.
pub(super) fn find(hierarchies: &[PathBuf], names: BTreeSet<String>) -> HashMap<String, Vec<PathBuf>> {
    let mut found: HashMap<String, Vec<PathBuf>> = HashMap::new();
    let mut left = hierarchies.to_vec();
    while let Some(folder) = left.pop() {
        for path in entries(&folder).into_iter().filter(|path| is_folder(path)) {
            match path.file_name().and_then(|name| name.to_str()).and_then(|name| names.get(name)) {
                Some(name) => found.entry(name.clone()).or_default().push(path),
                None => left.push(path),
            }
        }
    }
    found.values_mut().for_each(|paths| paths.sort());
    found
}

/// The processes in a group and all below it.
pub(super) fn processes(group: &Path) -> BTreeSet<u32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = own.lines().filter_map(|line| line.trim().parse().ok());
    let below = entries(group).into_iter().filter(|path| is_folder(path));
    own.chain(below.flat_map(|path| processes(&path))).collect()
}

/// Removes a group and all below it. The kernel refuses where a process is (cgroups(7)).
///
/// # Errors
/// With what it says.
pub(super) fn remove(group: &Path) -> io::Result<()> {
    entries(group).iter().filter(|path| is_folder(path)).try_for_each(|path| remove(path))?;
    match fs::remove_dir(group) {
        // It was removed through another mount of its hierarchy.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_wherever_they_are() {
        let root = tempfile::tempdir().expect("a folder");
        let mounts = "31 1 0:27 / /cg/memory rw - cgroup cgroup rw,memory\n32 1 0:9 / /home rw - ext4 /dev/a rw\n\
                      33 1 0:28 / /cg/unified rw - cgroup2 cgroup2 rw\n";
        for folder in [
            "proc/self",
            "cg/memory/a/b/toka-1/shop/api",
            "cg/unified/toka-1",
            "cg/unified/toka-2",
            "home/toka-1",
        ] {
            fs::create_dir_all(root.path().join(folder)).expect("a folder");
        }
        fs::write(root.path().join("proc/self/mountinfo"), mounts).expect("room");
        fs::write(root.path().join("cg/memory/a/b/toka-1/shop/api/cgroup.procs"), "7\n8\n").expect("room");
        let hierarchies = hierarchies(root.path());
        assert_eq!(hierarchies, [root.path().join("cg/memory"), root.path().join("cg/unified")]);
        let found = find(&hierarchies, BTreeSet::from(["toka-1".to_owned()]));
        let groups = [root.path().join("cg/memory/a/b/toka-1"), root.path().join("cg/unified/toka-1")];
        assert_eq!(found["toka-1"], groups);
        assert_eq!(processes(&groups[0]), BTreeSet::from([7, 8]));
        remove(&groups[0]).expect_err("a file is in it, as a process would be");
        remove(&groups[1]).expect("empty");
        assert!(!groups[1].exists());
    }
}
