//! The hosts that one agent may reach, and the way to them.

use std::sync::Arc;

use toka_core::HostRule;
use toka_http::{AddressRule, Client, NetworkReach, Options, Pool, Trust, Versions, Way};

use tokio::sync::Semaphore;

use crate::shaped::{CountedBody, Shaper};

/// Connections to hosts that one agent may begin in a second, and after a rest: each is on disk twice.
const PACE: f64 = 50.0;
const PACE_BURST: f64 = 500.0;
/// Tunnels that one agent may have at a time.
const TUNNELS: usize = 512;
/// Names that are looked up at one time for one agent.
const LOOKUPS: usize = 16;

/// The hosts that one agent may reach, and the way to them.
pub(crate) struct Hosts {
    pub(crate) rules: Vec<HostRule>,
    /// Whether a person is asked about others.
    pub(crate) asks: bool,
    pub(crate) way: Way,
    /// Asks hosts that are called by a name.
    pub(crate) by_name: Client<CountedBody>,
    /// Asks hosts that are written as an address.
    pub(crate) by_address: Client<CountedBody>,
    pub(crate) shaper: Arc<Shaper>,
    /// How fast it may begin connections.
    pub(crate) pace: Shaper,
    /// Tunnels that it may have.
    pub(crate) tunnels: Arc<Semaphore>,
}

impl Hosts {
    /// Those of these rules, with so many bytes a second at most in both directions together.
    pub(crate) fn new(rules: Vec<HostRule>, asks: bool, rate: Option<u64>) -> Self {
        let way = Way::patient(NetworkReach::Shared, LOOKUPS);
        let client = |rule| {
            let (trust, versions, pool) = (Trust::Host, Versions::Http1, Pool::None);
            Client::new(Options { way: way.clone(), rule, trust, versions, pool })
        };
        let (by_name, by_address) = (client(AddressRule::Public), client(AddressRule::Any));
        Self {
            rules,
            asks,
            by_name,
            by_address,
            way,
            shaper: Arc::new(Shaper::new(rate)),
            pace: Shaper::with_burst(Some(PACE), PACE_BURST),
            tunnels: Arc::new(Semaphore::new(TUNNELS)),
        }
    }

    pub(crate) fn rule(&self, host: &str, port: u16) -> Option<&HostRule> {
        self.rules.iter().find(|rule| rule.allows(host, port))
    }
}
