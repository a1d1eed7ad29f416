//! Secrets: files in the agent's credentials folder, never in its environment.

use serde::Serialize;
use toka_core::Origin;

/// One entry of `spec.secrets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// Its file name in `$CREDENTIALS_DIRECTORY`: letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// Where its value is found when the agent starts.
    pub source: SecretSource,
    /// Where it stands in the file.
    pub origin: Origin,
}

/// Where the value of a secret is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// A file of the host; `~/` is the invoking user's home.
    File(String),
    /// A variable of Toka's own environment.
    Env(String),
}
