//! Diagnostics: everything that is wrong with a set of files, for people and for programs.
//!
//! A [`Diagnostic`] carries byte spans into [`Sources`] and nothing that depends on how it is shown; `render`
//! draws it the way rustc does, `json` gives the same as data, `explain` has the long text of every [`Code`].

mod code;
mod explain;
mod json;
mod render;
mod sources;

use std::ops::Range;

pub use code::{Code, NoSuchCode, Severity};
pub use explain::Explanation;
pub use render::Style;
pub use sources::{FileId, Position, Sources};

/// One thing that is wrong, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind of thing.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence, lower case, without a full stop.
    pub message: String,
    /// Places in files, the primary one first; none when it concerns no file that could be read.
    pub labels: Vec<Label>,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether its places are named and not drawn, because there is a secret in them.
    pub is_secret: bool,
}

/// A place in a file, and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The file.
    pub file: FileId,
    /// Bytes of its text.
    pub span: Range<usize>,
    /// Text beside the carets; may be empty.
    pub message: String,
}

impl Diagnostic {
    /// A diagnostic with the usual severity of its code and no place.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            message: message.into(),
            labels: Vec::new(),
            help: None,
            is_secret: false,
        }
    }

    /// Adds a place; the first one added is the primary one.
    #[must_use]
    pub fn at(mut self, file: FileId, span: Range<usize>, message: impl Into<String>) -> Self {
        self.labels.push(Label { file, span, message: message.into() });
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Names its places without drawing them, because there is a secret in them.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    /// Overrides the severity.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
}
