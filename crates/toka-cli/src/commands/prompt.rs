//! The question on the terminal of `toka run`, while something waits for a person: a key answers it.
//!
//! Nothing is read while nothing waits, nor while the run is in the background of its terminal: whoever reads or sets a terminal from there
//! is stopped by the kernel (termios(3), SIGTTIN and SIGTTOU). Keys come one by one and without echo, Ctrl-C means what it always does, and at
//! Ctrl-Z the terminal is as it was. A key counts for a question that was there for a moment before it; those typed earlier, and whatever
//! a key such as an arrow sends, are thrown away.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use nix::sys::termios::{
    FlushArg, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcflush, tcgetattr, tcsetattr,
};
use toka_core::approval::Subject;
use toka_core::{Approval, ApprovalAnswer};
use toka_terminal::mode::Mode;
use tokio::sync::mpsc;

/// How long a key may wait until it is looked at whether anything still waits for one.
const LOOK: Duration = Duration::from_millis(100);
/// How long a question is there until a key can be an answer to it.
const READ_WITHIN: Duration = Duration::from_millis(400);
/// What Ctrl-Z sends, where the terminal does not make a signal of it, and what arrows and other keys begin with.
const CTRL_Z: u8 = 0x1a;
const ESCAPE: u8 = 0x1b;

/// What waits, the oldest first; `None` when the run is over.
type Open = Option<BTreeMap<u64, Subject>>;

/// Asks for keys as long as something waits.
#[derive(Debug)]
pub(crate) struct Prompt {
    shared: Arc<(Mutex<Open>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

/// An answer by a key: to which approval, and which.
pub(crate) type ByKey = (u64, ApprovalAnswer);

impl Prompt {
    /// One for a person at the terminal that stdin is, and where the answers come. Without a terminal, or where nothing is shown, nobody is asked.
    pub(crate) fn start(mode: Mode) -> (Self, mpsc::UnboundedReceiver<ByKey>) {
        let (answers, answered) = mpsc::unbounded_channel();
        let shared = Arc::new((Mutex::new(Some(BTreeMap::new())), Condvar::new()));
        let is_shown = matches!(mode, Mode::Live | Mode::Plain);
        let is_interactive = is_shown && io::stdin().is_terminal() && io::stdout().is_terminal();
        let own = Arc::clone(&shared);
        let work = move || read_keys(&own, &answers);
        let thread =
            is_interactive.then(|| std::thread::Builder::new().name("prompt".into()).spawn(work).ok());
        (Self { shared, thread: thread.flatten() }, answered)
    }

    /// Something waits; what a person at this terminal can do about it.
    pub(crate) fn ask(&self, approval: &Approval) -> Option<String> {
        self.thread.as_ref()?;
        if let Some(open) = &mut *lock(&self.shared.0) {
            open.insert(approval.id, approval.subject.clone());
        }
        self.shared.1.notify_all();
        self.question()
    }

    /// It was answered; what waits now.
    pub(crate) fn forget(&self, id: u64) -> Option<String> {
        if let Some(open) = &mut *lock(&self.shared.0) {
            open.remove(&id);
        }
        self.question()
    }

    fn question(&self) -> Option<String> {
        let open = lock(&self.shared.0);
        let (id, subject) = open.as_ref()?.first_key_value()?;
        let no = subject.no();
        Some(match subject.yes() {
            Some(yes) => format!("press a to {yes}, d to {no} (approval {id})"),
            None => format!("press d to {no}, or {}", subject.how_to_say_yes(*id)),
        })
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        *lock(&self.shared.0) = None;
        self.shared.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // The terminal is as it was when it is over.
            let _ = thread.join();
        }
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_keys((open, changed): &(Mutex<Open>, Condvar), answers: &mpsc::UnboundedSender<ByKey>) {
    let mut keys: Option<Keys> = None;
    let mut asked: Option<Asked> = None;
    loop {
        let (id, takes_yes) = {
            let mut waiting = lock(open);
            loop {
                match waiting.as_ref().map(|open| open.first_key_value()) {
                    None => return,
                    Some(Some((id, subject))) => break (*id, subject.yes().is_some()),
                    Some(None) => {}
                }
                (keys, asked) = (None, None);
                waiting = changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        };
        if !is_in_foreground() {
            // Another program has the terminal, and has set it as it likes: it is not ours to set back.
            keys.take().into_iter().for_each(std::mem::forget);
            asked = None;
            std::thread::sleep(LOOK);
            continue;
        }
        if keys.is_none() {
            keys = Keys::one_by_one();
        }
        let question = asked.take_if(|asked| asked.id == id).unwrap_or_else(|| Asked::now(id));
        let asked = asked.insert(question);
        match next_key(LOOK) {
            Ok(Some(CTRL_Z)) => {
                keys = None;
                let _ = raise(Signal::SIGTSTP);
            }
            Ok(Some(ESCAPE)) => forget_typed(),
            Ok(Some(key)) => {
                let answer = match key {
                    b'a' | b'A' if takes_yes => ApprovalAnswer::YES,
                    b'd' | b'D' => ApprovalAnswer::Denied,
                    _ => continue,
                };
                // One key answers one question; the next one is asked when this answer has been told.
                if !asked.is_answered && asked.since.elapsed() >= READ_WITHIN {
                    asked.is_answered = answers.send((id, answer)).is_ok();
                }
            }
            Ok(None) => {}
            // There is nobody any more.
            Err(_) => return,
        }
    }
}

/// A question on the screen.
struct Asked {
    id: u64,
    since: Instant,
    is_answered: bool,
}

impl Asked {
    fn now(id: u64) -> Self {
        forget_typed();
        Self { id, since: Instant::now(), is_answered: false }
    }
}

/// Throws away what was typed and not read yet.
pub(crate) fn forget_typed() {
    let _ = tcflush(io::stdin(), FlushArg::TCIFLUSH);
}

/// A key, if one comes within this time.
pub(crate) fn next_key(within: Duration) -> io::Result<Option<u8>> {
    let stdin = io::stdin();
    let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let within = PollTimeout::try_from(within).unwrap_or(PollTimeout::ZERO);
    match poll(&mut ready, within) {
        Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let mut key = [0];
    match nix::unistd::read(&stdin, &mut key)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(Some(key[0])),
    }
}

pub(crate) fn is_in_foreground() -> bool {
    nix::unistd::tcgetpgrp(io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// A terminal that hands keys on one by one; dropped, it is as it was.
pub(crate) struct Keys(Termios);

impl Keys {
    pub(crate) fn one_by_one() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut now = before.clone();
        now.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        // Ctrl-Z comes as a key, so that the terminal is set back before this process stops.
        now.control_chars[SpecialCharacterIndices::VSUSP as usize] = 0;
        tcsetattr(io::stdin(), SetArg::TCSANOW, &now).ok()?;
        Some(Self(before))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if is_in_foreground() {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
        }
    }
}
