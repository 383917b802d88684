//! The jobs in flight of a gateway's tracks. The threads `submitter` and `results` work on them.
//!
//! Every submitted job is remembered until its result arrives, a newer one replaces it, or its
//! deadline passes. The first of these events ends the job, and later ones are ignored.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ooblex_pipeline::{Completion, EffectName, FairSlots, FrameSeq, Job, Outcome, TrackId};

use super::wire;
use crate::waits::Waits;
use crate::{Notice, Sink};

/// Interval of keepalives on an idle connection, so that a session does not start on a dead one.
const IDLE: Duration = Duration::from_secs(1);
/// Tracks of this gateway and their jobs in flight.
#[derive(Default)]
pub(super) struct PendingJobs {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    tracks: HashMap<TrackId, Track>,
    /// Jobs that have not been sent yet.
    unsent: FairSlots<Job>,
    /// Slots in Redis that are to be deleted.
    clear: Vec<(TrackId, EffectName)>,
    under_way: BTreeMap<(TrackId, FrameSeq), UnderWay>,
    deadlines: BTreeSet<(Instant, TrackId, FrameSeq)>,
    /// Effects whose queues this gateway has used.
    effects: BTreeSet<EffectName>,
    waiting: usize,
    waits: Waits,
    /// True if frames can be sent.
    connected: bool,
    ended: bool,
}

struct Track {
    sink: Arc<Sink>,
    /// Job that was put into the slot last.
    laid: Option<(FrameSeq, EffectName)>,
}

struct UnderWay {
    /// Nonce that the result must repeat.
    nonce: wire::Nonce,
    submitted: Instant,
    deadline: Instant,
    /// True if a worker has taken the job: its slot was found empty.
    taken: bool,
}

/// Slots to delete and jobs to send in one pipeline.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) clear: Vec<(TrackId, EffectName)>,
    pub(super) jobs: Vec<(Job, wire::Nonce)>,
}

/// Classification of a received result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// The result ended its job, or its track was closed meanwhile.
    Used,
    /// The job had been given up before.
    Late,
    /// The result does not carry the nonce of its job, so its sender did not get the job. The job
    /// still waits.
    Forged,
}

/// Completions to deliver to sinks once the lock is released.
type Due = Vec<(Arc<Sink>, Completion)>;

impl PendingJobs {
    pub(super) fn open_track(&self, track: TrackId, sink: Sink) {
        self.lock().tracks.insert(track, Track { sink: Arc::new(sink), laid: None });
    }

    pub(super) fn close_track(&self, track: TrackId) {
        let mut state = self.lock();
        let Some(closed) = state.tracks.remove(&track) else { return };
        state.unsent.remove(track);
        state.waits.on_ended(track);
        let under_way: Vec<_> = state.under_way.range((track, FrameSeq(0))..=(track, FrameSeq(u64::MAX))).map(|(key, _)| *key).collect();
        under_way.into_iter().for_each(|(track, seq)| _ = state.finish(track, seq));
        if let Some((_, effect)) = closed.laid
            && state.connected
        {
            state.clear.push((track, effect));
            self.work.notify_one();
        }
    }

    pub(super) fn submit(&self, job: Job) {
        let mut state = self.lock();
        if !state.tracks.contains_key(&job.track) {
            return;
        }
        let mut due = Due::new();
        let (track, seq) = (job.track, job.seq);
        let (submitted, deadline) = (job.submitted, job.deadline);
        state.waits.on_submitted(track, submitted);
        state.under_way.insert((track, seq), UnderWay { nonce: wire::Nonce::random(), submitted, deadline, taken: false });
        state.deadlines.insert((deadline, track, seq));
        if !state.connected {
            state.end(&mut due, track, seq, Outcome::Undelivered { reason: "Redis is not connected".into() });
        } else if let Some(older) = state.unsent.put(track, job) {
            state.end(&mut due, track, older.seq, Outcome::Replaced);
        } else {
            self.work.notify_one();
        }
        deliver(state, due);
    }

    /// Notifies all tracks that other effects may be served than before.
    pub(super) fn tell_all(&self) {
        let sinks: Vec<_> = self.lock().tracks.values().map(|track| track.sink.clone()).collect();
        service_changed(&sinks);
    }

    /// Marks this process as a gateway: it has tracks, or will have some.
    pub(super) fn open(&self) {
        self.lock().open = true;
    }

    /// Returns whether this process is a gateway.
    pub(super) fn is_open(&self) -> bool {
        self.lock().open
    }

    pub(super) fn effects(&self) -> BTreeSet<EffectName> {
        self.lock().effects.clone()
    }

