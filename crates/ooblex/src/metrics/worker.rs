//! What `ooblex worker` tells Prometheus: its threads, their frames, and its broker.

use ooblex_broker::Broker;
use ooblex_pipeline::EffectName;
use prometheus_client::registry::Registry;

use super::{About, BrokerFigures, encoded, register_about};
use crate::workers::Ledger;

/// The metrics of a process that only runs models.
pub struct WorkerMetrics(Registry);

impl WorkerMetrics {
    /// `effects`: all whose frames go to workers, here or elsewhere.
    pub fn new(about: &About, broker: &Broker, effects: &[EffectName], ledger: &Ledger) -> Self {
        let mut registry = Registry::with_prefix("ooblex");
        register_about(&mut registry, about);
        ledger.register(&mut registry);
        registry.register_collector(Box::new(BrokerFigures::new(broker, effects)));
        Self(registry)
    }

    /// In the OpenMetrics text format.
    pub fn encode(&self) -> String {
        encoded(&self.0)
    }
}
