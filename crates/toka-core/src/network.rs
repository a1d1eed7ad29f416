//! What of the network an agent may reach.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

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

    /// The hosts that it lists. One that is no rule is left out: it was refused when it was read.
    pub fn hosts(&self) -> Vec<HostRule> {
        match self {
            Self::Allow(hosts) => hosts.iter().filter_map(|host| host.parse().ok()).collect(),
            _ => Vec::new(),
        }
    }

    /// Where in its network Toka stands for the hosts that it lists by their names: for programs that know no proxy, to which each such name
    /// leads to an address of its own in 127.64.0.0/24. The first [`MOST_STAND_INS`] have a place.
    pub fn stand_ins(&self) -> Vec<(SocketAddrV4, String)> {
        let mut numbers: BTreeMap<String, u8> = BTreeMap::new();
        let mut places = Vec::new();
        for HostRule { host, port } in self.hosts() {
            let HostPattern::Name(name) = host else { continue };
            // The agent's own machine has these names (RFC 6761, 6.3).
            if name == "localhost" || name.ends_with(".localhost") {
                continue;
            }
            if places.len() == MOST_STAND_INS {
                break;
            }
            let next = numbers.len() as u8 + 1;
            let number = *numbers.entry(name.clone()).or_insert(next);
            let place = (SocketAddrV4::new(Ipv4Addr::new(127, 64, 0, number), port), name);
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
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

/// Most hosts that have a place in an agent's network: with its other descriptors, what one message of a keeper takes.
pub const MOST_STAND_INS: usize = 11;

/// A host and a port that an agent may reach: `index.example.org:443`, `*.example.org:443` for every name below, `10.1.2.3:80`,
/// `[::1]:8080`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    host: HostPattern,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Name(String),
    /// Every name below it, and not itself.
    Below(String),
    Address(IpAddr),
}

/// A text that is no host with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "write `host:port`, such as `index.example.org:443`, `*.example.org:443` or `[::1]:8080`; no scheme, no path"
)]
pub struct NoHost;

impl FromStr for HostRule {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        let (host, port) = text.rsplit_once(':').ok_or(NoHost)?;
        let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
        let port = port.filter(|port| *port > 0).ok_or(NoHost)?;
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        let host = match address(host) {
            // Without brackets it is not clear where the port begins; and nobody's address is this host's, to connect(2).
            Some(address) if address.is_unspecified() || host.contains(':') && !is_bracketed => {
                return Err(NoHost);
            }
            Some(address) => HostPattern::Address(address),
            None => match host.strip_prefix("*.") {
                Some(below) => HostPattern::Below(name(below).ok_or(NoHost)?),
                None => HostPattern::Name(name(host).ok_or(NoHost)?),
            },
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Name(name) => write!(f, "{name}:{}", self.port),
            HostPattern::Below(name) => write!(f, "*.{name}:{}", self.port),
            HostPattern::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
        }
    }
}

impl HostRule {
    /// Whether this host, as a client names it, and port may be reached by it.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        if port != self.port {
            return false;
        }
        match (&self.host, address(host)) {
            (HostPattern::Address(own), Some(address)) => *own == address,
            (HostPattern::Address(_), None) | (_, Some(_)) => false,
            (HostPattern::Name(own), None) => name(host).is_some_and(|name| name == *own),
            (HostPattern::Below(own), None) => name(host).is_some_and(|name| {
                name.strip_suffix(own.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }),
        }
    }

    /// Whether everything that `other` allows is allowed by this one too.
    pub fn covers(&self, other: &Self) -> bool {
        match &other.host {
            HostPattern::Below(below) => {
                self.port == other.port
                    && match &self.host {
                        HostPattern::Below(own) => {
                            own == below
                                || below.strip_suffix(own.as_str()).is_some_and(|rest| rest.ends_with('.'))
                        }
                        HostPattern::Name(_) | HostPattern::Address(_) => false,
                    }
            }
            HostPattern::Name(name) => self.allows(name, other.port),
            HostPattern::Address(address) => self.allows(&address.to_string(), other.port),
        }
    }

    /// The host without the port, in one spelling.
    pub fn host(&self) -> String {
        match &self.host {
            HostPattern::Name(name) => name.clone(),
            HostPattern::Below(name) => format!("*.{name}"),
            HostPattern::Address(address) => address.to_string(),
        }
    }

    /// Whether it is written as an address: then it is that address that somebody has allowed, wherever it lies.
    pub fn is_address(&self) -> bool {
        matches!(self.host, HostPattern::Address(_))
    }

    /// Whether it is an address of the host itself.
    pub fn is_loopback(&self) -> bool {
        matches!(self.host, HostPattern::Address(address) if address.is_loopback())
    }
}

