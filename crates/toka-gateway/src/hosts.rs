//! The hosts that one agent may reach, and the way to them.

use std::sync::Arc;

use toka_core::HostRule;
use toka_http::{AddressRule, Client, NetworkReach, Options, Pool, Trust, Versions, Way};

use crate::shaped::{CountedBody, Shaper};

/// Names that are looked up at one time for one agent.
const LOOKUPS: usize = 16;

/// The hosts that one agent may reach, and the way to them.
pub(crate) struct Hosts {
    pub(crate) rules: Vec<HostRule>,
    pub(crate) way: Way,
    /// Asks hosts that are called by a name.
    pub(crate) by_name: Client<CountedBody>,
    /// Asks hosts that are written as an address.
    pub(crate) by_address: Client<CountedBody>,
    pub(crate) shaper: Arc<Shaper>,
}

impl Hosts {
    /// Those of these rules, with so many bytes a second at most in both directions together.
    pub(crate) fn new(rules: Vec<HostRule>, rate: Option<u64>) -> Self {
        let way = Way::patient(NetworkReach::Shared, LOOKUPS);
        let client = |rule| {
            let (trust, versions, pool) = (Trust::Host, Versions::Http1, Pool::None);
            Client::new(Options { way: way.clone(), rule, trust, versions, pool })
        };
        let (by_name, by_address) = (client(AddressRule::Public), client(AddressRule::Any));
        Self { rules, by_name, by_address, way, shaper: Arc::new(Shaper::new(rate)) }
    }

    pub(crate) fn rule(&self, host: &str, port: u16) -> Option<&HostRule> {
        self.rules.iter().find(|rule| rule.allows(host, port))
    }
}
