//! Slot of a worker thread: its seat at the broker, and pending model updates.

use std::sync::Arc;

use ooblex_broker::WorkerSeat;
use ooblex_effects::{Effect, Models};
use ooblex_pipeline::EffectName;
use parking_lot::Mutex;

/// The slot of one worker thread. It is dropped when the thread ends.
pub(super) struct WorkerSlot {
    pub(super) seat: WorkerSeat,
    next: Mutex<Option<ModelUpdate>>,
}

/// A pending change of the effects that a thread serves, with the models that it does not have yet.
pub(super) struct ModelUpdate {
    pub(super) effects: Vec<Arc<dyn Effect>>,
    pub(super) models: Vec<Models>,
}

impl WorkerSlot {
    pub(super) fn new(seat: WorkerSeat) -> Self {
        Self { seat, next: Mutex::default() }
    }

    /// Stores an update, then announces its effects to the broker. The thread applies the update
    /// before its next frame.
    pub(super) fn hand_over(&self, mut update: ModelUpdate, queues: &[EffectName]) {
        let mut next = self.next.lock();
        if let Some(untaken) = next.take() {
            update.models.splice(0..0, untaken.models);
        }
        *next = Some(update);
        drop(next);
        self.seat.serve(queues);
    }

    pub(super) fn take_over(&self) -> Option<ModelUpdate> {
        self.next.lock().take()
    }
}
