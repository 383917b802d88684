//! The parts of the gateway that all tracks share.

use std::sync::Arc;

use ooblex_broker::Broker;

use crate::cpu::{CpuScheduler, CpuShares};
use crate::ids::SessionId;
use crate::metrics::Metrics;
use crate::settings::Catalogue;
use ooblex_config::Config;

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

impl Context {
    /// Closes the branches of a track: workers need not analyse its frames any more.
    pub(super) fn close_branches(&self, id: SessionId) {
        id.branches().for_each(|branch| self.broker.close_track(branch));
    }
}
