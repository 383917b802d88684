//! What all tracks share.

use std::sync::Arc;

use ooblex_broker::Broker;

use crate::config::Config;
use crate::cpu::{CpuScheduler, CpuShares};
use crate::metrics::Metrics;
use crate::settings::Catalogue;

/// What all tracks share.
pub struct Context {
    /// Where frames are analysed.
    pub broker: Broker,
    /// What can be asked for.
    pub catalogue: Arc<Catalogue>,
    /// For Prometheus.
    pub metrics: Arc<Metrics>,
    /// The permits to compute, which all tracks share.
    pub scheduler: Arc<CpuScheduler>,
    /// The share of the cores that each track may use.
    pub shares: CpuShares,
    /// What the operator set.
    pub config: Config,
}
