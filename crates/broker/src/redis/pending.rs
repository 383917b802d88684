//! The jobs in flight of a gateway's tracks. The threads `submitter` and `results` work on them.
//!
//! Every submitted job is remembered until its result arrives, a newer one replaces it, or its
//! deadline passes. The first of these events ends the job, and later ones are ignored.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_pipeline::{Completion, EffectName, FairSlots, FrameSeq, Job, Outcome, TrackId};
use parking_lot::{Condvar, Mutex, MutexGuard};

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
    clear: Vec<Slot>,
    under_way: BTreeMap<JobId, UnderWay>,
    deadlines: BTreeSet<Deadline>,
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
    laid: Option<Laid>,
}

struct Laid {
    seq: FrameSeq,
    effect: EffectName,
}

/// Identity of a job among all tracks of this gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobId {
    pub(super) track: TrackId,
    pub(super) seq: FrameSeq,
}

impl JobId {
    pub(super) fn of(job: &Job) -> Self {
        Self { track: job.track, seq: job.seq }
    }
}

/// The deadline of a job; the earliest one is the smallest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Deadline {
    at: Instant,
    job: JobId,
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
    pub(super) clear: Vec<Slot>,
    pub(super) jobs: Vec<JobToSend>,
}

/// Place of a track's waiting frame in Redis.
pub(super) struct Slot {
    pub(super) track: TrackId,
    pub(super) effect: EffectName,
}

