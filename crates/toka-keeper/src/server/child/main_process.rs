//! The process that an agent names as its main one (`MAINPID=` of sd_notify(3)): a server that went to the background, or
//! the child of a wrapper.
//!
//! It gets the signals that are for the agent. When the process that was started ends and the named one thereby becomes
//! the keeper's child, the agent lives on with it, and its status is the agent's. Where it has another parent, the keeper
//! does not hear of its end, and the process that was started stays what the agent ends with; so it is in a process
//! namespace, whose first process nothing outlives.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toka_sandbox::{Birth, sys};

use super::super::Server;
use super::super::calls::failed;
use super::Child;
use crate::process::{self, parent_of};
use crate::protocol::{Body, ProcessId};

/// A process that was named.
#[derive(Debug)]
pub(in crate::server) struct Named {
    /// Its number, which may be another's once it has ended.
    pub(in crate::server) pid: i32,
    /// The very process; none where the kernel is older than pidfd_open(2).
    process: Option<OwnedFd>,
}

impl Named {
    /// Sends it a signal, or asks whether it is there.
    pub(in crate::server) fn signal(&self, signal: Option<Signal>) -> Result<(), Errno> {
        match &self.process {
            Some(process) => {
                let sent = sys::signal_process(process.as_fd(), signal.map_or(0, |signal| signal as i32));
                sent.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
            }
            None => kill(Pid::from_raw(self.pid), signal),
        }
    }
}

impl Server {
    /// Takes the process that the agent calls `number` for its main one, if the kernel says that it is the agent's.
    pub(in crate::server) fn set_main(&mut self, id: ProcessId, number: i32) -> Body {
        let Some(child) = self.children.get(&id).filter(|child| child.is_running()) else {
            return failed("find the process");
        };
        let Some(pid) = child.on_host(number) else { return Body::Stranger };
        // The keeper holds the process before it asks whose it is: the number may be another process's a moment later.
        let held = sys::open_process(pid);
        if self.owner(pid) != Some(id) {
            return Body::Stranger;
        }
        let process = match held {
            Ok(process) => Some(process),
            Err(error) if error.raw_os_error() == Some(Errno::ENOSYS as i32) => None,
            Err(_) => return Body::Stranger,
        };
        let before = child.named.as_ref().map(|named| named.pid);
        let (first, before) = (child.pid, before.filter(|before| self.mains.get(before) == Some(&id)));
        if let Some(before) = before {
            self.mains.remove(&before);
        }
        self.mains.insert(pid, id);
        if let Some(child) = self.children.get_mut(&id) {
            child.named = (pid != first).then_some(Named { pid, process });
        }
        Body::Main { pid }
    }
}

impl Child {
    /// Whose the signals are: the named one's as long as it lives.
    pub(in crate::server) fn main_process(&self) -> i32 {
        self.living_named().map_or(self.pid, |named| named.pid)
    }

    /// The named one, if it lives.
    pub(in crate::server) fn living_named(&self) -> Option<&Named> {
        self.named.as_ref().filter(|named| !matches!(named.signal(None), Err(Errno::ESRCH)))
    }

    /// Whether the end of `ended`, which has just been collected, is not the agent's: another process has been named
    /// since, or the named one goes on as the keeper's own child.
    pub(in crate::server) fn lives_on_without(&mut self, ended: i32) -> bool {
        let named = self.named.as_ref().map(|named| named.pid);
        let named = match named {
            Some(named) if named != ended => named,
            _ => return self.is_draining() || (ended != self.pid && named != Some(ended)),
        };
        if ended != self.pid {
            return true;
        }
        let own = i32::try_from(std::process::id()).ok();
        let goes_on = self.birth != Birth::InNamespaces && self.is_running() && parent_of(named) == own;
        self.named = None;
        if goes_on {
            (self.pid, self.start_time) = (named, process::start_time(named));
        }
        goes_on
    }
}
