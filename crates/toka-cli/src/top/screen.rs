//! The terminal while it is ours: another screen, no echo, no cursor. However this program goes, the terminal is left as
//! it was.

use std::io::{self, Stdout};
use std::sync::Once;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::model::Model;
use super::theme::Theme;

/// The terminal at stdout, until this is dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be set up; then it is as it was.
    pub(crate) fn open(theme: Theme) -> io::Result<Self> {
        restore_in_panic();
        take().and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout()))).map_or_else(
            |error| {
                give_back();
                Err(error)
            },
            |terminal| Ok(Self { terminal, theme }),
        )
    }

    /// Shows the model.
    ///
    /// # Errors
    /// When the terminal cannot be written to.
    pub(crate) fn draw(&mut self, model: &Model) -> io::Result<()> {
        let theme = self.theme;
        self.terminal.draw(|frame| super::draw::draw(model, theme, frame)).map(drop)
    }

    /// Its size.
    ///
    /// # Errors
    /// When the terminal does not tell.
    pub(crate) fn size(&self) -> io::Result<ratatui::layout::Size> {
        self.terminal.size()
    }

    /// Gives the terminal to the shell until it lets this program go on (Ctrl-Z, `fg`).
    ///
    /// # Errors
    /// When it cannot be taken back.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // What it does to this process is the shell's business; without one it does nothing.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGTSTP);
        self.resume()
    }

    /// Takes the terminal again, whatever was done to it meanwhile.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        take()?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Hide)
}

fn give_back() {
    // On the way out there is nobody to tell about a terminal that is gone.
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// Gives back what can be without writing, to a terminal that takes nothing.
pub(crate) fn give_up() {
    let _ = disable_raw_mode();
}

/// A panic is told on the terminal as it was, not on a screen that vanishes.
fn restore_in_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
}
