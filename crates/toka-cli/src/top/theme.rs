//! The palette as styles of cells.

use anstyle::{AnsiColor, Color as Ansi, Effects};
use ratatui::style::{Color, Modifier, Style};

use toka_terminal::palette::{Paint, Palette};

/// One style per meaning, as in [`Palette`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Theme {
    /// Where it is from, for whoever has a [`Paint`].
    pub(crate) palette: Palette,
    /// It went well.
    pub(crate) good: Style,
    /// It failed.
    pub(crate) bad: Style,
    /// It wants attention.
    pub(crate) warn: Style,
    /// It is going on.
    pub(crate) busy: Style,
    /// What the eye should find.
    pub(crate) accent: Style,
    /// What can be overlooked.
    pub(crate) faint: Style,
    /// Headings.
    pub(crate) strong: Style,
    /// Where the cursor is. Seen without colours too.
    pub(crate) chosen: Style,
}

impl From<Palette> for Theme {
    fn from(palette: Palette) -> Self {
        Self {
            palette,
            good: style(palette.good),
            bad: style(palette.bad),
            warn: style(palette.warn),
            busy: style(palette.busy),
            accent: style(palette.accent),
            faint: style(palette.faint),
            strong: style(palette.strong),
            chosen: Style::new().add_modifier(Modifier::REVERSED),
        }
    }
}

/// A style of text as one of cells.
pub(crate) fn style(paint: Paint) -> Style {
    let from = paint.style();
    let mut style = Style::new();
    if let Some(Ansi::Ansi(colour)) = from.get_fg_color() {
        style = style.fg(color(colour));
    }
    for (effect, modifier) in [(Effects::BOLD, Modifier::BOLD), (Effects::DIMMED, Modifier::DIM)] {
        if from.get_effects().contains(effect) {
            style = style.add_modifier(modifier);
        }
    }
    style
}

fn color(colour: AnsiColor) -> Color {
    match colour {
        AnsiColor::Black => Color::Black,
        AnsiColor::Red => Color::Red,
        AnsiColor::Green => Color::Green,
        AnsiColor::Yellow => Color::Yellow,
        AnsiColor::Blue => Color::Blue,
        AnsiColor::Magenta => Color::Magenta,
        AnsiColor::Cyan => Color::Cyan,
        AnsiColor::White => Color::Gray,
        AnsiColor::BrightBlack => Color::DarkGray,
        AnsiColor::BrightRed => Color::LightRed,
        AnsiColor::BrightGreen => Color::LightGreen,
        AnsiColor::BrightYellow => Color::LightYellow,
        AnsiColor::BrightBlue => Color::LightBlue,
        AnsiColor::BrightMagenta => Color::LightMagenta,
        AnsiColor::BrightCyan => Color::LightCyan,
        AnsiColor::BrightWhite => Color::White,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_palette_keeps_its_colours_and_plain_has_none() {
        let theme = Theme::from(Palette::COLOUR);
        assert_eq!(theme.bad, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD));
        assert_eq!(theme.faint, Style::new().add_modifier(Modifier::DIM));
        let plain = Theme::from(Palette::PLAIN);
        for style in [plain.good, plain.bad, plain.warn, plain.busy, plain.accent, plain.faint, plain.strong]
        {
            assert_eq!(style, Style::new());
        }
        assert_ne!(plain.chosen, Style::new(), "the cursor is seen without colours");
    }
}
