//! The broker within one process: fair slots behind a lock that is held for moves only.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ooblex_pipeline::{Completion, EffectName, FairSlots, Job, Outcome, TrackId};

use crate::waits::Waits;
use crate::{Capacity, Notice, Service, Sink};

/// See [`crate::Broker`] for the contract.
#[derive(Default)]
pub struct Local {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    slots: FairSlots<Job>,
    sinks: HashMap<TrackId, Arc<Sink>>,
    workers: usize,
    serving: BTreeMap<EffectName, usize>,
    busy: Duration,
    waits: Waits,
    /// Jobs in the hands of workers.
    taken: usize,
    closed: bool,
}

impl Local {
    pub(crate) fn open_track(&self, track: TrackId, sink: Sink) {
        self.lock().sinks.insert(track, Arc::new(sink));
    }

    pub(crate) fn close_track(&self, track: TrackId) {
        let mut state = self.lock();
        state.sinks.remove(&track);
        state.slots.remove(track);
        state.waits.on_ended(track);
    }

    pub(crate) fn submit(&self, job: Job) {
        let mut state = self.lock();
        if !state.sinks.contains_key(&job.track) {
            return;
        }
        // All are woken, since not every worker serves every effect.
        self.work.notify_all();
        state.waits.on_submitted(job.track, job.submitted);
        if let Some(older) = state.slots.put(job.track, job) {
            self.deliver(state, Completion { track: older.track, seq: older.seq, outcome: Outcome::Replaced });
        }
    }

    pub(crate) fn complete(&self, completion: Completion, busy: Duration) {
        let mut state = self.lock();
        state.busy += busy;
        state.taken -= 1;
        state.waits.on_ended(completion.track);
        self.deliver(state, completion);
    }

    pub(crate) fn service(&self, effect: &EffectName) -> Service {
        if self.lock().serving.contains_key(effect) { Service::Served } else { Service::NoWorker }
    }

    pub(crate) fn capacity(&self) -> Capacity {
        let state = self.lock();
        Capacity {
            workers: state.workers,
            serving: state.serving.clone(),
            devices: BTreeMap::new(),
            busy: state.busy,
            waiting: state.slots.len(),
            in_flight: state.slots.len() + state.taken,
            longest_wait: state.waits.longest(Instant::now()),
        }
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    fn take(&self, effects: &Mutex<Vec<EffectName>>) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            // Others may come to be served while it waits.
            let effects = effects.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match state.slots.take_if(|job| effects.contains(&job.effect)) {
                Some(job) if job.deadline > Instant::now() => {
                    state.taken += 1;
                    return Some(job);
                }
                Some(late) => {
                    state.waits.on_ended(late.track);
                    self.deliver(state, Completion { track: late.track, seq: late.seq, outcome: Outcome::Expired });
                    state = self.lock();
                }
                None => state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn join(&self, effects: &[EffectName]) {
        let mut state = self.lock();
        state.workers += 1;
        for effect in effects {
            *state.serving.entry(effect.clone()).or_default() += 1;
        }
        self.tell_all(state);
    }

    fn change(&self, before: &[EffectName], now: &[EffectName]) {
        let mut state = self.lock();
        for effect in now {
            *state.serving.entry(effect.clone()).or_default() += 1;
        }
        state.forget(before);
        self.work.notify_all();
        self.tell_all(state);
    }

    fn leave(&self, effects: &[EffectName]) {
        let mut state = self.lock();
        state.workers -= 1;
        state.forget(effects);
        self.tell_all(state);
    }

    /// Calls the track's sink without holding the lock.
    fn deliver(&self, state: MutexGuard<'_, State>, completion: Completion) {
        let sink = state.sinks.get(&completion.track).cloned();
        drop(state);
        if let Some(sink) = sink {
            sink(Notice::Completed(completion));
        }
    }

    /// Calls all sinks without holding the lock.
    fn tell_all(&self, state: MutexGuard<'_, State>) {
        let sinks: Vec<_> = state.sinks.values().cloned().collect();
        drop(state);
        sinks.iter().for_each(|sink| sink(Notice::ServiceChanged));
    }

    /// A panic while the lock was held can not have left half a move behind, so its poison is ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One worker less serves these effects.
    fn forget(&mut self, effects: &[EffectName]) {
        for effect in effects {
            if let Some(workers) = self.serving.get_mut(effect) {
                *workers -= 1;
            }
        }
        self.serving.retain(|_, workers| *workers > 0);
    }
}

/// A worker's place.
pub(crate) struct Seat {
    local: Arc<Local>,
    effects: Mutex<Vec<EffectName>>,
}

impl Seat {
    pub(crate) fn new(local: Arc<Local>, effects: &[EffectName]) -> Self {
        local.join(effects);
        Self { local, effects: Mutex::new(effects.to_vec()) }
    }

    pub(crate) fn serve(&self, effects: &[EffectName]) {
        let before = std::mem::replace(&mut *self.effects.lock().unwrap_or_else(PoisonError::into_inner), effects.to_vec());
        self.local.change(&before, effects);
    }

    pub(crate) fn take(&self) -> Option<Job> {
        self.local.take(&self.effects)
    }

    pub(crate) fn local(&self) -> &Arc<Local> {
        &self.local
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let effects = self.effects.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.local.leave(&effects);
    }
}
