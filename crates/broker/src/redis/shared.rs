//! The state that the threads of the broker share.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::connection::{self, Connector, Limit};
use super::error::{ErrorKind, Fault};
use super::keys::{Keys, PeerId, hex};
use super::local_workers::LocalWorkers;
use super::membership::{Announcement, Membership};
use super::monitor::{Link, Monitor};
use super::options::Identity;
use super::pending::PendingJobs;
use super::wire;

/// State that the threads of the broker share.
pub(super) struct Shared {
    pub(super) connector: Connector,
    pub(super) keys: Keys,
    pub(super) me: PeerId,
    pub(super) identity: Identity,
    pub(super) monitor: Monitor,
    pub(super) membership: Mutex<Membership>,
    pub(super) pending: PendingJobs,
    pub(super) local_workers: Mutex<LocalWorkers>,
    /// True if no worker of this process takes another job.
    pub(super) closed: AtomicBool,
    /// True if all threads are to end.
    pub(super) ended: AtomicBool,
    /// Notified when there is something to announce, and when threads are to end.
    pub(super) wakeup: Condvar,
    pub(super) woken: Mutex<bool>,
}

/// First and longest pause between two attempts to connect.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

impl Shared {
    pub(super) fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(super) fn on_up(&self, link: Link) {
        if link == Link::Submit {
            // The gateway accepts frames before tracks are told that frames can pass.
            self.pending.on_connected();
        }
        if self.monitor.on_up(link) {
            self.pending.tell_all();
        }
    }

    pub(super) fn on_down(&self, link: Link, fault: &Fault) {
        if self.monitor.on_down(link, fault) {
            self.pending.tell_all();
        }
    }

    /// Records that Redis has accepted the write of a heartbeat, or has refused it.
    pub(super) fn on_written(&self, refused: Option<&Fault>) {
        if self.monitor.on_written(refused) {
            self.pending.tell_all();
        }
    }

    /// Maintains a connection while `wanted` returns true: runs `body` on a new connection whenever
    /// the previous one has broken, with exponential backoff while Redis is unreachable. A panic of
    /// `body` counts as a broken connection, because the thread must not end.
    pub(super) fn keep<T>(
        &self,
        link: Link,
        (patience, limit): (Duration, Limit),
        wanted: impl Fn() -> bool,
        mut body: impl FnMut(connection::PipelinedConnection) -> Result<T, Fault>,
    ) -> Option<T> {
        let mut backoff = BACKOFF.0;
        while wanted() {
            let since = Instant::now();
            let maintain = || {
                self.connector.connect(patience, limit).and_then(|line| {
                    self.on_up(link);
                    body(line)
                })
            };
            let broken = catch_unwind(AssertUnwindSafe(maintain)).unwrap_or_else(|_| Err(panicked(link)));
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
    pub(super) fn ring(&self) {
        *self.woken.lock() = true;
        self.wakeup.notify_all();
    }

    /// Sleeps for `time`, or until the wakeup is woken and `wanted` returns false.
    pub(super) fn pause(&self, time: Duration, wanted: impl Fn() -> bool) {
        let deadline = Instant::now() + time;
        let mut woken = self.woken.lock();
        while wanted() {
            if self.wakeup.wait_until(&mut woken, deadline).timed_out() {
                return;
            }
        }
    }

    pub(super) fn announcement(&self) -> Announcement {
        let local_workers = self.local_workers.lock();
        let threads = if self.closed() { 0 } else { local_workers.seats.len() };
        let mut effects: Vec<_> = if threads > 0 { local_workers.seats.values().flatten().cloned().collect() } else { Vec::new() };
        effects.sort();
        effects.dedup();
        Announcement {
            id: hex(self.me.0),
            wire: wire::VERSION.into(),
            version: self.identity.version.clone(),
            host: self.identity.host.clone(),
            device: self.identity.device.clone(),
            gateway: self.pending.is_open() && !self.ended(),
            threads,
            effects,
            busy_us: local_workers.busy.as_micros() as u64,
        }
    }

    /// Waits until there is something to announce, at most for `time`.
    pub(super) fn wait_for_wakeup(&self, time: Duration) {
        let mut woken = self.woken.lock();
        self.wakeup.wait_while_for(&mut woken, |woken| !*woken, time);
        *woken = false;
    }
}

fn panicked(link: Link) -> Fault {
    let sentence = format!("the thread of the connection to Redis ({link:?}) has panicked: report this with the lines before it");
    Fault { kind: ErrorKind::Other, sentence }
}
