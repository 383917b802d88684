//! Metrics of recordings.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::registry::add_new;

/// Metrics of all recordings.
pub struct RecordingMetrics {
    /// Recordings that run.
    pub running: Gauge,
    /// Files that were completed.
    pub files: Counter,
    /// Bytes written.
    pub bytes: Counter,
    /// Pictures and packets of sound that the queue of a recording had no place for.
    pub dropped: Counter,
    /// Recordings that ended because a file could not be written.
    pub failed: Counter,
    /// Files that were removed.
    pub removed: Counter,
}

impl RecordingMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            running: add_new(r, "recordings", "Running recordings of rooms"),
            files: add_new(r, "recording_files", "Files of recordings that were completed"),
            bytes: add_new(r, "recording_bytes", "Bytes written to files of recordings"),
            dropped: add_new(r, "recording_drops", "Pictures and packets of sound that were not recorded because the disk was too slow"),
            failed: add_new(r, "recording_failures", "Recordings that ended because a file could not be written"),
            removed: add_new(r, "recording_files_removed", "Files of recordings removed because of their age or their total size"),
        }
    }
}
