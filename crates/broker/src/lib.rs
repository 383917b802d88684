//! Hands the freshest frame of each track to the first free worker that serves its effect, fairly between tracks.
//!
//! One contract, kept by every kind of [`Broker`] and held against all of them by `tests/contract.rs`:
//!
//! * at most one job of a track waits; a newer one takes its place, and the older completes as [`Outcome::Replaced`];
//! * a worker gets the newest job of the track that has waited longest, among the effects that it serves;
//! * a job whose deadline passes while it waits completes as [`Outcome::Expired`] and reaches no worker;
//! * every completion goes to its own track, and to nobody once the track is closed;
//! * tracks are told when the first worker of an effect comes and when the last one goes.
//!
//! [`Broker::local`] stays within the process; [`Broker::redis`] joins gateways and workers of any number of machines.

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

/// What a broker tells a track.
#[derive(Debug)]
pub enum Notice {
    /// A job of the track has ended.
    Completed(Completion),
    /// [`Broker::service`] may say something else now.
    ServiceChanged,
}

/// Takes what one track is told. Called on threads of workers and of the broker: it must not block, nor call the broker.
pub type Sink = Box<dyn Fn(Notice) + Send + Sync>;

/// Whether frames of an effect would reach a worker now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// At least one worker serves it.
    Served,
    /// The workers can be seen, and none serves it.
    NoWorker,
    /// The broker is not connected, so nobody can say.
    Disconnected,
}

/// What a broker knows of its workers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Capacity {
    /// Workers (threads) that take jobs.
    pub workers: usize,
    /// Of those, how many serve each effect; effects that none serves are left out.
    pub serving: BTreeMap<EffectName, usize>,
    /// How many run on each device, as they announce it; empty where all are of this process.
    pub devices: BTreeMap<String, usize>,
    /// Time that all workers together have spent on jobs since the broker was made.
    pub busy: Duration,
    /// Tracks whose frame waits for a worker.
    pub waiting: usize,
    /// Frames of this process's tracks that wait or are in a worker's hands.
    pub in_flight: usize,
    /// How long that of this process's tracks has waited for a result that has waited longest; zero when none waits.
    pub longest_wait: Duration,
}

/// How a broker is, and what went wrong on it since it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Frames and results can pass.
    pub connected: bool,
    /// What is wrong now, in a sentence with its mend; without secrets. It names hosts and users, so it is for operators.
    pub trouble: Option<String>,
    /// The same for everybody else: it names no host, no user and no path.
    pub trouble_in_public: Option<&'static str>,
    /// Connections that were made again after they had broken.
    pub reconnects: u64,
    /// What was asked and not done, by kind of error; every kind is listed.
    pub errors: Vec<(&'static str, u64)>,
    /// Results that came after their frame had been given up.
    pub late: u64,
    /// Turns that were lost with their worker and queued again.
    pub turns_requeued: u64,
    /// Nodes that are there and speak another version of the wire format.
    pub strangers: usize,
    /// Times from handing frames over to the answer; none within one process.
    pub round_trips: RoundTrips,
}

/// The queue between tracks and workers. Clones share it.
#[derive(Clone)]
pub enum Broker {
    /// In this process: ownership moves, nothing is copied.
    Local(Arc<Local>),
    /// Through Redis, between processes and machines.
    Redis(Arc<Redis>),
}

impl Broker {
    /// A broker for tracks and workers of this process.
    pub fn local() -> Self {
        Broker::Local(Arc::default())
    }

    /// A broker for tracks and workers of all processes that share a Redis. Connections are made in the background, and made
    /// again for as long as the broker is there.
    ///
    /// # Errors
    /// When waiting would not mend it: Redis is there and refuses this user, or a file that is needed can not be read.
    pub fn redis(options: RedisOptions) -> Result<Self, RedisError> {
        Redis::new(options).map(Arc::new).map(Broker::Redis)
    }

    /// Whether all workers are of this process, and so share its machine.
    pub fn is_local(&self) -> bool {
        matches!(self, Broker::Local(_))
    }

