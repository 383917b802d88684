//! What all tracks share.

use std::sync::Arc;

use ooblex_broker::Broker;

use crate::config::Config;
use crate::cores::Cores;
use crate::metrics::Metrics;
use crate::settings::Catalogue;
use crate::shares::Shares;

/// What all tracks share.
pub struct Context {
    /// Where frames are analysed.
    pub broker: Broker,
    /// What can be asked for.
    pub catalogue: Arc<Catalogue>,
    /// For Prometheus.
    pub metrics: Arc<Metrics>,
    /// What tracks compute on.
    pub cores: Arc<Cores>,
    /// How much of them each may use.
    pub shares: Shares,
    /// What the operator set.
    pub config: Config,
}
