//! How a run is shown: on a terminal that can move its cursor, in lines, for a program, or hardly at all.

use std::io::IsTerminal as _;

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Lines that move, on a terminal.
    Live,
    /// One line per change.
    Plain,
    /// One JSON object per event.
    Json,
    /// Failures only.
    Quiet,
}

impl Mode {
    /// What suits stdout: live on a terminal that can move its cursor, plain lines elsewhere.
    pub fn for_stdout() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if std::io::stdout().is_terminal() && !dumb { Self::Live } else { Self::Plain }
    }
}
