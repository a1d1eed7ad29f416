//! The question on the terminal of `toka run`, while something waits for a person: a key answers it.
//!
//! Nothing is read while nothing waits, nor while the run is in the background of its terminal: whoever reads or sets a terminal from there
//! is stopped by the kernel (termios(3), SIGTTIN and SIGTTOU). Keys come one by one and without echo, and Ctrl-C means what it always does.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use toka_core::approval::Subject;
use toka_core::{Approval, ApprovalAnswer};
use toka_terminal::mode::Mode;
use tokio::sync::mpsc;

/// How long a key may wait until it is looked at whether anything still waits for one, in milliseconds.
const LOOK: u16 = 100;

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
        Some(format!("approval {id}: press a to {}, d to {}", subject.yes(), subject.no()))
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
    loop {
        let oldest = {
            let mut waiting = lock(open);
            loop {
                match &*waiting {
                    None => return,
                    Some(open) if open.is_empty() => {}
                    Some(open) => break open.keys().next().copied(),
                }
                keys = None;
                waiting = changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        };
        let Some(id) = oldest else { continue };
        if !is_in_foreground() {
            // Another program has the terminal, and set it as it likes: it is not ours to set back.
            if let Some(keys) = keys.take() {
                std::mem::forget(keys);
            }
            std::thread::sleep(std::time::Duration::from_millis(LOOK.into()));
            continue;
        }
        if keys.is_none() {
            keys = Keys::one_by_one();
        }
        match next_key() {
            Ok(Some(key)) => {
                let answer = match key {
                    b'a' | b'A' => ApprovalAnswer::Approved { raise: None },
                    b'd' | b'D' => ApprovalAnswer::Denied,
                    _ => continue,
                };
                // The same key twice is not an answer to the next one.
                if let Some(open) = &mut *lock(open) {
                    open.remove(&id);
                }
                let _ = answers.send((id, answer));
            }
            Ok(None) => {}
            // There is nobody any more.
            Err(_) => return,
        }
    }
}

/// A key, if one comes soon.
fn next_key() -> io::Result<Option<u8>> {
    let stdin = io::stdin();
    let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    match poll(&mut ready, PollTimeout::from(LOOK)) {
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

fn is_in_foreground() -> bool {
    nix::unistd::tcgetpgrp(io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// A terminal that hands keys on one by one; dropped, it is as it was.
struct Keys(Termios);

impl Keys {
    fn one_by_one() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut now = before.clone();
        now.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
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
