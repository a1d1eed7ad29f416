//! What of the network an agent may reach.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Access to the network, from nothing to everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkAccess {
    /// No socket but Unix sockets.
    #[default]
    None,
    /// A loopback interface of its own, shared with nobody.
    Loopback,
    /// A loopback interface that all agents of the project share which declare this, and nobody else reaches.
    Project,
    /// These `host:port` pairs and nothing else.
    Allow(Vec<String>),
    /// Everything that the host reaches. Dangerous: must be granted.
    Full,
}

impl NetworkAccess {
    /// Whether the agent is in a network namespace that is not the host's.
    pub fn is_private(&self) -> bool {
        matches!(self, Self::Loopback | Self::Project | Self::Allow(_))
    }

    /// Whether two agents reach each other over TCP.
    pub fn reaches(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Project, Self::Project) | (Self::Full, Self::Full))
    }
}

impl fmt::Display for NetworkAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Loopback => f.write_str("loopback"),
            Self::Project => f.write_str("project"),
            Self::Allow(hosts) => write!(f, "allow {}", hosts.join(", ")),
            Self::Full => f.write_str("full"),
        }
    }
}
