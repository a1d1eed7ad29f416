//! The few colours that Toka uses, each for one meaning, and the choice to use none.

use anstyle::{AnsiColor, Effects, Style};

/// One style per meaning. [`Palette::PLAIN`] has no escape sequences at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Palette {
    /// It went well.
    pub good: Paint,
    /// It failed.
    pub bad: Paint,
    /// It wants attention.
    pub warn: Paint,
    /// It is going on.
    pub busy: Paint,
    /// Names, hints and paths that the eye should find.
    pub accent: Paint,
    /// What can be overlooked.
    pub faint: Paint,
    /// Headings.
    pub strong: Paint,
}

impl Palette {
    /// No colours.
    pub const PLAIN: Self = Self {
        good: Paint(Style::new()),
        bad: Paint(Style::new()),
        warn: Paint(Style::new()),
        busy: Paint(Style::new()),
        accent: Paint(Style::new()),
        faint: Paint(Style::new()),
        strong: Paint(Style::new()),
    };

    /// The sixteen colours that every terminal has, so that the user's theme decides how they look.
    pub const COLOUR: Self = Self {
        good: Paint(AnsiColor::Green.on_default()),
        bad: Paint(AnsiColor::Red.on_default().effects(Effects::BOLD)),
        warn: Paint(AnsiColor::Yellow.on_default()),
        busy: Paint(AnsiColor::Blue.on_default()),
        accent: Paint(AnsiColor::Cyan.on_default()),
        faint: Paint(Style::new().effects(Effects::DIMMED)),
        strong: Paint(Style::new().effects(Effects::BOLD)),
    };

    /// What `--color`, NO_COLOR and the stream itself allow.
    pub fn for_stream(stream: &impl anstream::stream::RawStream) -> Self {
        match anstream::AutoStream::choice(stream) {
            anstream::ColorChoice::Never => Self::PLAIN,
            _ => Self::COLOUR,
        }
    }
}

/// A style that can be put around text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(Style);

impl Paint {
    /// No style.
    pub const NONE: Self = Self(Style::new());

    /// The style itself, for whoever draws in cells.
    pub fn style(self) -> Style {
        self.0
    }

    /// The text in this style; just the text when the style is plain.
    pub fn paint(self, text: impl std::fmt::Display) -> String {
        format!("{}{text}{}", self.0.render(), self.0.render_reset())
    }
}

/// Colours for the names of agents, taken in turn, so that lines of different agents are told apart.
const NAMES: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
];

impl Palette {
    /// The style of the `at`th agent's name.
    pub fn name(self, at: usize) -> Paint {
        if self == Self::PLAIN { self.strong } else { Paint(NAMES[at % NAMES.len()].on_default()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_means_no_escapes() {
        let Palette { good, bad, warn, busy, accent, faint, strong } = Palette::PLAIN;
        for paint in [good, bad, warn, busy, accent, faint, strong, Palette::PLAIN.name(3)] {
            assert_eq!(paint.paint("x"), "x");
        }
        assert_eq!(Palette::COLOUR.good.paint("x"), "\u{1b}[32mx\u{1b}[0m");
    }
}
