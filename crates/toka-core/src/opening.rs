//! The smallest change of a declaration that opens what a wall of a sandbox has refused.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What would have to be added to an agent's declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "key", rename_all = "snake_case")]
pub enum Opening {
    /// A path in `security.filesystem.read`.
    Read {
        /// Relative to the workspace, where it lies in it.
        path: String,
    },
    /// A path in `security.filesystem.write`.
    Write {
        /// Relative to the workspace, where it lies in it.
        path: String,
    },
    /// A name in `security.capabilities_required`.
    Capability {
        /// The name.
        name: String,
    },
    /// Another `security.network`.
    Network {
        /// As it is written, in YAML.
        value: String,
    },
}

impl Opening {
    /// The change as it stands in a workstream, in one line of YAML.
    pub fn patch(&self) -> String {
        match self {
            Self::Read { path } => format!("security: {{filesystem: {{read: [{}]}}}}", quoted(path)),
            Self::Write { path } => format!("security: {{filesystem: {{write: [{}]}}}}", quoted(path)),
            Self::Capability { name } => format!("security: {{capabilities_required: [{}]}}", quoted(name)),
            Self::Network { value } => format!("security: {{network: {value}}}"),
        }
    }
}

/// What it opens, in words that follow on `it`.
impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path } => write!(f, "reads {path}, and all that lies in it"),
            Self::Write { path } => write!(f, "reads and writes {path}, and all that lies in it"),
            Self::Capability { name } => write!(f, "has {name}"),
            Self::Network { value } => write!(f, "has the network {value}"),
        }
    }
}

/// A text as YAML takes it between brackets: plain where it is plain, else quoted as in JSON.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-~".contains(c);
    match text.chars().all(is_plain)
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || "/._~".contains(c))
    {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches() {
        for (opening, patch) in [
            (Opening::Read { path: "/srv/data".into() }, "security: {filesystem: {read: [/srv/data]}}"),
            (Opening::Write { path: "a b".into() }, "security: {filesystem: {write: [\"a b\"]}}"),
            (
                Opening::Capability { name: "git-access".into() },
                "security: {capabilities_required: [git-access]}",
            ),
            (Opening::Network { value: "loopback".into() }, "security: {network: loopback}"),
        ] {
            assert_eq!(opening.patch(), patch);
        }
    }
}
