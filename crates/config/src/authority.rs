//! Host names with ports, host patterns of `serve.hosts`, and origins of `serve.allow_origins`.

use std::fmt;
use std::net::IpAddr;

/// A host with an optional port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port; `None` for the default port of the scheme.
    pub port: Option<u16>,
}

/// A host in its canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// Lower case, without a trailing dot.
    Name(String),
}

impl Authority {
    /// Parses `name`, `name:port`, `192.0.2.1:port` and `[2001:db8::1]:port`. Returns `None` for
    /// anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (
                    Host::Ip(IpAddr::V6(address.parse().ok()?).to_canonical()),
                    if port.is_empty() { None } else { Some(port.strip_prefix(':')?) },
                )
            }
            None => {
                let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
                (Host::parse(host)?, port)
            }
        };
        // A colon without a number means the default port.
        let port = match port.filter(|port| !port.is_empty()) {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
            Some(_) => return None,
            None => None,
        };
        Some(Self { host, port })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Ip(IpAddr::V6(ip)), Some(port)) => write!(f, "[{ip}]:{port}"),
            (Host::Ip(ip), Some(port)) => write!(f, "{ip}:{port}"),
            (Host::Ip(ip), None) => write!(f, "{ip}"),
            (Host::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (Host::Name(name), None) => f.write_str(name),
        }
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 253 || name.starts_with('.') || name.contains("..") || !name.bytes().all(is_fit) {
            return None;
        }
        Some(name.parse().map_or(Host::Name(name), Host::Ip))
    }
}

/// An entry of the accepted hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// One IP address.
    Ip(IpAddr),
    /// One name.
    Name(String),
    /// All subdomains of this name.
    Below(String),
}

impl HostPattern {
    /// Parses `*`, `name`, `*.name` and an IP address, with or without brackets. Returns `None` for
    /// anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(HostPattern::Any);
        }
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(HostPattern::Ip(address.to_canonical()));
        }
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        match Host::parse(name)? {
            Host::Name(name) => Some(if below { HostPattern::Below(name) } else { HostPattern::Name(name) }),
            Host::Ip(_) => None,
        }
    }

    /// Returns whether the pattern matches a host.
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (HostPattern::Any, _) => true,
            (HostPattern::Ip(known), Host::Ip(host)) => known == host,
            (HostPattern::Name(known), Host::Name(host)) => known == host,
            (HostPattern::Below(known), Host::Name(host)) => {
                host.strip_suffix(known.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            _ => false,
        }
    }
}

/// Returns whether a value is valid for `serve.allow_origins`: `*`, or an origin as browsers write
/// it.
pub fn is_origin(text: &str) -> bool {
    text == "*" || text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && Authority::parse(rest).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_origins_are_written_as_browsers_write_them() {
        for good in ["*", "https://app.example", "http://localhost:3000", "https://[2001:db8::1]:8443"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["app.example", "https://app.example/", "https://", "null", "://app.example", "https://app.example/path"] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn patterns_are_names_and_addresses_and_nothing_else() {
        for good in ["*", "video.example", "*.video.example", "192.0.2.1", "[2001:db8::1]", "2001:db8::1", "localhost"] {
            assert!(HostPattern::parse(good).is_some(), "{good}");
        }
        for bad in ["", "https://video.example", "video.example:443", "video.example/", "*video.example", "*.192.0.2.1", "a b", "*."] {
            assert!(HostPattern::parse(bad).is_none(), "{bad}");
        }
    }
}
