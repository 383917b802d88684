//! Prometheus metrics of the gateway; those of `ooblex worker` are in `worker`. Labels are bounded,
//! and no label names a session.

mod broker;
mod encoders;
mod frames;
mod http;
mod label_sets;
mod network;
mod process;
mod recordings;
mod registry;
mod set_up;
mod stills;
mod viewing;
mod webhooks;
mod worker;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use ooblex_broker::Broker;
use ooblex_pipeline::EffectName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::labels::Reason;
use crate::problem::ProblemKind;
use broker::{BrokerFigures, Told};
pub(crate) use encoders::{EncoderMetrics, RunningEncoder};
use frames::FrameMetrics;
pub use http::HttpFigures;
use label_sets::{EffectLabel, ReasonLabel};
pub use network::{DatagramCounters, Network};
use ooblex_worker::WorkerStats;
use ooblex_worker::about::About;
pub use process::LOST_LOG_LINES;
pub use recordings::RecordingMetrics;
use registry::{add_new, encoded, register_about};
pub use set_up::SetUps;
pub use stills::StillMetrics;
use viewing::Viewings;
pub use webhooks::WebhookMetrics;
pub use worker::WorkerMetrics;

/// Prometheus metrics of the gateway.
pub struct Metrics {
    registry: Registry,
    offers: Family<ResultLabel, Counter>,
    unauthorized: Family<ReasonLabel, Counter>,
    certificate: Certificate,
    /// Beginnings and ends of sessions.
    pub set_ups: SetUps,
    pub(crate) viewings: Viewings,
    /// Packets and bitrates.
    pub network: Network,
    http: HttpFigures,
    pub(crate) frames: FrameMetrics,
    pub(crate) encoders: EncoderMetrics,
    /// What others are told and shown over HTTP, and recordings.
    pub feeds: FeedMetrics,
    told: Told,
}

/// Returns the remaining validity of a certificate in days.
type DaysLeft = Box<dyn Fn() -> f64 + Send + Sync>;

struct Certificate {
    source: OnceLock<DaysLeft>,
    days_left: Gauge<f64, AtomicU64>,
}

/// Metrics of what others are told and shown over HTTP, and of recordings.
pub struct FeedMetrics {
    pub(crate) events: EventMetrics,
    /// Recordings of rooms.
    pub recordings: RecordingMetrics,
    /// Pictures of rooms as JPEG.
    pub stills: StillMetrics,
    /// Webhooks.
    pub webhooks: WebhookMetrics,
}

/// Metrics of the streams of session events.
pub(crate) struct EventMetrics {
    pub(crate) readers: Gauge,
    pub(crate) lost: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

impl Metrics {
    /// Creates the metrics with all values at zero. `effects` are the effects whose frames go to
    /// workers, and `worker_stats` counts the work of this process's own workers, if there are any.
    pub fn new(about: &About, broker: &Broker, effects: &[EffectName], worker_stats: Option<&WorkerStats>) -> Self {
        let mut registry = Registry::with_prefix("ooblex");
        let r = &mut registry;
        register_about(r, about);
        let (http, told) = (HttpFigures::default(), Told::default());
        http.register(r);
        told.set(effects);
        r.register_collector(Box::new(BrokerFigures::new(broker, &told)));
        if let Some(worker_stats) = worker_stats {
            worker_stats.register(r);
        }
        let metrics = Self {
            offers: add_new(r, "offers", "SDP offers, by result: accepted, or the type of the problem"),
            unauthorized: add_new(r, "unauthorized", "Requests refused because they were not authorized, by reason"),
            certificate: Certificate {
                source: OnceLock::new(),
                days_left: add_new(
                    r,
                    "certificate_days_left",
                    "Days until the certificate of serve.tls_certificate expires; infinite without one, such as behind a proxy",
                ),
            },
            set_ups: SetUps::new(r),
            viewings: Viewings::new(r),
            network: Network::new(r),
            http,
            frames: FrameMetrics::new(r),
            encoders: EncoderMetrics::new(r),
            feeds: FeedMetrics {
                events: EventMetrics {
                    readers: add_new(r, "event_readers", "Open HTTP streams of session events"),
                    lost: add_new(r, "events_lost", "Session events dropped because their reader was too slow"),
                },
                recordings: RecordingMetrics::new(r),
                stills: StillMetrics::new(r),
                webhooks: WebhookMetrics::new(r),
            },
            told,
            registry,
        };
        // All known label values start at zero, so that rates include the first event.
        for reason in Reason::ALL {
            drop(metrics.unauthorized.get_or_create(&ReasonLabel { reason: reason.label() }));
        }
        for result in ProblemKind::OF_OFFERS.into_iter().map(ProblemKind::slug).chain([ACCEPTED]) {
            drop(metrics.offers.get_or_create(&ResultLabel { result }));
        }
        metrics
    }

    /// Creates the label values of all available effects at zero, and sets the limit of sessions.
    pub fn know(&self, effects: impl Iterator<Item = EffectName>, sessions_limit: usize) {
        self.set_ups.limit.set(sessions_limit as i64);
        for effect in effects {
            let label = EffectLabel { effect: effect.to_string() };
            drop(self.frames.shown.get_or_create(&label));
            drop(self.set_ups.by_effect.get_or_create(&label));
            self.viewings.know(effect.as_str());
        }
    }

    /// Replaces the effects whose frames go to workers.
    pub fn know_analysed(&self, effects: &[EffectName]) {
        self.told.set(effects);
    }

    /// Sets the source of the remaining validity, in days, of the HTTPS certificate of this process.
    pub fn watch_certificate(&self, days_left: impl Fn() -> f64 + Send + Sync + 'static) {
        _ = self.certificate.source.set(Box::new(days_left));
    }

    /// Returns the metrics of the HTTP server.
    pub fn http(&self) -> &HttpFigures {
        &self.http
    }

    /// Encodes the metrics in the OpenMetrics text format. `sessions` is the number of sessions by
    /// requested effect, and `viewers` that of the sessions that watch rooms.
    pub fn encode(&self, sessions: &BTreeMap<EffectName, usize>, viewers: usize) -> String {
        self.certificate.days_left.set(self.certificate.source.get().map_or(f64::INFINITY, |days_left| days_left()));
        self.set_ups.running.set(sessions.values().sum::<usize>() as i64);
        self.set_ups.viewers.set(viewers as i64);
        for (effect, count) in sessions {
            self.set_ups.by_effect.get_or_create(&EffectLabel { effect: effect.to_string() }).set(*count as i64);
        }
        encoded(&self.registry)
    }

    /// Counts an accepted offer, or one that was refused because of a problem.
    pub fn on_offer(&self, refused: Option<ProblemKind>) {
        let result = refused.map_or(ACCEPTED, ProblemKind::slug);
        self.offers.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a request that was refused because it was not authorized.
    pub fn on_unauthorized(&self, reason: Reason) {
        self.unauthorized.get_or_create(&ReasonLabel { reason: reason.label() }).inc();
    }
}

/// Label value of an accepted offer.
const ACCEPTED: &str = "accepted";
