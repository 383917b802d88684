//! Allowed origins: pages that the gateway serves, and pages of other hosts that the operator
//! allows.
//!
//! Browsers send requests on behalf of any page and name the page in `Origin`. The gateway refuses
//! changes from foreign origins. Reads are left to the browser, which hides the response from a
//! foreign page (CORS).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use ipnet::IpNet;
use tower_http::cors::{AllowCredentials, AllowOrigin, AllowPrivateNetwork, CorsLayer};

use super::hosts::{Hosts, requested};
use crate::visitor::Peer;
use ooblex_config::Serve;
use ooblex_config::authority::Authority;
use ooblex_gateway::metrics::HttpFigures;
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Response headers that pages of other origins may read.
const EXPOSED: [HeaderName; 6] =
    [header::RETRY_AFTER, header::WWW_AUTHENTICATE, header::LOCATION, header::ETAG, header::LINK, HeaderName::from_static("accept-patch")];
/// Time for which a browser may cache the answer to a preflight request.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The origins that may call the API.
#[derive(Clone)]
pub(super) struct Origins {
    /// Allowed foreign origins, as browsers write them.
    named: Arc<[String]>,
    /// True if every origin is allowed (`*`).
    any: bool,
    /// True if browsers may send credentials for the origins in `named`.
    allow_credentials: bool,
    trusted_proxies: Arc<[IpNet]>,
    hosts: Arc<Hosts>,
    figures: HttpFigures,
}

impl Origins {
    pub(super) fn new(serve: &Serve, hosts: Arc<Hosts>, figures: HttpFigures) -> Self {
        Self {
            named: serve.allow_origins.iter().filter(|origin| *origin != "*").cloned().collect(),
            any: serve.allow_origins.iter().any(|origin| origin == "*"),
            allow_credentials: serve.allow_credentials,
            trusted_proxies: serve.trusted_proxies.clone().into(),
            hosts,
            figures,
        }
    }

    /// Returns these origins without `*`, for routes about all sessions.
    pub(super) fn named_only(&self) -> Self {
        Self { any: false, ..self.clone() }
    }

    /// Wraps `routes` so that only these origins may call them, with CORS headers.
    pub(super) fn guard<S: Clone + Send + Sync + 'static>(&self, routes: Router<S>) -> Router<S> {
        let (origins, named) = (self.clone(), self.clone());
        let cors = CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, _: &Parts| origins.allows(origin)))
            .allow_credentials(AllowCredentials::predicate(move |origin, _: &Parts| named.allow_credentials && named.names(origin)))
            .allow_methods([Method::OPTIONS, Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE])
            .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_MATCH])
            .expose_headers(EXPOSED)
            .allow_private_network(AllowPrivateNetwork::yes())
            .max_age(REMEMBERED);
        routes.layer(cors).layer(from_fn_with_state(Arc::new(self.clone()), own_and_allowed_only))
    }

    fn names(&self, origin: &HeaderValue) -> bool {
        self.named.iter().any(|named| named.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.any || self.names(origin)
    }

    /// Returns whether the gateway itself served the page of `origin`. The scheme is ignored, since
    /// a proxy may terminate HTTPS for the gateway.
    fn is_own(&self, origin: &HeaderValue, uri: &Uri, headers: &HeaderMap, peer: Peer) -> bool {
        let parsed = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let Some((scheme, Authority { host, port })) = parsed.and_then(|(scheme, rest)| Some((scheme, Authority::parse(rest)?))) else {
            return false;
        };
        let default = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return false,
        };
        let port = port.unwrap_or(default);
        // A trusted proxy that rewrites Host sends the original name in X-Forwarded-Host. It counts
        // only if it is one of the gateway's names.
        let is_trusted = self.trusted_proxies.iter().any(|net| net.contains(&peer.0));
        let passed_on = headers.get_all(X_FORWARDED_HOST).iter().filter(|_| is_trusted);
        let passed_on = passed_on.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        let passed_on = passed_on.filter_map(|one| Authority::parse(one.trim())).filter(|one| self.hosts.accepts(&one.host, None));
        let mut names = requested(uri, headers).into_iter().chain(passed_on);
        // A host without a port means the default port of its scheme, which is not known here.
        names.any(|name| name.host == host && name.port.map_or([80, 443].contains(&port), |own| own == port))
    }

    fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap, peer: Peer) -> Result<(), Problem> {
        let refused = |who: &str| {
            let detail = format!(
                "{who} may not ask for this: name its origin in serve.allow_origins; if it is this gateway's own page behind a proxy, let the \
                 proxy pass Host on"
            );
            Err(Problem::new(ProblemKind::ForeignOrigin, detail))
        };
        let is_preflight = method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight && [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
            return Ok(());
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) if headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site") => refused("a page of another host"),
            // The client is not a browser.
            (None, _) => Ok(()),
            (Some(origin), None) if self.allows(origin) || self.is_own(origin, uri, headers, peer) => Ok(()),
            (Some(origin), _) => refused(&format!("a page of {:.80}", String::from_utf8_lossy(origin.as_bytes()))),
        }
    }
}

