//! One pipe of an agent, and how its reader waits for what comes next.
//!
//! A pipe that the poller has seen once wakes it up at every write from then on (`poll_usage` of linux/pipe_fs_i.h), whether
//! anybody waits for that or not: a writer of small pieces then spends more time on waking than on writing. So a pipe in which
//! there is something time and again is taken from the poller and looked at after each pause, until it is found empty.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::termios::isatty;
use tokio::net::unix::pipe::Receiver;

/// A turn that moved as much as this needs no pause: the writer is faster than the pauses.
const BUSY: usize = 32 * 1024;
/// Size of a pipe unless one asks for more (pipe(7)).
const SMALL: usize = 64 * 1024;
/// Size of the pipe of an agent that fills small ones: the most that an ordinary user may ask for (pipe(7)).
pub(super) const LARGE: usize = 1024 * 1024;

/// How output comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pace {
    /// There was none: the poller tells of the next.
    Still,
    /// There was some, and more may gather during a pause.
    Trickling,
    /// There is some after each pause.
    Streaming,
    /// In pieces so large, or so fast, that a pause would hold up the writer.
    Rushing,
}

/// What one turn found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// Bytes that it moved.
    pub(super) moved: usize,
    /// Whether the pipe was empty at its end.
    pub(super) emptied: bool,
}

impl Pace {
    /// The pace after a turn, in a pipe that holds so many bytes.
    pub(super) fn after(self, turn: Turn, capacity: usize) -> Self {
        let much = match self {
            Self::Still | Self::Rushing => BUSY,
            // What gathered during a pause.
            Self::Trickling | Self::Streaming => capacity / 2,
        };
        match turn {
            Turn { emptied: false, .. } => Self::Rushing,
            Turn { moved: 0, .. } => Self::Still,
            Turn { moved, .. } if moved >= much => Self::Rushing,
            _ if matches!(self, Self::Still | Self::Rushing) => Self::Trickling,
            _ => Self::Streaming,
        }
    }
}

/// One pipe.
#[derive(Debug)]
pub(super) struct Flow {
    end: End,
    capacity: usize,
    pace: Pace,
}

#[derive(Debug)]
enum End {
    /// The poller tells when there is something.
    Watched(Receiver),
    /// One has to look.
    Alone(OwnedFd),
    /// Nobody can write to it any more.
    Closed,
}

impl Flow {
    /// Reads from a pipe, or from the master of a terminal.
    ///
    /// # Errors
    /// When it cannot be polled.
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        let end = End::Watched(receiver(pipe)?);
        Ok(Self { end, capacity: SMALL, pace: Pace::Still })
    }

    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.end, End::Closed)
    }

    /// Becomes ready when there may be something to take; never for one that has ended.
    pub(super) async fn ready(&self) {
        match &self.end {
            // An error of the poller shows again in the read that follows.
            End::Watched(pipe) => drop(pipe.readable().await),
            End::Alone(_) => {}
            End::Closed => std::future::pending().await,
        }
    }

    /// Takes something with `take`, which must not block; `WouldBlock` when there is nothing. `None` when it has ended.
    pub(super) fn try_take<T>(
        &self,
        mut take: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        match &self.end {
            End::Watched(pipe) => Some(pipe.try_io(|| take(pipe.as_fd()))),
            End::Alone(pipe) => Some(take(pipe.as_fd())),
            End::Closed => None,
        }
    }

    /// Nobody can write to it any more.
    pub(super) fn close(&mut self) {
        self.end = End::Closed;
    }

    /// What is left of it, for one who does not wait.
    pub(super) fn take_rest(&mut self) -> Option<OwnedFd> {
        match std::mem::replace(&mut self.end, End::Closed) {
            End::Watched(pipe) => pipe.into_nonblocking_fd().ok(),
            End::Alone(pipe) => Some(pipe),
            End::Closed => None,
        }
    }

    /// Takes note of a turn, and makes a pipe that was found full larger.
    pub(super) fn note(&mut self, turn: Turn) {
        self.pace = self.pace.after(turn, self.capacity);
        if turn.moved >= SMALL && self.capacity == SMALL {
            self.enlarge();
        }
    }

    /// Whether it is waited for or looked at, as befits its pace. Beside one that rushes there are no pauses after which it would
    /// be looked at.
    pub(super) fn settle(&mut self, pauses: bool) {
        let looked_at = pauses && self.pace == Pace::Streaming;
        self.end = match std::mem::replace(&mut self.end, End::Closed) {
            End::Watched(pipe) if looked_at => pipe.into_nonblocking_fd().map_or(End::Closed, End::Alone),
            End::Alone(pipe) if !looked_at => watched(pipe),
            as_before => as_before,
        };
        if matches!(self.end, End::Alone(_)) {
            self.pace = Pace::Streaming;
        }
    }

    fn enlarge(&mut self) {
        let size = i32::try_from(LARGE).expect("a megabyte");
        // Beyond the user's allowance the kernel says no (pipe-user-pages-soft); then it stays as it is.
        let pipe = match &self.end {
            End::Watched(pipe) => pipe.as_fd(),
            End::Alone(pipe) => pipe.as_fd(),
            End::Closed => return,
        };
        let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(size));
        self.capacity = LARGE;
    }
}

