//! The device: a terminal whose last lines are redrawn, or a stream of lines.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::device::Device;
use super::live::Size;
use super::mode::Mode;
use super::out::Out;

/// Drawings a second that indicatif lets through; the display already draws less often.
const MOST_DRAWS: u8 = 20;

/// Where a run is shown.
#[derive(Debug)]
pub enum Screen {
    /// A terminal: lines that stay scroll past above a part that is redrawn.
    Terminal(Terminal),
    /// A pipe or a file.
    Stream(Out),
}

/// A terminal.
#[derive(Debug)]
pub struct Terminal {
    /// Lines that stay.
    out: Out,
    /// The part that is redrawn: one bar whose message is the whole frame, so that it is drawn in one piece.
    bar: ProgressBar,
    /// What is on the screen now.
    shown: Vec<String>,
    /// Asked at each drawing, because a window can be resized.
    size: fn() -> Size,
}

impl Screen {
    /// Stdout, as the mode needs it.
    pub fn of(mode: Mode) -> Self {
        match mode {
            Mode::Live => {
                let device = Device::new(std::io::stdout(), terminal_size);
                let target = ProgressDrawTarget::term_like_with_hz(Box::new(device), MOST_DRAWS);
                Self::Terminal(Terminal::new(Out::stdout(), target, terminal_size))
            }
            Mode::Plain | Mode::Json | Mode::Quiet => Self::Stream(Out::stdout()),
        }
    }

    /// Its size; `None` for a stream, which has none.
    pub fn size(&self) -> Option<Size> {
        match self {
            Self::Terminal(terminal) => Some((terminal.size)()),
            Self::Stream(_) => None,
        }
    }

    /// Writes `lines`, which stay, and below them `frame`, which is replaced the next time.
    pub fn show(&mut self, lines: &str, frame: Vec<String>) {
        match self {
            Self::Stream(out) => out.print(lines),
            Self::Terminal(terminal) => terminal.show(lines, frame),
        }
    }

    /// Takes the live part off the screen, and says whether every line that stays was written.
    ///
    /// # Errors
    /// The first error.
    pub fn finish(self) -> std::io::Result<()> {
        match self {
            Self::Stream(out) => out.finish(),
            Self::Terminal(terminal) => {
                terminal.bar.finish_and_clear();
                terminal.out.finish()
            }
        }
    }
}

impl Terminal {
    fn new(out: Out, target: ProgressDrawTarget, size: fn() -> Size) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::with_template("{msg}").expect("a template of one placeholder"));
        Self { out, bar, shown: Vec::new(), size }
    }

    fn show(&mut self, lines: &str, frame: Vec<String>) {
        if !lines.is_empty() {
            let out = &mut self.out;
            self.bar.suspend(|| out.print(lines));
        }
        if self.shown != frame {
            self.bar.set_message(frame.join("\n"));
            self.shown = frame;
        }
    }
}

/// Columns for a text that is printed once: what `COLUMNS` says, else those of the terminal at stdout, else `otherwise`.
pub fn columns(otherwise: usize) -> usize {
    let said =
        std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|columns| *columns > 0);
    let terminal = || std::io::stdout().is_terminal().then(|| terminal_size().columns);
    said.or_else(terminal).unwrap_or(otherwise)
}

/// Columns and rows of the terminal at stdout; 80 by 24 when it does not tell.
pub fn terminal_size() -> Size {
    let found = terminal_size::terminal_size_of(std::io::stdout());
    found.filter(|(columns, rows)| columns.0 > 0 && rows.0 > 0).map_or(
        Size { columns: 80, rows: 24 },
        |(columns, rows)| Size { columns: usize::from(columns.0), rows: usize::from(rows.0) },
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use indicatif::{InMemoryTerm, TermLike as _};

    use super::*;

    /// What a test reads: a terminal in memory, and every byte that was written to stay on it.
    #[derive(Debug, Clone)]
    pub(crate) struct Reader {
        terminal: InMemoryTerm,
        stays: Arc<Mutex<Vec<u8>>>,
    }

    impl Reader {
        /// Every line that was written to stay.
        pub(crate) fn text(&self) -> String {
            String::from_utf8_lossy(&self.stays.lock().expect("no panic")).trim_end().to_owned()
        }
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.stays.lock().expect("no panic").extend_from_slice(bytes);
            String::from_utf8_lossy(bytes).lines().try_for_each(|line| self.terminal.write_line(line))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A terminal in memory of 16 rows and 80 columns.
    pub(crate) fn in_memory() -> (Screen, Reader) {
        let terminal = InMemoryTerm::new(16, 80);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let reader = Reader { terminal, stays: Arc::default() };
        let size = || Size { columns: 80, rows: 16 };
        (Screen::Terminal(Terminal::new(Out::new(reader.clone()), target, size)), reader)
    }

    #[test]
    fn the_live_part_stays_below_and_leaves_nothing_behind() {
        let (mut screen, reader) = in_memory();
        screen.show("", vec!["one".into(), "two".into()]);
        assert_eq!(reader.terminal.contents(), "one\ntwo");
        screen.show("done\n", vec!["two".into()]);
        assert_eq!(reader.terminal.contents(), "done\ntwo");
        screen.finish().expect("a terminal in memory");
        assert_eq!(reader.terminal.contents(), "done");
    }
}