async fn own_and_allowed_only(
    State(origins): State<Arc<Origins>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let checked = origins.check(request.method(), request.uri(), request.headers(), peer);
    checked.inspect_err(|problem| origins.figures.on_refused_request(problem.kind))?;
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visitor::Listener;
    use ooblex_config::Config;

    fn origins(allowed: &[&str]) -> Origins {
        let mut config = Config::default();
        config.serve.allow_origins = allowed.iter().map(ToString::to_string).collect();
        config.serve.hosts = vec!["video.example".into()];
        let hosts = Hosts::new(Listener::Public, &config, &[], None, HttpFigures::default());
        Origins::new(&config.serve, Arc::new(hosts), HttpFigures::default())
    }

    /// Returns whether changes with these headers are accepted from `peer`.
    fn passes(origins: &Origins, peer: &str, headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| _ = map.append(*name, value.parse().unwrap()));
        let peer = Peer(peer.parse().unwrap());
        let [post, delete, patch] = [Method::POST, Method::DELETE, Method::PATCH]
            .map(|method| origins.check(&method, &Uri::from_static("/offer"), &map, peer).is_ok());
        assert!(post == delete && post == patch);
        assert!(origins.check(&Method::GET, &Uri::from_static("/offer"), &map, peer).is_ok(), "reading is the browser's to refuse");
        post
    }

    #[test]
    fn pages_of_this_gateway_are_its_own_by_every_scheme_and_default_port() {
        let origins = origins(&[]);
        let page = |origin: &str, host: &str| passes(&origins, "192.0.2.1", &[("origin", origin), ("host", host)]);
        for (origin, host) in [
            ("http://127.0.0.1:8000", "127.0.0.1:8000"),
            ("https://video.example", "video.example"),
            ("https://VIDEO.example", "video.example:443"),
            ("http://video.example", "video.example."),
            ("https://video.example:8443", "video.example:8443"),
            ("http://[::1]:8000", "[::1]:8000"),
        ] {
            assert!(page(origin, host), "{origin} at {host}");
        }
        for (origin, host) in [
            ("null", "video.example"),
            ("", "video.example"),
            ("https://evil.example", "video.example"),
            ("https://video.example.evil.example", "video.example"),
            ("https://video.example:8443", "video.example"),
            ("https://video.example", "video.example:80"),
            ("http://localhost:3000", "localhost:8000"),
            ("file://video.example", "video.example"),
            ("https://video.example/path", "video.example"),
        ] {
            assert!(!page(origin, host), "{origin} at {host}");
        }
        assert!(!passes(&origins, "192.0.2.1", &[("origin", "https://video.example")]), "without a host");
    }

    #[test]
    fn pages_of_other_hosts_need_a_name_and_programs_none() {
        let named = origins(&["https://app.example", "http://localhost:3000"]);
        let any = origins(&["*"]);
        let from = |origins: &Origins, origin: &str| passes(origins, "192.0.2.1", &[("host", "video.example"), ("origin", origin)]);
        assert!(from(&named, "https://app.example") && from(&named, "http://localhost:3000"));
        assert!(!from(&named, "http://app.example") && !from(&named, "https://app.example:8443") && !from(&named, "null"));
        assert!(from(&any, "https://anything.example"));
        assert!(!from(&any.named_only(), "https://anything.example"), "what concerns all sessions");
        assert!(passes(&named, "192.0.2.1", &[("host", "video.example")]));
        assert!(!passes(&named, "192.0.2.1", &[("host", "video.example"), ("sec-fetch-site", "cross-site")]));
        assert!(passes(&named, "192.0.2.1", &[("host", "video.example"), ("sec-fetch-site", "same-origin")]));
        let two = [("host", "video.example"), ("origin", "https://app.example"), ("origin", "https://evil.example")];
        assert!(!passes(&named, "192.0.2.1", &two));
    }

    #[test]
    fn a_trusted_proxy_may_pass_on_a_name_of_the_gateway() {
        let origins = origins(&[]);
        let through = |peer: &str, passed_on: &str, origin: &str| {
            passes(&origins, peer, &[("host", "127.0.0.1:8000"), ("x-forwarded-host", passed_on), ("origin", origin)])
        };
        assert!(through("127.0.0.1", "video.example", "https://video.example"));
        assert!(through("127.0.0.1", "video.example:8443, inner.example", "https://video.example:8443"));
        assert!(!through("192.0.2.1", "video.example", "https://video.example"), "nobody trusts this peer");
        assert!(!through("127.0.0.1", "evil.example", "https://evil.example"), "the name is none of the gateway's");
    }
}
