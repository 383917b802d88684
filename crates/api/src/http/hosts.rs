//! Allowed `Host` names of a listener, as a protection against DNS rebinding.
//!
//! With DNS rebinding, a page of another host points its own name at this machine to appear as
//! same-origin. Its requests still carry that name in `Host`, so only known names are answered. IP
//! addresses and names that cannot be rebound are allowed without configuration.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::tls::Certificate;
use crate::visitor::{Listener, Local};
use ooblex_config::authority::{Authority, Host, HostPattern};
use ooblex_config::{Config, Serve};
use ooblex_gateway::metrics::HttpFigures;
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Paths that are answered for every host, because probes use the address of a container.
const EXEMPT: [&str; 2] = ["/healthz", "/readyz"];

/// Headers that browsers send and scrapers do not. A script cannot remove them. `Sec-Fetch-Site` is
/// not sent to plain HTTP, except to loopback addresses and localhost, so it is not sufficient.
const BROWSER_HEADERS: [&str; 2] = ["sec-fetch-site", "accept-language"];

/// The hosts that a listener answers to.
pub struct Hosts {
    listener: Listener,
    /// Hosts that the operator listed, or the names of this machine if the list is empty.
    known: Vec<HostPattern>,
    /// True if names that can change are accepted as well: the names in the certificate, and the
    /// address that the connection was made to.
    is_automatic: bool,
    certificate: Option<Arc<Certificate>>,
    figures: HttpFigures,
}

impl Hosts {
    /// Builds the allowed hosts of a listener. `machine` lists the addresses and the name of this
    /// machine.
    pub fn new(
        listener: Listener,
        config: &Config,
        machine: &[String],
        certificate: Option<Arc<Certificate>>,
        figures: HttpFigures,
    ) -> Self {
        let Serve { hosts, listen, admin_listen, .. } = &config.serve;
        // serve.hosts lists the names for browsers. Operators also use the names of the machine.
        let is_automatic = hosts.is_empty() || listener == Listener::Admin;
        let mut known: Vec<_> = hosts.iter().filter_map(|host| HostPattern::parse(host)).collect();
        if is_automatic {
            known.extend([HostPattern::Name("localhost".into()), HostPattern::Below("localhost".into())]);
            known.extend(machine.iter().filter_map(|name| HostPattern::parse(name)));
            let addresses = [listen.ip()].into_iter().chain(admin_listen.map(|address| address.ip())).filter(|ip| !ip.is_unspecified());
            known.extend(addresses.map(|ip| HostPattern::Ip(ip.to_canonical())));
            known.extend(config.media.advertise.iter().map(|advertised| match &advertised.host {
                Host::Ip(ip) => HostPattern::Ip(*ip),
                Host::Name(name) => HostPattern::Name(name.clone()),
            }));
        }
        Self { listener, known, is_automatic, certificate, figures }
    }

    /// Returns whether requests may name `host`. `local` is the address that the connection was
    /// made to.
    pub(super) fn accepts(&self, host: &Host, local: Option<IpAddr>) -> bool {
        let automatic = || {
            let is_own = |ip: &IpAddr| ip.is_loopback() || Some(*ip) == local;
            let names = || self.certificate.as_ref().map(|certificate| certificate.about().names).unwrap_or_default();
            matches!(host, Host::Ip(ip) if is_own(ip))
                || names().iter().filter_map(|name| HostPattern::parse(name)).any(|name| name != HostPattern::Any && name.matches(host))
        };
        self.known.iter().any(|known| known.matches(host)) || (self.is_automatic && automatic())
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap, local: Option<IpAddr>) -> Result<(), Problem> {
        // Scrapers use service names; the admin listener serves metrics to them without
        // credentials.
        let is_scraper = || self.listener == Listener::Admin && !BROWSER_HEADERS.iter().any(|name| headers.contains_key(*name));
        if EXEMPT.contains(&uri.path()) || (uri.path() == "/metrics" && is_scraper()) {
            return Ok(());
        }
        let authority = requested(uri, headers)?;
        if self.accepts(&authority.host, local) {
            return Ok(());
        }
        let host = match authority.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name,
        };
        let detail = format!("this gateway is not known as '{host:.80}': use one of its own names, or list this one in serve.hosts");
        Err(Problem::new(ProblemKind::WrongHost, detail))
    }
}

/// Returns the host that a request is for.
///
/// # Errors
/// When the request names no host, or several.
pub(super) fn requested(uri: &Uri, headers: &HeaderMap) -> Result<Authority, Problem> {
    let bad = |detail: &str| Problem::new(ProblemKind::BadRequest, detail);
    let mut lines = headers.get_all(header::HOST).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(bad("a request has exactly one header Host: send the name that the gateway was asked by"));
    };
    let host = line.to_str().ok().and_then(Authority::parse);
    let host = host.ok_or_else(|| bad("the header Host is not a host name with an optional port: send the name of the gateway"))?;
    match uri.authority().map(|authority| Authority::parse(authority.as_str())) {
        Some(target) if target.as_ref() != Some(&host) => Err(bad("the header Host and the target of the request differ: send one name")),
        _ => Ok(host),
    }
}

