//! Metrics that the broker keeps itself; they are read when Prometheus scrapes.

use std::fmt;
use std::sync::Arc;

use ooblex_broker::Broker;
use ooblex_pipeline::EffectName;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Collector of one broker's metrics.
pub(super) struct BrokerFigures {
    broker: Broker,
    /// Effects for which metrics are reported. Other processes may serve other effects, whose names
    /// are not repeated here.
    effects: Told,
}

/// Effects for which metrics are reported. The list can be replaced while the program runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Arc<Mutex<Vec<EffectName>>>);

impl Told {
    pub(super) fn set(&self, effects: &[EffectName]) {
        *self.0.lock() = effects.to_vec();
    }

    fn all(&self) -> Vec<EffectName> {
        self.0.lock().clone()
    }
}

impl BrokerFigures {
    pub(super) fn new(broker: &Broker, effects: &Told) -> Self {
        Self { broker: broker.clone(), effects: effects.clone() }
    }
}

impl Collector for BrokerFigures {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (capacity, health) = (self.broker.capacity(), self.broker.health());
        let mut gauge = |name: &str, help: &str, value: i64| {
            ConstGauge::new(value).encode(to.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge("workers", "Worker threads that accept frames, in all processes that share the broker", capacity.workers as i64)?;
        gauge(
            "queue_tracks",
            "Tracks whose newest frame waits for a worker, in all processes that share the broker",
            capacity.waiting as i64,
        )?;
        gauge(
            "queue_in_flight",
            "Frames of this process's tracks that wait for a worker or are being analysed",
            capacity.in_flight as i64,
        )?;
        gauge("broker_connected", "1 if frames and results can pass through the broker, otherwise 0", i64::from(health.connected))?;
        gauge(
            "broker_strangers",
            "Processes that share the broker but use another version of its wire format",
            health.incompatible_peers as i64,
        )?;
        let mut counter = |name: &str, help: &str, value: u64| {
            ConstCounter::new(value).encode(to.encode_descriptor(name, help, None, MetricType::Counter)?)
        };
        counter("broker_reconnects", "Reconnections to the broker after a broken connection", health.reconnects)?;
        counter("broker_results_late", "Results that arrived after their frame had been given up", health.late)?;
        counter("broker_turns_requeued", "Tracks whose turn was lost with a worker and that were queued again", health.turns_requeued)?;

        let help = "Longest time that a track of this process has been waiting for a result";
        let longest = to.encode_descriptor("queue_longest_wait_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(capacity.longest_wait.as_secs_f64()).encode(longest)?;
        let help = "Round-trip time of handing frames to Redis; empty with the local broker";
        let mut trips = to.encode_descriptor("broker_round_trip_seconds", help, None, MetricType::Histogram)?;
        let taken = &health.round_trips;
        trips.encode_histogram::<NoLabelSet>(taken.sum().as_secs_f64(), taken.count(), &taken.buckets(), None)?;
        let help = "Total time that all workers have spent on frames";
        let busy = to.encode_descriptor("workers_busy_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(capacity.busy.as_secs_f64()).encode(busy)?;
        let help = "Worker threads that serve an effect, in all processes that share the broker";
        let mut family = to.encode_descriptor("effect_workers", help, None, MetricType::Gauge)?;
        for effect in self.effects.all() {
            let serving = capacity.serving.iter().filter(|(queue, _)| queue.without_version() == effect.as_str());
            let workers: usize = serving.map(|(_, workers)| workers).sum();
            ConstGauge::new(workers as i64).encode(family.encode_family(&[("effect", effect.as_str())])?)?;
        }
        let mut family =
            to.encode_descriptor("broker_errors", "Broker operations that failed, by kind of error", None, MetricType::Counter)?;
        for (kind, count) in health.errors {
            ConstCounter::new(count).encode(family.encode_family(&[("kind", kind)])?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for BrokerFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerFigures").field("effects", &self.effects).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn effects_that_nobody_serves_and_errors_that_did_not_happen_are_told_as_zero() {
        let broker = Broker::local();
        let [blur, faces] = ["blur", "faces"].map(EffectName::new);
        let _seat = broker.join(&[blur.clone(), EffectName::new("of_a_stranger")]);
        let (mut registry, mut text) = (Registry::with_prefix("ooblex"), String::new());
        let told = Told::default();
        told.set(&[blur, faces]);
        registry.register_collector(Box::new(BrokerFigures::new(&broker, &told)));
        encode(&mut text, &registry).unwrap();
        for line in [
            "ooblex_workers 1",
            "ooblex_effect_workers{effect=\"blur\"} 1",
            "ooblex_effect_workers{effect=\"faces\"} 0",
            "ooblex_broker_connected 1",
            "ooblex_broker_reconnects_total 0",
            "ooblex_broker_errors_total{kind=\"full\"} 0",
            "ooblex_broker_results_late_total 0",
            "ooblex_broker_turns_requeued_total 0",
            "ooblex_broker_strangers 0",
            "ooblex_queue_in_flight 0",
            "ooblex_queue_longest_wait_seconds 0.0",
            "ooblex_broker_round_trip_seconds_count 0",
            "ooblex_workers_busy_seconds 0.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("stranger\""));
    }
}