/// What a person grants or denies: a [`HostRule`], one without a port or with `*` in its place for every port, or `*` for every host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostGrant {
    /// This host at this port.
    One(HostRule),
    /// This host at every port; the port of the rule stands for nothing.
    EveryPort(HostRule),
    /// Every host, at this port or at every one.
    Every(Option<u16>),
}

impl FromStr for HostGrant {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        let every_port = |host: &str| format!("{host}:1").parse().map(Self::EveryPort);
        match text.rsplit_once(':') {
            _ if text == "*" => Ok(Self::Every(None)),
            Some(("*", "*")) => Ok(Self::Every(None)),
            Some(("*", port)) => Ok(Self::Every(Some(port.parse().map_err(|_| NoHost)?))),
            Some((host, "*")) => every_port(host),
            Some(_) if !text.ends_with(']') => text.parse().map(Self::One),
            _ => every_port(text),
        }
    }
}

impl HostGrant {
    /// Whether it is about all that this rule allows.
    pub fn covers(&self, rule: &HostRule) -> bool {
        match self {
            Self::One(own) => own.covers(rule),
            Self::EveryPort(own) => HostRule { port: rule.port, ..own.clone() }.covers(rule),
            Self::Every(port) => port.is_none_or(|port| port == rule.port),
        }
    }

    /// Whether it is about anything that this rule allows.
    pub fn touches(&self, rule: &HostRule) -> bool {
        self.covers(rule)
            || match self {
                Self::One(own) => rule.covers(own),
                Self::EveryPort(own) => rule.covers(&HostRule { port: rule.port, ..own.clone() }),
                Self::Every(_) => false,
            }
    }
}

