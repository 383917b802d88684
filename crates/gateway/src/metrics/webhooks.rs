//! Metrics of webhooks.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::label_sets::ReasonLabel;
use super::registry::add_new;

/// Metrics of webhooks, of all receivers together.
pub struct WebhookMetrics {
    /// Messages that a receiver has accepted.
    pub delivered: Counter,
    /// Attempts that have failed.
    pub failed: Counter,
    /// Messages that wait.
    pub waiting: Gauge,
    dropped: Family<ReasonLabel, Counter>,
}

impl WebhookMetrics {
    /// Reason of a message that had to go because too many waited.
    pub const FULL: &str = "full";
    /// Reason of a message that was too old.
    pub const EXPIRED: &str = "expired";

    pub(super) fn new(r: &mut Registry) -> Self {
        let metrics = Self {
            delivered: add_new(r, "webhooks_delivered", "Webhook messages that their receiver accepted"),
            failed: add_new(r, "webhooks_failed", "Attempts to send a webhook message that failed; it is sent again"),
            waiting: add_new(r, "webhooks_waiting", "Webhook messages that wait for their receiver"),
            dropped: add_new(r, "webhooks_dropped", "Webhook messages that were never delivered, by reason"),
        };
        for reason in [Self::FULL, Self::EXPIRED] {
            drop(metrics.dropped.get_or_create(&ReasonLabel { reason }));
        }
        metrics
    }

    /// Counts messages that are never delivered.
    pub fn on_dropped(&self, reason: &'static str, count: usize) {
        self.dropped.get_or_create(&ReasonLabel { reason }).inc_by(count as u64);
    }
}
