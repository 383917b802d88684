//! Metrics of the pictures of rooms that are sent as JPEG.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::registry::add_new;

/// Metrics of the pictures of rooms that are sent as JPEG.
pub struct StillMetrics {
    /// Open streams of pictures.
    pub streams: Gauge,
    /// Pictures that were encoded.
    pub encoded: Counter,
}

impl StillMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            streams: add_new(r, "mjpeg_streams", "Open streams of JPEG pictures of rooms"),
            encoded: add_new(r, "jpegs_encoded", "Pictures of rooms encoded as JPEG; each counts once, however many clients get it"),
        }
    }
}
