//! What runs left that were ended together with their keeper: folders of sockets and secrets, control groups, mounts. They
//! are only listed here. The next run of the same project removes its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toka_prepare::folders::{group_name, lock_in};
use toka_prepare::lock;
use toka_sandbox::cgroup::Layout;

/// Something that was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leftover {
    /// Where.
    pub(super) path: PathBuf,
    /// What removes it. Never a command that would harm a run that is alive after all.
    pub(super) cure: String,
}

/// What was left.
pub(super) fn find(state: &Path, run: &Path, layout: &Layout) -> Vec<Leftover> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let roots: Vec<&PathBuf> = [&layout.unified, &layout.memory, &layout.cpu, &layout.pids, &layout.freezer]
        .into_iter()
        .flatten()
        .collect();
    let groups: Vec<PathBuf> = {
        let dead = groups_of_dead_projects(state);
        roots.iter().flat_map(|root| dead_groups(root, &dead)).collect()
    };
    let cured = |cure: fn(&Path) -> String| move |path: PathBuf| Leftover { cure: cure(&path), path };
    let runs = dead_runs(state, run, &roots).into_iter().map(cured(|path| {
        let project = path.file_name().unwrap_or_default().to_string_lossy();
        format!("the next run of {project} removes it")
    }));
    let groups =
        groups.into_iter().map(cured(|path| format!("find {} -depth -type d -delete", path.display())));
    let mounts = mounts_below(state, &mounts).into_iter().map(PathBuf::from);
    let mounts = mounts.map(cured(|path| format!("umount {}", path.display())));
    runs.chain(groups).chain(mounts).collect()
}

/// Run folders of projects whose lock nobody holds, and of whose agents nothing lives in the groups below these roots: agents
/// may outlive the daemon and the keeper, and use their sockets and secrets until somebody ends them.
fn dead_runs(state: &Path, run: &Path, roots: &[&PathBuf]) -> Vec<PathBuf> {
    let lives = |project: &Path| {
        let group = group_name(project);
        roots.iter().map(|root| root.join(&group)).any(|group| group.is_dir() && !is_empty(&group))
    };
    let is_dead = |folder: &PathBuf| {
        folder
            .file_name()
            .map(|name| state.join("projects").join(name))
            .is_none_or(|project| !is_held(&project) && !lives(&project))
    };
    children(run).into_iter().filter(|folder| folder.is_dir()).filter(is_dead).collect()
}

/// Whether somebody runs the project whose folder this is.
fn is_held(project: &Path) -> bool {
    lock::is_held(&lock_in(project))
}

/// The names of the groups of projects that nobody runs. Of one that runs, groups are empty between two lives; and whether those
/// of another state folder are in use is not known here.
fn groups_of_dead_projects(state: &Path) -> BTreeSet<String> {
    let projects = children(&state.join("projects")).into_iter().filter(|project| !is_held(project));
    projects.map(|project| group_name(&project)).collect()
}

/// Those of these groups that have no process.
fn dead_groups(root: &Path, names: &BTreeSet<String>) -> Vec<PathBuf> {
    let ours = |path: &PathBuf| {
        path.is_dir() && path.file_name().is_some_and(|name| names.contains(&*name.to_string_lossy()))
    };
    children(root).into_iter().filter(ours).filter(|group| is_empty(group)).collect()
}

fn is_empty(group: &Path) -> bool {
    let own = fs::read_to_string(group.join("cgroup.procs"));
    let below = children(group).into_iter().filter(|path| path.is_dir());
    own.is_ok_and(|text| text.trim().is_empty()) && below.into_iter().all(|group| is_empty(&group))
}

/// Mounts in the state folder: no run makes any that others see.
fn mounts_below(state: &Path, mountinfo: &str) -> Vec<String> {
    let point = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    let below = |point: &String| Path::new(point) != state && Path::new(point).starts_with(state);
    mountinfo.lines().filter_map(point).filter(below).collect()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use toka_prepare::lock::ProjectLock;

    use super::*;

    #[test]
    fn a_run_folder_is_dead_when_nobody_holds_its_lock() {
        let root = tempfile::tempdir().expect("a folder");
        let (state, run) = (root.path().join("state"), root.path().join("run"));
        for project in ["alive", "dead"] {
            fs::create_dir_all(state.join("projects").join(project)).expect("a folder");
            fs::create_dir_all(run.join(project)).expect("a folder");
            fs::write(state.join("projects").join(project).join("lock"), "").expect("room");
        }
        fs::create_dir_all(run.join("unknown")).expect("a folder");
        let run_id = toka_core::RunId::from_uuid(uuid::Uuid::nil());
        let held = ProjectLock::take(&state.join("projects/alive/lock"), run_id).expect("free");
        assert_eq!(dead_runs(&state, &run, &[]), [run.join("dead"), run.join("unknown")]);
        drop(held);
        assert_eq!(dead_runs(&state, &run, &[]).len(), 3);
        // Nobody holds the lock, and what was begun under it lives.
        let groups = root.path().join("groups");
        let agent = groups.join(group_name(&state.join("projects/dead"))).join("agent");
        fs::create_dir_all(&agent).expect("a folder");
        fs::write(agent.parent().expect("a group").join("cgroup.procs"), "").expect("room");
        fs::write(agent.join("cgroup.procs"), "7\n").expect("room");
        assert_eq!(dead_runs(&state, &run, &[&groups]), [run.join("alive"), run.join("unknown")]);
    }

    #[test]
    fn a_group_is_dead_when_nobody_is_in_it_or_below() {
        let root = tempfile::tempdir().expect("a folder");
        let group = |path: &str, processes: &str| {
            fs::create_dir_all(root.path().join(path)).expect("a folder");
            fs::write(root.path().join(path).join("cgroup.procs"), processes).expect("room");
        };
        for (path, processes) in
            [("toka-1", ""), ("toka-1/shop", ""), ("toka-2", ""), ("toka-2/shop", "7\n"), ("toka-3", "")]
        {
            group(path, processes);
        }
        let dead = ["toka-1", "toka-2"].map(str::to_owned).into();
        assert_eq!(dead_groups(root.path(), &dead), [root.path().join("toka-1")]);
    }

    #[test]
    fn mounts_in_the_state_folder_are_found() {
        let text = "31 1 0:27 / /srv/state rw - ext4 /dev/a rw\n32 1 0:28 / /srv/state/run rw - tmpfs tmpfs rw\n\
                    33 1 0:28 / /srv/statement rw - tmpfs tmpfs rw\n";
        assert_eq!(mounts_below(Path::new("/srv/state"), text), ["/srv/state/run"]);
    }
}