pub(super) struct JobToSend {
    pub(super) job: Job,
    pub(super) nonce: wire::Nonce,
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
        self.state.lock().tracks.insert(track, Track { sink: Arc::new(sink), laid: None });
    }

    pub(super) fn close_track(&self, track: TrackId) {
        let mut state = self.state.lock();
        let Some(closed) = state.tracks.remove(&track) else { return };
        state.unsent.remove(track);
        state.waits.on_ended(track);
        let [first, last] = [0, u64::MAX].map(|seq| JobId { track, seq: FrameSeq(seq) });
        let under_way: Vec<_> = state.under_way.range(first..=last).map(|(id, _)| *id).collect();
        under_way.into_iter().for_each(|id| _ = state.finish(id));
        if let Some(Laid { effect, .. }) = closed.laid
            && state.connected
        {
            state.clear.push(Slot { track, effect });
            self.work.notify_one();
        }
    }

    pub(super) fn submit(&self, job: Job) {
        let mut state = self.state.lock();
        if !state.tracks.contains_key(&job.track) {
            return;
        }
        let mut due = Due::new();
        let id = JobId::of(&job);
        let (submitted, deadline) = (job.submitted, job.deadline);
        state.waits.on_submitted(id.track, submitted);
        state.under_way.insert(id, UnderWay { nonce: wire::Nonce::random(), submitted, deadline, taken: false });
        state.deadlines.insert(Deadline { at: deadline, job: id });
        if !state.connected {
            state.end(&mut due, id, Outcome::Undelivered { reason: "Redis is not connected".into() });
        } else if let Some(older) = state.unsent.put(id.track, job) {
            state.end(&mut due, JobId::of(&older), Outcome::Replaced);
        } else {
            self.work.notify_one();
        }
        deliver(state, due);
    }

    /// Notifies all tracks that other effects may be served than before.
    pub(super) fn tell_all(&self) {
        let sinks: Vec<_> = self.state.lock().tracks.values().map(|track| track.sink.clone()).collect();
        service_changed(&sinks);
    }

    /// Marks this process as a gateway: it has tracks, or will have some.
    pub(super) fn open(&self) {
        self.state.lock().open = true;
    }

    /// Returns whether this process is a gateway.
    pub(super) fn is_open(&self) -> bool {
        self.state.lock().open
    }

    pub(super) fn effects(&self) -> BTreeSet<EffectName> {
        self.state.lock().effects.clone()
    }

    /// Records the number of turns in the queues, of all gateways.
    pub(super) fn on_waiting(&self, turns: usize) {
        self.state.lock().waiting = turns;
    }

    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// Returns the number of jobs in flight, and the longest time that a track has waited for a
    /// result.
    pub(super) fn load(&self, now: Instant) -> (usize, Duration) {
        let state = self.state.lock();
        (state.under_way.len(), state.waits.longest(now))
    }

    /// Tells the threads to end.
    pub(super) fn wake(&self) {
        self.state.lock().ended = true;
        self.work.notify_all();
    }

    /// Records that frames can be sent from now on.
    pub(super) fn on_connected(&self) {
        self.state.lock().connected = true;
    }

    /// Gives up all jobs in flight, because it is unknown how far they got. Newer frames follow
    /// once the connection is back.
    pub(super) fn on_disconnected(&self, reason: &str) {
        let mut state = self.state.lock();
        let mut due = Due::new();
        state.connected = false;
        state.clear.clear();
        while state.unsent.take().is_some() {}
        while let Some(id) = state.under_way.keys().next().copied() {
            state.end(&mut due, id, Outcome::Undelivered { reason: reason.into() });
        }
        state.tracks.values_mut().for_each(|track| track.laid = None);
        deliver(state, due);
    }

    /// Waits for something to send. An empty batch means that a keepalive is due. Returns `None`
    /// when the threads are to end.
    pub(super) fn next_batch(&self) -> Option<Batch> {
        let idle_until = Instant::now() + IDLE;
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            let due = state.expire(now);
            if !due.is_empty() {
                deliver(state, due);
                state = self.state.lock();
                continue;
            }
            if state.ended {
                return None;
            }
            let batch = state.take_batch(now);
            if !batch.jobs.is_empty() || !batch.clear.is_empty() || now >= idle_until {
                return Some(batch);
            }
            let next = state.deadlines.first().map_or(idle_until, |deadline| idle_until.min(deadline.at));
            let wait = next.saturating_duration_since(now).max(Duration::from_millis(1));
            self.work.wait_for(&mut state, wait);
        }
    }

    /// Records that a frame was put into its slot. `replaced` is true if an older frame waited
    /// there.
    pub(super) fn on_laid(&self, JobId { track, seq }: JobId, effect: EffectName, replaced: bool) {
        let mut state = self.state.lock();
        let mut due = Due::new();
        let Some(owner) = state.tracks.get_mut(&track) else {
            // The track was closed while its frame was being sent.
            state.clear.push(Slot { track, effect });
            return;
        };
        if let Some(Laid { seq, .. }) = owner.laid.replace(Laid { seq, effect }) {
            let older = JobId { track, seq };
            if replaced {
                state.end(&mut due, older, Outcome::Replaced);
            } else if let Some(job) = state.under_way.get_mut(&older) {
                job.taken = true;
            }
        }
        deliver(state, due);
    }

    /// Records that the frame that waited for the track's previous effect was deleted from its
    /// slot.
    pub(super) fn on_cleared(&self, track: TrackId) {
        let mut state = self.state.lock();
        let mut due = Due::new();
        if let Some(Laid { seq, .. }) = state.tracks.get_mut(&track).and_then(|track| track.laid.take()) {
            state.end(&mut due, JobId { track, seq }, Outcome::Replaced);
        }
        deliver(state, due);
    }

    pub(super) fn on_refused(&self, job: JobId, reason: &str) {
        let mut state = self.state.lock();
        let mut due = Due::new();
        state.end(&mut due, job, Outcome::Undelivered { reason: reason.into() });
        deliver(state, due);
    }

    /// Ends the job of a received result.
    pub(super) fn on_result(&self, now: Instant, result: wire::WireResult) -> Received {
        let mut state = self.state.lock();
        let mut due = Due::new();
        let (id, analysing) = (JobId { track: result.track, seq: result.seq }, result.analysing);
        let Some(job) = state.under_way.get(&id) else {
            return if state.tracks.contains_key(&id.track) { Received::Late } else { Received::Used };
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
        state.end(&mut due, id, outcome);
        deliver(state, due);
        Received::Used
    }
}

impl State {
    fn finish(&mut self, id: JobId) -> Option<UnderWay> {
        let job = self.under_way.remove(&id)?;
        self.deadlines.remove(&Deadline { at: job.deadline, job: id });
        Some(job)
    }

    /// Ends a job, unless it has ended before.
    fn end(&mut self, due: &mut Due, id: JobId, outcome: Outcome) {
        let JobId { track, seq } = id;
        let ended = self.finish(id);
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
        while let Some(Deadline { at, job: id }) = self.deadlines.first().copied()
            && at <= now
        {
            let taken = self.under_way.get(&id).is_some_and(|job| job.taken);
            self.end(&mut due, id, if taken { Outcome::Lost } else { Outcome::Expired });
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
            if let Some(left) = laid.filter(|laid| laid.effect != job.effect) {
                batch.clear.push(Slot { track: job.track, effect: left.effect.clone() });
            }
            let Some(nonce) = self.under_way.get(&JobId::of(&job)).map(|job| job.nonce) else { continue };
            self.effects.insert(job.effect.clone());
            batch.jobs.push(JobToSend { job, nonce });
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
