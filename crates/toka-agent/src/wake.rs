//! All that can wake the runner, and the threads that wait for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::program_events::Said;

/// What woke the runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wake {
    /// This child ended, and is not reaped yet.
    Ended(Pid),
    /// The agent is asked to stop.
    Stop(Signal),
    /// This child, a program that works on a task, says something.
    Said(Pid, Said),
    /// The output of that program is at its end.
    Drained(Pid),
}

/// The threads only wait; this is plenty.
const STACK: usize = 64 * 1024;

/// The signals that ask the agent to stop.
pub(crate) fn stop_signals() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

/// Turns the stop signals into [`Wake::Stop`], and sets `stopped` with the first. Call it before any other thread starts: a signal goes to whichever
/// thread does not block it.
///
/// # Errors
/// When the signals cannot be blocked or the thread cannot be started.
pub(crate) fn listen_for_signals(wakes: SyncSender<Wake>, stopped: Arc<AtomicBool>) -> io::Result<()> {
    let signals = stop_signals();
    signals.thread_block()?;
    thread::Builder::new().name("signals".to_owned()).stack_size(STACK).spawn(move || {
        while let Ok(signal) = signals.wait() {
            stopped.store(true, Ordering::Relaxed);
            if wakes.send(Wake::Stop(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Sends [`Wake::Ended`] when the child `pid` has ended. It leaves the child unreaped, so that its process id and its
/// group's cannot be given to somebody else while they may still be signalled.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn listen_for_end(pid: Pid, wakes: SyncSender<Wake>) -> io::Result<()> {
    thread::Builder::new().name("end".to_owned()).stack_size(STACK).spawn(move || {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(pid), flags) == Err(nix::errno::Errno::EINTR) {}
        // Nobody listens when the runner gave up meanwhile.
        let _ = wakes.send(Wake::Ended(pid));
    })?;
    Ok(())
}
