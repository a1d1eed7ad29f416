//! The first process of a process namespace, for agents of an ordinary user.
//!
//! Where nobody may make control groups, a process namespace is what ends an agent as a whole: when its first process
//! goes, the kernel kills the rest (pid_namespaces(7)). That first process must not be the agent itself, since the kernel
//! drops every signal that its first process does not handle; so a small one stands there, which passes signals on,
//! collects orphans, and hands out the agent's status.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::Pid;

use crate::step::StepError;
use crate::sys::{self, Collected, Forked, Patience};

/// How an agent ended, over the pipe from the first process to the keeper: whether by a signal, its number or the exit
/// status, whether it dumped core.
pub type RawStatus = [u8; 3];

/// Splits the calling process: the new one goes on as the agent, the old one stays as the first process until it ends.
pub(crate) fn split(status: OwnedFd) -> Result<(), StepError> {
    match sys::fork() {
        Ok(Forked::Child) => Ok(()),
        Ok(Forked::Parent(agent)) => watch(Pid::from_raw(agent), status),
        Err(error) => Err(StepError::new("process namespace: fork", None, &error)),
    }
}

/// Reads the status that a first process left; `None` when it was killed before it could.
pub fn read_status(pipe: OwnedFd) -> Option<RawStatus> {
    let mut status = RawStatus::default();
    File::from(pipe).read_exact(&mut status).ok()?;
    Some(status)
}

fn watch(agent: Pid, status: OwnedFd) -> ! {
    // Nothing finds the agent again when its keeper is gone: there is no control group. The keeper has one thread, so that
    // the signal comes when it ends and not before.
    let _ = sys::die_with_parent();
    let every = SigSet::all();
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&every), None);
    // Only the agent may hold the pipes of its output and the report of its start.
    let status = keep_only(status);
    // One that ended before it could be heard of has closed its end.
    if status.as_ref().is_none_or(nobody_reads) {
        sys::exit_now(0)
    }
    loop {
        if let Some(ended) = reap(agent) {
            if let Some(status) = status {
                let _ = File::from(status).write_all(&ended);
            }
            sys::exit_now(0)
        }
        match every.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(other) => drop(kill(agent, other)),
        }
    }
}

fn nobody_reads(pipe: &OwnedFd) -> bool {
    let mut looked = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    let _ = poll(&mut looked, PollTimeout::ZERO);
    looked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

fn keep_only(status: OwnedFd) -> Option<OwnedFd> {
    let moved = sys::move_descriptor(status, 0).ok();
    let _ = sys::close_from(1);
    moved
}

fn reap(agent: Pid) -> Option<RawStatus> {
    loop {
        match sys::collect(Patience::None) {
            Ok(Some((pid, Collected::Code(code)))) if pid == agent.as_raw() => {
                return Some([0, code as u8, 0]);
            }
            Ok(Some((pid, Collected::Signal(signal, core)))) if pid == agent.as_raw() => {
                return Some([1, signal as u8, u8::from(core)]);
            }
            Ok(None) | Err(_) => return None,
            Ok(Some(_)) => {}
        }
    }
}
