//! Why a port is served no longer: what is in flight there ends for this reason.

/// Why a port is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortEnd {
    /// Nobody serves it any more, as a life of its agent is over.
    Closed,
    /// The program that serves it makes room for another, which goes on.
    Succeeded,
}

impl PortEnd {
    /// The same in words.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Closed => "the port of the agent was closed",
            Self::Succeeded => "the daemon was replaced by another program",
        }
    }
}
