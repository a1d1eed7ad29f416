//! The sockets in a process's network at which its daemon listens: made by the child, held here, so that they outlive every daemon and
//! take connections while there is none.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd as _, OwnedFd};

use toka_sandbox::{NewListener, StepError, handover, sys};

use super::Child;
use crate::protocol::{LISTENER, NOTIFICATION};

/// Sockets that a child is to make.
#[derive(Debug)]
pub(in crate::server) struct OwnListener {
    address: SocketAddrV4,
    hosts: Vec<SocketAddrV4>,
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl OwnListener {
    pub(in crate::server) fn new(address: SocketAddrV4, hosts: Vec<SocketAddrV4>) -> Result<Self, StepError> {
        let (ours, theirs) = handover::channel()
            .map_err(|error| StepError::new("network: make channel for the listener", None, &error))?;
        Ok(Self { address, hosts, ours, theirs })
    }

    pub(in crate::server) fn for_child(&self) -> NewListener<'_> {
        NewListener { address: self.address, hosts: &self.hosts, channel: self.theirs.as_fd() }
    }
}

impl Child {
    /// It executes its program: takes the sockets that it has made, if it was to make any.
    pub(in crate::server) fn take_listener(&mut self) {
        let Some(OwnListener { hosts, ours, .. }) = self.listener.take() else { return };
        let wanted = 1 + hosts.len();
        let received: Result<Vec<OwnedFd>, _> =
            (0..wanted).map(|_| handover::receive(ours.as_fd()).map(sys::set_aside)).collect();
        match received {
            Ok(listeners) => self.held.replace(LISTENER, listeners),
            Err(error) => {
                self.notices.push(format!("the port of {} to its daemon was lost: {error}", self.agent));
            }
        }
    }

    /// What its daemon gets when it runs: the read ends of its pipes, and copies of what is held for it, with the names of the latter.
    pub(in crate::server) fn for_its_daemon(&self) -> (Vec<String>, io::Result<Vec<OwnedFd>>) {
        let held = [NOTIFICATION, LISTENER];
        let held: Vec<_> =
            held.into_iter().flat_map(|name| self.held.all(name).map(move |fd| (name, fd))).collect();
        let descriptors = self.pipes.iter().flatten().chain(held.iter().map(|(_, descriptor)| *descriptor));
        let descriptors = descriptors.map(OwnedFd::try_clone).collect();
        (held.into_iter().map(|(name, _)| name.to_owned()).collect(), descriptors)
    }
}
