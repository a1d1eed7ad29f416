//! Control groups: limits, accounting, freeze and kill of everything that an agent started.
//!
//! Groups lie at `NAME/<project>/<agent>` below our own group, with `call-N` leaves below for single tasks. All four
//! layouts are served: unified v2, hybrid (limits on v1; freeze, kill and CPU accounting on the v2 mount), legacy v1, and none.
//! Every path starts from a [`Layout`], so a test can point it at a folder that merely looks like the kernel's.

mod files;
mod group;
mod host_pressure;
mod layout;
mod oom;
mod resources;

pub use group::{Entrances, Group, GroupError};
pub use host_pressure::PressureFiles;
pub use layout::{Kind, Layout};
pub use oom::OomWatch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The base groups of one keeper: `NAME` in each hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroups {
    layout: Layout,
    name: String,
}

impl Cgroups {
    /// Groups called `name` below our own; nothing is created before the first agent.
    pub fn new(layout: Layout, name: &str) -> Self {
        Self { layout, name: name.to_owned() }
    }

    /// The layout that they live in.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether a line of /proc/PID/cgroup lies in any agent's group: `(project, agent)` if so.
    pub fn owner(&self, proc_cgroup: &str) -> Option<(String, String)> {
        let marker = format!("/{}/", self.name);
        proc_cgroup.lines().find_map(|line| {
            let path = line.splitn(3, ':').nth(2)?;
            let mut rest = path.split_once(&marker)?.1.split('/');
            Some((name_of(rest.next()?).to_owned(), name_of(rest.next()?).to_owned()))
        })
    }

    /// The base folder in every hierarchy that there is.
    fn bases(&self) -> impl Iterator<Item = PathBuf> {
        self.layout.roots().map(|root| root.join(&self.name)).collect::<Vec<_>>().into_iter()
    }

    /// The agents that have a group here, by project and name, whether anybody is in it or not.
    pub fn agents(&self) -> Vec<(String, String)> {
        let name = |path: &Path| path.file_name().map(|name| name_of(&name.to_string_lossy()).to_owned());
        let mut found = BTreeSet::new();
        for project in self.bases().flat_map(|base| files::children(&base)) {
            for agent in files::children(&project) {
                found.extend(name(&project).zip(name(&agent)));
            }
        }
        found.into_iter().collect()
    }

    /// Removes the base groups and what is empty in them. Groups with processes stay, as do those that are not ours.
    pub fn remove_empty(&self) {
        for base in self.bases() {
            remove_empty_below(&base);
        }
    }

    /// Kills everything in the base groups and removes them: for when the keeper that held them is gone. Waits for the
    /// kernel, at most 5 s; true when nothing is left.
    pub fn clear(&self) -> bool {
        let whole = Group::whole(self);
        let deadline = Instant::now() + CLEAR_WITHIN;
        while self.bases().any(|base| base.exists()) {
            if Instant::now() > deadline {
                return false;
            }
            if !whole.is_empty() {
                // What cannot be killed now is tried again.
                let _ = whole.kill();
                std::thread::sleep(CLEAR_INTERVAL);
            }
            self.remove_empty();
        }
        true
    }
}

/// The one name of a project or an agent that is a file of every group of version 1 (cgroups(7)), and what its group is called
/// instead. No name has an underscore.
const TAKEN: (&str, &str) = ("tasks", "tasks_");

/// What the group of a project or an agent is called.
pub fn folder_of(name: &str) -> &str {
    if name == TAKEN.0 { TAKEN.1 } else { name }
}

/// Whose group is called so.
fn name_of(folder: &str) -> &str {
    if folder == TAKEN.1 { TAKEN.0 } else { folder }
}

/// The kernel needs milliseconds for a kill; one that takes longer hangs in a device.
const CLEAR_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks whether it is done.
const CLEAR_INTERVAL: Duration = Duration::from_millis(2);

fn remove_empty_below(folder: &Path) {
    files::children(folder).iter().for_each(|child| remove_empty_below(child));
    // A group that has processes answers EBUSY, and shall stay.
    let _ = std::fs::remove_dir(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_read_from_any_hierarchy() {
        let cgroups = Cgroups::new(Layout::default(), "toka-1");
        let text = "4:memory:/own/toka-1/shop/web/call-3\n0::/";
        assert_eq!(cgroups.owner(text), Some(("shop".into(), "web".into())));
        assert_eq!(cgroups.owner("4:memory:/own/toka-12/shop/web\n"), None);
        assert_eq!(
            cgroups.owner("4:memory:/own/toka-1/tasks_/tasks_\n"),
            Some(("tasks".into(), "tasks".into()))
        );
        assert_eq!(cgroups.owner("0::/toka-1/shop\n"), None);
    }
}