/// Refuses requests with an unknown host.
pub(super) async fn known_hosts_only(
    State(hosts): State<Arc<Hosts>>,
    local: Option<Extension<Local>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let local = local.map(|Extension(Local(address))| address);
    let checked = hosts.check(request.uri(), request.headers(), local);
    checked.inspect_err(|problem| hosts.figures.on_refused_request(problem.kind))?;
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listener: Listener, listed: &[&str]) -> Hosts {
        let mut config = Config::default();
        config.serve.hosts = listed.iter().map(ToString::to_string).collect();
        config.media.advertise = ["203.0.113.7", "[2001:db8::7]:9000", "media.example"].map(|text| Authority::parse(text).unwrap()).into();
        let machine = ["192.168.1.5".to_string(), "studio".into(), "studio.local".into()];
        Hosts::new(listener, &config, &machine, None, HttpFigures::default())
    }

    fn asked(hosts: &Hosts, host: &str) -> Option<ProblemKind> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        let local = Some("192.168.1.9".parse().unwrap());
        hosts.check(&Uri::from_static("/api/sessions"), &headers, local).err().map(|problem| problem.kind)
    }

    #[test]
    fn without_a_list_the_names_of_this_machine_are_accepted_in_every_spelling() {
        let hosts = hosts(Listener::Public, &[]);
        for known in [
            "localhost",
            "LocalHost:8000",
            "localhost.",
            "app.localhost:1",
            "127.0.0.1:8000",
            "127.8.9.1",
            "[::1]:8000",
            "[::1]",
            "192.168.1.5",
            "192.168.1.9:8000",
            "STUDIO",
            "studio.local.:80",
            "203.0.113.7:443",
            "media.example",
            "[2001:DB8::7]:",
        ] {
            assert_eq!(asked(&hosts, known), None, "{known}");
        }
        for foreign in ["evil.example", "localhost.evil.example", "notlocalhost", "192.168.1.6", "[2001:db8::8]", "127.0.0.1.evil.example"]
        {
            assert_eq!(asked(&hosts, foreign), Some(ProblemKind::WrongHost), "{foreign}");
        }
        for broken in
            ["", ":80", "a b", "localhost:port", "localhost:99999", "[::1", "[::1]80", "::1", "user@localhost", "local/host", "a..b", "."]
        {
            assert_eq!(asked(&hosts, broken), Some(ProblemKind::BadRequest), "{broken:?}");
        }
    }

    #[test]
    fn a_list_replaces_the_names_of_the_machine_for_browsers_and_not_for_operators() {
        let listed = ["video.example", "*.apps.example", "2001:db8::1"];
        let public = hosts(Listener::Public, &listed);
        for known in ["video.example:443", "Video.Example.", "a.apps.example", "a.b.apps.example", "[2001:db8::1]:8443"] {
            assert_eq!(asked(&public, known), None, "{known}");
        }
        for foreign in ["localhost", "127.0.0.1", "apps.example", "xapps.example", "www.video.example"] {
            assert_eq!(asked(&public, foreign), Some(ProblemKind::WrongHost), "{foreign}");
        }
        let admin = hosts(Listener::Admin, &listed);
        assert_eq!((asked(&admin, "localhost"), asked(&admin, "192.168.1.5"), asked(&admin, "video.example")), (None, None, None));
        assert_eq!(asked(&admin, "evil.example"), Some(ProblemKind::WrongHost));
        assert_eq!(asked(&hosts(Listener::Public, &["*"]), "anything.example"), None);
    }

    #[test]
    fn a_request_names_one_host_and_probes_need_none() {
        let hosts = hosts(Listener::Public, &[]);
        let check = |target: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|line| _ = headers.append(header::HOST, line.parse().unwrap()));
            hosts.check(&target.parse().unwrap(), &headers, None).err().map(|problem| problem.kind)
        };
        assert_eq!(check("/", &[]), Some(ProblemKind::BadRequest));
        assert_eq!(check("/", &["localhost", "localhost"]), Some(ProblemKind::BadRequest));
        assert_eq!(check("http://localhost/", &["localhost"]), None);
        assert_eq!(check("http://evil.example/", &["localhost"]), Some(ProblemKind::BadRequest));
        assert_eq!(check("http://evil.example/", &["evil.example"]), Some(ProblemKind::WrongHost));
        assert_eq!((check("/healthz", &[]), check("/readyz", &["10.0.0.3:8000"])), (None, None));
        assert_eq!(check("/metrics", &["webrtc:8000"]), Some(ProblemKind::WrongHost));
        let admin = super::Hosts { listener: Listener::Admin, ..hosts };
        let metrics = |lines: &[(header::HeaderName, &str)]| {
            let headers = lines.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            admin.check(&Uri::from_static("/metrics"), &headers, None).err().map(|problem| problem.kind)
        };
        let from_a_page = (header::HeaderName::from_static("sec-fetch-site"), "same-origin");
        let from_a_rebound_name = (header::ACCEPT_LANGUAGE, "en");
        assert_eq!((metrics(&[]), metrics(&[(header::HOST, "webrtc:9000")])), (None, None), "scrapers");
        assert_eq!(metrics(&[(header::HOST, "evil.example"), from_a_page.clone()]), Some(ProblemKind::WrongHost));
        assert_eq!(metrics(&[(header::HOST, "evil.example"), from_a_rebound_name]), Some(ProblemKind::WrongHost));
        assert_eq!(metrics(&[(header::HOST, "localhost:9000"), from_a_page]), None, "a browser of the operator");
    }
}
