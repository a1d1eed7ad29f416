//! A line of an agent's log, and whose lines are wanted.

use std::path::PathBuf;

use toka_logs::Stream;

use super::rows::AgentId;

/// A line that is safe for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// When it was written, in milliseconds since the Unix epoch.
    pub(crate) time_ms: Option<i64>,
    /// Where to.
    pub(crate) stream: Stream,
    /// Its text.
    pub(crate) text: String,
}

/// Whose output is wanted, and where it is.
pub(crate) type Wanted = Option<(AgentId, PathBuf)>;
