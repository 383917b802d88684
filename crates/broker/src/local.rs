//! Broker within one process: fair slots behind a lock that is held only to move jobs in and out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use ooblex_pipeline::{Completion, EffectName, FairSlots, Job, Outcome, TrackId};
use parking_lot::{Mutex, MutexGuard};

use crate::waits::Waits;
use crate::{Capacity, Notice, Service, Sink};

/// Broker within one process. [`crate::Broker`] documents the contract.
#[derive(Default)]
pub struct Local {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: FairSlots<Job>,
    sinks: HashMap<TrackId, Arc<Sink>>,
    workers: usize,
    /// Workers that found no job and have not been woken since, in the order of their arrival.
    idle: Vec<Idle>,
    serving: BTreeMap<EffectName, usize>,
    busy: Duration,
    waits: Waits,
    /// Number of jobs that workers have taken and not completed.
    taken: usize,
    closed: bool,
}

/// Worker that waits for a job.
struct Idle {
    thread: Thread,
    effects: Vec<EffectName>,
}

impl Local {
    pub(crate) fn open_track(&self, track: TrackId, sink: Sink) {
        self.state.lock().sinks.insert(track, Arc::new(sink));
    }

    pub(crate) fn close_track(&self, track: TrackId) {
        let mut state = self.state.lock();
        state.sinks.remove(&track);
        state.slots.remove(track);
        state.waits.on_ended(track);
    }

    pub(crate) fn submit(&self, job: Job) {
        let mut state = self.state.lock();
        if !state.sinks.contains_key(&job.track) {
            return;
        }
        state.waits.on_submitted(job.track, job.submitted);
        let idle = state.idle_for(&job.effect);
        match state.slots.put(job.track, job) {
            Some(older) => self.deliver(state, Completion { track: older.track, seq: older.seq, outcome: Outcome::Replaced }),
            None => drop(state),
        }
        if let Some(idle) = idle {
            idle.thread.unpark();
        }
    }

    pub(crate) fn complete(&self, completion: Completion, busy: Duration) {
        let mut state = self.state.lock();
        state.busy += busy;
        state.taken -= 1;
        state.waits.on_ended(completion.track);
        self.deliver(state, completion);
    }

    pub(crate) fn service(&self, effect: &EffectName) -> Service {
        if self.state.lock().serving.contains_key(effect) { Service::Served } else { Service::NoWorker }
    }

    pub(crate) fn capacity(&self) -> Capacity {
        let state = self.state.lock();
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
        let mut state = self.state.lock();
        state.closed = true;
        state.wake_all();
    }

    fn take(&self, effects: &Mutex<Vec<EffectName>>) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            // The effects may change while the worker waits.
            let effects = effects.lock().clone();
            match state.slots.take_if(|job| effects.contains(&job.effect)) {
                Some(job) if job.deadline > Instant::now() => {
                    state.taken += 1;
                    return Some(job);
                }
                Some(late) => {
                    state.waits.on_ended(late.track);
                    self.deliver(state, Completion { track: late.track, seq: late.seq, outcome: Outcome::Expired });
                    state = self.state.lock();
                }
                None => {
                    state.idle.push(Idle { thread: std::thread::current(), effects });
                    drop(state);
                    std::thread::park();
                    state = self.state.lock();
                    state.idle.retain(|idle| idle.thread.id() != std::thread::current().id());
                }
            }
        }
    }

    fn join(&self, effects: &[EffectName]) {
        let mut state = self.state.lock();
        state.workers += 1;
        for effect in effects {
            *state.serving.entry(effect.clone()).or_default() += 1;
        }
        self.tell_all(state);
    }

    fn change(&self, before: &[EffectName], now: &[EffectName]) {
        let mut state = self.state.lock();
        for effect in now {
            *state.serving.entry(effect.clone()).or_default() += 1;
        }
        state.forget(before);
        state.wake_all();
        self.tell_all(state);
    }

    fn leave(&self, effects: &[EffectName]) {
        let mut state = self.state.lock();
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
}

impl State {
    /// Removes and returns the idle worker to wake for a job of this effect: the one that came
    /// last, because its caches are warm.
    fn idle_for(&mut self, effect: &EffectName) -> Option<Idle> {
        let at = self.idle.iter().rposition(|idle| idle.effects.contains(effect))?;
        Some(self.idle.remove(at))
    }

    fn wake_all(&mut self) {
        self.idle.drain(..).for_each(|idle| idle.thread.unpark());
    }

    /// Counts one worker less for each of these effects.
    fn forget(&mut self, effects: &[EffectName]) {
        for effect in effects {
            if let Some(workers) = self.serving.get_mut(effect) {
                *workers -= 1;
            }
        }
        self.serving.retain(|_, workers| *workers > 0);
    }
}

/// Registration of one worker.
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
        let before = std::mem::replace(&mut *self.effects.lock(), effects.to_vec());
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
        let effects = self.effects.lock().clone();
        self.local.leave(&effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_that_came_last_of_those_that_serve_a_job_is_woken_for_it_and_no_other() {
        let [blur, faces] = ["blur", "faces"].map(EffectName::new);
        let idle = |effects: &[&EffectName]| Idle { thread: std::thread::current(), effects: effects.iter().copied().cloned().collect() };
        let mut state = State { idle: vec![idle(&[&blur]), idle(&[&blur, &faces]), idle(&[&blur])], ..State::default() };
        assert_eq!(state.idle_for(&faces).map(|idle| idle.effects), Some(vec![blur.clone(), faces.clone()]));
        assert!(state.idle_for(&faces).is_none(), "the only one is on its way");
        assert_eq!((state.idle_for(&blur).is_some(), state.idle.len()), (true, 1));
    }
}
