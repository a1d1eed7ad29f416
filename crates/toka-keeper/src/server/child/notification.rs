//! The descriptor on which an agent tells that it is ready: a pipe whose write end has the number that the agent expects
//! (<https://skarnet.org/software/s6/notifywhenup.html>).
//!
//! The end is put there last of all, when nothing but the exec is left, since it may take the number of a descriptor that
//! the steps before need. The two that are needed then (the report of the exec, the program) make room for it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use toka_sandbox::{StepError, sys};

use super::super::held::Held;
use super::super::pipes::{self, Readers};
use crate::protocol::NOTIFICATION;

/// The pipe of one child.
#[derive(Debug)]
pub(in crate::server) struct Notification {
    number: u16,
    read: OwnedFd,
    write: OwnedFd,
}

impl Notification {
    pub(in crate::server) fn new(number: u16, readers: Readers) -> Result<Self, StepError> {
        let (read, write) =
            pipes::pipe(readers).map_err(|error| StepError::new("notification: make pipe", None, &error))?;
        Ok(Self { number, read, write: elsewhere(write, Some(number))? })
    }

    /// In the child: puts the write end where the agent expects it.
    pub(in crate::server) fn place(&self) -> Result<(), StepError> {
        sys::place_descriptor(self.write.as_fd(), self.number.into())
            .map_err(|error| StepError::new("notification: place descriptor", None, &error))
    }

    /// The child's end.
    pub(in crate::server) fn end(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }

    /// In the keeper: only the agent writes.
    pub(in crate::server) fn hold(self, held: &mut Held) {
        held.replace(NOTIFICATION, vec![self.read]);
    }
}

/// Holds the pipe again of an agent that another keeper started, unless it has closed its end, or has its output there by
/// now: `pipes` are those.
pub(in crate::server) fn hold_again(
    held: &mut Held,
    number: u16,
    processes: &[i32],
    pipes: Option<&[OwnedFd; 2]>,
) {
    let Some(pipe) = pipes::reopen_at(processes, number) else { return };
    if !pipes.into_iter().flatten().any(|other| pipes::is_same(&pipe, other)) {
        held.replace(NOTIFICATION, vec![pipe]);
    }
}

/// Whether `fd` has that number.
pub(in crate::server) fn is(fd: BorrowedFd<'_>, number: Option<u16>) -> bool {
    number.is_some_and(|number| fd.as_raw_fd() == i32::from(number))
}

/// The same file under another number than `number`.
pub(in crate::server) fn elsewhere(fd: OwnedFd, number: Option<u16>) -> Result<OwnedFd, StepError> {
    // The copy is made while the first still has its number.
    if is(fd.as_fd(), number) { copy(fd.as_fd()) } else { Ok(fd) }
}

pub(in crate::server) fn copy(fd: BorrowedFd<'_>) -> Result<OwnedFd, StepError> {
    fd.try_clone_to_owned().map_err(|error| StepError::new("notification: make room", None, &error))
}
