//! Where a value was said: every rule that Toka enforces can name the line it comes from (ledger N1).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The place that a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A place in a file; line and column count from 1.
    File {
        /// The path as it was given on the command line.
        file: Arc<str>,
        /// Line, from 1.
        line: u32,
        /// Column in characters, from 1.
        column: u32,
    },
    /// A default of Toka; the text says which.
    Default(Arc<str>),
    /// An option of the command line, such as `--allow network:full`.
    CommandLine(Arc<str>),
}

impl Origin {
    /// A built-in default, described in a few words.
    pub fn default_of(what: &str) -> Self {
        Self::Default(Arc::from(what))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, .. } => write!(f, "{file}:{line}"),
            Self::Default(what) => write!(f, "default: {what}"),
            Self::CommandLine(option) => write!(f, "option {option}"),
        }
    }
}

/// A value together with its [`Origin`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Declared<T> {
    /// The value.
    pub value: T,
    /// Where it was said.
    pub origin: Origin,
}

impl<T> Declared<T> {
    /// Ties a value to its origin.
    pub fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// A value that nobody declared.
    pub fn by_default(value: T, what: &str) -> Self {
        Self { value, origin: Origin::default_of(what) }
    }

    /// Whether somebody said it, rather than Toka's defaults.
    pub fn is_explicit(&self) -> bool {
        !matches!(self.origin, Origin::Default(_))
    }
}
