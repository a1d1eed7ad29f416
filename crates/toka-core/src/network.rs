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
    /// These `host:port` pairs and nothing else.
    Allow(Vec<String>),
    /// Everything that the host reaches. Dangerous: must be granted.
    Full,
}

impl fmt::Display for NetworkAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Loopback => f.write_str("loopback"),
            Self::Allow(hosts) => write!(f, "allow {}", hosts.join(", ")),
            Self::Full => f.write_str("full"),
        }
    }
}
