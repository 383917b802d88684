//! The parts of the gateway that all tracks share.

use std::sync::Arc;

use ooblex_broker::Broker;

use crate::config::Config;
use crate::cpu::{CpuScheduler, CpuShares};
use crate::metrics::Metrics;
use crate::settings::Catalogue;

/// The parts of the gateway that all tracks share.
pub struct Context {
    /// The broker, which has frames analysed.
    pub broker: Broker,
    /// The effects that can be chosen.
    pub catalogue: Arc<Catalogue>,
    /// The metrics for Prometheus.
    pub metrics: Arc<Metrics>,
    /// The permits to compute, which all tracks share.
    pub scheduler: Arc<CpuScheduler>,
    /// The share of the cores that each track may use.
    pub shares: CpuShares,
    /// The operator's configuration.
    pub config: Config,
}
