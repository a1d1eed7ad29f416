//! `toka __probe ACT`: the program that a doctor has confined. It does what it is told, an `Act` as JSON, and prints one
//! line of JSON for each thing that it tried. Whether that was right is for others to say.
//!
//! It is the same binary as everything else, so that a proof depends on no shell and no interpreter of the host.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe, setsid};
use serde::{Deserialize, Serialize};
use toka_sandbox::sys::{self, Forked};

use super::attempt::{Attempt, name_of};

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Act {
    /// Tries one thing after the other, each in a process of its own.
    Try(Vec<Attempt>),
    /// Takes this many MiB of memory.
    Fill(usize),
    /// Makes this many processes at once.
    Fork(usize),
    /// Opens this many files at once.
    Open(usize),
    /// Computes until it is ended.
    Burn,
    /// Writes a byte every millisecond until it is ended.
    Beat,
    /// Leaves a daemon behind that ignores what can be ignored.
    Outlive,
    /// Waits until its standard input ends.
    Wait,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It got through; a note.
    Through(String),
    /// It was refused with this error.
    Refused(String),
    /// The kernel ended it with this signal.
    Killed(String),
    /// Nobody knows: the probe did not get that far.
    Silent,
}

/// Becomes the probe; returns when the act is over. To be called by a process with one thread.
pub fn main() -> ExitCode {
    let act = std::env::args_os().nth(2).and_then(|word| serde_json::from_str(word.to_str()?).ok());
    match act {
        None => {
            eprintln!("toka __probe is started by toka doctor");
            ExitCode::from(toka_core::ExitCode::Usage as u8)
        }
        Some(act) => match play(act) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&Answer::Refused(name_of(&error)));
                ExitCode::FAILURE
            }
        },
    }
}

fn play(act: Act) -> io::Result<()> {
    match act {
        Act::Try(attempts) => attempts.iter().try_for_each(in_child),
        Act::Fill(mebibytes) => fill(mebibytes),
        Act::Fork(count) => fork_many(count),
        Act::Open(count) => open_many(count),
        Act::Burn => loop {
            std::hint::spin_loop();
        },
        Act::Beat => loop {
            io::stdout().write_all(b".").and_then(|()| io::stdout().flush())?;
            std::thread::sleep(Duration::from_millis(1));
        },
        Act::Outlive => outlive(),
        Act::Wait => wait_for_end(),
    }
}

/// One line, in one write.
fn say(answer: &Answer) {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    // Whoever should read it finds that it is missing.
    let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
}

/// One that changes its process, or that the kernel kills for it, spoils nothing for the next.
fn in_child(attempt: &Attempt) -> io::Result<()> {
    match sys::fork()? {
        Forked::Child => {
            say(&attempt.make().map_or_else(|error| Answer::Refused(name_of(&error)), Answer::Through));
            sys::exit_now(0)
        }
        Forked::Parent(pid) => {
            match waitpid(Pid::from_raw(pid), None)? {
                WaitStatus::Exited(_, 0) => {}
                WaitStatus::Signaled(_, signal, _) => say(&Answer::Killed(signal.as_str().to_owned())),
                _ => say(&Answer::Silent),
            }
            Ok(())
        }
    }
}

fn fill(mebibytes: usize) -> io::Result<()> {
    const MEBIBYTE: usize = 1 << 20;
    let mut held: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mebibytes {
        let mut block = Vec::new();
        block.try_reserve_exact(MEBIBYTE).map_err(|_| io::Error::from(nix::errno::Errno::ENOMEM))?;
        // Written, since memory that nobody touched is not there.
        block.resize(MEBIBYTE, 1);
        held.push(block);
    }
    say(&Answer::Through(format!("{} MiB", std::hint::black_box(held).len())));
    Ok(())
}

fn fork_many(count: usize) -> io::Result<()> {
    // The children wait until this process has ended, and nobody else holds the pipe.
    let (waiting, _held) = pipe()?;
    for made in 0..count {
        match sys::fork() {
            Ok(Forked::Parent(_)) => {}
            Ok(Forked::Child) => {
                drop(_held);
                let _ = File::from(waiting).read(&mut [0]);
                sys::exit_now(0)
            }
            Err(error) => {
                say(&Answer::Refused(format!("{} after {made} processes", name_of(&error))));
                return Ok(());
            }
        }
    }
    say(&Answer::Through(format!("{count} processes")));
    Ok(())
}

fn open_many(count: usize) -> io::Result<()> {
    let mut held = Vec::new();
    for opened in 0..count {
        match File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(error) => {
                held.clear();
                say(&Answer::Refused(format!("{} after {opened} files", name_of(&error))));
                return Ok(());
            }
        }
    }
    held.clear();
    say(&Answer::Through(format!("{count} files")));
    Ok(())
}

/// A daemon as of old: forked twice, in a session of its own, deaf to every signal that one can be deaf to. It keeps the
/// pipe of its output, by which its end is known.
fn outlive() -> io::Result<()> {
    match sys::fork()? {
        Forked::Parent(pid) => {
            waitpid(Pid::from_raw(pid), None)?;
            say(&Answer::Through("a daemon was left".to_owned()));
            Ok(())
        }
        Forked::Child => {
            let _ = setsid();
            if let Ok(Forked::Child) = sys::fork() {
                let mut signals = SigSet::all();
                signals.remove(Signal::SIGKILL);
                let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None);
                let _ = setsid();
                let _ = wait_for_end();
            }
            sys::exit_now(0)
        }
    }
}

/// Waits until whoever started this closes the pipe to it; where it has none, for ever.
fn wait_for_end() -> io::Result<()> {
    let mut input = io::stdin();
    let kind = SFlag::from_bits_truncate(fstat(input.as_fd())?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFIFO {
        return input.read(&mut [0]).map(drop);
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
