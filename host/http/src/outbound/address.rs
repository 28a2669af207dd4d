//! The addresses that a fetch may connect to: public ones, and those that its grant names. Pure. Everything
//! else is refused: this machine, its networks, and ranges that no server of the internet has. An attacker
//! who controls a name or a URL could otherwise reach services that trust the network of the node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Returns true if a fetch with these additional networks may connect to the address.
pub(super) fn is_permitted(address: IpAddr, networks: &[IpNet]) -> bool {
    let address = address.to_canonical();
    is_public(address) || networks.iter().any(|network| network.contains(&address))
}

/// Returns true for a globally reachable unicast address (the registries of RFC 6890). An IPv6 address that
/// contains an IPv4 address leads to that one, so that one decides.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Ranges of IPv4 that are not public: network, length of the prefix.
const REFUSED_V4: [([u8; 4], u32); 16] = [
    ([0, 0, 0, 0], 8),       // this network
    ([10, 0, 0, 0], 8),      // private
    ([100, 64, 0, 0], 10),   // shared by the customers of a provider
    ([127, 0, 0, 0], 8),     // loopback
    ([169, 254, 0, 0], 16),  // link-local, with the metadata of clouds
    ([172, 16, 0, 0], 12),   // private
    ([192, 0, 0, 0], 24),    // protocol assignments
    ([192, 0, 2, 0], 24),    // documentation
    ([192, 31, 196, 0], 24), // AS112
    ([192, 52, 193, 0], 24), // automatic multicast tunneling
    ([192, 88, 99, 0], 24),  // relays of 6to4
    ([192, 168, 0, 0], 16),  // private
    ([198, 18, 0, 0], 15),   // benchmarks
    ([198, 51, 100, 0], 24), // documentation
    ([203, 0, 113, 0], 24),  // documentation
    ([224, 0, 0, 0], 3),     // multicast, reserved, broadcast
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = u32::from(address);
    !REFUSED_V4
        .iter()
        .any(|(network, length)| bits >> (32 - length) == u32::from_be_bytes(*network) >> (32 - length))
}

/// Ranges inside `2000::/3` that are not public: the first 32 bits of the network, length of the prefix.
const REFUSED_V6: [(u32, u32); 4] = [
    (0x2001_0000, 23), // protocol assignments, with Teredo, whose addresses contain IPv4 addresses
    (0x2001_0db8, 32), // documentation
    (0x2002_0000, 16), // 6to4, whose addresses contain IPv4 addresses
    (0x3fff_0000, 20), // documentation
];

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // NAT64: a network without IPv4 reaches IPv4 addresses by these.
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Only this range is assigned to networks of the internet. It leaves out loopback, link-local, unique
    // local, site-local, multicast, and `::a.b.c.d`.
    let first = u32::from(segments[0]) << 16 | u32::from(segments[1]);
    first >> 29 == 0b001
        && !REFUSED_V6.iter().any(|(network, length)| first >> (32 - length) == network >> (32 - length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_range_that_is_not_public_is_refused() {
        for text in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:0:7f00:1::",
            "2001:20::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        ] {
            assert!(!is_public(address(text)), "{text}");
            assert!(!is_permitted(address(text), &[]), "{text}");
        }
    }

    #[test]
    fn servers_of_the_internet_are_public() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700:4700::1111",
            "3ffe::1",
            "3fff:1000::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(address(text)), "{text}");
        }
    }

    #[test]
    fn a_grant_names_further_networks_and_no_others() {
        let networks: Vec<IpNet> =
            ["10.1.0.0/16", "fd00:1::/32", "127.0.0.1/32"].map(|n| n.parse().unwrap()).into();
        for text in ["10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5", "127.0.0.1", "8.8.8.8"] {
            assert!(is_permitted(address(text), &networks), "{text}");
        }
        for text in
            ["10.2.0.1", "fd00:2::1", "127.0.0.2", "::ffff:10.2.0.1", "64:ff9b::a01:203", "::10.1.2.3"]
        {
            assert!(!is_permitted(address(text), &networks), "{text}");
        }
    }

    proptest! {
        /// An IPv4 address is as public inside an IPv6 one as alone, in the forms that lead to it, and is
        /// refused in all other forms.
        #[test]
        fn an_address_inside_an_address_decides(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let alone = is_public(v4.into());
            prop_assert_eq!(is_public(v4.to_ipv6_mapped().into()), alone);
            let nat64 = Ipv6Addr::from(0x0064_ff9b_u128 << 96 | u128::from(bits));
            prop_assert_eq!(is_public(nat64.into()), alone);
            for form in [
                u128::from(bits),
                0x2002_u128 << 112 | u128::from(bits) << 80,
                0x2001_0000_u128 << 96 | u128::from(!bits),
                0x0064_ff9b_0001_u128 << 80 | u128::from(bits),
            ] {
                prop_assert!(!is_public(Ipv6Addr::from(form).into()), "{}", Ipv6Addr::from(form));
            }
        }

        /// The tables agree with the standard library where it has an opinion.
        #[test]
        fn no_address_that_the_library_calls_private_is_public(bits: u32, wide: u128) {
            let v4 = Ipv4Addr::from(bits);
            let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_broadcast()
                || v4.is_documentation() || v4.is_multicast() || v4.is_unspecified();
            prop_assert!(!(special && is_public(v4.into())), "{}", v4);
            let v6 = Ipv6Addr::from(wide);
            let special = v6.is_loopback() || v6.is_multicast() || v6.is_unspecified()
                || v6.is_unique_local() || v6.is_unicast_link_local();
            prop_assert!(!(special && is_public(v6.into())), "{}", v6);
        }
    }
}