/// An address as a client may write it, one that stands for IPv4 as IPv4.
fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// A name of a host (RFC 1123, 2.1) in small letters, without the dot of the root. What looks like a number is none: some programs take
/// `127.1` or `0x7f000001` for an address.
fn name(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with(|first: char| first.is_ascii_digit());
    let is_name = host.len() <= 253 && host.split('.').all(is_label) && !is_number;
    is_name.then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> HostRule {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn names_have_places_in_the_network_and_others_have_none() {
        let allow =
            |hosts: &[&str]| NetworkAccess::Allow(hosts.iter().map(|host| (*host).to_owned()).collect());
        let places = |hosts: &[&str]| -> Vec<String> {
            allow(hosts).stand_ins().iter().map(|(address, name)| format!("{address} {name}")).collect()
        };
        assert_eq!(
            places(&[
                "a.example:443",
                "*.b.example:443",
                "10.0.0.1:80",
                "A.example:80",
                "c.example:22",
                "a.example:443"
            ]),
            ["127.64.0.1:443 a.example", "127.64.0.1:80 a.example", "127.64.0.2:22 c.example"]
        );
        assert_eq!(places(&["localhost:80", "x.localhost:80"]), [] as [&str; 0]);
        let many: Vec<String> = (0..30).map(|number| format!("h{number}.example:443")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(allow(&many).stand_ins().len(), MOST_STAND_INS);
        assert_eq!(NetworkAccess::Full.stand_ins(), []);
    }

    #[test]
    fn what_a_rule_allows() {
        for (of, host, port, allowed) in [
            ("a.example.org:443", "a.example.org", 443, true),
            ("a.example.org:443", "A.Example.ORG.", 443, true),
            ("a.example.org:443", "a.example.org", 80, false),
            ("a.example.org:443", "b.a.example.org", 443, false),
            ("*.example.org:443", "a.example.org", 443, true),
            ("*.example.org:443", "a.b.example.org", 443, true),
            ("*.example.org:443", "example.org", 443, false),
            ("*.example.org:443", "evilexample.org", 443, false),
            ("*.example.org:443", ".example.org", 443, false),
            ("*.example.org:443", "a.example.org.evil.net", 443, false),
            ("*.example.org:443", "*.example.org", 443, false),
            ("127.0.0.1:80", "127.0.0.1", 80, true),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]", 80, true),
            ("127.0.0.1:80", "127.1", 80, false),
            ("127.0.0.1:80", "2130706433", 80, false),
            ("127.0.0.1:80", "localhost", 80, false),
            ("[::1]:80", "::1", 80, true),
            ("[::1]:80", "[0:0::1]", 80, true),
            ("a.example.org:443", "a.example.org\u{0}", 443, false),
            ("a.example.org:443", "a.example.org/../x", 443, false),
            ("a.example.org:443", "", 443, false),
        ] {
            assert_eq!(rule(of).allows(host, port), allowed, "{of} {host}:{port}");
        }
    }

    #[test]
    fn what_is_no_rule() {
        for bad in [
            "",
            "a",
            ":443",
            "a:",
            "a:0",
            "a:65536",
            "a:https",
            "https://a:443",
            "a/b:443",
            "a b:443",
            "*:443",
            "*.:443",
            "a.*.b:443",
            "-a:443",
            "127.1:80",
            "0x7f.1:80",
            "bücher.example:443",
            "user@a:443",
            "[::1:80",
            "::1:80",
            "0.0.0.0:80",
            "[::]:80",
            "a:+80",
        ] {
            assert_eq!(bad.parse::<HostRule>(), Err(NoHost), "{bad}");
        }
        for good in ["a:1", "a_b.example.org:443", "*.example.org:443", "10.1.2.3:80", "[::1]:8080"] {
            assert_eq!(rule(good).to_string(), good);
        }
    }

    #[test]
    fn what_a_person_may_say() {
        let says = |text: &str| text.parse::<HostGrant>().unwrap_or_else(|error| panic!("{text}: {error}"));
        for (grant, demand, covers, touches) in [
            ("a.example.org", "a.example.org:443", true, true),
            ("a.example.org:*", "a.example.org:443", true, true),
            ("*", "a.example.org:443", true, true),
            ("*:*", "10.0.0.1:80", true, true),
            ("*:443", "a.example.org:443", true, true),
            ("*:80", "a.example.org:443", false, false),
            ("*.example.org", "a.example.org:1", true, true),
            ("10.0.0.1", "10.0.0.1:80", true, true),
            ("[::1]", "[::1]:80", true, true),
            ("a.example.org", "*.example.org:443", false, true),
            ("a.example.org:443", "*.example.org:443", false, true),
            ("a.example.org:80", "*.example.org:443", false, false),
        ] {
            let (grant, demand) = (says(grant), rule(demand));
            assert_eq!(
                (grant.covers(&demand), grant.touches(&demand)),
                (covers, touches),
                "{grant:?} {demand}"
            );
        }
        for bad in ["", "a:b:c", "https://a", "*:x", "a:0"] {
            assert!(bad.parse::<HostGrant>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_grant_covers() {
        for (grant, demand, covered) in [
            ("*.example.org:443", "a.example.org:443", true),
            ("*.example.org:443", "*.b.example.org:443", true),
            ("*.example.org:443", "*.example.org:443", true),
            ("*.example.org:443", "example.org:443", false),
            ("*.b.example.org:443", "*.example.org:443", false),
            ("a.example.org:443", "*.a.example.org:443", false),
            ("a.example.org:443", "a.example.org:80", false),
            ("10.0.0.1:80", "10.0.0.1:80", true),
        ] {
            assert_eq!(rule(grant).covers(&rule(demand)), covered, "{grant} {demand}");
        }
    }
}
