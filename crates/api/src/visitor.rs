//! Client addresses of HTTP requests, including those that trusted proxies forward.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use ooblex_gateway::client_network::client_network;

/// Remote address of a connection: the client, or the last proxy. IPv4-mapped IPv6 addresses are
/// converted to IPv4.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Local address of a connection. IPv4-mapped IPv6 addresses are converted to IPv4.
#[derive(Debug, Clone, Copy)]
pub struct Local(pub IpAddr);

/// The listener that accepted a request; every request carries it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The public listener, `serve.listen`.
    Public,
    /// The admin listener, `serve.admin_listen` or `worker.listen`.
    Admin,
}

/// Returns whether a request comes from this machine and has no forwarding headers of a proxy.
/// `listen` is the address of the listener; only a loopback address has local requests.
pub fn is_local(listen: IpAddr, peer: Peer, headers: &HeaderMap) -> bool {
    let is_forwarded = |name: &HeaderName| name == "forwarded" || name.as_str().starts_with("x-forwarded-");
    listen.is_loopback() && peer.0.is_loopback() && !headers.keys().any(is_forwarded)
}

/// A client for rate limits: an IPv4 address, or the /64 network of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Visitor(IpAddr);

impl std::fmt::Display for Visitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Visitor {
    /// Returns the client of a request from `peer`. `X-Forwarded-For` is read from its end, as long
    /// as the address before is in a `trusted` network; other entries are ignored.
    pub fn of(peer: Peer, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        Self::at(caller(peer, headers, trusted))
    }

    /// Returns the client that the gateway itself is with one of its pulls and pushes. No other client
    /// has an address of this network (RFC 1122: 0.0.0.0/8).
    pub(crate) fn own(link: u64) -> Self {
        Self(Ipv4Addr::from_bits(link as u32 & 0x00ff_ffff).into())
    }

    /// Returns whether the client is the gateway itself.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.0, IpAddr::V4(address) if address.octets()[0] == 0)
    }

    /// Returns the client of an address.
    pub fn at(address: IpAddr) -> Self {
        Self(client_network(address))
    }
}

/// Returns the client's address of a request from `peer`, found as in [`Visitor::of`].
pub fn caller(peer: Peer, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(',').map(|hop| hop.trim().parse::<IpAddr>()));
    let mut from = peer.0;
    for hop in hops {
        match hop {
            Ok(hop) if is_trusted(from) => from = hop.to_canonical(),
            _ => break,
        }
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor(peer: &str, forwarded: &[&str], trusted: &[&str]) -> Visitor {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().expect("a header"));
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().expect("a net")).collect();
        Visitor::of(Peer(peer.parse::<IpAddr>().expect("an address").to_canonical()), &headers, &trusted)
    }

    fn plain(address: &str) -> Visitor {
        Visitor(address.parse().expect("an address"))
    }

    #[test]
    fn a_proxy_is_believed_only_where_it_is_trusted() {
        let (proxy, trusted) = ("10.0.0.2", ["10.0.0.0/8", "127.0.0.0/8"]);
        assert_eq!(visitor(proxy, &["203.0.113.7"], &trusted), plain("203.0.113.7"));
        assert_eq!(visitor("198.51.100.9", &["203.0.113.7"], &trusted), plain("198.51.100.9"));
        assert_eq!(visitor(proxy, &["1.2.3.4, 203.0.113.7, 10.0.0.3"], &trusted), plain("203.0.113.7"), "what a visitor made up is not");
        assert_eq!(visitor(proxy, &["1.2.3.4", "203.0.113.7"], &trusted), plain("203.0.113.7"));
        assert_eq!(visitor(proxy, &["nonsense"], &trusted), plain(proxy));
        assert_eq!(visitor(proxy, &[], &trusted), plain(proxy));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        assert_eq!(visitor("2001:db8:1:2:3::4", &[], &[]), visitor("2001:db8:1:2::9", &[], &[]));
        assert_ne!(visitor("2001:db8:1:2::9", &[], &[]), visitor("2001:db8:1:3::9", &[], &[]));
        assert_eq!(visitor("::ffff:192.0.2.1", &[], &[]), plain("192.0.2.1"));
    }

    #[test]
    fn a_request_is_local_when_the_listener_and_the_peer_are_and_no_proxy_is_between() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let local = |listen: &str, peer: &str, header: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header, "x".parse().expect("a header"));
            is_local(ip(listen), Peer(ip(peer)), &headers)
        };
        assert!(local("127.0.0.1", "127.0.0.1", "accept") && local("::1", "::1", "accept"));
        assert!(!local("0.0.0.0", "127.0.0.1", "accept"), "others reach the listener");
        assert!(!local("127.0.0.1", "192.0.2.1", "accept"));
        for proxied in ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"] {
            assert!(!local("127.0.0.1", "127.0.0.1", proxied), "{proxied}");
        }
    }
}
