//! Who is at the door.

use toka_keeper::ProcessId;
use toka_keeper::process::{Presence, presence};

use crate::processes::Processes;

/// What is known of a sender that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Its control group is the agent's.
    Member {
        /// Its process id on the host.
        pid: i32,
    },
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
            Some(owner) => (owner == self.id).then_some(Peer::Member { pid }),
            // One whose status is left to be collected may have lost its groups already.
            None => (uid == self.uid && presence(pid) != Presence::Alive).then_some(Peer::Vanished),
        }
    }
}
