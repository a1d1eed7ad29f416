//! Writing to stdout when its reader may be gone: `toka run … | head` must end neither in a panic nor in a stopped run.

use std::fmt;
use std::io::{self, ErrorKind, Write};

/// Turns "nobody reads this any more" into success.
pub(crate) fn ignore_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A stream that falls silent at its first error, instead of failing whoever writes to it.
pub(crate) struct Out {
    stream: Box<dyn Write + Send>,
    state: State,
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, PartialEq)]
enum State {
    Open,
    Closed,
}

impl Out {
    /// Stdout.
    pub(crate) fn stdout() -> Self {
        Self::new(io::stdout())
    }

    /// Any stream.
    pub(crate) fn new(stream: impl Write + Send + 'static) -> Self {
        Self { stream: Box::new(stream), state: State::Open }
    }

    /// Writes the text at once. After an error nothing is written any more; one that is not a closed pipe (a full
    /// disk) is told on stderr.
    pub(crate) fn print(&mut self, text: &str) {
        if self.state == State::Closed || text.is_empty() {
            return;
        }
        let written = self.stream.write_all(text.as_bytes()).and_then(|()| self.stream.flush());
        if written.is_err() {
            self.state = State::Closed;
        }
        if let Err(error) = ignore_closed(written) {
            // With stderr gone as well, there is nobody left to tell.
            let _ = writeln!(io::stderr(), "warning: cannot write to stdout: {error}");
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
    }
}
