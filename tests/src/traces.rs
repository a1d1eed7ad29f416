//! What an agent must not leave behind: processes, control groups, mounts.

use std::fs;
use std::path::{Path, PathBuf};

/// Pids of living processes whose command line or environment has `marker` in it, other than the test itself.
pub fn processes_with(marker: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let me = i32::try_from(std::process::id()).unwrap_or_default();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| *pid != me)
        .filter(|pid| {
            let holds = |file: &str| {
                let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                String::from_utf8_lossy(&bytes).contains(marker)
            };
            holds("cmdline") || holds("environ")
        })
        .collect()
}

/// Control groups, in any hierarchy, whose path has `name` in it.
pub fn cgroups_of(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(name) {
                found.push(entry.path());
            }
            left.push(entry.path());
        }
    }
    found
}

/// Mounts of this namespace at or below `folder`.
pub(crate) fn mounts_below(folder: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let folder = folder.to_string_lossy().into_owned();
    mounts.lines().filter(|line| line.contains(&folder)).map(str::to_owned).collect()
}
