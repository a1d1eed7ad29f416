//! How a command fails: an error for people, and the exit status that programs go by.

use thiserror::Error;
use toka_core::ExitCode;

use crate::terminal::palette::Palette;

/// A failure whose exit status is known. Anything else that reaches `main` ends with [`ExitCode::Internal`].
#[derive(Debug, Error)]
#[error("{message}")]
pub(crate) struct Failure {
    code: ExitCode,
    message: String,
    help: Option<String>,
}

impl Failure {
    /// A failure that ends the command with `code`. The message is lower-case, without a full stop.
    pub(crate) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None }
    }

    /// Adds what the user can do about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Tells the error on stderr and returns the exit status.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let palette = Palette::for_stream(&std::io::stderr());
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    // Nobody is left to be told when stderr itself cannot be written.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text(error, failure, palette).as_bytes());
    failure.map_or(ExitCode::Internal, |failure| failure.code)
}

fn text(error: &anyhow::Error, failure: Option<&Failure>, palette: Palette) -> String {
    let mut text = format!("{} {error:#}\n", palette.bad.paint("error:"));
    if let Some(help) = failure.and_then(|failure| failure.help.as_ref()) {
        text.push_str(&format!("{} {help}\n", palette.accent.paint("help:")));
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_status_and_the_help_survive_added_context() {
        let failure = Failure::new(ExitCode::Invalid, "no workstream here").help("try `toka init`");
        let error = Err::<(), _>(failure).context("cannot run").expect_err("a failure");
        let found = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
        assert_eq!(
            text(&error, found, Palette::PLAIN),
            "error: cannot run: no workstream here\nhelp: try `toka init`\n"
        );
        assert_eq!(report(&error), ExitCode::Invalid);
        assert_eq!(report(&anyhow::anyhow!("a bug")), ExitCode::Internal);
    }
}
