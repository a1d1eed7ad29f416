//! Addresses that nobody talks to, whatever a name says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds keep metadata outside of the link-local addresses.
const METADATA: [IpAddr; 2] = [
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
}

impl AddressRule {
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::NoMetadata => !is_forbidden(address),
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

#[cfg(test)]
mod tests {
    use super::*;

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
