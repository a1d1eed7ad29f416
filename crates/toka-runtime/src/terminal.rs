//! The terminal of an agent as its owner has it: the log gets what the agent shows, and so does everybody who looks at it at
//! the moment; they type into it and say how large it is.
//!
//! Nobody who looks holds up the agent or its log: each has a queue of bounded length, and who falls behind by more is
//! dropped and told so.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::termios::{Winsize, isatty, tcgetwinsize, tcsetwinsize};
use toka_core::{Exit, TerminalSize};
use toka_logs::Screen as _;
use tokio::net::unix::pipe::Sender;
use tokio::sync::{mpsc, watch};

/// Pieces that a viewer may be behind. The kernel gives at most 4 KiB of a terminal at once (n_tty), so about 1 MiB.
const BEHIND: usize = 256;
/// Most that look at one terminal at a time.
const MAX_VIEWERS: usize = 32;

/// A terminal, as long as its agent's life; handles are cheap to copy.
#[derive(Debug, Clone)]
pub struct Terminal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Not a pipe, but written by readiness like one.
    master: Sender,
    viewers: Mutex<Viewers>,
    end: watch::Sender<Option<Exit>>,
}

#[derive(Debug, Default)]
struct Viewers {
    next: u64,
    each: BTreeMap<u64, Viewer>,
    /// Nothing more will be shown.
    is_over: bool,
}

#[derive(Debug)]
struct Viewer {
    pieces: mpsc::Sender<Arc<[u8]>>,
    is_slow: Arc<AtomicBool>,
}

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewEnd {
    /// The agent shows nothing any more.
    Over,
    /// The viewer was too slow.
    TooSlow,
}

/// What a viewer sees, from now on.
#[derive(Debug)]
pub struct View {
    terminal: Terminal,
    number: u64,
    pieces: mpsc::Receiver<Arc<[u8]>>,
    is_slow: Arc<AtomicBool>,
}

impl Terminal {
    /// The terminal whose master this is; `None` when it is that of none, but a pipe.
    ///
    /// # Errors
    /// When it cannot be polled, or there is no room for another descriptor.
    pub(crate) fn of(output: &OwnedFd) -> io::Result<Option<Self>> {
        if !isatty(output) {
            return Ok(None);
        }
        let master = Sender::from_owned_fd_unchecked(output.try_clone()?)?;
        let (end, _) = watch::channel(None);
        Ok(Some(Self(Arc::new(Shared { master, viewers: Mutex::default(), end }))))
    }

