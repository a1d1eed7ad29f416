//! The attacker: tries one violation after another from inside the sandbox and says what the kernel answered.
//!
//! `attack NAME ARGS… [+ NAME ARGS…]…` prints one line for each attempt: `NAME allowed NOTE`, `NAME denied ERRNO` or
//! `NAME killed SIGNAL`, and ends with 0: whether the answer was right is for the test to say. Each attempt runs in a
//! child of its own, so that one that changes its process spoils nothing for the next.
//!
//! An attack that would harm the host where nothing stops it (a reboot, a new clock) is made with arguments that the
//! kernel looks at only after it has decided about the right to call at all: `allowed EINVAL` then means that it got
//! through.

mod files;
mod identity;
mod kernel;
mod processes;
mod resources;
mod sockets;
mod sys;

use std::io::Write;

use nix::errno::Errno;

use crate::sys::Ended;

/// What the kernel answered: through, with a note perhaps, or the error.
pub(crate) type Attempt = nix::Result<String>;
/// An attack's name, and how it is made with its arguments.
pub(crate) type Attack = (&'static str, fn(&[String]) -> Attempt);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for attempt in arguments.split(|argument| argument == "+") {
        let [name, rest @ ..] = attempt else { continue };
        match sys::in_child(|| report(name, rest)) {
            Ok(Ended::Exited) => {}
            Ok(Ended::Killed(signal)) => say(&format!("{name} killed {signal}")),
            Err(errno) => say(&format!("{name} denied {errno:?} at fork")),
        }
    }
}

fn report(name: &str, arguments: &[String]) {
    let every = [
        files::ATTACKS,
        sockets::ATTACKS,
        processes::ATTACKS,
        identity::ATTACKS,
        kernel::ATTACKS,
        resources::ATTACKS,
    ];
    let Some((_, attack)) = every.into_iter().flatten().find(|(known, _)| *known == name) else {
        return say(&format!("{name} unknown"));
    };
    match attack(arguments) {
        Ok(note) => say(&format!("{name} allowed {note}")),
        Err(errno) => say(&format!("{name} denied {errno:?}")),
    }
}

/// One line, in one write, so that lines of several processes do not mix.
pub(crate) fn say(line: &str) {
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// The argument at `index`; a missing one is a mistake of the test.
pub(crate) fn argument(arguments: &[String], index: usize) -> &str {
    arguments.get(index).expect("the test names every argument")
}

/// The number at `index`.
pub(crate) fn number<T: std::str::FromStr>(arguments: &[String], index: usize) -> T {
    argument(arguments, index).parse().ok().expect("the test writes numbers where they belong")
}

/// An answer whose value does not matter.
pub(crate) fn done<T>(result: nix::Result<T>) -> Attempt {
    result.map(|_| String::new())
}

/// Counts these errors as through: the kernel gives them only to those who may call.
pub(crate) fn reached<T>(result: nix::Result<T>, proofs: &[Errno]) -> Attempt {
    match result {
        Err(errno) if proofs.contains(&errno) => Ok(format!("{errno:?}")),
        other => done(other),
    }
}

/// The error number within an error of the standard library.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// An answer of the standard library.
pub(crate) fn io<T>(result: std::io::Result<T>) -> nix::Result<T> {
    result.map_err(|error| errno_of(&error))
}
