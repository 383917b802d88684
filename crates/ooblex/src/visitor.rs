//! Who asks: the address that a request over HTTP comes from, also through proxies that the operator trusts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::connect_info::Connected;
use axum::http::HeaderMap;
use axum::serve::IncomingStream;
use ipnet::IpNet;
use tokio::net::TcpListener;

use crate::tls::TlsListener;

/// The other end of a connection: a visitor, or the last proxy on the way.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Peer(address(*stream.remote_addr()))
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Peer(address(*stream.remote_addr()))
    }
}

fn address(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}

/// What counts as one visitor: an IPv4 address, or the 64 bits of an IPv6 address that a household is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Visitor(IpAddr);

impl Visitor {
    /// The one at an address.
    pub fn at(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
            IpAddr::V4(_) => address,
        })
    }

    /// Who asks through `peer`. `X-Forwarded-For` is read from its end, as far as those that wrote it are `trusted`; what others write there
    /// is not believed.
    pub fn of(peer: Peer, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
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
        Self::at(from)
    }
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
        Visitor::of(Peer(address(SocketAddr::new(peer.parse().expect("an address"), 1))), &headers, &trusted)
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
    fn addresses_of_one_household_are_one_visitor() {
        assert_eq!(visitor("2001:db8:1:2:3::4", &[], &[]), visitor("2001:db8:1:2::9", &[], &[]));
        assert_ne!(visitor("2001:db8:1:2::9", &[], &[]), visitor("2001:db8:1:3::9", &[], &[]));
        assert_eq!(visitor("::ffff:192.0.2.1", &[], &[]), plain("192.0.2.1"));
    }
}
