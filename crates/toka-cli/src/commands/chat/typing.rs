//! What the person types: lines, while the conversation waits for one; single keys, while the agent works. On a thread of its own, for a
//! terminal makes whoever reads it wait.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, raise};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor};
use tokio::sync::mpsc;

use crate::commands::prompt::{Keys, forget_typed, is_in_foreground, next_key};

/// How long the thread waits until it looks again whether the terminal is ours.
const LOOK: Duration = Duration::from_millis(100);
/// What an arrow and other keys send comes at once.
const SEQUENCE: Duration = Duration::from_millis(20);
/// What Esc sends, and what other keys begin with.
const ESCAPE: u8 = 0x1b;
/// What Ctrl-Z sends, where the terminal makes no signal of it.
const CTRL_Z: u8 = 0x1a;
/// How often in a row a line may be of no use until nothing more is read.
const MOST_ERRORS: u32 = 10;
/// Lines that can be gone back to.
const HISTORY: usize = 1000;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing, for the moment.
    Nothing,
    /// A line, which begins so.
    Line(String),
    /// Keys, one by one.
    Keys,
    /// Nothing any more.
    End,
}

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// A line.
    Line(String),
    /// A key.
    Key(char),
    /// Ctrl-C, in the place of a line.
    Interrupt,
    /// Nothing more comes.
    End,
}

/// Reads what is typed.
#[derive(Debug)]
pub(super) struct Typing {
    shared: Arc<(Mutex<Wanted>, Condvar)>,
    /// The terminal as it was, if stdin is one.
    before: Option<Termios>,
}

impl Typing {
    /// Begins to read, and where it comes.
    pub(super) fn start() -> io::Result<(Self, mpsc::UnboundedReceiver<Typed>)> {
        let (typed, read) = mpsc::unbounded_channel();
        let shared = Arc::new((Mutex::new(Wanted::Nothing), Condvar::new()));
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let before = if is_terminal { tcgetattr(io::stdin()).ok() } else { None };
        let own = Arc::clone(&shared);
        std::thread::Builder::new().name("typing".into()).spawn(move || {
            if is_terminal { read_terminal(&own, &typed) } else { read_lines(&own, &typed) }
        })?;
        Ok((Self { shared, before }, read))
    }

    /// Whether a person types.
    pub(super) fn is_terminal(&self) -> bool {
        self.before.is_some()
    }

    /// From now on this is waited for. A line that is being typed is typed to its end first.
    pub(super) fn want(&self, wanted: Wanted) {
        *lock(&self.shared.0) = wanted;
        self.shared.1.notify_all();
    }
}

impl Drop for Typing {
    fn drop(&mut self) {
        self.want(Wanted::End);
        // The thread may be in the middle of a line, and nobody waits for that.
        if let Some(before) = self.before.as_ref().filter(|_| is_in_foreground()) {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

fn lock(wanted: &Mutex<Wanted>) -> MutexGuard<'_, Wanted> {
    wanted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until something like this is wanted.
fn wait((wanted, changed): &(Mutex<Wanted>, Condvar), is_it: impl Fn(&Wanted) -> bool) -> Wanted {
    let guard = lock(wanted);
    let guard = changed.wait_while(guard, |wanted| !is_it(wanted));
    guard.unwrap_or_else(PoisonError::into_inner).clone()
}

/// A line was read: nothing is wanted until somebody says so again.
fn taken((wanted, _): &(Mutex<Wanted>, Condvar)) {
    let mut wanted = lock(wanted);
    if matches!(*wanted, Wanted::Line(_)) {
        *wanted = Wanted::Nothing;
    }
}

fn read_terminal(shared: &(Mutex<Wanted>, Condvar), typed: &mpsc::UnboundedSender<Typed>) {
    let config = Config::builder().auto_add_history(true);
    let config = config.max_history_size(HISTORY).map_or_else(|_| Config::default(), |config| config.build());
    let history = MemHistory::with_config(&config);
    let Ok(mut editor) = Editor::<(), MemHistory>::with_history(config, history) else {
        let _ = typed.send(Typed::End);
        return;
    };
    let mut errors = 0;
    loop {
        let told = match wait(shared, |wanted| *wanted != Wanted::Nothing) {
            Wanted::Nothing => continue,
            Wanted::End => return,
            Wanted::Keys => {
                if read_keys(shared, typed).is_err() {
                    let _ = typed.send(Typed::End);
                    return;
                }
                continue;
            }
            Wanted::Line(initial) => match editor.readline_with_initial("> ", (&initial, "")) {
                Ok(line) => Typed::Line(line),
                Err(ReadlineError::Interrupted) => Typed::Interrupt,
                Err(ReadlineError::Eof) => Typed::End,
                // Bytes that are no text, for one.
                Err(_) if errors < MOST_ERRORS => {
                    errors += 1;
                    Typed::Line(String::new())
                }
                Err(_) => Typed::End,
            },
        };
        taken(shared);
        let is_over = told == Typed::End;
        if typed.send(told).is_err() || is_over {
            return;
        }
    }
}

/// Reads keys for as long as those are wanted.
fn read_keys(shared: &(Mutex<Wanted>, Condvar), typed: &mpsc::UnboundedSender<Typed>) -> io::Result<()> {
    let mut keys: Option<Keys> = None;
    while *lock(&shared.0) == Wanted::Keys {
        if !is_in_foreground() {
            // Another program has the terminal, and has set it as it likes.
            keys.take().into_iter().for_each(std::mem::forget);
            std::thread::sleep(LOOK);
            continue;
        }
        if keys.is_none() {
            keys = Keys::one_by_one();
        }
        if let Some(key) = next_key(LOOK)? {
            if key == CTRL_Z {
                // The terminal is as it was while this process is stopped.
                keys = None;
                let _ = raise(Signal::SIGTSTP);
                continue;
            }
            if key == ESCAPE && next_key(SEQUENCE)?.is_some() {
                // An arrow or another such key.
                forget_typed();
                continue;
            }
            // What follows on a key belongs to the line that it begins: nothing more is read before that is wanted.
            let mut wanted = lock(&shared.0);
            if *wanted == Wanted::Keys {
                *wanted = Wanted::Nothing;
            }
            drop(wanted);
            let _ = typed.send(Typed::Key(character(key)?));
        }
    }
    Ok(())
}

/// The character that begins with this byte; what follows of it was sent with it.
fn character(first: u8) -> io::Result<char> {
    let mut bytes = vec![first];
    let more = match first {
        0xc0..=0xdf => 1,
        0xe0..=0xef => 2,
        0xf0..=0xf7 => 3,
        _ => 0,
    };
    for _ in 0..more {
        bytes.extend(next_key(SEQUENCE)?);
    }
    Ok(String::from_utf8_lossy(&bytes).chars().next().unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// Without a terminal: the lines of stdin, each when it is wanted.
fn read_lines(shared: &(Mutex<Wanted>, Condvar), typed: &mpsc::UnboundedSender<Typed>) {
    let mut stdin = io::stdin().lock();
    loop {
        if wait(shared, |wanted| matches!(wanted, Wanted::Line(_) | Wanted::End)) == Wanted::End {
            return;
        }
        let mut line = Vec::new();
        let told = match stdin.read_until(b'\n', &mut line) {
            Ok(1..) => Typed::Line(String::from_utf8_lossy(&line).into_owned()),
            Ok(0) | Err(_) => Typed::End,
        };
        taken(shared);
        let is_over = told == Typed::End;
        if typed.send(told).is_err() || is_over {
            return;
        }
    }
}
