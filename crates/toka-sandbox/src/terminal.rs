//! A terminal of its own for a process that begins: a pseudo-terminal (pty(7)) that the child makes in its own view of the
//! file system, so that it has a name there (`/dev/pts/0`), and whose master it hands to its parent.
//!
//! The child leads a session that has no terminal yet, so this becomes the session's own: nothing that the agent does to
//! `/dev/tty` reaches anybody else's. The master never stays with the agent: whoever holds it reads what is written to the
//! terminal, and types into it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::pty::{posix_openpt, unlockpt};
use nix::sys::termios::{InputFlags, SetArg, tcgetattr, tcsetattr};
use toka_core::TerminalSize;

use crate::StepError;
use crate::handover::hand_over;
use crate::sys;

/// What the child needs for its terminal.
#[derive(Debug, Clone, Copy)]
pub struct NewTerminal<'a> {
    /// Its first size.
    pub size: TerminalSize,
    /// The child's end of a [`crate::handover::channel`].
    pub channel: BorrowedFd<'a>,
}

impl NewTerminal<'_> {
    /// In the child: makes the terminal, puts it in the place of the three streams, and hands the master over.
    pub(crate) fn take_place(&self) -> Result<(), StepError> {
        let step = |name: &'static str| move |error: io::Error| StepError::new(name, None, &error);
        let master = make().map_err(step("terminal: make"))?;
        let terminal = sys::open_terminal(master.as_fd()).map_err(step("terminal: open"))?;
        set_up(terminal.as_fd(), self.size).map_err(step("terminal: set up"))?;
        sys::control_terminal(terminal.as_fd()).map_err(step("terminal: take control"))?;
        for stream in 0..=2 {
            sys::place_descriptor(terminal.as_fd(), stream).map_err(step("terminal: place"))?;
        }
        hand_over(self.channel, master.as_fd()).map_err(step("terminal: hand over"))
    }
}

fn make() -> io::Result<OwnedFd> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    unlockpt(&master)?;
    Ok(master.into())
}

fn set_up(terminal: BorrowedFd<'_>, size: TerminalSize) -> io::Result<()> {
    let mut settings = tcgetattr(terminal)?;
    // Erasing a character erases all of its bytes.
    settings.input_flags |= InputFlags::IUTF8;
    tcsetattr(terminal, SetArg::TCSANOW, &settings)?;
    let TerminalSize { columns, rows } = size.or_default();
    sys::resize_terminal(terminal, columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::{channel, receive};

    #[test]
    fn a_master_arrives_with_the_size_that_was_asked_for() {
        let Ok(master) = make() else {
            eprintln!("skipped: this host gives no terminals");
            return;
        };
        let (ours, theirs) = channel().expect("a channel");
        assert!(receive(ours.as_fd()).is_err(), "nothing was sent yet");
        let terminal = sys::open_terminal(master.as_fd()).expect("its other side");
        set_up(terminal.as_fd(), TerminalSize { columns: 0, rows: 50 }).expect("a terminal");
        hand_over(theirs.as_fd(), master.as_fd()).expect("room");
        let received = receive(ours.as_fd()).expect("the master");
        nix::unistd::write(&received, b"typed\n").expect("room");
        let mut line = [0; 16];
        let count = nix::unistd::read(&terminal, &mut line).expect("a line");
        assert_eq!(&line[..count], b"typed\n");
    }
}