    /// This process is going to have tracks. Said at its start, the connections for their frames stand when the first one comes.
    pub fn open_gateway(&self) {
        match self {
            Broker::Local(_) => {}
            Broker::Redis(redis) => redis.open_gateway(),
        }
    }

    /// From now on `sink` is told what becomes of this track's jobs.
    pub fn open_track(&self, track: TrackId, sink: Sink) {
        match self {
            Broker::Local(local) => local.open_track(track, sink),
            Broker::Redis(redis) => redis.open_track(track, sink),
        }
    }

    /// Nobody wants completions of this track any more; what waits for it is forgotten.
    pub fn close_track(&self, track: TrackId) {
        match self {
            Broker::Local(local) => local.close_track(track),
            Broker::Redis(redis) => redis.close_track(track),
        }
    }

    /// Lets a job wait for a worker, in place of an older one of its track.
    pub fn submit(&self, job: Job) {
        match self {
            Broker::Local(local) => local.submit(job),
            Broker::Redis(redis) => redis.submit(job),
        }
    }

    /// Announces one more worker, which serves `effects`. It is counted until the [`WorkerSeat`] is dropped.
    pub fn join(&self, effects: &[EffectName]) -> WorkerSeat {
        WorkerSeat(match self {
            Broker::Local(local) => Seat::Local(local::Seat::new(local.clone(), effects)),
            Broker::Redis(redis) => Seat::Redis(redis::Seat::new(redis.clone(), effects)),
        })
    }

    /// Whether frames of an effect would reach a worker now.
    pub fn service(&self, effect: &EffectName) -> Service {
        match self {
            Broker::Local(local) => local.service(effect),
            Broker::Redis(redis) => redis.service(effect),
        }
    }

    /// What is known of the workers now.
    pub fn capacity(&self) -> Capacity {
        match self {
            Broker::Local(local) => local.capacity(),
            Broker::Redis(redis) => redis.capacity(),
        }
    }

    /// How the broker is.
    pub fn health(&self) -> Health {
        match self {
            Broker::Local(_) => Health::local(),
            Broker::Redis(redis) => redis.health(),
        }
    }

    /// No worker of this process gets another job: all that wait in [`WorkerSeat::take`] return.
    pub fn close(&self) {
        match self {
            Broker::Local(local) => local.close(),
            Broker::Redis(redis) => redis.close(),
        }
    }
}

impl Health {
    /// Within one process nothing can break.
    fn local() -> Self {
        let errors = redis::ErrorKind::ALL.map(|kind| (kind.label(), 0)).to_vec();
        let round_trips = RoundTrips::default();
        Self {
            connected: true,
            trouble: None,
            trouble_in_public: None,
            reconnects: 0,
            errors,
            late: 0,
            turns_requeued: 0,
            strangers: 0,
            round_trips,
        }
    }
}

/// The place of one worker at the broker.
pub struct WorkerSeat(Seat);

enum Seat {
    Local(local::Seat),
    Redis(redis::Seat),
}

impl WorkerSeat {
    /// From now on the worker serves these effects instead: another thread may say so while it waits or works.
    pub fn serve(&self, effects: &[EffectName]) {
        match &self.0 {
            Seat::Local(seat) => seat.serve(effects),
            Seat::Redis(seat) => seat.serve(effects),
        }
    }

    /// Waits for a job. `None` once the broker is closed.
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

/// The way back of a result.
enum Hand {
    Local(Arc<Local>),
    Redis(redis::Hand),
}

/// A job in a worker's hands. Dropped without a result (its worker panicked), it completes as failed.
pub struct TakenJob {
    job: Option<Job>,
    queued: Duration,
    taken: Instant,
    /// What its worker's thread had computed before.
    began: Duration,
    hand: Hand,
}

impl TakenJob {
    /// The job.
    pub fn job(&self) -> &Job {
        self.job.as_ref().expect("it is taken out only by those that consume self")
    }

    /// Sends the result on its way.
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

/// Time that this thread has computed since it began.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Drop for TakenJob {
    fn drop(&mut self) {
        self.finish(Err("the worker gave up the frame without a result".into()));
    }
}
