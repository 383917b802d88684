//! Broker between processes and machines: gateways and workers that share a Redis.
//!
//! A gateway stores the newest frame of a track in a slot (a key that expires at the frame's
//! deadline) and appends the track's turn (its entry) to the queue of its effect. A worker takes a
//! turn and the frame that is in the slot by then. Results go into one list per gateway. `keys`
//! names everything in Redis, `submit.lua` and `take.lua` are the two operations that must be
//! atomic, and `wire` is the encoding of jobs and results.
//!
//! This file has the state and the threads of one process's broker. `gateway` and `seat` are its
//! two ends, `presence` announces the processes to each other, and `monitor` has the state of the
//! connections.

mod connection;
mod error;
pub mod fuzz;
mod gateway;
mod keys;
mod monitor;
mod presence;
mod roster;
mod seat;
mod stream;
mod tls;
mod url;
mod wire;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ooblex_pipeline::{EffectName, Job, TrackId};

use crate::{Capacity, Health, Notice, Service, Sink};
use connection::{Connector, Limit};
use error::Fault;
use gateway::Desk;
use keys::{Keys, PeerId};
use monitor::{Link, Monitor};
use presence::Crew;
use roster::Roster;

pub(crate) use error::ErrorKind;
pub use error::RedisError;
pub(crate) use seat::{Hand, Seat};
pub use url::{RedisUrl, UrlError};

/// Address of the Redis, and identity of this process.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Address of the Redis, with user and password.
    pub url: RedisUrl,
    /// Prefix of the names of all keys and channels of Ooblex.
    pub prefix: String,
    /// PEM file of the certificate authority to trust with `rediss://`, in place of those of the
    /// system.
    pub ca_file: Option<PathBuf>,
    /// Client certificate for `rediss://`, if Redis requires one.
    pub client_certificate: Option<ClientCertificate>,
    /// Identity of this process, which it announces to the others.
    pub identity: Identity,
}

/// Certificate and key for a Redis that requires client certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file of the certificate, followed by the chain to its authority.
    pub certificate: PathBuf,
    /// PEM file of the private key, not encrypted.
    pub key: PathBuf,
}

/// Identity that a process announces to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the machine that the process runs on.
    pub host: String,
    /// Version of the program.
    pub version: String,
    /// Device that its models run on.
    pub device: String,
}

/// Broker through Redis. [`crate::Broker`] documents the contract.
pub struct Redis {
    shared: Arc<Shared>,
    gateway: Once,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// State that the threads of the broker share.
struct Shared {
    connector: Connector,
    keys: Keys,
    me: PeerId,
    identity: Identity,
    monitor: Monitor,
    roster: Mutex<Roster>,
    desk: Desk,
    crew: Mutex<Crew>,
    /// True if no worker of this process takes another job.
    closed: AtomicBool,
    /// True if all threads are to end.
    ended: AtomicBool,
    /// Notified when there is something to announce, and when threads are to end.
    bell: Condvar,
    rung: Mutex<bool>,
}

/// First and longest pause between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

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
            roster: Mutex::default(),
            desk: Desk::default(),
            crew: Mutex::default(),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            bell: Condvar::new(),
            rung: Mutex::new(false),
        });
        let redis = Self { shared, gateway: Once::new(), threads: Mutex::default() };
        redis.run("broker-announce", Link::Announce, presence::announce);
        redis.run("broker-listen", Link::Listen, presence::listen);
        Ok(redis)
    }

    /// Starts the two threads for frames and results. A process without tracks does not need them.
    pub(crate) fn open_gateway(&self) {
        self.gateway.call_once(|| {
            self.shared.desk.open();
            self.run("broker-submit", Link::Submit, gateway::submit);
            self.run("broker-results", Link::Results, gateway::results);
        });
    }

    pub(crate) fn open_track(&self, track: TrackId, sink: Sink) {
        self.open_gateway();
        self.shared.desk.open_track(track, sink);
    }

    pub(crate) fn close_track(&self, track: TrackId) {
        self.shared.desk.close_track(track);
    }

    pub(crate) fn submit(&self, job: Job) {
        self.shared.desk.submit(job);
    }

    pub(crate) fn service(&self, effect: &EffectName) -> Service {
        match self.shared.monitor.connected() {
            false => Service::Disconnected,
            true if self.shared.roster().serves(effect) => Service::Served,
            true => Service::NoWorker,
        }
    }

    pub(crate) fn capacity(&self) -> Capacity {
        let waiting = self.shared.desk.waiting();
        let (in_flight, longest_wait) = self.shared.desk.load(Instant::now());
        let roster = self.shared.roster();
        let (workers, serving, devices) = (roster.threads(), roster.serving(), roster.devices());
        Capacity { workers, serving, devices, busy: roster.busy(), waiting, in_flight, longest_wait }
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
            strangers: self.shared.roster().strangers(),
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
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }
}

impl Drop for Redis {
    /// Announces the end of this process, so that the others need not wait until its announcement
    /// expires.
    fn drop(&mut self) {
        self.close();
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.desk.wake();
        self.shared.ring();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            _ = thread.join();
        }
    }
}

impl Shared {
    fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_up(&self, link: Link) {
        if link == Link::Submit {
            // The gateway accepts frames before tracks are told that frames can pass.
            self.desk.on_connected();
        }
        if self.monitor.on_up(link) {
            self.desk.tell_all();
        }
    }

    fn on_down(&self, link: Link, fault: &Fault) {
        if self.monitor.on_down(link, fault) {
            self.desk.tell_all();
        }
    }

    /// Records that Redis has accepted the write of a heartbeat, or has refused it.
    fn on_written(&self, refused: Option<&Fault>) {
        if self.monitor.on_written(refused) {
            self.desk.tell_all();
        }
    }

    /// Maintains a connection while `wanted` returns true: runs `body` on a new connection whenever
    /// the previous one has broken, with exponential backoff while Redis is unreachable.
    fn keep<T>(
        &self,
        link: Link,
        (patience, limit): (Duration, Limit),
        wanted: impl Fn() -> bool,
        mut body: impl FnMut(connection::Line) -> Result<T, Fault>,
    ) -> Option<T> {
        let mut backoff = BACKOFF.0;
        while wanted() {
            let since = Instant::now();
            let broken = self.connector.connect(patience, limit).and_then(|line| {
                self.on_up(link);
                body(line)
            });
            match broken {
                Ok(done) => return Some(done),
                // This side closed the connection because of malformed data, so Redis does not
                // count as unreachable.
                Err(fault) if fault.kind == ErrorKind::Malformed => self.monitor.on_complaint(fault.kind, &fault.sentence),
                Err(fault) => self.on_down(link, &fault),
            }
            if since.elapsed() > BACKOFF.1 * 4 {
                backoff = BACKOFF.0;
            }
            self.pause(backoff, &wanted);
            backoff = (backoff * 2).min(BACKOFF.1);
        }
        None
    }

    /// Wakes the threads in [`Shared::pause`] and the one that sends announcements.
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }

    /// Sleeps for `time`, or until the bell is rung and `wanted` returns false.
    fn pause(&self, time: Duration, wanted: impl Fn() -> bool) {
        let deadline = Instant::now() + time;
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while wanted() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            rung = self.bell.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Sends [`Notice::ServiceChanged`] to all tracks.
fn service_changed(sinks: &[Arc<Sink>]) {
    sinks.iter().for_each(|sink| sink(Notice::ServiceChanged));
}
