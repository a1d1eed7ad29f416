//! The socket in a process's network at which its daemon listens: made by the child, held here, so that it outlives every daemon and
//! takes connections while there is none.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd as _, OwnedFd};

use toka_sandbox::{NewListener, StepError, handover, sys};

use super::Child;
use crate::protocol::{LISTENER, NOTIFICATION};

/// A socket that a child is to make.
#[derive(Debug)]
pub(in crate::server) struct OwnListener {
    address: SocketAddrV4,
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl OwnListener {
    pub(in crate::server) fn new(address: SocketAddrV4) -> Result<Self, StepError> {
        let (ours, theirs) = handover::channel()
            .map_err(|error| StepError::new("network: make channel for the listener", None, &error))?;
        Ok(Self { address, ours, theirs })
    }

    pub(in crate::server) fn for_child(&self) -> NewListener<'_> {
        NewListener { address: self.address, channel: self.theirs.as_fd() }
    }
}

impl Child {
    /// It executes its program: takes the socket that it has made, if it was to make one.
    pub(in crate::server) fn take_listener(&mut self) {
        let Some(OwnListener { ours, .. }) = self.listener.take() else { return };
        match handover::receive(ours.as_fd()) {
            Ok(listener) => self.held.replace(LISTENER, vec![sys::set_aside(listener)]),
            Err(error) => {
                self.notices.push(format!("the port for models of {} was lost: {error}", self.agent));
            }
        }
    }

    /// What its daemon gets when it runs: the read ends of its pipes, and copies of what is held for it, with the names of the latter.
    pub(in crate::server) fn for_its_daemon(&self) -> (Vec<String>, io::Result<Vec<OwnedFd>>) {
        let held = [NOTIFICATION, LISTENER];
        let held: Vec<_> = held.into_iter().filter_map(|name| Some((name, self.held.get(name)?))).collect();
        let descriptors = self.pipes.iter().flatten().chain(held.iter().map(|(_, descriptor)| *descriptor));
        let descriptors = descriptors.map(OwnedFd::try_clone).collect();
        (held.into_iter().map(|(name, _)| name.to_owned()).collect(), descriptors)
    }
}
