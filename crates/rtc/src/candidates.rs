//! The addresses that answers offer as ICE candidates: those of `media.advertise`, or those of this
//! machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{info, warn};

use ooblex_config::authority::{Authority, Host};

/// Time after which the names of `media.advertise` are resolved again.
const RESOLUTION_INTERVAL: Duration = Duration::from_secs(60);
/// Largest number of addresses of one name.
const MAX_ADDRESSES_PER_NAME: usize = 8;

/// The candidates, best first. All clones share them.
#[derive(Debug, Clone)]
pub struct Candidates {
    entries: Arc<Mutex<Vec<Entry>>>,
    /// The address of the TCP listener, if there is one.
    tcp: Option<SocketAddr>,
}

/// An entry of `media.advertise`, or an address of this machine.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: Option<Name>,
    addresses: Vec<SocketAddr>,
}

/// A name that is resolved again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    host: String,
    port: u16,
    /// Only IPv4 addresses reach the socket.
    is_v4_only: bool,
}

/// Names that have no address.
#[derive(Debug, thiserror::Error)]
#[error("media.advertise: no address is found for {0}: correct the name, or write the address")]
pub struct UnresolvedNames(String);

impl From<Vec<SocketAddr>> for Candidates {
    fn from(addresses: Vec<SocketAddr>) -> Self {
        Self { entries: Arc::new(Mutex::new(vec![Entry { name: None, addresses }])), tcp: None }
    }
}

impl Candidates {
    /// Finds the addresses of the advertised hosts. `listen`: the address of the socket, with the
    /// port that hosts without a port have.
    ///
    /// # Errors
    /// When no host has an address.
    pub(crate) fn advertised(hosts: &[Authority], listen: SocketAddr) -> Result<Self, UnresolvedNames> {
        let entry = |authority: &Authority| {
            let port = authority.port.unwrap_or(listen.port());
            match &authority.host {
                Host::Ip(ip) => Entry { name: None, addresses: vec![SocketAddr::new(*ip, port)] },
                Host::Name(host) => {
                    Entry { name: Some(Name { host: host.clone(), port, is_v4_only: listen.is_ipv4() }), addresses: Vec::new() }
                }
            }
        };
        let candidates = Self { entries: Arc::new(Mutex::new(hosts.iter().map(entry).collect())), tcp: None };
        candidates.resolve(Name::resolve);
        if candidates.current().is_empty() {
            let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
            return Err(UnresolvedNames(hosts.join(", ")));
        }
        Ok(candidates)
    }

    /// Adds the address of a TCP listener.
    pub(crate) fn with_tcp(self, listen: SocketAddr) -> Self {
        Self { tcp: Some(listen), ..self }
    }

    /// Returns the addresses of the TCP listener, in the same order: the same hosts, each with the
    /// port of the listener.
    pub fn current_tcp(&self) -> Vec<SocketAddr> {
        let Some(listen) = self.tcp else { return Vec::new() };
        let hosts = self.current().into_iter().map(|address| address.ip()).filter(|ip| ip.is_ipv4() || listen.is_ipv6());
        distinct(hosts).into_iter().map(|ip| SocketAddr::new(ip, listen.port())).collect()
    }

    /// Returns the addresses without repetitions, best first: loopback last, otherwise in the order
    /// of `media.advertise`.
    pub fn current(&self) -> Vec<SocketAddr> {
        let entries = self.entries.lock();
        let mut addresses = distinct(entries.iter().flat_map(|entry| entry.addresses.iter().copied()));
        addresses.sort_by_key(|address| address.ip().is_loopback());
        addresses
    }

    /// Resolves the names every minute. Returns at once if there are none.
    pub async fn keep_resolved(self) {
        while self.has_names() {
            tokio::time::sleep(RESOLUTION_INTERVAL).await;
            let candidates = self.clone();
            _ = tokio::task::spawn_blocking(move || candidates.resolve(Name::resolve)).await;
        }
    }

    fn has_names(&self) -> bool {
        self.entries.lock().iter().any(|entry| entry.name.is_some())
    }

