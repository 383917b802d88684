//! The broker between processes and machines: gateways and workers that share a Redis.
//!
//! A gateway lays the newest frame of a track into a slot that expires with the frame's deadline, and the track's turn into the
//! queue of its effect. A worker takes a turn and what then lies in the slot. Results go into one list a gateway. `keys` names
//! all that is in Redis, `submit.lua` and `take.lua` are the two moves that must not be torn apart, `wire` is the bytes.
//!
//! This file is what a process has at its broker; `gateway` and `seat` are its two ends, `presence` lets processes know of one
//! another, `monitor` knows how the connections are.

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

/// Where Redis is, and who we are.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Its address, with user and password.
    pub url: RedisUrl,
    /// What the names of all our keys and channels begin with.
    pub prefix: String,
    /// For `rediss://`: the certificate, PEM, of the authority to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// For `rediss://`: the certificate that we show, where Redis wants one.
    pub client_certificate: Option<ClientCertificate>,
    /// What others are told of this process.
    pub identity: Identity,
}

/// What a process shows a Redis that asks for client certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file of the certificate, with those that lead to its authority.
    pub certificate: PathBuf,
    /// PEM file of its key, not encrypted.
    pub key: PathBuf,
}

/// What others are told of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The machine that it runs on.
    pub host: String,
    /// The version of the program.
    pub version: String,
    /// What its models run on.
    pub device: String,
}

/// See [`crate::Broker`] for the contract.
pub struct Redis {
    shared: Arc<Shared>,
    gateway: Once,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the threads of the broker share.
struct Shared {
    connector: Connector,
    keys: Keys,
    me: PeerId,
    identity: Identity,
    monitor: Monitor,
    roster: Mutex<Roster>,
    desk: Desk,
    crew: Mutex<Crew>,
    /// No worker of this process takes another job.
    closed: AtomicBool,
    /// All threads end.
    ended: AtomicBool,
    /// Rung when something is to be announced, and when threads are to end.
    bell: Condvar,
    rung: Mutex<bool>,
}

/// Between attempts to connect, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

impl Redis {
    pub(crate) fn new(options: RedisOptions) -> Result<Self, RedisError> {
        let (keys, me) = (Keys::new(&options.prefix, options.url.database()), PeerId::random());
        let connector = Connector::new(&options, keys.probe(me))?;
        // A Redis that is not there may come later; the threads say so, and try.
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

    /// A process that has no tracks needs no connections for their frames.
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

    /// Starts a thread that keeps one connection.
    fn run(&self, name: &str, link: Link, body: fn(&Shared)) {
        self.shared.monitor.on_planned(link);
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || body(&shared));
        let thread = thread.expect("the system has a thread for the broker");
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }
}

impl Drop for Redis {
    /// Says goodbye, so that nobody has to wait for the announcement to expire.
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
            // Before anybody hears that frames can pass.
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

    /// Redis has taken a write that it can take at once, or has refused it.
    fn on_written(&self, refused: Option<&Fault>) {
        if self.monitor.on_written(refused) {
            self.desk.tell_all();
        }
    }

    /// Keeps a connection for as long as `wanted`: runs `body` on a fresh one whenever the one before has broken, with pauses that grow
    /// while none can be had.
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
                // The connection was given up, and not lost: a new one is there at once.
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

    /// Wakes whoever pauses.
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }

    /// Lets time pass, less of it once it is not `wanted` any more.
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

/// Tells all tracks the same.
fn service_changed(sinks: &[Arc<Sink>]) {
    sinks.iter().for_each(|sink| sink(Notice::ServiceChanged));
}
