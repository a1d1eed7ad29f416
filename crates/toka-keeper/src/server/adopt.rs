//! Taking over what a keeper left that was killed: agents found by their control groups and known by pid and start time.
//!
//! Nobody can wait for another's child. That one ends shows at its pidfd; how, in /proc until whoever became its parent has
//! collected it, and afterwards at the pidfd (Linux 6.15, `PIDFD_GET_INFO`). An older kernel does not tell of one that was
//! collected at once, and its status stays unknown. Whatever else lies in the groups was started and never heard of, or belongs
//! to nobody: it is killed.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};
use toka_core::Name;
use toka_sandbox::{Group, sys};

use super::child::{Child, Protection, is_of_one_beside};
use super::{Server, WATCH};
use crate::process::{start_time, stat_field, text};
use crate::protocol::{Body, Orphan, ProcessId, Status};

/// The kernel needs milliseconds for a kill; what takes longer hangs in a device.
const CLEAR_WITHIN: Duration = Duration::from_secs(5);
/// Whoever becomes the parent of orphans collects them at once, if it is any good; a restart does not wait for others.
const COLLECTED_WITHIN: Duration = Duration::from_millis(250);
/// Between two looks whether it is done.
const CLEAR_INTERVAL: Duration = Duration::from_millis(2);

impl Server {
    /// Takes over those of `orphans` that still run; of the others it tells that they ended. What lies in the groups
    /// beside them is killed.
    pub(super) fn adopt(&mut self, orphans: Vec<Orphan>) -> Body {
        let known: Vec<(String, String)> = self
            .children
            .values()
            .map(|child| (child.project.clone(), child.agent.to_string()))
            .chain(orphans.iter().map(|orphan| (orphan.project.to_string(), orphan.agent.to_string())))
            .collect();
        let beside: BTreeSet<String> = self
            .children
            .keys()
            .copied()
            .chain(orphans.iter().map(|orphan| orphan.id))
            .map(super::child::leaf_name)
            .collect();
        // One deadline for all groups: the daemon that waits for the new keeper has a deadline, too.
        let deadline = Instant::now() + CLEAR_WITHIN;
        for (project, agent) in self.preparer.cgroups().agents() {
            let (Ok(project_name), Ok(agent_name)) = (Name::new(&project), Name::new(&agent)) else {
                continue;
            };
            let group = Group::open(self.preparer.cgroups(), &project_name, &agent_name);
            if known.contains(&(project, agent)) {
                let leaves = group.leaves().into_iter();
                leaves
                    .filter(|leaf| is_of_one_beside(leaf) && !beside.contains(leaf))
                    .for_each(|leaf| clear(&group.open_leaf(&leaf), deadline));
            } else {
                clear(&group, deadline);
            }
        }
        // Those that run beside an agent come after it, so that its end finds them.
        let (agents, beside): (Vec<_>, Vec<_>) =
            orphans.into_iter().partition(|orphan| orphan.beside.is_none());
        // Those that start from now on find them where they are.
        if let Some(sharing) = agents.iter().find(|orphan| orphan.shares_network && orphan.status.is_none())
            && start_time(sharing.pid) == Some(sharing.start_time)
        {
            let _ = self.preparer.share_network_of(sharing.pid);
        }
        for orphan in agents.into_iter().chain(beside) {
            self.adopt_one(&orphan);
        }
        self.look_for_kills(Instant::now());
        self.let_go();
        Body::Done
    }

    fn adopt_one(&mut self, orphan: &Orphan) {
        let id = orphan.id;
        if self.children.contains_key(&id) || self.past.contains_key(&id) {
            return;
        }
        let agents = Group::open(self.preparer.cgroups(), &orphan.project, &orphan.agent);
        let group = match orphan.beside {
            None => agents,
            Some(_) => agents.open_leaf(&super::child::leaf_name(id)),
        };
        let watch = self.identify(orphan);
        let watched = watch.as_ref().is_some_and(|watch| {
            self.epoll.add(watch, EpollEvent::new(EpollFlags::EPOLLIN, WATCH | id.0)).is_ok()
        });
        let has_group = group.exists();
        let mut child = Child::adopt(orphan, group, watch);
        if watched && !has_group {
            child.notices.push(format!(
                "{} was taken over without its control group: what it started cannot be found at its end",
                orphan.agent
            ));
        }
        if orphan.beside.is_some() {
            // Whoever asked for it reads its pipes, which are lost.
            let _ = child.kill();
        }
        // Inotify has told this keeper nothing of what was replaced before it began.
        child.protection = Protection { is_doubtful: true, ..self.watch_names(orphan.inner_binds.clone()) };
        self.children.insert(id, child);
        self.watch_memory_of(id);
        self.protect_names_of(id);
        self.watch_appearances_of(id);
        if !watched {
            self.on_exit(id, orphan.pid, orphan.status.unwrap_or(Status::Unknown));
        }
    }

