//! Writing to stdout when its reader may be gone: `toka run … | head` must end neither in a panic nor in a stopped run.
//!
//! One rule for all commands, that of the coreutils: a reader who went away is nobody's fault; any other error (a full
//! disk) is told on stderr, and makes exit status 1 of a success.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use toka_core::ExitCode;

use crate::failure::Failure;

/// The status of a command that did everything but could not say so.
const UNWRITTEN: ExitCode = ExitCode::AgentFailed;

/// Turns "nobody reads this any more" into success.
pub fn ignore_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes all that a command has to say to stdout; the answer is `code`, the status of its end.
///
/// # Errors
/// When stdout cannot be written.
pub fn end(text: &str, code: ExitCode) -> Result<ExitCode, Failure> {
    settle(write_all(&mut io::stdout().lock(), text), code)
}

/// The status of a command whose work ended with `code`, and its writing with `written`.
///
/// # Errors
/// When something was not written, though somebody was there to read it.
pub fn settle(written: io::Result<()>, code: ExitCode) -> Result<ExitCode, Failure> {
    match ignore_closed(written) {
        Ok(()) => Ok(code),
        Err(error) => {
            let code = if code == ExitCode::Success { UNWRITTEN } else { code };
            Err(Failure::new(code, format!("cannot write to stdout: {error}")))
        }
    }
}

/// Writes a part of what a command has to say to stdout; more follows.
///
/// # Errors
/// As of any writing.
pub fn part(text: &str) -> io::Result<()> {
    write_all(&mut io::stdout().lock(), text)
}

fn write_all(stream: &mut impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// A stream that falls silent at its first error, instead of failing whoever writes to it.
pub struct Out {
    stream: Box<dyn Write + Send>,
    state: State,
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    Open,
    /// The first error.
    Failed(io::Error),
}

impl Out {
    /// Stdout.
    pub fn stdout() -> Self {
        Self::new(io::stdout())
    }

    /// Any stream.
    pub fn new(stream: impl Write + Send + 'static) -> Self {
        Self { stream: Box::new(stream), state: State::Open }
    }

    /// Writes the text at once. After an error nothing is written any more; one that is not a closed pipe is told on
    /// stderr.
    pub fn print(&mut self, text: &str) {
        if matches!(self.state, State::Failed(_)) || text.is_empty() {
            return;
        }
        if let Err(error) = write_all(&mut self.stream, text) {
            if error.kind() != ErrorKind::BrokenPipe {
                // With stderr gone as well, there is nobody left to tell.
                let _ = writeln!(io::stderr(), "warning: cannot write to stdout: {error}");
            }
            self.state = State::Failed(error);
        }
    }

    /// Whether everything was written.
    ///
    /// # Errors
    /// The first one.
    pub fn finish(self) -> io::Result<()> {
        match self.state {
            State::Open => Ok(()),
            State::Failed(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Takes one write, then says that the reader is gone. Counts what is tried.
    struct Closing(Arc<AtomicUsize>);

    impl Write for Closing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(bytes.len()),
                _ => Err(ErrorKind::BrokenPipe.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_closed_pipe_is_ignored() {
        assert!(ignore_closed(Err(ErrorKind::BrokenPipe.into())).is_ok());
        assert!(ignore_closed(Err(ErrorKind::StorageFull.into())).is_err());
    }

    #[test]
    fn after_the_reader_is_gone_nothing_is_tried() {
        let tries = Arc::new(AtomicUsize::new(0));
        let mut out = Out::new(Closing(Arc::clone(&tries)));
        for _ in 0..5 {
            out.print("text");
        }
        assert_eq!(tries.load(Ordering::Relaxed), 2);
        assert_eq!(out.finish().map_err(|error| error.kind()), Err(ErrorKind::BrokenPipe));
    }

    #[test]
    fn what_was_not_written_makes_a_failure_of_a_success() {
        let full = || Err(ErrorKind::StorageFull.into());
        for (written, code, expected) in [
            (Ok(()), ExitCode::Success, Ok(ExitCode::Success)),
            (Err(ErrorKind::BrokenPipe.into()), ExitCode::Invalid, Ok(ExitCode::Invalid)),
            (full(), ExitCode::Success, Err(UNWRITTEN)),
            (full(), ExitCode::TimedOut, Err(ExitCode::TimedOut)),
        ] {
            assert_eq!(
                settle(written, code).map_err(|failure| crate::failure::report(&failure.into())),
                expected
            );
        }
    }
}
