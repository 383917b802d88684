//! The broker within one process: fair slots behind a lock that is held for moves only.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ooblex_pipeline::{Completion, FairSlots, Job, Outcome, TrackId};

use crate::{Capacity, CompletionSink};

/// See [`crate::Broker`] for the contract.
#[derive(Default)]
pub struct Local {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    slots: FairSlots<Job>,
    sinks: HashMap<TrackId, Arc<CompletionSink>>,
    workers: usize,
    busy: Duration,
    closed: bool,
}

impl Local {
    pub(crate) fn open_track(&self, track: TrackId, sink: CompletionSink) {
        self.lock().sinks.insert(track, Arc::new(sink));
    }

    pub(crate) fn close_track(&self, track: TrackId) {
        let mut state = self.lock();
        state.sinks.remove(&track);
        state.slots.remove(track);
    }

    pub(crate) fn submit(&self, job: Job) {
        let mut state = self.lock();
        if !state.sinks.contains_key(&job.track) {
            return;
        }
        let replaced = state.slots.put(job.track, job);
        match replaced {
            Some(older) => self.deliver(state, Completion { track: older.track, seq: older.seq, outcome: Outcome::Replaced }),
            None => self.work.notify_one(),
        }
    }

    pub(crate) fn take(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            match state.slots.take() {
                Some(job) if job.deadline > Instant::now() => return Some(job),
                Some(late) => {
                    self.deliver(state, Completion { track: late.track, seq: late.seq, outcome: Outcome::Expired });
                    state = self.lock();
                }
                None => state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    pub(crate) fn complete(&self, completion: Completion, busy: Duration) {
        let mut state = self.lock();
        state.busy += busy;
        self.deliver(state, completion);
    }

    pub(crate) fn join(&self) {
        self.lock().workers += 1;
    }

    pub(crate) fn leave(&self) {
        self.lock().workers -= 1;
    }

    pub(crate) fn capacity(&self) -> Capacity {
        let state = self.lock();
        Capacity { workers: state.workers, busy: state.busy, waiting: state.slots.len() }
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    /// Calls the track's sink without holding the lock.
    fn deliver(&self, state: MutexGuard<'_, State>, completion: Completion) {
        let sink = state.sinks.get(&completion.track).cloned();
        drop(state);
        if let Some(sink) = sink {
            sink(completion);
        }
    }

    /// A panic while the lock was held can not have left half a move behind, so its poison is ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
