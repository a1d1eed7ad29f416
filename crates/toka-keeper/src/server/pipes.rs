//! The pipes that an agent writes its output and errors to.
//!
//! A pipe lives as long as anybody has an end of it, but who writes to one that nobody can read from is told so by SIGPIPE
//! (pipe(7)). Where the keeper may be succeeded, the agent's end can therefore be read from as well: when daemon and keeper
//! are killed, an agent that writes waits until somebody opens its pipe anew, and no line is lost.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::pipe2;
use toka_sandbox::sys;

/// Whether a pipe is to outlive those who read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    /// They go, and whoever writes is told.
    MayGo,
    /// Others come after them.
    AreSucceeded,
}

/// A pipe: our end, which is read by readiness, and the agent's, which blocks.
///
/// # Errors
/// As pipe2(2).
pub(super) fn pipe(readers: Readers) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    let ours = sys::set_aside(ours);
    // The flag is of this end only.
    let _ = fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
    let theirs = match readers {
        Readers::MayGo => theirs,
        // Without /proc it is as it was.
        Readers::AreSucceeded => open_again(&theirs, OFlag::O_RDWR).unwrap_or(theirs),
    };
    Ok((ours, theirs))
}

fn open_again(fd: &OwnedFd, mode: OFlag) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(open(path.as_str(), mode | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// The read ends of an agent's output and errors, opened anew: a pipe can be opened through whoever has an end of it
/// (proc_pid_fd(5)), and what was not read yet is still in it. The first of `processes` that has one counts; the main one,
/// which comes first, may have sent its own output elsewhere, as to a `tee` of its. What nobody has any more is at its end.
/// `None` when the kernel does not let us look.
pub(super) fn reopen(processes: &[i32]) -> Option<[OwnedFd; 2]> {
    let open = |number| reopen_one(processes, number)?.map_or_else(ended, Ok);
    let (output, errors) = (open(1).ok()?, open(2).ok()?);
    // Both into one: two readers would tear lines apart.
    let errors = if is_same(&output, &errors) { ended().ok()? } else { errors };
    Some([output, errors])
}

/// The same for another descriptor; `None` also when nobody has the pipe any more.
pub(super) fn reopen_at(processes: &[i32], number: u16) -> Option<OwnedFd> {
    reopen_one(processes, number.into()).ok().flatten()
}

fn reopen_one(processes: &[i32], number: i32) -> io::Result<Option<OwnedFd>> {
    for pid in processes {
        if let Some(pipe) = pipe_of(*pid, number)? {
            return Ok(Some(pipe));
        }
    }
    Ok(None)
}

/// What is to be read of a descriptor, if it is an end of ours.
fn pipe_of(pid: i32, number: i32) -> io::Result<Option<OwnedFd>> {
    let path = format!("/proc/{pid}/fd/{number}");
    let found = match open(path.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(found) => found,
        // It is closed, or its process is gone.
        Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // What it is is looked at before it is opened, which on a device can do something. Ours can be read from and written
    // to; the pipe to another program of the agent's can not, and is not ours to read.
    // And ours has no name in any folder.
    let is_fifo = SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO;
    if !is_fifo || !is_nameless(&found) || !is_for_both(pid, number) {
        return Ok(None);
    }
    open_again(&found, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map(sys::set_aside).map(Some)
}

/// Whether it is a pipe of pipe(2), by what we hold of it: its process may close it at any moment.
fn is_nameless(pipe: &OwnedFd) -> bool {
    let name = std::fs::read_link(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    name.is_ok_and(|name| name.to_string_lossy().starts_with("pipe:"))
}

/// Whether a process has a descriptor that it can read from and write to (proc_pid_fdinfo(5)).
fn is_for_both(pid: i32, number: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    let flags = flags.map(OFlag::from_bits_retain);
    flags.is_some_and(|flags| flags & OFlag::O_ACCMODE == OFlag::O_RDWR && !flags.contains(OFlag::O_PATH))
}

pub(super) fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let key = |fd: &OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((key(one), key(other)), (Ok(one), Ok(other)) if one == other)
}

/// A pipe that is at its end.
fn ended() -> io::Result<OwnedFd> {
    let (read, _) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    Ok(sys::set_aside(read))
}
