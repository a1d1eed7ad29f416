//! Why there is no answer.

use std::time::Duration;

use thiserror::Error;

/// Why there is no answer. As text it names the host and the address, and nothing else of the URL: many services keep a secret in the path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HttpError {
    /// The request cannot be sent as it is.
    #[error("{0}")]
    Unaskable(String),
    /// All addresses of the host are such that nobody is to talk to.
    #[error("{host} is at an address that is never talked to: link-local, metadata, or nobody's")]
    Forbidden {
        /// The host.
        host: String,
    },
    /// There is no connection.
    #[error("{0}")]
    NoConnection(String),
    /// There is a connection, and nobody who is trusted at its other end.
    #[error("no TLS at {host}: {why}")]
    Untrusted {
        /// The host.
        host: String,
        /// What speaks against its certificate, or that this host trusts nobody.
        why: String,
    },
    /// There is a connection, and no TLS over it.
    #[error("no TLS at {host}: {why}")]
    NoTls {
        /// The host.
        host: String,
        /// What went wrong.
        why: String,
    },
    /// No answer came, or none that is HTTP.
    #[error("no answer over HTTP: {0}")]
    NoAnswer(String),
    /// None came in time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

impl HttpError {
    /// Whether it would be the same in a moment.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Unaskable(_) | Self::Forbidden { .. } | Self::Untrusted { .. } => true,
            Self::NoConnection(_) | Self::NoTls { .. } | Self::NoAnswer(_) | Self::Late(_) => false,
        }
    }
}
