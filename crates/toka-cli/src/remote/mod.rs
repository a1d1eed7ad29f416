//! A terminal, or the three streams of a command, on the other side of the control socket: what is typed goes there, what is
//! written there comes here.

pub(crate) mod keys;
mod pipes;
pub(crate) mod raw;
mod session;

pub(crate) use pipes::Screen;
pub(crate) use session::{Interrupts, Keyboard, Outcome, Session, size};

use toka_core::Exit;

/// The exit status by which a program learns how an agent or a command ended, as of the shell and of docker: the code, or 128 and
/// the signal's number; 124 when time was up, 143 when somebody stopped it, 1 for any other end.
pub(crate) fn status_of(exit: &Exit) -> i32 {
    match exit {
        Exit::Code { code } => *code,
        Exit::Signal { signal, .. } => 128 + signal,
        Exit::Oom { .. } => 128 + nix::libc::SIGKILL,
        Exit::Timeout { .. } => 124,
        Exit::Stopped { .. } => 128 + nix::libc::SIGTERM,
        Exit::Watchdog { .. }
        | Exit::Probe { .. }
        | Exit::Denied { .. }
        | Exit::StartFailed { .. }
        | Exit::Disk { .. }
        | Exit::Files { .. }
        | Exit::Unknown => 1,
    }
}