    /// Resolves all names. A name that has no address any more keeps the last ones.
    fn resolve(&self, resolve: impl Fn(&Name) -> io::Result<Vec<SocketAddr>>) {
        let names: Vec<_> = {
            let entries = self.entries.lock();
            entries.iter().enumerate().filter_map(|(n, entry)| Some((n, entry.name.clone()?))).collect()
        };
        // The lock is not held while names are resolved, which may take seconds.
        for (n, name) in names {
            let found = resolve(&name).and_then(|found| if found.is_empty() { Err(io::Error::other("it has none")) } else { Ok(found) });
            match found {
                Ok(addresses) => {
                    let mut entries = self.entries.lock();
                    if entries[n].addresses != addresses {
                        info!(name = name.host, ?addresses, "media.advertise resolved");
                        entries[n].addresses = addresses;
                    }
                }
                Err(error) => warn!(name = name.host, %error, "media.advertise: no address is found; the last ones are kept"),
            }
        }
    }
}

impl Name {
    /// Returns the addresses in a stable order, since many name servers rotate them.
    fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found = (self.host.as_str(), self.port).to_socket_addrs()?;
        let mut addresses: Vec<_> = found.filter(|address| address.is_ipv4() || !self.is_v4_only).collect();
        addresses.sort_by_key(|address| (address.is_ipv6(), *address));
        addresses.dedup();
        addresses.truncate(MAX_ADDRESSES_PER_NAME);
        Ok(addresses)
    }
}

/// Returns the addresses at which a socket that listens on `listen` is reached: that of the default
/// route first, loopback last.
pub(crate) fn own_addresses(listen: IpAddr) -> io::Result<Vec<IpAddr>> {
    if !listen.is_unspecified() {
        return Ok(vec![listen]);
    }
    let interfaces = if_addrs::get_if_addrs()?.into_iter().map(|interface| (interface.ip(), interface.name));
    let routes = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].into_iter().filter_map(default_route);
    Ok(usable(interfaces, &routes.collect::<Vec<_>>(), listen.is_ipv6()))
}

/// Returns the usable addresses of interfaces in their order of preference. `routes`: the addresses
/// from which this machine reaches others.
fn usable(interfaces: impl Iterator<Item = (IpAddr, String)>, routes: &[IpAddr], is_v6: bool) -> Vec<IpAddr> {
    let is_usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => is_v6 && !ip.is_unicast_link_local() && !ip.is_loopback(),
    };
    let others = interfaces.filter(|(_, name)| !is_docker_bridge(name)).map(|(ip, _)| ip);
    let mut addresses: Vec<_> = others.filter(is_usable).collect();
    addresses.sort_by_key(|ip| (ip.is_loopback(), !routes.contains(ip), ip.is_ipv6()));
    addresses.dedup();
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    addresses
}

/// Returns whether an interface is a bridge of Docker, or the host's end of one. Browsers on other
/// machines do not reach its address.
fn is_docker_bridge(name: &str) -> bool {
    // Docker's own networks have an id of twelve hexadecimal digits; br-lan is another's.
    let is_network = |id: &str| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.starts_with("docker") || name.starts_with("veth") || name.strip_prefix("br-").is_some_and(is_network)
}

