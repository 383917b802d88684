//! Session metrics: the time of each set-up step, the step at which failed sessions stop, and how
//! sessions end.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::label_sets::{CauseLabel, EffectLabel, ReasonLabel};
use super::registry::{add_histogram, add_new};
use crate::labels::{EndReason, SetupStage};

/// Bucket bounds of set-up times, in seconds.
const WAITING: [f64; 10] = [0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Bucket bounds of session durations, in seconds.
const LASTING: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4.0 * 3600.0, 24.0 * 3600.0];

/// Metrics of the beginning and end of all sessions.
pub struct SetUps {
    pub(super) running: Gauge,
    pub(super) viewers: Gauge,
    pub(super) by_effect: Family<EffectLabel, Gauge>,
    connected: Counter,
    ended: Family<ReasonLabel, Counter>,
    failures: Family<CauseLabel, Counter>,
    connecting: Histogram,
    first_picture: Histogram,
    lasting: Histogram,
    pub(super) limit: Gauge,
}

impl SetUps {
    pub(super) fn new(r: &mut Registry) -> Self {
        let set_ups = Self {
            running: add_new(r, "sessions", "Running sessions"),
            viewers: add_new(r, "viewers", "Running sessions that watch a room"),
            by_effect: add_new(r, "effect_sessions", "Running sessions, by requested effect"),
            connected: add_new(r, "sessions_connected", "Sessions that were connected"),
            ended: add_new(r, "sessions_ended", "Sessions that ended, by reason"),
            failures: add_new(r, "session_setup_failures", "Sessions that were never connected, by cause"),
            connecting: add_histogram(r, "session_connect_seconds", "Time from the answer to an offer to the connection", WAITING),
            first_picture: add_histogram(
                r,
                "session_first_picture_seconds",
                "Time from the connection to the first processed picture",
                WAITING,
            ),
            lasting: add_histogram(r, "session_duration_seconds", "Time from the connection of a session to its end", LASTING),
            limit: add_new(r, "sessions_limit", "Maximum number of concurrent sessions (limits.sessions)"),
        };
        for end in EndReason::ALL {
            drop(set_ups.ended.get_or_create(&ReasonLabel { reason: end.label() }));
        }
        for cause in SetupStage::ALL.into_iter().filter_map(SetupStage::failure) {
            drop(set_ups.failures.get_or_create(&CauseLabel { cause }));
        }
        set_ups
    }

    /// Counts a session that was connected this long after the answer to its offer.
    pub fn on_connected(&self, after: Duration) {
        self.connected.inc();
        self.connecting.observe(after.as_secs_f64());
    }

    pub(crate) fn on_first_picture(&self, after: Duration) {
        self.first_picture.observe(after.as_secs_f64());
    }

    /// Counts the end of a session. `failed` is the last set-up step of a session that was never
    /// connected; `lasted` is the time since the connection.
    pub fn on_end(&self, end: EndReason, failed: Option<SetupStage>, lasted: Option<Duration>) {
        self.ended.get_or_create(&ReasonLabel { reason: end.label() }).inc();
        if let Some(lasted) = lasted {
            self.lasting.observe(lasted.as_secs_f64());
        }
        if let Some(cause) = failed.and_then(SetupStage::failure) {
            self.failures.get_or_create(&CauseLabel { cause }).inc();
        }
    }
}
