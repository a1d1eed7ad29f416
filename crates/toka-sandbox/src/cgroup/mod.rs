//! Control groups: limits, accounting, freeze and kill of everything that an agent started.
//!
//! Groups lie at `NAME/<project>/<agent>` below our own group, with `call-N` leaves below for single tasks. All four
//! layouts are served: unified v2, hybrid (limits on v1; freeze, kill and CPU accounting on the v2 mount), legacy v1, and none.
//! Every path starts from a [`Layout`], so a test can point it at a folder that merely looks like the kernel's.

mod files;
mod group;
mod layout;

pub use group::{Entrances, Group, GroupError};
pub use layout::{Kind, Layout};

use std::path::{Path, PathBuf};

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

    /// Path of an agent's group relative to a hierarchy's own group, as /proc/PID/cgroup shows its end.
    pub fn suffix(&self, project: &str, agent: &str) -> String {
        format!("{}/{project}/{agent}", self.name)
    }

    /// Whether a line of /proc/PID/cgroup lies in any agent's group: `(project, agent)` if so.
    pub fn owner(&self, proc_cgroup: &str) -> Option<(String, String)> {
        let marker = format!("/{}/", self.name);
        proc_cgroup.lines().find_map(|line| {
            let path = line.splitn(3, ':').nth(2)?;
            let mut rest = path.split_once(&marker)?.1.split('/');
            Some((rest.next()?.to_owned(), rest.next()?.to_owned()))
        })
    }

    /// The base folder in every hierarchy that there is.
    fn bases(&self) -> impl Iterator<Item = PathBuf> {
        self.layout.roots().map(|root| root.join(&self.name)).collect::<Vec<_>>().into_iter()
    }

    /// Removes the base groups and empty projects in them. Groups with processes stay, as do those that are not ours.
    pub fn remove_empty(&self) {
        for base in self.bases() {
            remove_empty_below(&base, 2);
        }
    }
}

fn remove_empty_below(folder: &Path, depth: u8) {
    if depth > 0 {
        for child in files::children(folder) {
            remove_empty_below(&child, depth - 1);
        }
    }
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
        assert_eq!(cgroups.owner("0::/toka-1/shop\n"), None);
    }
}
