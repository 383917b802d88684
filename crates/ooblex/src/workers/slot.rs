//! Where a worker thread stands: its seat at the broker, and what it is handed while it works.

use std::sync::{Arc, Mutex, PoisonError};

use ooblex_broker::WorkerSeat;
use ooblex_effects::{Effect, Models};
use ooblex_pipeline::EffectName;

/// The place of one worker thread. It is gone when the thread is.
pub(super) struct WorkerSlot {
    pub(super) seat: WorkerSeat,
    next: Mutex<Option<ModelUpdate>>,
}

/// The effects that a thread is to serve, and the models that it does not have yet.
pub(super) struct ModelUpdate {
    pub(super) effects: Vec<Arc<dyn Effect>>,
    pub(super) models: Vec<Models>,
}

impl WorkerSlot {
    pub(super) fn new(seat: WorkerSeat) -> Self {
        Self { seat, next: Mutex::default() }
    }

    /// Lays the update ready before frames for it can come: the thread takes it over with the next frame, of whatever effect.
    pub(super) fn hand_over(&self, mut update: ModelUpdate, queues: &[EffectName]) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(untaken) = next.take() {
            update.models.splice(0..0, untaken.models);
        }
        *next = Some(update);
        drop(next);
        self.seat.serve(queues);
    }

    pub(super) fn take_over(&self) -> Option<ModelUpdate> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
