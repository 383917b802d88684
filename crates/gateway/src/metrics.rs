//! Prometheus metrics of the gateway; those of `ooblex worker` are in `worker`. Labels are bounded,
//! and no label names a session.

mod broker;
mod http;
mod label_sets;
mod network;
mod process;
mod registry;
mod set_up;
mod viewing;
mod worker;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ooblex_broker::Broker;
use ooblex_codec::Undecodable;
use ooblex_pipeline::{DropReason, EffectName, FrameCounts};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::labels::{Direction, EndReason, LineCounts, QUALITY_STEPS, Reason, SetupStage, Stage, Viewing};
use crate::problem::ProblemKind;
use broker::{BrokerFigures, Told};
pub use http::HttpFigures;
use label_sets::{EffectLabel, ReasonLabel};
use network::Network;
use ooblex_worker::WorkerStats;
use ooblex_worker::about::About;
pub use process::LOST_LOG_LINES;
use registry::{encoded, register_about};
use set_up::SetUps;
use viewing::Viewings;
pub use worker::WorkerMetrics;

/// Returns the remaining validity of a certificate in days.
type DaysLeft = Box<dyn Fn() -> f64 + Send + Sync>;

/// Prometheus metrics of the gateway.
pub struct Metrics {
    registry: Registry,
    offers: Family<ResultLabel, Counter>,
    unauthorized: Family<ReasonLabel, Counter>,
    certificate: OnceLock<DaysLeft>,
    certificate_days_left: Gauge<f64, AtomicU64>,
    sessions_limit: Gauge,
    set_ups: SetUps,
    viewings: Viewings,
    network: Network,
    http: HttpFigures,
    frames_received: Counter,
    frames_admitted: Counter,
    frames_analysed: Counter,
    frames_shown: Family<EffectLabel, Counter>,
    frames_reused: Counter,
    frames_dropped: Family<ReasonLabel, Counter>,
    frames_undecodable: Family<ReasonLabel, Counter>,
    frames_lost: Counter,
    placeholders: Counter,
    analyses_late: Counter,
    stages: Family<StageLabel, Histogram, fn() -> Histogram>,
    residence: Histogram,
    keyframes_wanted: Counter,
    keyframes_asked: Counter,
    stray_datagrams: Counter,
    refused_datagrams: Counter,
    unsent_datagrams: Counter,
    unauthenticated_datagrams: Counter,
    withheld_datagrams: Counter,
    adaptations: Family<AdaptationLabel, Counter>,
    event_readers: Gauge,
    events_lost: Counter,
    told: Told,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AdaptationLabel {
    step: &'static str,
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

impl Metrics {
    /// Creates the metrics with all values at zero. `effects` are the effects whose frames go to
    /// workers, and `worker_stats` counts the work of this process's own workers, if there are any.
    pub fn new(about: &About, broker: &Broker, effects: &[EffectName], worker_stats: Option<&WorkerStats>) -> Self {
        let stages: Family<_, _, fn() -> Histogram> = Family::new_with_constructor(|| Histogram::new(ooblex_worker::LATENCY_BUCKETS_S));
        let mut metrics = Self {
            registry: Registry::with_prefix("ooblex"),
            offers: Family::default(),
            unauthorized: Family::default(),
            certificate: OnceLock::new(),
            certificate_days_left: Gauge::default(),
            sessions_limit: Gauge::default(),
            set_ups: SetUps::new(),
            viewings: Viewings::new(),
            network: Network::new(),
            http: HttpFigures::default(),
            frames_received: Counter::default(),
            frames_admitted: Counter::default(),
            frames_analysed: Counter::default(),
            frames_shown: Family::default(),
            frames_reused: Counter::default(),
            frames_dropped: Family::default(),
            frames_undecodable: Family::default(),
            frames_lost: Counter::default(),
            placeholders: Counter::default(),
            analyses_late: Counter::default(),
            stages,
            residence: Histogram::new(ooblex_worker::LATENCY_BUCKETS_S),
            keyframes_wanted: Counter::default(),
            keyframes_asked: Counter::default(),
            stray_datagrams: Counter::default(),
            refused_datagrams: Counter::default(),
            unsent_datagrams: Counter::default(),
            unauthenticated_datagrams: Counter::default(),
            withheld_datagrams: Counter::default(),
            adaptations: Family::default(),
            event_readers: Gauge::default(),
            events_lost: Counter::default(),
            told: Told::default(),
        };
        register_about(&mut metrics.registry, about);
        metrics.register();
        metrics.begin_at_zero();
        metrics.told.set(effects);
        metrics.registry.register_collector(Box::new(BrokerFigures::new(broker, &metrics.told)));
        if let Some(worker_stats) = worker_stats {
            worker_stats.register(&mut metrics.registry);
        }
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("offers", "SDP offers, by result: accepted, or the type of the problem", self.offers.clone());
        r.register("unauthorized", "Requests refused because they were not authorized, by reason", self.unauthorized.clone());
        self.set_ups.register(r);
        r.register("sessions_limit", "Maximum number of concurrent sessions (limits.sessions)", self.sessions_limit.clone());
        let help = "Days until the certificate of serve.tls_certificate expires; infinite without one, such as behind a proxy";
        r.register("certificate_days_left", help, self.certificate_days_left.clone());
        self.viewings.register(r);
        self.network.register(r);
        self.http.register(r);
        r.register("frames_received", "Encoded frames received completely", self.frames_received.clone());
        r.register("frames_admitted", "Frames decoded and admitted to the pipeline", self.frames_admitted.clone());
        r.register("frames_analysed", "Frames whose analysis was returned, in time or not", self.frames_analysed.clone());
        r.register("frames_shown", "Processed frames sent to browsers, by effect", self.frames_shown.clone());
        r.register("frames_reused", "Processed frames sent that used the analysis of an earlier frame", self.frames_reused.clone());
        r.register("frames_dropped", "Admitted frames that were dropped, by reason", self.frames_dropped.clone());
        r.register("frames_undecodable", "Encoded frames that were not decoded, by reason", self.frames_undecodable.clone());
        r.register(
            "frames_lost",
            "Encoded frames dropped because their track was overloaded (queue full, or waited too long)",
            self.frames_lost.clone(),
        );
        r.register(
            "placeholders",
            "Placeholder or held pictures sent because no processed picture was available",
            self.placeholders.clone(),
        );
        r.register("analyses_late", "Analyses returned too late for their frame", self.analyses_late.clone());
        r.register("stage_duration_seconds", "Time of a frame in each stage of the pipeline", self.stages.clone());
        r.register("residence_seconds", "Time from the last received packet of a frame to its first sent packet", self.residence.clone());
        r.register("keyframes_wanted", "Keyframe requests received from browsers", self.keyframes_wanted.clone());
        r.register("keyframes_asked", "Keyframe requests sent to browsers", self.keyframes_asked.clone());
        r.register("datagrams_stray", "Datagrams dropped because they belong to no session", self.stray_datagrams.clone());
        r.register("datagrams_refused", "Datagrams dropped because their session exceeded a limit", self.refused_datagrams.clone());
        r.register("datagrams_unsent", "Datagrams that the operating system did not accept for sending", self.unsent_datagrams.clone());
        let help = "Datagrams for a connected session that failed authentication";
        r.register("datagrams_unauthenticated", help, self.unauthenticated_datagrams.clone());
        let help = "Datagrams not sent because their destination was not validated as the browser's address";
        r.register("datagrams_withheld", help, self.withheld_datagrams.clone());
        r.register("adaptations", "Quality steps that tracks made down because of CPU overload, or up again", self.adaptations.clone());
        r.register("event_readers", "Open HTTP streams of session events", self.event_readers.clone());
        r.register("events_lost", "Session events dropped because their reader was too slow", self.events_lost.clone());
    }

    /// Creates all known label values at zero, so that rates include the first event.
    fn begin_at_zero(&self) {
        for (step, direction) in QUALITY_STEPS.into_iter().flat_map(|step| [(step.label(), "down"), (step.label(), "up")]) {
            drop(self.adaptations.get_or_create(&AdaptationLabel { step, direction }));
        }
        for reason in DropReason::ALL {
            drop(self.frames_dropped.get_or_create(&ReasonLabel { reason: reason.label() }));
        }
        for reason in Undecodable::LABELS {
            drop(self.frames_undecodable.get_or_create(&ReasonLabel { reason }));
        }
        for stage in Stage::ALL {
            drop(self.stages.get_or_create(&StageLabel { stage: stage.label() }));
        }
        for reason in Reason::ALL {
            drop(self.unauthorized.get_or_create(&ReasonLabel { reason: reason.label() }));
        }
        for result in ProblemKind::OF_OFFERS.into_iter().map(ProblemKind::slug).chain([ACCEPTED]) {
            drop(self.offers.get_or_create(&ResultLabel { result }));
        }
    }

    /// Creates the label values of all available effects at zero, and sets the limit of sessions.
    pub fn know(&self, effects: impl Iterator<Item = EffectName>, sessions_limit: usize) {
        self.sessions_limit.set(sessions_limit as i64);
        for effect in effects {
            let label = EffectLabel { effect: effect.to_string() };
            drop(self.frames_shown.get_or_create(&label));
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
        _ = self.certificate.set(Box::new(days_left));
    }

    /// Returns the metrics of the HTTP server.
    pub fn http(&self) -> &HttpFigures {
        &self.http
    }

    /// Encodes the metrics in the OpenMetrics text format. `sessions` is the number of sessions by
    /// requested effect.
    pub fn encode(&self, sessions: &BTreeMap<EffectName, usize>) -> String {
        self.certificate_days_left.set(self.certificate.get().map_or(f64::INFINITY, |days_left| days_left()));
        self.set_ups.running.set(sessions.values().sum::<usize>() as i64);
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

    pub(crate) fn on_connected(&self, after: Duration) {
        self.set_ups.on_connected(after);
    }

    pub(crate) fn on_first_picture(&self, after: Duration) {
        self.set_ups.on_first_picture(after);
    }

    /// Counts the end of a session. `failed` is the last set-up step of a session that was never
    /// connected; `lasted` is the time since the connection.
    pub fn on_session_end(&self, end: EndReason, failed: Option<SetupStage>, lasted: Option<Duration>) {
        self.set_ups.on_end(end, failed, lasted);
    }

    pub(crate) fn on_second(&self, effect: &str, viewing: &Viewing) {
        self.viewings.on_second(effect, viewing);
    }

    pub(crate) fn on_line(&self, direction: Direction, before: &LineCounts, now: &LineCounts) {
        self.network.on_line(direction, before, now);
    }

    pub(crate) fn on_round_trip(&self, took: Duration) {
        self.network.on_round_trip(took);
    }

    pub(crate) fn on_bitrates(&self, target_bps: Option<u32>, estimate_bps: Option<u32>) {
        self.network.on_bitrates(target_bps, estimate_bps);
    }

    /// Counts a change of the sent picture size; `down` is true if the picture becomes smaller.
    pub fn on_size_step(&self, down: bool) {
        self.network.on_size_step(down);
    }

    pub(crate) fn on_received(&self) {
        self.frames_received.inc();
    }

    /// Adds the difference between two frame counts of a track.
    pub fn on_frames(&self, effect: &str, before: &FrameCounts, now: &FrameCounts) {
        self.frames_admitted.inc_by(now.admitted - before.admitted);
        self.frames_shown.get_or_create(&EffectLabel { effect: effect.into() }).inc_by(now.shown - before.shown);
        self.frames_analysed.inc_by(now.analysed - before.analysed);
        self.frames_reused.inc_by(now.reused - before.reused);
        self.analyses_late.inc_by(now.late - before.late);
        for reason in DropReason::ALL {
            let dropped = now.dropped(reason) - before.dropped(reason);
            if dropped > 0 {
                self.frames_dropped.get_or_create(&ReasonLabel { reason: reason.label() }).inc_by(dropped);
            }
        }
    }

    pub(crate) fn on_stage(&self, stage: Stage, took: Duration) {
        self.stages.get_or_create(&StageLabel { stage: stage.label() }).observe(took.as_secs_f64());
    }

    pub(crate) fn on_residence(&self, residence: Duration) {
        self.residence.observe(residence.as_secs_f64());
    }

    pub(crate) fn on_undecodable(&self, why: &Undecodable) {
        self.frames_undecodable.get_or_create(&ReasonLabel { reason: why.label() }).inc();
    }

    pub(crate) fn on_lost_frame(&self) {
        self.frames_lost.inc();
    }

    pub(crate) fn on_placeholder(&self) {
        self.placeholders.inc();
    }

    pub(crate) fn on_keyframe_wanted(&self) {
        self.keyframes_wanted.inc();
    }

    pub(crate) fn on_keyframe_asked(&self) {
        self.keyframes_asked.inc();
    }

    pub(crate) fn on_refused_datagram(&self) {
        self.refused_datagrams.inc();
    }

    pub(crate) fn on_stray_datagram(&self) {
        self.stray_datagrams.inc();
    }

    pub(crate) fn on_adaptation(&self, step: &'static str, direction: &'static str) {
        self.adaptations.get_or_create(&AdaptationLabel { step, direction }).inc();
    }

    pub(crate) fn on_unsent_datagram(&self) {
        self.unsent_datagrams.inc();
    }

    pub(crate) fn on_unauthenticated_datagram(&self) {
        self.unauthenticated_datagrams.inc();
    }

    pub(crate) fn on_withheld_datagram(&self) {
        self.withheld_datagrams.inc();
    }

    /// Counts a reader of events that has come (`came`) or gone.
    pub fn on_reader(&self, came: bool) {
        self.event_readers.inc_by(if came { 1 } else { -1 });
    }

    pub(crate) fn on_lost_events(&self, lost: u64) {
        self.events_lost.inc_by(lost);
    }
}

/// Label value of an accepted offer.
const ACCEPTED: &str = "accepted";
