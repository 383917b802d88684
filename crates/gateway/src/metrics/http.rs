//! HTTP metrics: open connections, and connections and requests that were refused or closed.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::label_sets::ReasonLabel;
use crate::problem::ProblemKind;

/// Reasons for which connections are refused.
const REFUSED: [&str; 3] = ["full", "address", "handshakes"];
/// Reasons for which connections are closed.
const CUT: [&str; 5] = ["handshake", "head", "body", "write", "displaced"];
/// Problems for which requests are refused before routing.
const REQUESTS: [ProblemKind; 3] = [ProblemKind::BadRequest, ProblemKind::WrongHost, ProblemKind::ForeignOrigin];

/// Metrics of an HTTP server. Clones share their counters.
#[derive(Clone)]
pub struct HttpFigures {
    connections: Gauge,
    refused_connections: Family<ReasonLabel, Counter>,
    cut_connections: Family<ReasonLabel, Counter>,
    refused_requests: Family<ReasonLabel, Counter>,
}

impl Default for HttpFigures {
    fn default() -> Self {
        let zero = |reasons: &mut dyn Iterator<Item = &'static str>| {
            let counters = Family::<ReasonLabel, Counter>::default();
            reasons.for_each(|reason| drop(counters.get_or_create(&ReasonLabel { reason })));
            counters
        };
        Self {
            connections: Gauge::default(),
            refused_connections: zero(&mut REFUSED.into_iter()),
            cut_connections: zero(&mut CUT.into_iter()),
            refused_requests: zero(&mut REQUESTS.into_iter().map(ProblemKind::slug)),
        }
    }
}

impl HttpFigures {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("http_connections", "Open HTTP connections on serve.listen", self.connections.clone());
        let help = "HTTP connections refused because a limit was reached, by reason";
        r.register("http_connections_refused", help, self.refused_connections.clone());
        let help = "HTTP connections closed because their client was too slow, by reason";
        r.register("http_connections_cut", help, self.cut_connections.clone());
        let help = "HTTP requests refused because they were malformed or had a wrong Host or Origin, by reason";
        r.register("http_requests_refused", help, self.refused_requests.clone());
    }

    /// Sets the number of open connections.
    pub fn set_connections(&self, open: usize) {
        self.connections.set(open as i64);
    }

    /// Counts a connection for which there was no place.
    pub fn on_refused_connection(&self, reason: &'static str) {
        self.refused_connections.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a connection that was closed because its client was too slow, or to make room.
    pub fn on_cut(&self, reason: &'static str) {
        self.cut_connections.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a request that was refused for its Host or Origin.
    pub fn on_refused_request(&self, kind: ProblemKind) {
        self.refused_requests.get_or_create(&ReasonLabel { reason: kind.slug() }).inc();
    }

    /// Returns the number of connections that were closed for a reason.
    pub fn cut(&self, reason: &'static str) -> u64 {
        self.cut_connections.get_or_create(&ReasonLabel { reason }).get()
    }
}
