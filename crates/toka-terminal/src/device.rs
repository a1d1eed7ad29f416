//! The terminal as indicatif draws on it, with two differences to its own: a frame reaches the terminal in one write,
//! and the cursor then rests at the beginning of the last line. Where it rested at the end, the `^C` that a terminal
//! echoes would break into a new line, and a line of the old frame would stay on the screen for ever.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::TermLike;

use super::live::Size;

/// A terminal behind a stream.
pub struct Device {
    pending: Mutex<Pending>,
    size: fn() -> Size,
}

struct Pending {
    bytes: Vec<u8>,
    stream: Box<dyn Write + Send>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("size", &(self.size)()).finish_non_exhaustive()
    }
}

impl Device {
    /// The terminal that `stream` leads to.
    pub fn new(stream: impl Write + Send + 'static, size: fn() -> Size) -> Self {
        Self { pending: Mutex::new(Pending { bytes: Vec::new(), stream: Box::new(stream) }), size }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // What is half written is drawn over by the next frame.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, text: &str) -> io::Result<()> {
        self.pending().bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// Moves the cursor; control sequences of ECMA-48, where a count of 0 would mean 1.
    fn step(&self, count: usize, direction: char) -> io::Result<()> {
        if count == 0 { Ok(()) } else { self.push(&format!("\u{1b}[{count}{direction}")) }
    }
}

impl TermLike for Device {
    fn width(&self) -> u16 {
        u16::try_from((self.size)().columns).unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        u16::try_from((self.size)().rows).unwrap_or(u16::MAX)
    }

    fn move_cursor_up(&self, count: usize) -> io::Result<()> {
        self.step(count, 'A')
    }

    fn move_cursor_down(&self, count: usize) -> io::Result<()> {
        self.step(count, 'B')
    }

    fn move_cursor_right(&self, count: usize) -> io::Result<()> {
        self.step(count, 'C')
    }

    fn move_cursor_left(&self, count: usize) -> io::Result<()> {
        self.step(count, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.push(text)?;
        self.push("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.push(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.push("\r\u{1b}[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let mut pending = self.pending();
        let mut bytes = std::mem::take(&mut pending.bytes);
        bytes.push(b'\r');
        pending.stream.write_all(&bytes)?;
        pending.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").push(bytes.to_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_frame_is_one_write_that_ends_at_the_beginning_of_its_line() {
        let written = Written::default();
        let device = Device::new(written.clone(), || Size { columns: 80, rows: 24 });
        device.move_cursor_up(0).expect("memory");
        device.move_cursor_up(2).expect("memory");
        device.clear_line().expect("memory");
        device.write_str("text").expect("memory");
        device.flush().expect("memory");
        let writes = written.0.lock().expect("no panic");
        assert_eq!(*writes, [b"\x1b[2A\r\x1b[2Ktext\r".to_vec()]);
    }
}
