//! Addresses that nobody talks to, whatever a name says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds keep metadata outside of the link-local addresses.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Which addresses may be talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressRule {
    /// All: the host was declared together with the network in which it is asked for.
    Any,
    /// None of the link, where clouds keep the credentials of their machines, and none that is nobody's or everybody's. Loopback and
    /// private ones are for the person who granted the host.
    NoMetadata,
    /// None but those that everybody reaches: a name that leads to the host itself or into a private network leads nowhere.
    Public,
}

impl AddressRule {
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::NoMetadata => !is_forbidden(address),
            Self::Public => !is_forbidden(address) && !is_private(address),
        }
    }
}

fn is_forbidden(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let of_link = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    of_link || address.is_multicast() || address.is_unspecified() || METADATA.contains(&address)
}

/// Whether an address is of the host itself, of a private network, or reserved (the registries of RFC 6890). Those of IPv6 that stand for one of
/// IPv4 are what that is.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.segments();
            let embedded = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
            match (a, b) {
                // 64:ff9b::/96 (RFC 6052), 2002::/16 (RFC 3056).
                (0x64, 0xff9b) => [c, d, e, f] != [0; 4] || is_private_v4(embedded(g, h)),
                (0x2002, high) => is_private_v4(embedded(high, c)),
                // Teredo and others of 2001::/23, documentation, unique local, and what is not global unicast.
                (0x2001, second) => second < 0x200 || second == 0xdb8,
                (first, _) => !(0x2000..0x4000).contains(&first),
            }
        }
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || a >= 224
        // Shared addresses of providers (RFC 6598), protocol assignments, benchmarks (RFC 2544).
        || (a == 100 && (b & 0xc0) == 64)
        || (a, b, c) == (192, 0, 0)
        || (a == 198 && (b & 0xfe) == 18)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_nothing_private() {
        for (address, public) in [
            ("93.184.216.34", true),
            ("2606:2800:220:1::1", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("10.0.0.1", false),
            ("172.16.0.1", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("198.18.0.1", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("169.254.169.254", false),
            ("::1", false),
            ("::", false),
            ("::ffff:10.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b::5db8:d822", true),
            ("2002:7f00:1::", false),
            ("64:ff9b:1::7f00:1", false),
            ("64:ff9b:1:7f00:0:100::", false),
            ("168.63.129.16", false),
            ("2001::1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(AddressRule::Public.allows(parsed), public, "{address}");
        }
    }

    #[test]
    fn some_addresses_are_never_talked_to() {
        for (address, forbidden) in [
            ("169.254.169.254", true),
            ("::ffff:169.254.169.254", true),
            ("fe80::1", true),
            ("fd00:ec2::254", true),
            ("100.100.100.200", true),
            ("0.0.0.0", true),
            ("224.0.0.1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("10.1.2.3", false),
            ("fd00::1", false),
            ("192.0.2.7", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(!AddressRule::NoMetadata.allows(address), forbidden, "{address}");
            assert!(AddressRule::Any.allows(address));
        }
    }
}