    /// Another descriptor of its master, for whoever holds it beyond our life.
    ///
    /// # Errors
    /// When there is no room for another descriptor.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.master.as_fd().try_clone_to_owned()
    }

    /// The agent's life is over.
    pub(crate) fn end(&self, exit: Exit) {
        self.close();
        self.0.end.send_replace(Some(exit));
    }

    /// Looks at it from now on; `None` when too many do.
    pub fn view(&self) -> Option<View> {
        let mut viewers = self.viewers();
        if viewers.each.len() >= MAX_VIEWERS {
            return None;
        }
        let (sender, pieces) = mpsc::channel(BEHIND);
        let is_slow = Arc::new(AtomicBool::new(false));
        let number = viewers.next;
        viewers.next += 1;
        if !viewers.is_over {
            let viewer = Viewer { pieces: sender, is_slow: Arc::clone(&is_slow) };
            viewers.each.insert(number, viewer);
        }
        drop(viewers);
        Some(View { terminal: self.clone(), number, pieces, is_slow })
    }

    /// Types into it; waits while the agent does not read.
    ///
    /// # Errors
    /// When it has hung up.
    pub async fn type_in(&self, mut keys: &[u8]) -> io::Result<()> {
        while !keys.is_empty() {
            self.0.master.writable().await?;
            match self.0.master.try_write(keys) {
                Ok(written) => keys = &keys[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets its size; the agent hears of it when it is another (SIGWINCH).
    ///
    /// # Errors
    /// As ioctl_tty(2), `TIOCSWINSZ`.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let TerminalSize { columns, rows } = size;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.0.master.as_fd(), size)?)
    }

    /// Its size.
    ///
    /// # Errors
    /// As ioctl_tty(2), `TIOCGWINSZ`.
    pub fn size(&self) -> io::Result<TerminalSize> {
        let size = tcgetwinsize(self.0.master.as_fd())?;
        Ok(TerminalSize { columns: size.ws_col, rows: size.ws_row })
    }

    /// Waits for the end of the agent's life; `None` when its owner goes first.
    pub async fn ended(&self) -> Option<Exit> {
        let mut end = self.0.end.subscribe();
        end.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone())
    }

    fn viewers(&self) -> MutexGuard<'_, Viewers> {
        self.0.viewers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everybody who looks sees what goes to the log.
impl toka_logs::Screen for Terminal {
    /// Shows what the agent wrote to everybody who looks.
    fn show(&self, bytes: &[u8]) {
        let mut viewers = self.viewers();
        if viewers.each.is_empty() || bytes.is_empty() {
            return;
        }
        let piece: Arc<[u8]> = bytes.into();
        viewers.each.retain(|_, viewer| match viewer.pieces.try_send(Arc::clone(&piece)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                viewer.is_slow.store(true, Ordering::Relaxed);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }

    /// All that was shown has been.
    fn close(&self) {
        let mut viewers = self.viewers();
        viewers.is_over = true;
        viewers.each.clear();
    }
}

impl View {
    /// What was shown next; why nothing more is when there is no more. Cancel-safe.
    ///
    /// # Errors
    /// When there is no more.
    pub async fn next(&mut self) -> Result<Arc<[u8]>, ViewEnd> {
        let end = || if self.is_slow.load(Ordering::Relaxed) { ViewEnd::TooSlow } else { ViewEnd::Over };
        self.pieces.recv().await.ok_or_else(end)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.terminal.viewers().each.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::pty::{OpenptyResult, openpty};

    use super::*;

    fn terminal() -> (Terminal, OwnedFd) {
        let OpenptyResult { master, slave } = openpty(None, None).expect("a terminal");
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("ours");
        (Terminal::of(&master).expect("polled").expect("a terminal"), slave)
    }

    #[tokio::test]
    async fn a_pipe_is_no_terminal() {
        let (read, _write) = nix::unistd::pipe().expect("a pipe");
        assert!(Terminal::of(&read).expect("asked").is_none());
    }

    #[tokio::test]
    async fn everybody_sees_everything_but_who_is_too_slow() {
        let (terminal, _slave) = terminal();
        let (mut quick, mut slow) = (terminal.view().expect("room"), terminal.view().expect("room"));
        for number in 0..=BEHIND {
            terminal.show(&number.to_be_bytes());
            assert_eq!(*quick.next().await.expect("open"), number.to_be_bytes());
        }
        for number in 0..BEHIND {
            assert_eq!(*slow.next().await.expect("what it had"), number.to_be_bytes());
        }
        assert_eq!(slow.next().await, Err(ViewEnd::TooSlow));
        terminal.show(b"last");
        terminal.end(Exit::Code { code: 3 });
        assert_eq!(*quick.next().await.expect("open"), *b"last");
        assert_eq!(quick.next().await, Err(ViewEnd::Over));
        assert_eq!(terminal.ended().await, Some(Exit::Code { code: 3 }));
        assert_eq!(terminal.view().expect("room").next().await, Err(ViewEnd::Over));
    }

    #[tokio::test]
    async fn places_are_limited_and_given_back() {
        let (terminal, _slave) = terminal();
        let views: Vec<View> = std::iter::from_fn(|| terminal.view()).collect();
        assert_eq!(views.len(), MAX_VIEWERS);
        drop(views);
        assert!(terminal.view().is_some());
    }

    #[tokio::test]
    async fn keys_arrive_and_sizes_are_kept() {
        let (terminal, slave) = terminal();
        terminal.type_in(b"hello\n").await.expect("typed");
        let mut line = [0; 16];
        let count = nix::unistd::read(&slave, &mut line).expect("a line");
        assert_eq!(&line[..count], b"hello\n");
        let size = TerminalSize { columns: 132, rows: 50 };
        terminal.resize(size).expect("a size");
        assert_eq!(terminal.size().expect("a size"), size);
    }

    /// In raw mode a terminal keeps what is typed until it is full; then whoever types waits, and nobody else.
    #[tokio::test]
    async fn who_types_waits_for_an_agent_that_does_not_read() {
        let (terminal, slave) = terminal();
        let mut raw = nix::sys::termios::tcgetattr(&slave).expect("a terminal");
        nix::sys::termios::cfmakeraw(&mut raw);
        nix::sys::termios::tcsetattr(&slave, nix::sys::termios::SetArg::TCSANOW, &raw).expect("ours");
        let keys: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let typing = tokio::spawn({
            let (terminal, keys) = (terminal.clone(), keys.clone());
            async move { terminal.type_in(&keys).await }
        });
        tokio::time::timeout(Duration::from_millis(50), async {
            while !typing.is_finished() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect_err("it waits");
        let reading = tokio::task::spawn_blocking(move || {
            let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
            while seen.len() < 300_000 {
                let count = nix::unistd::read(&slave, &mut buffer).expect("keys");
                seen.extend_from_slice(&buffer[..count]);
            }
            seen
        });
        assert!(reading.await.expect("no panic") == keys, "each key once, in order");
        typing.await.expect("no panic").expect("typed");
    }
}
