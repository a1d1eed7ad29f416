//! Whether a process is one of a keeper's agents, by what the kernel says and without the keeper: whoever must know that of
//! everybody who calls cannot wait for one that hangs.

use std::path::Path;
use std::sync::{Arc, Weak};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use toka_sandbox::Cgroups;
use toka_sandbox::cgroup::Layout;

use super::handle::Keeper;
use super::traffic::Shared;
use crate::process::{parent_of, start_time, text};
use crate::protocol::Orphan;

/// Everything that a keeper, or one before it, has started.
#[derive(Debug, Clone)]
pub struct Kin {
    cgroups: Arc<Cgroups>,
    /// Not a handle on the keeper: who knows its kin does not keep it.
    shared: Weak<Shared>,
}

impl Keeper {
    /// Everything that it has started, in the control group of this name and elsewhere.
    pub fn kin(&self, cgroup_name: &str) -> Kin {
        let cgroups = Arc::new(Cgroups::new(Layout::probe(Path::new("/")), cgroup_name));
        Kin { cgroups, shared: Arc::downgrade(&self.shared) }
    }
}

impl Kin {
    /// Whether the process is in the group of an agent, or descends from the keeper or from an agent that it took over. An
    /// orphan becomes the keeper's child (PR_SET_CHILD_SUBREAPER), so that nobody leaves its family; groups are for those
    /// whose keeper was killed.
    pub fn has(&self, pid: i32) -> bool {
        let groups = text(pid, "cgroup").unwrap_or_default();
        self.cgroups.owner(&groups).is_some() || descends(pid, &self.heads())
    }

    /// The processes whose descendants are its own.
    fn heads(&self) -> Vec<i32> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let keeper = shared.hello().map(|hello| hello.pid);
        // A number may be somebody else's by now.
        let lives = |orphan: &&Orphan| start_time(orphan.pid) == Some(orphan.start_time);
        let agents: Vec<i32> = shared.roster().values().filter(lives).map(|orphan| orphan.pid).collect();
        keeper.into_iter().chain(agents).filter(|pid| *pid > 0).collect()
    }
}

fn descends(pid: i32, heads: &[i32]) -> bool {
    let mut ancestor = pid;
    loop {
        match parent_of(ancestor) {
            _ if heads.contains(&ancestor) => return true,
            // The first process of the machine or of a namespace has no parent that we see.
            Some(..=1) => return false,
            Some(parent) => ancestor = parent,
            None if !is_there(pid) => return false,
            // Its parent ended while we looked, and it has another now.
            None if !is_there(ancestor) => ancestor = pid,
            // Somebody else's, whom /proc does not show.
            None => return false,
        }
    }
}

fn is_there(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_descends_from_itself_and_its_ancestors_and_from_nobody_else() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("it starts");
        let pid = i32::try_from(child.id()).expect("a pid");
        assert!(descends(pid, &[pid]) && descends(pid, &[own]));
        assert!(!descends(own, &[pid]) && !descends(pid, &[]));
        child.kill().expect("ours");
        child.wait().expect("ours");
        assert!(!descends(pid, &[own]), "it is nobody's any more");
        assert!(!descends(0, &[own]), "one whom we do not see");
    }
}
