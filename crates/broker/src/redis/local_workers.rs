//! The workers of this process, as it announces them.

use std::collections::BTreeMap;
use std::time::Duration;

use ooblex_pipeline::EffectName;

/// Workers of this process.
#[derive(Default)]
pub(super) struct LocalWorkers {
    pub(super) seats: BTreeMap<u64, Vec<EffectName>>,
    next: u64,
    pub(super) busy: Duration,
}

impl LocalWorkers {
    /// Adds a worker. Returns the number of its seat.
    pub(super) fn on_join(&mut self, effects: &[EffectName]) -> u64 {
        self.next += 1;
        self.seats.insert(self.next, effects.to_vec());
        self.next
    }

    /// Replaces the effects that a worker serves.
    pub(super) fn on_serve(&mut self, seat: u64, effects: &[EffectName]) {
        self.seats.insert(seat, effects.to_vec());
    }

    pub(super) fn on_leave(&mut self, seat: u64) {
        self.seats.remove(&seat);
    }

    /// Adds time that a worker has spent on a job.
    pub(super) fn on_busy(&mut self, busy: Duration) {
        self.busy += busy;
    }
}
