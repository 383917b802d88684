//! Hands the freshest frame of each track to the first free worker, fairly between tracks.
//!
//! One contract, kept by every kind of [`Broker`] and held against all of them by `tests/contract.rs`:
//!
//! * at most one job of a track waits; a newer one takes its place, and the older completes as [`Outcome::Replaced`];
//! * a worker gets the newest job of the track that has waited longest;
//! * a job whose deadline passes while it waits completes as [`Outcome::Expired`] and reaches no worker;
//! * every completion goes to its own track, and to nobody once the track is closed.

mod local;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_pipeline::{Completion, Job, Outcome, TrackId};

pub use local::Local;

/// Takes the completions of one track. Called on workers' threads: it must not block.
pub type CompletionSink = Box<dyn Fn(Completion) + Send + Sync>;

/// The queue between tracks and workers. Clones share it.
#[derive(Clone)]
pub enum Broker {
    /// In this process: ownership moves, nothing is copied.
    Local(Arc<Local>),
}

/// What a broker knows of its workers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// Workers that take jobs.
    pub workers: usize,
    /// Time that all workers together have spent on jobs since the broker was made.
    pub busy: Duration,
    /// Tracks whose frame waits for a worker.
    pub waiting: usize,
}

impl Broker {
    /// A broker for tracks and workers of this process.
    pub fn local() -> Self {
        Broker::Local(Arc::default())
    }

    /// From now on completions of this track go to `sink`.
    pub fn open_track(&self, track: TrackId, sink: CompletionSink) {
        match self {
            Broker::Local(local) => local.open_track(track, sink),
        }
    }

    /// Nobody wants completions of this track any more; what waits for it is forgotten.
    pub fn close_track(&self, track: TrackId) {
        match self {
            Broker::Local(local) => local.close_track(track),
        }
    }

    /// Lets a job wait for a worker, in place of an older one of its track.
    pub fn submit(&self, job: Job) {
        match self {
            Broker::Local(local) => local.submit(job),
        }
    }

    /// Announces one more worker. It is counted until the [`WorkerSeat`] is dropped.
    pub fn join(&self) -> WorkerSeat {
        match self {
            Broker::Local(local) => local.join(),
        }
        WorkerSeat { broker: self.clone() }
    }

    /// What is known of the workers now.
    pub fn capacity(&self) -> Capacity {
        match self {
            Broker::Local(local) => local.capacity(),
        }
    }

    /// No worker gets another job: all that wait in [`WorkerSeat::take`] return.
    pub fn close(&self) {
        match self {
            Broker::Local(local) => local.close(),
        }
    }
}

/// The place of one worker at the broker.
pub struct WorkerSeat {
    broker: Broker,
}

impl WorkerSeat {
    /// Waits for a job. `None` once the broker is closed.
    pub fn take(&self) -> Option<TakenJob> {
        let job = match &self.broker {
            Broker::Local(local) => local.take(),
        }?;
        let taken = Instant::now();
        Some(TakenJob { queued: taken.saturating_duration_since(job.submitted), taken, job: Some(job), broker: self.broker.clone() })
    }
}

impl Drop for WorkerSeat {
    fn drop(&mut self) {
        match &self.broker {
            Broker::Local(local) => local.leave(),
        }
    }
}

/// A job in a worker's hands. Dropped without a result (its worker panicked), it completes as failed.
pub struct TakenJob {
    job: Option<Job>,
    queued: Duration,
    taken: Instant,
    broker: Broker,
}

impl TakenJob {
    /// The job.
    pub fn job(&self) -> &Job {
        self.job.as_ref().expect("it is taken out only by those that consume self")
    }

    /// Sends the result on its way.
    pub fn complete(mut self, result: Result<ooblex_pipeline::Analysis, String>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<ooblex_pipeline::Analysis, String>) {
        let Some(job) = self.job.take() else { return };
        let analysing = self.taken.elapsed();
        let outcome = match result {
            Ok(analysis) => Outcome::Analysed { analysis, queued: self.queued, analysing },
            Err(reason) => Outcome::Failed { reason },
        };
        match &self.broker {
            Broker::Local(local) => local.complete(Completion { track: job.track, seq: job.seq, outcome }, analysing),
        }
    }
}

impl Drop for TakenJob {
    fn drop(&mut self) {
        self.finish(Err("the worker gave up the frame without a result".into()));
    }
}