    /// Records the number of turns in the queues, of all gateways.
    pub(super) fn on_waiting(&self, turns: usize) {
        self.lock().waiting = turns;
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// Returns the number of jobs in flight, and the longest time that a track has waited for a
    /// result.
    pub(super) fn load(&self, now: Instant) -> (usize, Duration) {
        let state = self.lock();
        (state.under_way.len(), state.waits.longest(now))
    }

    /// Tells the threads to end.
    pub(super) fn wake(&self) {
        self.lock().ended = true;
        self.work.notify_all();
    }

    /// Records that frames can be sent from now on.
    pub(super) fn on_connected(&self) {
        self.lock().connected = true;
    }

    /// Gives up all jobs in flight, because it is unknown how far they got. Newer frames follow
    /// once the connection is back.
    pub(super) fn on_disconnected(&self, reason: &str) {
        let mut state = self.lock();
        let mut due = Due::new();
        state.connected = false;
        state.clear.clear();
        while state.unsent.take().is_some() {}
        while let Some((track, seq)) = state.under_way.keys().next().copied() {
            state.end(&mut due, track, seq, Outcome::Undelivered { reason: reason.into() });
        }
        state.tracks.values_mut().for_each(|track| track.laid = None);
        deliver(state, due);
    }

    /// Waits for something to send. An empty batch means that a keepalive is due. Returns `None`
    /// when the threads are to end.
    pub(super) fn next_batch(&self) -> Option<Batch> {
        let idle_until = Instant::now() + IDLE;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let due = state.expire(now);
            if !due.is_empty() {
                deliver(state, due);
                state = self.lock();
                continue;
            }
            if state.ended {
                return None;
            }
            let batch = state.take_batch(now);
            if !batch.jobs.is_empty() || !batch.clear.is_empty() || now >= idle_until {
                return Some(batch);
            }
            let next = state.deadlines.first().map_or(idle_until, |(deadline, ..)| idle_until.min(*deadline));
            let wait = next.saturating_duration_since(now).max(Duration::from_millis(1));
            state = self.work.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Records that a frame was put into its slot. `replaced` is true if an older frame waited
    /// there.
    pub(super) fn on_laid(&self, track: TrackId, seq: FrameSeq, effect: EffectName, replaced: bool) {
        let mut state = self.lock();
        let mut due = Due::new();
        let Some(owner) = state.tracks.get_mut(&track) else {
            // The track was closed while its frame was being sent.
            state.clear.push((track, effect));
            return;
        };
        match owner.laid.replace((seq, effect)) {
            Some((older, _)) if replaced => state.end(&mut due, track, older, Outcome::Replaced),
            Some((older, _)) => {
                if let Some(job) = state.under_way.get_mut(&(track, older)) {
                    job.taken = true;
                }
            }
            None => {}
        }
        deliver(state, due);
    }

    /// Records that the frame that waited for the track's previous effect was deleted from its
    /// slot.
    pub(super) fn on_cleared(&self, track: TrackId) {
        let mut state = self.lock();
        let mut due = Due::new();
        if let Some((seq, _)) = state.tracks.get_mut(&track).and_then(|track| track.laid.take()) {
            state.end(&mut due, track, seq, Outcome::Replaced);
        }
        deliver(state, due);
    }

    pub(super) fn on_refused(&self, track: TrackId, seq: FrameSeq, reason: &str) {
        let mut state = self.lock();
        let mut due = Due::new();
        state.end(&mut due, track, seq, Outcome::Undelivered { reason: reason.into() });
        deliver(state, due);
    }

    /// Ends the job of a received result.
    pub(super) fn on_result(&self, now: Instant, result: wire::WireResult) -> Received {
        let mut state = self.lock();
        let mut due = Due::new();
        let (track, seq, analysing) = (result.track, result.seq, result.analysing);
        let Some(job) = state.under_way.get(&(track, seq)) else {
            return if state.tracks.contains_key(&track) { Received::Late } else { Received::Used };
        };
        if job.nonce != result.nonce {
            return Received::Forged;
        }
        // All time except the worker's was spent in transit and in the queue. Clocks of two
        // machines are never compared.
        let queued = now.saturating_duration_since(job.submitted).saturating_sub(analysing);
        let outcome = match result.result {
            Ok(analysis) => Outcome::Analysed { analysis, queued, analysing, computed: Duration::ZERO },
            Err(reason) => Outcome::Failed { reason },
        };
        state.end(&mut due, track, seq, outcome);
        deliver(state, due);
        Received::Used
    }

    /// Locks the state. A poisoned lock is ignored, because a panic cannot leave the state
    /// half-changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn finish(&mut self, track: TrackId, seq: FrameSeq) -> Option<UnderWay> {
        let job = self.under_way.remove(&(track, seq))?;
        self.deadlines.remove(&(job.deadline, track, seq));
        Some(job)
    }

    /// Ends a job, unless it has ended before.
    fn end(&mut self, due: &mut Due, track: TrackId, seq: FrameSeq, outcome: Outcome) {
        let ended = self.finish(track, seq);
        if ended.is_some() && !matches!(outcome, Outcome::Replaced) {
            self.waits.on_ended(track);
        }
        if ended.is_some()
            && let Some(owner) = self.tracks.get(&track)
        {
            due.push((owner.sink.clone(), Completion { track, seq, outcome }));
        }
    }

    /// Ends all jobs whose deadline has passed.
    fn expire(&mut self, now: Instant) -> Due {
        let mut due = Due::new();
        while let Some((deadline, track, seq)) = self.deadlines.first().copied()
            && deadline <= now
        {
            let taken = self.under_way.get(&(track, seq)).is_some_and(|job| job.taken);
            self.end(&mut due, track, seq, if taken { Outcome::Lost } else { Outcome::Expired });
        }
        due
    }

    fn take_batch(&mut self, now: Instant) -> Batch {
        let mut batch = Batch { clear: std::mem::take(&mut self.clear), jobs: Vec::new() };
        while let Some(job) = self.unsent.take() {
            if job.deadline <= now {
                continue;
            }
            let laid = self.tracks.get(&job.track).and_then(|track| track.laid.as_ref());
            if let Some((_, left)) = laid.filter(|(_, effect)| *effect != job.effect) {
                batch.clear.push((job.track, left.clone()));
            }
            let Some(nonce) = self.under_way.get(&(job.track, job.seq)).map(|job| job.nonce) else { continue };
            self.effects.insert(job.effect.clone());
            batch.jobs.push((job, nonce));
        }
        batch
    }
}

fn deliver(state: MutexGuard<'_, State>, due: Due) {
    drop(state);
    due.into_iter().for_each(|(sink, completion)| sink(Notice::Completed(completion)));
}

/// Sends [`Notice::ServiceChanged`] to all tracks.
fn service_changed(sinks: &[Arc<Sink>]) {
    sinks.iter().for_each(|sink| sink(Notice::ServiceChanged));
}
