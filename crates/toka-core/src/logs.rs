//! How much of an agent's output is kept, in which form, and what happens when it cannot be written.

use std::time::Duration;

use serde::Serialize;

use crate::ByteSize;

/// `logs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LogPolicy {
    /// The size at which a log becomes an older one and a new one begins, in bytes.
    pub max_size: ByteSize,
    /// The age at which it does.
    pub max_age: Duration,
    /// The most that one agent's logs take on disk together, in bytes.
    pub total: ByteSize,
    /// What becomes of older ones.
    #[serde(rename = "compress")]
    pub compression: Compression,
    /// What happens when the log cannot be written.
    pub when_full: WhenFull,
}

impl LogPolicy {
    /// The least for [`LogPolicy::max_size`]: rotating more often than at each of a large pipe's fillings gains nothing.
    pub const LEAST_SIZE: ByteSize = ByteSize(64 * 1024);
    /// The least for [`LogPolicy::total`]: a current log and an older one.
    pub const LEAST_TOTAL: ByteSize = ByteSize(2 * Self::LEAST_SIZE.0);
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self {
            max_size: ByteSize::mib(16),
            max_age: Duration::from_secs(7 * 24 * 3600),
            total: ByteSize::mib(128),
            compression: Compression::Gzip,
            when_full: WhenFull::Drop,
        }
    }
}

/// What becomes of older logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// They are compressed (RFC 1952), so that zgrep(1) reads them.
    Gzip,
    /// They stay as they are.
    Off,
}

/// What happens to output that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It is thrown away and counted; the agent notices nothing.
    Drop,
    /// It stays in the pipe; once that is full, the agent waits in write(2) until there is room.
    Block,
}
