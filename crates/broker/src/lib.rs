//! Job queue between tracks and workers. It hands the newest frame of each track to the first free
//! worker that serves its effect, and is fair between tracks.
//!
//! Every kind of [`Broker`] keeps this contract, and `tests/all/contract.rs` tests all of them
//! against it:
//!
//! * At most one job of a track waits. A newer job replaces it, and the older one completes as
//!   [`Outcome::Replaced`].
//! * A worker gets the newest job of the track that has waited longest, among the effects that the
//!   worker serves.
//! * A job whose deadline passes while it waits completes as [`Outcome::Expired`] and reaches no
//!   worker.
//! * Every completion goes to its own track only. It is discarded once the track is closed.
//! * Tracks are notified when the first worker of an effect joins and when the last one leaves.
//!
//! [`Broker::local`] stays within the process; [`Broker::redis`] connects gateways and workers of
//! any number of machines.

mod local;
mod redis;
mod round_trips;
mod waits;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_pipeline::{Analysis, Completion, EffectName, Job, Outcome, TrackId};
use rustix::time::{ClockId, clock_gettime};

pub use local::Local;
#[doc(hidden)]
pub use redis::fuzz;
pub use redis::{ClientCertificate, Identity, Redis, RedisError, RedisOptions, RedisUrl, UrlError};
pub use round_trips::RoundTrips;

/// Notification from the broker to a track.
#[derive(Debug)]
pub enum Notice {
    /// A job of the track has ended.
    Completed(Completion),
    /// The result of [`Broker::service`] may have changed.
    ServiceChanged,
}

/// Callback for the notices of one track. It is called on threads of workers and of the broker, so
/// it must neither block nor call the broker.
pub type Sink = Box<dyn Fn(Notice) + Send + Sync>;

/// Availability of an effect: whether its frames would reach a worker now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// At least one worker serves the effect.
    Served,
    /// The broker is connected, and no worker serves the effect.
    NoWorker,
    /// The broker is not connected, so its workers are unknown.
    Disconnected,
}

/// Workers that the broker knows, and their load.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Capacity {
    /// Number of workers (threads) that take jobs.
    pub workers: usize,
    /// Number of workers that serve each effect. Effects that no worker serves are left out.
    pub serving: BTreeMap<EffectName, usize>,
    /// Number of workers on each device, as they announce it. Empty for [`Broker::local`].
    pub devices: BTreeMap<String, usize>,
    /// Total time that all workers have spent on jobs since the broker was created.
    pub busy: Duration,
    /// Number of tracks with a frame that waits for a worker.
    pub waiting: usize,
    /// Number of frames of this process's tracks that wait or are being analysed.
    pub in_flight: usize,
    /// Longest time that one of this process's tracks has waited for a result; zero if none waits.
    pub longest_wait: Duration,
}

/// State of a broker, and counters of its errors since it was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// True if frames and results can pass.
    pub connected: bool,
    /// Current problem with its remedy, without secrets. The text names hosts and users, so it is
    /// for operators only.
    pub trouble: Option<String>,
    /// Current problem, in a text for everybody. It names no host, no user and no path.
    pub trouble_in_public: Option<&'static str>,
    /// Number of connections that were re-established after they had broken.
    pub reconnects: u64,
    /// Number of failed operations by kind of error. Every kind is listed.
    pub errors: BTreeMap<&'static str, u64>,
    /// Number of results that arrived after their frame had been given up.
    pub late: u64,
    /// Number of turns (queue entries of tracks) that were lost with their worker and queued again.
    pub turns_requeued: u64,
    /// Number of processes that share the Redis and speak another version of the wire format.
    pub incompatible_peers: usize,
    /// Durations of the round trips to Redis that submit frames. Empty for [`Broker::local`].
    pub round_trips: RoundTrips,
}

/// Queue between tracks and workers. Clones share one queue.
#[derive(Clone)]
pub enum Broker {
    /// Queue within this process: ownership moves, nothing is copied.
    Local(Arc<Local>),
    /// Queue in Redis, between processes and machines.
    Redis(Arc<Redis>),
}

impl Broker {
    /// Creates a broker for tracks and workers of this process.
    pub fn local() -> Self {
        Broker::Local(Arc::default())
    }

    /// Creates a broker for the tracks and workers of all processes that share a Redis. It connects
    /// in the background, and reconnects for as long as it exists.
    ///
    /// # Errors
    /// When waiting would not help: Redis refuses this user, or a required file cannot be read.
    pub fn redis(options: RedisOptions) -> Result<Self, RedisError> {
        Redis::new(options).map(Arc::new).map(Broker::Redis)
    }

    /// Returns whether all workers are in this process, and so share its machine.
    pub fn is_local(&self) -> bool {
        matches!(self, Broker::Local(_))
    }

    /// Announces that this process will have tracks. If it is called at start-up, the connections
    /// for their frames are up when the first track opens.
    pub fn open_gateway(&self) {
        match self {
            Broker::Local(_) => {}
            Broker::Redis(redis) => redis.open_gateway(),
        }
    }

