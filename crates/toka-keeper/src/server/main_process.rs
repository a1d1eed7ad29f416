//! The process that an agent names as its main one (`MAINPID=` of sd_notify(3)): a server that went to the background, or
//! the child of a wrapper.
//!
//! It gets the signals that are for the agent. When the process that was started ends and the named one thereby becomes
//! the keeper's child, the agent lives on with it, and its status is the agent's. Where it has another parent, the keeper
//! does not hear of its end, and the process that was started stays what the agent ends with; so it is in a process
//! namespace, whose first process nothing outlives.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use toka_sandbox::Birth;

use super::Server;
use super::calls::failed;
use super::child::Child;
use crate::process::parent_of;
use crate::protocol::{Body, ProcessId};

impl Server {
    /// Takes the process that the agent calls `number` for its main one, if the kernel says that it is the agent's.
    pub(super) fn set_main(&mut self, id: ProcessId, number: i32) -> Body {
        let Some(child) = self.children.get(&id).filter(|child| child.is_running()) else {
            return failed("find the process");
        };
        let Some(pid) = child.on_host(number).filter(|pid| self.owner(*pid) == Some(id)) else {
            return Body::Stranger;
        };
        let (first, before) = (child.pid, child.named.filter(|before| self.mains.get(before) == Some(&id)));
        if let Some(before) = before {
            self.mains.remove(&before);
        }
        self.mains.insert(pid, id);
        if let Some(child) = self.children.get_mut(&id) {
            child.named = (pid != first).then_some(pid);
        }
        Body::Main { pid }
    }
}

impl Child {
    /// Whose the signals are: the named one's as long as it lives.
    pub(super) fn main_process(&self) -> i32 {
        self.named.filter(|pid| kill(Pid::from_raw(*pid), None) != Err(Errno::ESRCH)).unwrap_or(self.pid)
    }

    /// Whether the end of `ended`, which has just been collected, is not the agent's: another process has been named
    /// since, or the named one goes on as the keeper's own child.
    pub(super) fn lives_on_without(&mut self, ended: i32) -> bool {
        let named = match self.named {
            Some(named) if named != ended => named,
            _ => return self.is_draining() || (ended != self.pid && self.named != Some(ended)),
        };
        if ended != self.pid {
            return true;
        }
        let own = i32::try_from(std::process::id()).ok();
        let goes_on = self.birth != Birth::InNamespaces && self.is_running() && parent_of(named) == own;
        self.named = None;
        if goes_on {
            self.pid = named;
        }
        goes_on
    }
}
