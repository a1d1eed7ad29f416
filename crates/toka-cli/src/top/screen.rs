//! The terminal while it is ours: another screen, no echo, no cursor. However this program goes, the terminal is left as
//! it was.

use std::io::{self, Stdout};
use std::process::{Command, ExitStatus};
use std::sync::Once;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::model::Model;
use super::theme::Theme;

/// A command that ends sooner has not done what somebody wanted it for.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Whether the mouse is ours. Who wants to mark text with it has to hold Shift then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mouse {
    /// Clicks and the wheel come here.
    Ours,
    /// They are the terminal's.
    Unused,
}

/// The terminal at stdout, until this is dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
    mouse: Mouse,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be set up; then it is as it was.
    pub(crate) fn open(theme: Theme, mouse: Mouse) -> io::Result<Self> {
        restore_in_panic();
        take(mouse).and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout()))).map_or_else(
            |error| {
                give_back();
                Err(error)
            },
            |terminal| Ok(Self { terminal, theme, mouse }),
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
        take(self.mouse)?;
        execute!(io::stdout(), Clear(ClearType::All))?;
        // It knows of nothing that is drawn. Clearing the one that there is would ask the terminal where its cursor is, and not
        // every terminal answers.
        self.terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(())
    }

    /// Gives the terminal to a command until it has ended. One that fails at once has said why on it: a person wants to read
    /// that before it vanishes.
    ///
    /// # Errors
    /// When the terminal cannot be taken back; within, when the command cannot be started.
    pub(crate) fn lend(&mut self, command: &mut Command) -> io::Result<io::Result<ExitStatus>> {
        give_back();
        let begun = Instant::now();
        let ended = command.status();
        if begun.elapsed() < AT_ONCE && !ended.as_ref().is_ok_and(ExitStatus::success) {
            if let Err(error) = &ended {
                eprintln!("{error}");
            }
            eprint!("Enter goes back to toka top ");
            let _ = io::stdin().read_line(&mut String::new());
        }
        self.resume().map(|()| ended)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take(mouse: Mouse) -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Hide)?;
    match mouse {
        Mouse::Ours => execute!(io::stdout(), EnableMouseCapture),
        Mouse::Unused => Ok(()),
    }
}

fn give_back() {
    // On the way out there is nobody to tell about a terminal that is gone.
    let _ = execute!(io::stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
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
