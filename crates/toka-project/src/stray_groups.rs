//! Control groups that nobody will come back to: of a state folder that was removed after its keeper was killed. Those of a
//! project whose folder is there its next run removes; here go the empty ones of keepers that do not run. A keeper makes its
//! groups again when they are gone, so that one that is not seen from here, in a container, loses nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toka_prepare::folders::{GROUP_HASH, group_prefix};
use toka_sandbox::cgroup::Layout;

/// Project, agent and a task's leaf below the group of a keeper.
const DEPTH: u8 = 3;

/// Removes them from the hierarchies of `layout`; `own` is the group of who asks.
pub(crate) fn sweep(layout: &Layout, own: &str) {
    let roots = [&layout.unified, &layout.memory, &layout.cpu, &layout.pids, &layout.freezer];
    let strays: Vec<PathBuf> =
        roots.into_iter().flatten().flat_map(|root| empty_groups(root, &group_prefix(), own)).collect();
    if strays.is_empty() {
        return;
    }
    // Looked at after the groups, so that a keeper that begins meanwhile has none among them.
    let kept = keepers(Path::new("/proc"));
    for group in strays.iter().filter(|group| !file_name(group).is_some_and(|name| kept.contains(name))) {
        tracing::info!(group = %group.display(), "removed the empty group of a keeper that is gone");
        remove(group, DEPTH);
    }
}

/// The groups directly below `root` that are called as keepers' are, but for one, and have no process.
fn empty_groups(root: &Path, prefix: &str, own: &str) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| {
        let hash = file_name(path).and_then(|name| name.strip_prefix(prefix)?.strip_prefix('-'));
        hash.is_some_and(|hash| hash.len() == GROUP_HASH && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
            && file_name(path) != Some(own)
    };
    folders(root).into_iter().filter(is_one).filter(|group| is_empty(group, DEPTH)).collect()
}

fn is_empty(group: &Path, depth: u8) -> bool {
    let own = fs::read_to_string(group.join("cgroup.procs"));
    let below = || folders(group).iter().all(|group| depth > 0 && is_empty(group, depth - 1));
    own.is_ok_and(|text| text.trim().is_empty()) && below()
}

/// The names of the groups of keepers that run.
fn keepers(proc: &Path) -> BTreeSet<String> {
    let command = |process: PathBuf| fs::read(process.join("cmdline")).ok();
    let name = |command: Vec<u8>| {
        let mut words = command.split(|byte| *byte == 0).skip(1);
        (words.next() == Some(b"__keeper")).then(|| words.next()).flatten().map(<[u8]>::to_vec)
    };
    folders(proc).into_iter().filter_map(command).filter_map(name).flat_map(String::from_utf8).collect()
}

/// The kernel refuses where a process is (cgroups(7)).
fn remove(group: &Path, depth: u8) {
    if depth > 0 {
        folders(group).iter().for_each(|group| remove(group, depth - 1));
    }
    let _ = fs::remove_dir(group);
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(root: &Path, name: &str, processes: &str) {
        fs::create_dir_all(root.join(name)).expect("a folder");
        fs::write(root.join(name).join("cgroup.procs"), processes).expect("room");
    }

    #[test]
    fn only_empty_groups_of_keepers_are_strays() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        for (name, processes) in [
            ("toka-00000001", ""),
            ("toka-00000001/shop", ""),
            ("toka-00000001/shop/api", ""),
            ("toka-00000002", ""),
            ("toka-00000002/shop", ""),
            ("toka-00000002/shop/api", "7\n"),
            ("toka-0000000f", ""),
            ("toka-other", ""),
            ("toka-test-00000003", ""),
            ("system", ""),
        ] {
            group(root, name, processes);
        }
        let found = empty_groups(root, "toka", "toka-0000000f");
        assert_eq!(found, [root.join("toka-00000001")]);
        assert_eq!(empty_groups(root, "toka-test", "").len(), 1);
    }

    #[test]
    fn keepers_are_known_by_their_command_line() {
        let proc = tempfile::tempdir().expect("a folder");
        for (pid, line) in
            [("1", "/bin/toka\0__keeper\0toka-1\0/run/x\0"), ("2", "sh\0-c\0__keeper toka-2\0"), ("3", "")]
        {
            fs::create_dir(proc.path().join(pid)).expect("a folder");
            fs::write(proc.path().join(pid).join("cmdline"), line).expect("room");
        }
        assert_eq!(keepers(proc.path()), BTreeSet::from(["toka-1".to_owned()]));
    }
}
