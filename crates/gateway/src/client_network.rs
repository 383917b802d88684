//! The client that an address belongs to, for limits of one client.

use std::net::{IpAddr, Ipv6Addr};

/// Returns the address itself for IPv4, and its /64 network for IPv6, of which one client usually has
/// all addresses.
pub fn client_network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_ipv4_addresses_and_networks_of_ipv6() {
        let same = |one: &str, other: &str| client_network(one.parse().unwrap()) == client_network(other.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1") && !same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("192.0.2.1", "192.0.2.1") && !same("192.0.2.1", "192.0.2.2"));
    }
}
