//! The size of a terminal: what programs lay out what they show for.

use serde::{Deserialize, Serialize};

/// How large a terminal is, in characters. A side of 0 means that nobody knows (ioctl_tty(2), `TIOCGWINSZ`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Characters in a row.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

impl Default for TerminalSize {
    /// What terminals have had since they were made of glass (VT100): what a program expects when nobody looks.
    fn default() -> Self {
        Self { columns: 80, rows: 24 }
    }
}

impl TerminalSize {
    /// The same with the default for each side that is not known.
    #[must_use]
    pub fn or_default(self) -> Self {
        let Self { columns, rows } = Self::default();
        let known = |side: u16, default| if side == 0 { default } else { side };
        Self { columns: known(self.columns, columns), rows: known(self.rows, rows) }
    }

    /// Another size: setting it and then this one makes the program on the terminal draw anew.
    #[must_use]
    pub fn another(self) -> Self {
        let rows = if self.rows > 1 { self.rows - 1 } else { self.rows + 1 };
        Self { rows, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_nobody_knows_is_as_usual() {
        for (given, expected) in [((0, 0), (80, 24)), ((132, 0), (132, 24)), ((1, 1), (1, 1))] {
            let size = TerminalSize { columns: given.0, rows: given.1 }.or_default();
            assert_eq!((size.columns, size.rows), expected);
        }
    }

    #[test]
    fn another_size_is_another_and_no_side_is_unknown() {
        for rows in [1, 2, 24, u16::MAX] {
            let size = TerminalSize { columns: 80, rows };
            assert_ne!(size.another(), size);
            assert_ne!(size.another().rows, 0);
        }
    }
}
