//! The terminal of a process: made by the child in its own view, held here by its master, which stands in the place of the
//! output pipe. So it outlives the daemon like a pipe, is handed to the next one like a pipe, and hangs up when nobody holds
//! it any more.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown};
use toka_core::TerminalSize;
use toka_sandbox::{NewTerminal, StepError, handover, sys};

use super::Child;
use crate::protocol::Launch;

/// A terminal that a child is to make.
#[derive(Debug)]
pub(in crate::server) struct OwnTerminal {
    size: TerminalSize,
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl OwnTerminal {
    pub(in crate::server) fn new(size: TerminalSize) -> Result<Self, StepError> {
        let (ours, theirs) =
            handover::channel().map_err(|error| StepError::new("terminal: make channel", None, &error))?;
        Ok(Self { size, ours, theirs })
    }

    pub(in crate::server) fn for_child(&self) -> NewTerminal<'_> {
        NewTerminal { size: self.size, channel: self.theirs.as_fd() }
    }
}

impl Child {
    /// It executes its program: takes the master of the terminal that it has made, if it was to make one.
    pub(in crate::server) fn take_terminal(&mut self) {
        let Some(OwnTerminal { ours, .. }) = self.terminal.take() else { return };
        let Some([output, _]) = &mut self.pipes else { return };
        match handover::receive(ours.as_fd()) {
            Ok(master) => {
                // The daemon reads and writes it by readiness.
                let _ = fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK));
                *output = sys::set_aside(master);
            }
            // With its last master closed the terminal has hung up.
            Err(error) => self.notices.push(format!("the terminal of {} was lost: {error}", self.agent)),
        }
    }
}

/// Gives what a process is to read to the user that it runs as, who could otherwise not open it by name (`/dev/stdin`).
pub(in crate::server) fn give_input(input: &OwnedFd, launch: &Launch) {
    if let Some(user) = &launch.plan.run_as {
        // It can read it all the same.
        let _ = fchown(input, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)));
    }
}
