//! Who is at the door.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use toka_keeper::ProcessId;

use crate::processes::Processes;

/// What is known of a sender that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Its control group is the agent's.
    Member,
    /// It exited before it could be looked up; a process of the same user all the same. To be believed only where
    /// nobody else can reach the door.
    Vanished,
}

/// Lets in the processes of one agent.
#[derive(Debug, Clone)]
pub(crate) struct Gate<P> {
    processes: P,
    id: ProcessId,
    uid: u32,
}

impl<P: Processes> Gate<P> {
    /// The gate of the agent `id`, whose processes belong to the user `uid`.
    pub(crate) fn new(processes: P, id: ProcessId, uid: u32) -> Self {
        Self { processes, id, uid }
    }

    /// What the sender is to this agent; `None` turns it away. `pid` and `uid` are the kernel's word.
    pub(crate) async fn admit(&self, pid: i32, uid: u32) -> Option<Peer> {
        if pid <= 0 {
            return None;
        }
        // Boxed: the question is asked seldom, and every socket that waits would have room for it.
        match Box::pin(self.processes.owner_of(pid)).await {
            Some(owner) => (owner == self.id).then_some(Peer::Member),
            None => (uid == self.uid && has_ended(pid)).then_some(Peer::Vanished),
        }
    }
}

/// Whether the process is gone, or only its status is left to be collected: it may have lost its groups already.
fn has_ended(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH) || is_uncollected(pid)
}

/// The first field behind the name, which may itself have parentheses (proc_pid_stat(5)).
fn is_uncollected(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(['Z', 'X']))
}
