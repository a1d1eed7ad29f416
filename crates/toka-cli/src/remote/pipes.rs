//! Our own streams, each with a thread that may wait for it: a terminal that takes nothing keeps nobody from hearing signals.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;

use tokio::sync::{mpsc, oneshot};

use super::raw::Screens;

/// Pieces that wait to be written; behind them the daemon waits, and in the end lets go of us.
const WAITING: usize = 32;
/// Pieces that were typed and wait to be sent.
const TYPED: usize = 16;
/// Most that is read at once.
const PIECE: usize = 16 * 1024;

/// Which of our streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Errors,
}

/// What is to be written, and where.
pub(super) type Piece = (Stream, Vec<u8>);

/// Our standard output and standard error, which are written in the order of what came.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(super) pieces: mpsc::Sender<Piece>,
    /// Told when all is written, or something could not be.
    pub(super) written: oneshot::Receiver<io::Result<()>>,
}

impl Screen {
    /// Writes from now on.
    ///
    /// # Errors
    /// When there is no room for a descriptor, or a thread.
    pub(crate) fn open() -> io::Result<Self> {
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let errors = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let (pieces, waiting) = mpsc::channel(WAITING);
        let (done, written) = oneshot::channel();
        std::thread::Builder::new()
            .name("screen".into())
            .spawn(move || drop(done.send(write(output, errors, waiting))))?;
        Ok(Self { pieces, written })
    }
}

fn write(mut output: File, mut errors: File, mut pieces: mpsc::Receiver<Piece>) -> io::Result<()> {
    let mut screens = Screens::default();
    while let Some((stream, bytes)) = pieces.blocking_recv() {
        match stream {
            Stream::Output => {
                screens.observe(&bytes);
                output.write_all(&bytes)?;
            }
            // With stderr gone there is nobody left to be told.
            Stream::Errors => drop(errors.write_all(&bytes)),
        }
    }
    Ok(())
}

/// What comes at our standard input, from now on; an empty piece is its end.
///
/// # Errors
/// When there is no room for a descriptor, or a thread.
pub(super) fn keyboard() -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (typed, keys) = mpsc::channel(TYPED);
    std::thread::Builder::new().name("keyboard".into()).spawn(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            let count = match input.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A terminal that has hung up has nothing more to say either.
                outcome => outcome.unwrap_or(0),
            };
            if typed.blocking_send(buffer[..count].to_vec()).is_err() || count == 0 {
                return;
            }
        }
    })?;
    Ok(keys)
}