    /// Registers a track. From now on `sink` receives the completions of its jobs.
    pub fn open_track(&self, track: TrackId, sink: Sink) {
        match self {
            Broker::Local(local) => local.open_track(track, sink),
            Broker::Redis(redis) => redis.open_track(track, sink),
        }
    }

    /// Unregisters a track. It gets no more completions, and its waiting job is dropped.
    pub fn close_track(&self, track: TrackId) {
        match self {
            Broker::Local(local) => local.close_track(track),
            Broker::Redis(redis) => redis.close_track(track),
        }
    }

    /// Queues a job for a worker. The job replaces an older waiting one of its track.
    pub fn submit(&self, job: Job) {
        match self {
            Broker::Local(local) => local.submit(job),
            Broker::Redis(redis) => redis.submit(job),
        }
    }

    /// Registers one more worker, which serves `effects`. It counts until the [`WorkerSeat`] is
    /// dropped.
    pub fn join(&self, effects: &[EffectName]) -> WorkerSeat {
        WorkerSeat(match self {
            Broker::Local(local) => Seat::Local(local::Seat::new(local.clone(), effects)),
            Broker::Redis(redis) => Seat::Redis(redis::WorkerConnection::new(redis.clone(), effects)),
        })
    }

    /// Returns whether frames of an effect would reach a worker now.
    pub fn service(&self, effect: &EffectName) -> Service {
        match self {
            Broker::Local(local) => local.service(effect),
            Broker::Redis(redis) => redis.service(effect),
        }
    }

    /// Returns the workers that are known now, and their load.
    pub fn capacity(&self) -> Capacity {
        match self {
            Broker::Local(local) => local.capacity(),
            Broker::Redis(redis) => redis.capacity(),
        }
    }

    /// Returns the state of the broker.
    pub fn health(&self) -> Health {
        match self {
            Broker::Local(_) => Health::local(),
            Broker::Redis(redis) => redis.health(),
        }
    }

    /// Stops handing jobs to the workers of this process: all that wait in [`WorkerSeat::take`]
    /// return.
    pub fn close(&self) {
        match self {
            Broker::Local(local) => local.close(),
            Broker::Redis(redis) => redis.close(),
        }
    }
}

impl Health {
    /// Returns the state of a broker within one process, where no connection can break.
    fn local() -> Self {
        let errors = redis::ErrorKind::ALL.map(|kind| (kind.label(), 0)).into();
        let round_trips = RoundTrips::default();
        Self {
            connected: true,
            trouble: None,
            trouble_in_public: None,
            reconnects: 0,
            errors,
            late: 0,
            turns_requeued: 0,
            incompatible_peers: 0,
            round_trips,
        }
    }
}

/// Registration of one worker at the broker.
pub struct WorkerSeat(Seat);

enum Seat {
    Local(local::Seat),
    Redis(redis::WorkerConnection),
}

impl WorkerSeat {
    /// Replaces the effects that the worker serves. Another thread may call this while the worker
    /// waits or works.
    pub fn serve(&self, effects: &[EffectName]) {
        match &self.0 {
            Seat::Local(seat) => seat.serve(effects),
            Seat::Redis(seat) => seat.serve(effects),
        }
    }

    /// Waits for a job. Returns `None` once the broker is closed.
    pub fn take(&self) -> Option<TakenJob> {
        let (job, queued, hand) = match &self.0 {
            Seat::Local(seat) => {
                let job = seat.take()?;
                let queued = job.submitted.elapsed();
                (job, queued, Hand::Local(seat.local().clone()))
            }
            Seat::Redis(seat) => {
                let (job, hand) = seat.take()?;
                (job, Duration::ZERO, Hand::Redis(hand))
            }
        };
        Some(TakenJob { job: Some(job), queued, taken: Instant::now(), began: thread_cpu_time(), hand })
    }
}

/// Destination of a job's result.
enum Hand {
    Local(Arc<Local>),
    Redis(redis::ReplyHandle),
}

/// Job that a worker has taken. If it is dropped without a result (its worker panicked), it
/// completes as [`Outcome::Failed`].
pub struct TakenJob {
    job: Option<Job>,
    queued: Duration,
    taken: Instant,
    /// CPU time of the worker's thread when it took the job.
    began: Duration,
    hand: Hand,
}

impl TakenJob {
    /// Returns the job.
    pub fn job(&self) -> &Job {
        self.job.as_ref().expect("it is taken out only by those that consume self")
    }

    /// Sends the result to the track of the job.
    pub fn complete(mut self, result: Result<Analysis, String>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<Analysis, String>) {
        let Some(job) = self.job.take() else { return };
        let analysing = self.taken.elapsed();
        let outcome = match result {
            Ok(analysis) => {
                Outcome::Analysed { analysis, queued: self.queued, analysing, computed: thread_cpu_time().saturating_sub(self.began) }
            }
            Err(reason) => Outcome::Failed { reason },
        };
        match &self.hand {
            Hand::Local(local) => local.complete(Completion { track: job.track, seq: job.seq, outcome }, analysing),
            Hand::Redis(hand) => hand.complete(&job, outcome, analysing),
        }
    }
}

/// Returns the CPU time that this thread has used since it started.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Drop for TakenJob {
    fn drop(&mut self) {
        self.finish(Err("the worker gave up the frame without a result".into()));
    }
}
