//! How a command fails: an error for people, and the exit status that programs go by.

use serde_json::{Value, json};
use thiserror::Error;
use toka_core::ExitCode;

use crate::palette::Palette;
use crate::wrap::reflow;

/// A failure whose exit status is known. Anything else that reaches `main` ends with [`ExitCode::Internal`].
#[derive(Debug, Error)]
#[error("{message}")]
pub struct Failure {
    code: ExitCode,
    message: String,
    help: Option<String>,
    /// What it consists of, as data; empty when the message is all there is.
    parts: Vec<Value>,
}

impl Failure {
    /// A failure that ends the command with `code`. The message is lower-case, without a full stop.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, parts: Vec::new() }
    }

    /// What it says, and what the user can do about it.
    pub fn words(&self) -> (&str, &str) {
        (&self.message, self.help.as_deref().unwrap_or_default())
    }

    /// Adds what the user can do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds what it consists of, for programs: each an object with a `type`.
    pub fn parts(mut self, parts: Vec<Value>) -> Self {
        self.parts = parts;
        self
    }
}

/// The error for programs: its parts, or itself as the only one; and the exit status that it leads to.
pub fn data(error: &anyhow::Error) -> (Vec<Value>, ExitCode) {
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    let code = failure.map_or(ExitCode::Internal, |failure| failure.code);
    match failure {
        Some(Failure { parts, .. }) if !parts.is_empty() => (parts.clone(), code),
        _ => {
            let help = failure.and_then(|failure| failure.help.as_ref());
            let whole = json!({
                "type": "problem", "kind": kind(code), "message": format!("{error:#}"), "help": help,
            });
            (vec![whole], code)
        }
    }
}

/// The word for a failure's exit status.
fn kind(code: ExitCode) -> &'static str {
    match code {
        ExitCode::Usage => "usage",
        ExitCode::Invalid => "invalid",
        ExitCode::StateFolder => "state_folder",
        ExitCode::Denied => "denied",
        ExitCode::Unconfigured => "unconfigured",
        _ => "internal",
    }
}

/// Tells the error on stderr and returns the exit status.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let palette = Palette::for_stream(&std::io::stderr());
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    // Nobody is left to be told when stderr itself cannot be written.
    let text = text(error, failure, palette);
    let text = match terminal_size::terminal_size_of(std::io::stderr()) {
        Some((columns, _)) => {
            let lines = text.lines().map(|line| reflow(line, usize::from(columns.0)) + "\n");
            lines.collect()
        }
        None => text,
    };
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
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

    #[test]
    fn programs_get_the_parts_or_the_whole() {
        let whole = Failure::new(ExitCode::StateFolder, "no place").help("make one");
        let (parts, code) = data(&whole.into());
        assert_eq!(code, ExitCode::StateFolder);
        assert_eq!(
            parts,
            [json!({"type": "problem", "kind": "state_folder", "message": "no place", "help": "make one"})]
        );
        let part = json!({"type": "diagnostic"});
        let of_parts = Failure::new(ExitCode::Invalid, "1 error").parts(vec![part.clone()]);
        assert_eq!(data(&of_parts.into()), (vec![part], ExitCode::Invalid));
    }
}
