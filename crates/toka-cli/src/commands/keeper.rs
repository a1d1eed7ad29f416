//! `toka __keeper NAME [WORD] [FOLDER…]`: the process that forks and holds the agents. Its control socket is its standard input.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use toka_keeper::Host;

/// Becomes the keeper; returns when it has nothing left to keep.
pub(crate) fn run() -> ExitCode {
    // Not `args`, which panics at a word that is no UTF-8, such as the program's own path.
    let Some(name) = std::env::args_os().nth(2).and_then(|word| word.into_string().ok()) else {
        return misused();
    };
    let Ok(control) = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned() else {
        return misused();
    };
    if getsockopt(&control, sockopt::SockType) != Ok(SockType::SeqPacket) {
        return misused();
    }
    // Agents get /dev/null there; the socket itself is closed on exec.
    free_standard_input();
    // What it makes in an agent's view are folders on the way, which an agent that is another user must get through.
    umask(Mode::from_bits_truncate(0o022));
    let mut words = std::env::args_os().skip(3).peekable();
    let host = Host::of(words.peek().map(OsString::as_os_str));
    if host == Host::IsTold {
        words.next();
    }
    let leftovers: Vec<PathBuf> = words.map(PathBuf::from).collect();
    match toka_keeper::serve(control, &name, host, &leftovers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toka keeper: {error}");
            ExitCode::from(toka_core::ExitCode::Internal as u8)
        }
    }
}

/// Descriptor 0 becomes /dev/null: only the copy above keeps the socket open, so that it closes when the keeper says so.
fn free_standard_input() {
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(OwnedFd::from(null));
    }
}

fn misused() -> ExitCode {
    eprintln!("toka __keeper is started by toka itself, with a socket as its standard input");
    ExitCode::from(toka_core::ExitCode::Usage as u8)
}
