//! Prometheus metrics of `ooblex worker`: its threads, their frames, and its broker.

use ooblex_broker::Broker;
use ooblex_pipeline::EffectName;
use prometheus_client::registry::Registry;

use super::broker::{BrokerFigures, Told};
use super::registry::{encoded, register_about};
use ooblex_worker::WorkerStats;
use ooblex_worker::about::About;

/// Prometheus metrics of a process that only runs models.
pub struct WorkerMetrics {
    registry: Registry,
    told: Told,
}

impl WorkerMetrics {
    /// Creates the metrics. `effects` are all effects whose frames go to workers, in this process
    /// or in another.
    pub fn new(about: &About, broker: &Broker, effects: &[EffectName], worker_stats: &WorkerStats) -> Self {
        let mut registry = Registry::with_prefix("ooblex");
        register_about(&mut registry, about);
        worker_stats.register(&mut registry);
        let told = Told::default();
        told.set(effects);
        registry.register_collector(Box::new(BrokerFigures::new(broker, &told)));
        Self { registry, told }
    }

    /// Replaces the effects whose frames go to workers.
    pub fn know(&self, effects: &[EffectName]) {
        self.told.set(effects);
    }

    /// Encodes the metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        encoded(&self.registry)
    }
}
