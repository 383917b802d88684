//! Broker between processes and machines: gateways and workers that share a Redis.
//!
//! A gateway stores the newest frame of a track in a slot (a key that expires at the frame's
//! deadline) and appends the track's turn (its entry) to the queue of its effect. A worker takes a
//! turn and the frame that is in the slot by then. Results go into one list per gateway. `keys`
//! names everything in Redis, `submit.lua` and `take.lua` are the two operations that must be
//! atomic, and `wire` is the encoding of jobs and results.
//!
//! This file starts the threads of one process's broker, which have their state in `shared`. The
//! gateway's end is `pending` (jobs in flight) with the threads `submitter` and `results`; the
//! worker's end is `worker`. `heartbeat` announces the processes to each other, `membership` knows
//! the others, and `monitor` has the state of the connections.

mod connection;
mod error;
pub mod fuzz;
mod heartbeat;
mod keys;
mod local_workers;
mod membership;
mod monitor;
mod options;
mod pending;
mod results;
mod shared;
mod stream;
mod submitter;
mod tls;
mod url;
mod wire;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ooblex_pipeline::{EffectName, Job, TrackId};
use parking_lot::{Condvar, Mutex};

use crate::{Capacity, Health, Service, Sink};
use connection::{Connector, Limit};
use error::Fault;
use keys::{Keys, PeerId};
use monitor::{Link, Monitor};
use pending::PendingJobs;
use shared::Shared;

pub(crate) use error::ErrorKind;
pub use error::RedisError;
pub use options::{ClientCertificate, Identity, RedisOptions};
pub use url::{RedisUrl, UrlError};
pub(crate) use worker::{ReplyHandle, WorkerConnection};

/// Broker through Redis. [`crate::Broker`] documents the contract.
pub struct Redis {
    shared: Arc<Shared>,
    gateway: Once,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Redis {
    pub(crate) fn new(options: RedisOptions) -> Result<Self, RedisError> {
        let (keys, me) = (Keys::new(&options.prefix, options.url.database()), PeerId::random());
        let connector = Connector::new(&options, keys.probe(me))?;
        // An unreachable Redis may come back later: the threads log that and retry.
        if let Err(Fault { kind: ErrorKind::Denied, sentence }) = connector.connect(Duration::ZERO, Limit::SMALL) {
            return Err(RedisError::Denied(sentence));
        }
        let shared = Arc::new(Shared {
            connector,
            keys,
            me,
            identity: options.identity,
            monitor: Monitor::default(),
            membership: Mutex::default(),
            pending: PendingJobs::default(),
            local_workers: Mutex::default(),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            wakeup: Condvar::new(),
            woken: Mutex::new(false),
        });
        let redis = Self { shared, gateway: Once::new(), threads: Mutex::default() };
        redis.run("broker-announce", Link::Announce, heartbeat::announce);
        redis.run("broker-listen", Link::Listen, heartbeat::listen);
        Ok(redis)
    }

    /// Starts the two threads for frames and results. A process without tracks does not need them.
    pub(crate) fn open_gateway(&self) {
        self.gateway.call_once(|| {
            self.shared.pending.open();
            self.run("broker-submit", Link::Submit, submitter::submit);
            self.run("broker-results", Link::Results, results::results);
        });
    }

    pub(crate) fn open_track(&self, track: TrackId, sink: Sink) {
        self.open_gateway();
        self.shared.pending.open_track(track, sink);
    }

    pub(crate) fn close_track(&self, track: TrackId) {
        self.shared.pending.close_track(track);
    }

    pub(crate) fn submit(&self, job: Job) {
        self.shared.pending.submit(job);
    }

    pub(crate) fn service(&self, effect: &EffectName) -> Service {
        match self.shared.monitor.connected() {
            false => Service::Disconnected,
            true if self.shared.membership.lock().serves(effect) => Service::Served,
            true => Service::NoWorker,
        }
    }

    pub(crate) fn capacity(&self) -> Capacity {
        let waiting = self.shared.pending.waiting();
        let (in_flight, longest_wait) = self.shared.pending.load(Instant::now());
        let membership = self.shared.membership.lock();
        let (workers, serving, devices) = (membership.threads(), membership.serving(), membership.devices());
        Capacity { workers, serving, devices, busy: membership.busy(), waiting, in_flight, longest_wait }
    }

    pub(crate) fn health(&self) -> Health {
        let monitor = &self.shared.monitor;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Health {
            connected: monitor.connected(),
            trouble: monitor.trouble().map(|fault| fault.sentence),
            trouble_in_public: monitor.trouble().map(|fault| fault.kind.in_public()),
            reconnects: monitor.reconnects(),
            errors: monitor.errors(),
            late: read(&monitor.late),
            turns_requeued: read(&monitor.turns_requeued),
            incompatible_peers: self.shared.membership.lock().incompatible_peers(),
            round_trips: monitor.round_trips(),
        }
    }

    pub(crate) fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.ring();
    }

    /// Starts a thread that maintains one connection.
    fn run(&self, name: &str, link: Link, body: fn(&Shared)) {
        self.shared.monitor.on_planned(link);
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || body(&shared));
        let thread = thread.expect("the system has a thread for the broker");
        self.threads.lock().push(thread);
    }
}

impl Drop for Redis {
    /// Announces the end of this process, so that the others need not wait until its announcement
    /// expires.
    fn drop(&mut self) {
        self.close();
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.pending.wake();
        self.shared.ring();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            _ = thread.join();
        }
    }
}
