//! Names and ids. An agent, a project and a group of tasks carry DNS labels (RFC 1123), which makes them safe
//! as path components, cgroup names, host names and metric labels without any quoting.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// Longest name in bytes, the limit of a DNS label (RFC 1035, 2.3.4).
pub const MAX_NAME_BYTES: usize = 63;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a name cannot be empty")]
    Empty,
    /// Longer than [`MAX_NAME_BYTES`].
    #[error("a name has at most {MAX_NAME_BYTES} characters, this one has {0}")]
    TooLong(usize),
    /// A character that a DNS label does not have.
    #[error("a name has lower-case letters, digits and inner hyphens; {0:?} is none of them")]
    BadCharacter(char),
    /// A hyphen at either end.
    #[error("a name cannot begin or end with a hyphen")]
    EdgeHyphen,
}

/// A DNS label: 1–63 lower-case letters, digits and inner hyphens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// The name of an agent within its project.
pub type AgentName = Name;
/// The name of a project.
pub type ProjectName = Name;

impl Name {
    /// Checks and takes a text as a name.
    ///
    /// # Errors
    /// When the text is not a DNS label.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(bad) = text.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-'))
        {
            return Err(NameError::BadCharacter(bad));
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong(text.len()));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::EdgeHyphen);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The nearest name to any text, for folders and titles: other characters become hyphens.
    /// `None` when nothing usable is left.
    pub fn slug(text: &str) -> Option<Self> {
        let mut out = String::new();
        for c in text.chars().flat_map(char::to_lowercase) {
            let c = if c.is_ascii_alphanumeric() { c } else { '-' };
            if !(c == '-' && (out.is_empty() || out.ends_with('-'))) {
                out.push(c);
            }
            if out.len() == MAX_NAME_BYTES {
                break;
            }
        }
        Self::new(out.trim_end_matches('-')).ok()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.to_string()
    }
}

/// One run of a project: a version 7 UUID (RFC 9562), so that ids sort by the time they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// The nil UUID (RFC 9562, section 5.9): no run.
    pub const NONE: Self = Self(Uuid::nil());

    /// Takes a UUID that the caller made (this crate has neither clock nor random numbers).
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Reads the text of a UUID; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::parse_str(text).ok().map(Self)
    }

    /// The bytes of the UUID, in the order of RFC 9562.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The run with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The short form that people see and may type: the last 12 hexadecimal digits, all of them random.
    pub fn short(&self) -> String {
        let text = self.0.simple().to_string();
        text[text.len() - 12..].to_owned()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_told_from_other_text() {
        for good in ["a", "build-1", "0", &"x".repeat(63)] {
            assert_eq!(Name::new(good).map(String::from), Ok(good.to_owned()));
        }
        for (bad, error) in [
            ("", NameError::Empty),
            ("Build", NameError::BadCharacter('B')),
            ("a/b", NameError::BadCharacter('/')),
            ("..", NameError::BadCharacter('.')),
            ("-a", NameError::EdgeHyphen),
            ("a-", NameError::EdgeHyphen),
        ] {
            assert_eq!(Name::new(bad), Err(error));
        }
        assert_eq!(Name::new(&"x".repeat(64)), Err(NameError::TooLong(64)));
    }

    #[test]
    fn slugs_are_names() {
        assert_eq!(Name::slug("My Project (2)").map(String::from), Some("my-project-2".into()));
        assert_eq!(Name::slug("…"), None);
    }

    proptest! {
        #[test]
        fn a_slug_is_always_a_valid_name(text in "\\PC*") {
            if let Some(name) = Name::slug(&text) {
                prop_assert_eq!(Name::new(name.as_str()), Ok(name));
            }
        }
    }
}