/// What reads from a pipe, or from the master of a terminal, by readiness.
///
/// # Errors
/// When it cannot be polled.
pub fn receiver(output: OwnedFd) -> io::Result<Receiver> {
    if isatty(&output) { Receiver::from_owned_fd_unchecked(output) } else { Receiver::from_owned_fd(output) }
}

/// One that cannot be watched is looked at until it can.
fn watched(pipe: OwnedFd) -> End {
    let Ok(spare) = pipe.try_clone() else { return End::Alone(pipe) };
    Receiver::from_owned_fd_unchecked(pipe).map_or(End::Alone(spare), End::Watched)
}

#[cfg(test)]
mod tests {
    use nix::fcntl::OFlag;
    use nix::unistd::{pipe2, write};

    use super::*;

    fn emptied(moved: usize) -> Turn {
        Turn { moved, emptied: true }
    }

    #[test]
    fn pauses_are_for_those_whom_they_do_not_hold_up() {
        use Pace::{Rushing, Still, Streaming, Trickling};
        let paces = |turns: &[Turn]| -> Vec<Pace> {
            let walk = turns.iter().scan(Still, |pace, turn| {
                *pace = pace.after(*turn, LARGE);
                Some(*pace)
            });
            walk.collect()
        };
        // A line now and then.
        assert_eq!(paces(&[emptied(80), emptied(0)]), [Trickling, Still]);
        // Many small ones: what gathers in two milliseconds fits into the pipe.
        assert_eq!(
            paces(&[emptied(80), emptied(300_000), emptied(300_000), emptied(0)]),
            [Trickling, Streaming, Streaming, Still]
        );
        // Large ones, for which a pause is a wait, until they are small again.
        assert_eq!(
            paces(&[emptied(65_536), emptied(65_536), emptied(900), emptied(600_000), emptied(900)]),
            [Rushing, Rushing, Trickling, Rushing, Trickling]
        );
        assert_eq!(paces(&[Turn { moved: 10, emptied: false }]), [Rushing], "there is more");
    }

    #[tokio::test]
    async fn a_pipe_that_was_full_is_made_larger() {
        let (read, _pen) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let mut flow = Flow::new(read).expect("a pipe");
        let size = |flow: &Flow| match &flow.end {
            End::Watched(pipe) => fcntl(pipe, FcntlArg::F_GETPIPE_SZ).expect("a size"),
            other => panic!("{other:?}"),
        };
        flow.note(emptied(1000));
        let before = size(&flow);
        flow.note(emptied(SMALL));
        assert!(before <= 65_536 && size(&flow) == 1_048_576, "{before}");
    }

    #[tokio::test]
    async fn what_is_looked_at_is_heard_again_when_it_is_watched() {
        let (read, pen) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let mut flow = Flow::new(read).expect("a pipe");
        let take = |flow: &Flow| {
            let mut bytes = [0; 16];
            flow.try_take(|pipe| Ok(nix::unistd::read(pipe, &mut bytes)?)).expect("open").ok()
        };
        assert_eq!(take(&flow), None, "nothing yet, and nobody waits");
        for _ in 0..3 {
            flow.pace = Pace::Streaming;
            flow.settle(true);
            assert!(matches!(flow.end, End::Alone(_)));
            write(&pen, b"seen").expect("room");
            flow.settle(false);
            assert!(matches!(flow.end, End::Watched(_)));
            flow.ready().await;
            assert_eq!(take(&flow), Some(4));
            assert_eq!(take(&flow), None);
            write(&pen, b"heard").expect("room");
            flow.ready().await;
            assert_eq!(take(&flow), Some(5));
        }
        drop(pen);
        flow.ready().await;
        assert_eq!(take(&flow), Some(0), "the end");
        assert!(flow.take_rest().is_some());
        assert!(!flow.is_open() && flow.take_rest().is_none());
    }
}