/// Returns the address from which this machine reaches addresses outside its own networks. No
/// packet is sent.
fn default_route(family: IpAddr) -> Option<IpAddr> {
    // Addresses for documentation (RFC 5737, RFC 3849), which are in nobody's network.
    let other: IpAddr = if family.is_ipv4() { [192, 0, 2, 1].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() };
    let socket = UdpSocket::bind((family, 0)).ok()?;
    socket.connect((other, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Returns the items without repetitions, in their order.
pub(crate) fn distinct<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for item in items {
        if !distinct.contains(&item) {
            distinct.push(item);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorities(texts: &[&str]) -> Vec<Authority> {
        texts.iter().map(|text| Authority::parse(text).unwrap()).collect()
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8000);

    #[test]
    fn hosts_have_the_port_of_the_socket_or_their_own() {
        let hosts = authorities(&["203.0.113.7", "[2001:db8::7]", "203.0.113.8:9000", "203.0.113.7"]);
        let candidates = Candidates::advertised(&hosts, LISTEN).unwrap();
        assert_eq!(candidates.current(), addresses(&["203.0.113.7:8000", "[2001:db8::7]:8000", "203.0.113.8:9000"]));
    }

    #[test]
    fn loopback_is_last_unless_there_is_nothing_else() {
        let candidates = |texts| Candidates::advertised(&authorities(texts), LISTEN).unwrap().current();
        assert_eq!(candidates(&["127.0.0.1", "203.0.113.7"]), addresses(&["203.0.113.7:8000", "127.0.0.1:8000"]));
        assert_eq!(candidates(&["127.0.0.1"]), addresses(&["127.0.0.1:8000"]));
    }

    #[test]
    fn tcp_has_the_same_hosts_and_its_own_port() {
        let hosts = authorities(&["203.0.113.7:9000", "[2001:db8::7]", "203.0.113.7"]);
        let candidates = Candidates::advertised(&hosts, LISTEN).unwrap();
        assert!(candidates.current_tcp().is_empty());
        let candidates = candidates.with_tcp("0.0.0.0:8443".parse().unwrap());
        assert_eq!(candidates.current_tcp(), addresses(&["203.0.113.7:8443"]));
        let candidates = candidates.with_tcp("[::]:8443".parse().unwrap());
        assert_eq!(candidates.current_tcp(), addresses(&["203.0.113.7:8443", "[2001:db8::7]:8443"]));
    }

    #[test]
    fn name_is_resolved_and_keeps_its_addresses_while_it_can_not_be() {
        let candidates = Candidates::advertised(&authorities(&["localhost:9000", "203.0.113.7"]), LISTEN).unwrap();
        assert_eq!(candidates.current(), addresses(&["203.0.113.7:8000", "127.0.0.1:9000"]), "IPv4 only, as the socket");
        assert!(candidates.has_names());
        candidates.resolve(|name| {
            assert_eq!((name.host.as_str(), name.port), ("localhost", 9000));
            Ok(addresses(&["198.51.100.1:9000"]))
        });
        let moved = addresses(&["198.51.100.1:9000", "203.0.113.7:8000"]);
        assert_eq!(candidates.current(), moved);
        candidates.resolve(|_| Err(io::Error::other("the name server is away")));
        candidates.resolve(|_| Ok(Vec::new()));
        assert_eq!(candidates.current(), moved);
    }

    #[test]
    fn names_without_any_address_are_refused_by_name() {
        let error = Candidates::advertised(&authorities(&["nobody.invalid"]), LISTEN).unwrap_err();
        assert!(error.to_string().contains("nobody.invalid"), "{error}");
    }

    #[test]
    fn socket_of_one_address_is_reached_at_that_address_only() {
        let address = IpAddr::from([192, 0, 2, 7]);
        assert_eq!(own_addresses(address).unwrap(), [address]);
    }

    #[test]
    fn address_of_the_default_route_is_first_and_bridges_of_docker_are_left_out() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let interfaces = || {
            let all = [
                ("lo", "127.0.0.1"),
                ("lo", "::1"),
                ("docker0", "172.17.0.1"),
                ("br-0123456789ab", "172.18.0.1"),
                ("veth12ab34c", "169.254.1.1"),
                ("br-lan", "192.168.1.1"),
                ("eth0", "10.0.0.5"),
                ("eth0", "fe80::5"),
                ("eth1", "203.0.113.7"),
                ("eth1", "2001:db8::7"),
            ];
            all.into_iter().map(|(name, ip)| (ip.parse().unwrap(), name.to_string()))
        };
        let routes = ips(&["203.0.113.7", "2001:db8::7"]);
        assert_eq!(usable(interfaces(), &routes, false), ips(&["203.0.113.7", "192.168.1.1", "10.0.0.5", "127.0.0.1"]));
        assert_eq!(usable(interfaces(), &routes, true), ips(&["203.0.113.7", "2001:db8::7", "192.168.1.1", "10.0.0.5", "127.0.0.1"]));
        assert_eq!(usable(interfaces().skip(2).take(2), &[], false), ips(&["127.0.0.1"]), "nothing else is left");
    }

    #[test]
    fn addresses_of_this_machine_begin_with_loopback_only_if_there_is_no_other() {
        let own = own_addresses(Ipv4Addr::UNSPECIFIED.into()).unwrap();
        assert!(!own[0].is_loopback() || own.iter().all(IpAddr::is_loopback), "{own:?}");
        let route = default_route(Ipv4Addr::UNSPECIFIED.into());
        assert!(route.is_none_or(|ip| own[0] == ip), "{own:?} {route:?}");
    }
}