    /// The main process of an adopted one has ended, or has been collected.
    pub(super) fn on_watch(&mut self, id: ProcessId) {
        let Some(watch) = self.children.get(&id).and_then(Child::watch) else { return };
        // From now on only that it is collected is news.
        let _ = self.epoll.modify(watch, &mut EpollEvent::new(EpollFlags::empty(), WATCH | id.0));
        self.uncollected.entry(id).or_insert_with(|| Instant::now() + COLLECTED_WITHIN);
        self.hear_of_collected();
        self.let_go();
    }

    /// Takes the statuses of those that have been collected, or never will be.
    pub(super) fn hear_of_collected(&mut self) {
        let now = Instant::now();
        let (children, mut heard) = (&self.children, Vec::new());
        self.uncollected.retain(|id, deadline| {
            let Some((pid, watch)) = children.get(id).and_then(|child| Some((child.pid, child.watch()?)))
            else {
                return false;
            };
            let collected = sys::exit_status(watch.as_fd());
            let status = match (&collected, status_of_zombie(pid, watch)) {
                (Ok(Some(status)), _) => status_of(*status),
                (_, Some(status)) => status,
                (Ok(None), None) if now < *deadline => return true,
                (Ok(None) | Err(_), None) => Status::Unknown,
            };
            let _ = self.epoll.delete(watch);
            heard.push((*id, pid, status));
            false
        });
        for (id, pid, status) in heard {
            self.on_exit(id, pid, status);
        }
    }

    /// The orphan's main process, if it is still that very one: the number may be somebody else's by now.
    fn identify(&self, orphan: &Orphan) -> Option<OwnedFd> {
        let process = sys::set_aside(sys::open_process(orphan.pid).ok()?);
        let is_same = start_time(orphan.pid) == Some(orphan.start_time);
        let groups = text(orphan.pid, "cgroup")?;
        let owner = self.preparer.cgroups().owner(&groups);
        let is_its = owner.is_none_or(|(project, agent)| {
            project == orphan.project.as_str() && agent == orphan.agent.as_str()
        });
        (is_same && is_its).then_some(process)
    }
}

/// How a process ended that nobody has collected yet (proc_pid_stat(5), fields 3 and 52); `watch` is its pidfd.
fn status_of_zombie(pid: i32, watch: &OwnedFd) -> Option<Status> {
    let (state, code) = (stat_field(pid, 3)?, stat_field(pid, 52)?);
    // Once it is collected the number may be somebody else's, and the pidfd is nobody's.
    let was_its = sys::signal_process(watch.as_fd(), 0).is_ok();
    (state == "Z" && was_its).then_some(code)?.parse().ok().map(ExitStatus::from_raw).map(status_of)
}

fn status_of(status: ExitStatus) -> Status {
    match (status.code(), status.signal()) {
        (Some(code), _) => Status::Code(code),
        (None, Some(signal)) => Status::Signal { signal, core: status.core_dumped() },
        (None, None) => Status::Unknown,
    }
}

/// Kills what is in a group, and removes it. What is not gone at the deadline has been killed, and its group stays.
fn clear(group: &Group, deadline: Instant) {
    while group.remove().is_err() {
        let _ = group.kill();
        if Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(CLEAR_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_zombie_tells_how_it_ended_until_it_is_collected() {
        let killed = Status::Signal { signal: 9, core: false };
        for (line, expected) in
            [("exit 7", Status::Code(7)), ("exit 0", Status::Code(0)), ("kill -9 $$", killed)]
        {
            let mut child = Command::new("sh").args(["-c", line]).spawn().expect("it starts");
            let pid = i32::try_from(child.id()).expect("a pid");
            let watch = sys::open_process(pid).expect("it is not collected");
            // Waits, and leaves it as it is.
            waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("ours");
            assert_eq!(status_of_zombie(pid, &watch), Some(expected), "{line}");
            child.wait().expect("ours");
            assert_eq!(status_of_zombie(pid, &watch), None, "{line}");
        }
        let own = i32::try_from(std::process::id()).expect("a pid");
        let watch = sys::open_process(own).expect("we live");
        assert_eq!(status_of_zombie(own, &watch), None, "one that lives has not ended");
    }
}
