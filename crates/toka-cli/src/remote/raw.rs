//! The caller's terminal while somebody else draws on it: every key goes through as it is typed. However this program goes,
//! the terminal is left as it was, and what a program that draws may have switched on is switched off.

use std::io::{self, IsTerminal as _, stdin, stdout};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, LocalFlags, SetArg, Termios, cfmakeraw, tcflush, tcgetattr, tcsetattr};

/// The terminal as it was, while it is not.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
/// Whether the other side draws on the alternate screen.
static ON_OTHER_SCREEN: AtomicBool = AtomicBool::new(false);

/// Attributes, character set, cursor keys, keypad, cursor, mouse, focus, pasting (ECMA-48; xterm's control sequences): what is
/// off already stays off.
const PLAIN: &[u8] =
    b"\x1b[0m\x1b(B\x1b[?1l\x1b>\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[?2004l";
/// Back from the alternate screen.
const OWN_SCREEN: &[u8] = b"\x1b[?1049l";

/// The terminal, until this is dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal(());

impl RawTerminal {
    /// Takes the terminal at standard input.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn enter() -> io::Result<Self> {
        Self::enter_with(LocalFlags::empty())
    }

    /// The same for one that only looks: Ctrl-C is its own, and what is typed, or answered by the terminal, goes nowhere.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn enter_to_look() -> io::Result<Self> {
        Self::enter_with(LocalFlags::ISIG)
    }

    fn enter_with(kept: LocalFlags) -> io::Result<Self> {
        let before = tcgetattr(stdin().as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        raw.local_flags |= before.local_flags & kept;
        restore_in_panic();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let taken = Self(());
        tcsetattr(stdin().as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(taken)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal what it was. What is left to be written to one that takes nothing is not waited for.
fn restore() {
    let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    // On the way out there is nobody to tell about a terminal that is gone.
    // What the terminal has answered to the other side is nothing that was typed for the shell.
    let _ = tcflush(stdin().as_fd(), FlushArg::TCIFLUSH);
    let _ = tcsetattr(stdin().as_fd(), SetArg::TCSANOW, &before);
    if stdout().is_terminal() && takes_more() {
        let own = if ON_OTHER_SCREEN.load(Ordering::Relaxed) { OWN_SCREEN } else { b"" };
        // Not through the lock of the stream: who holds it may wait for the terminal.
        let _ = nix::unistd::write(stdout().as_fd(), &[own, PLAIN].concat());
    }
}

fn takes_more() -> bool {
    let stdout = stdout();
    let mut ready = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut ready, PollTimeout::ZERO), Ok(1))
        && ready[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT))
}

/// A panic is told on the terminal as it was.
fn restore_in_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}

/// Follows whether what is written switches to the alternate screen and back.
#[derive(Debug, Default)]
pub(crate) struct Screens {
    /// The end of what was written before: a sequence may come in two pieces.
    tail: Vec<u8>,
    is_other: bool,
}

/// Longest of the sequences below, in bytes.
const LONGEST: usize = 8;

impl Screens {
    /// Looks at what is written next.
    pub(crate) fn observe(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let mut rest = self.tail.as_slice();
        while let Some(at) = rest.iter().position(|byte| *byte == 0x1b) {
            rest = &rest[at..];
            for (sequence, is_other) in [
                (&b"\x1b[?1049h"[..], true),
                (b"\x1b[?1047h", true),
                (b"\x1b[?47h", true),
                (b"\x1b[?1049l", false),
                (b"\x1b[?1047l", false),
                (b"\x1b[?47l", false),
            ] {
                if rest.starts_with(sequence) {
                    self.is_other = is_other;
                }
            }
            rest = &rest[1..];
        }
        let surplus = self.tail.len().saturating_sub(LONGEST - 1);
        self.tail.drain(..surplus);
        ON_OTHER_SCREEN.store(self.is_other, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_screen_is_noticed_however_it_is_cut() {
        let text = b"text\x1b[2J\x1b[?1049h more \x1b[?25l";
        for cut in 0..text.len() {
            let mut screens = Screens::default();
            let (first, second) = text.split_at(cut);
            screens.observe(first);
            screens.observe(second);
            assert!(screens.is_other, "{cut}");
            screens.observe(b"\x1b[?1049");
            assert!(screens.is_other);
            screens.observe(b"l");
            assert!(!screens.is_other);
        }
    }
}
