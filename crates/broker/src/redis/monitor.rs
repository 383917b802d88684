//! State of the connections to Redis, and counters of their errors. An outage is logged once, not
//! once per connection.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{debug, info, warn};

use super::error::{ErrorKind, Fault};
use crate::RoundTrips;

/// Purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Link {
    /// Sends the announcements of this process.
    Announce,
    /// Receives the announcements of all processes.
    Listen,
    /// Sends frames.
    Submit,
    /// Receives results.
    Results,
    /// Takes frames for one worker of this process, by the number of its seat.
    Worker(u64),
}

/// State of all connections, and counters of errors.
#[derive(Default)]
pub(super) struct Monitor {
    links: Mutex<Links>,
    reconnects: AtomicU64,
    errors: [AtomicU64; ErrorKind::ALL.len()],
    last_complaint: Mutex<Option<Complaint>>,
    round_trips: Mutex<RoundTrips>,
    pub(super) late: AtomicU64,
    pub(super) turns_requeued: AtomicU64,
}

/// A logged failure that left the connections as they were.
struct Complaint {
    at: Instant,
    sentence: String,
}

#[derive(Default)]
struct Links {
    /// State of each connection.
    by_purpose: BTreeMap<Link, State>,
    /// Number of writes that Redis has refused in a row.
    refusals: u32,
    /// Latest refusal, once [`REFUSALS`] writes in a row were refused.
    refused: Option<Fault>,
    /// Start of the current outage, once it was logged.
    down_since: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Connecting,
    Up,
    Down(Fault),
}

/// Number of heartbeats in a row (200 ms each) whose write Redis must refuse to count as
/// disconnected. A Redis at the edge of its memory refuses single writes.
const REFUSALS: u32 = 2;

/// Time after which an error that repeats is logged again.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(10);

impl Monitor {
    /// Registers a connection that is to be made.
    pub(super) fn on_planned(&self, link: Link) {
        self.links.lock().by_purpose.entry(link).or_insert(State::Connecting);
    }

    /// Records that a connection is up. Returns true if all are up now, and this one was not
    /// before.
    pub(super) fn on_up(&self, link: Link) -> bool {
        let mut links = self.links.lock();
        let before = links.by_purpose.insert(link, State::Up);
        if matches!(before, Some(State::Down(_))) {
            self.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        let connected = links.all_up();
        if connected {
            links.on_all_up();
        }
        connected && before != Some(State::Up)
    }

    /// Records that a connection broke or could not be made. Returns whether all were up until now.
    pub(super) fn on_down(&self, link: Link, fault: &Fault) -> bool {
        self.count(fault.kind);
        let mut links = self.links.lock();
        let connected = links.all_up();
        links.by_purpose.insert(link, State::Down(fault.clone()));
        links.on_fault(fault);
        debug!(?link, "{}", fault.sentence);
        connected
    }

    /// Records that Redis has accepted a write, or has refused it although the connection is up.
    /// Returns whether that changes the result of [`Monitor::connected`].
    pub(super) fn on_written(&self, refused: Option<&Fault>) -> bool {
        let mut links = self.links.lock();
        let before = links.all_up();
        match refused {
            None => {
                links.refusals = 0;
                links.refused = None;
            }
            Some(fault) => {
                self.count(fault.kind);
                links.refusals += 1;
                if links.refusals >= REFUSALS {
                    links.refused = Some(fault.clone());
                    links.on_fault(fault);
                }
            }
        }
        let now = links.all_up();
        if now {
            links.on_all_up();
        }
        before != now
    }

    /// Removes a connection that is not needed any more.
    pub(super) fn on_gone(&self, link: Link) {
        self.links.lock().by_purpose.remove(&link);
    }

    /// Counts a failure that leaves the state of the connections as it is: a refused command, or
    /// foreign data. It is logged if it is new or was not logged for [`SAY_AGAIN_AFTER`].
    pub(super) fn on_complaint(&self, kind: ErrorKind, sentence: &str) {
        self.count(kind);
        let mut last = self.last_complaint.lock();
        let said = last.as_ref().is_some_and(|last| last.sentence == sentence && last.at.elapsed() < SAY_AGAIN_AFTER);
        if !said {
            warn!("{sentence}");
            *last = Some(Complaint { at: Instant::now(), sentence: sentence.into() });
        }
    }

    /// Returns whether all connections are up and Redis accepts writes.
    pub(super) fn connected(&self) -> bool {
        self.links.lock().all_up()
    }

    /// Returns the fault of the first connection that is down, else of refused writes, else that a
    /// connection is still being made.
    pub(super) fn trouble(&self) -> Option<Fault> {
        let links = self.links.lock();
        let mut states = links.by_purpose.values();
        let down = states.find_map(|state| if let State::Down(fault) = state { Some(fault.clone()) } else { None });
        let making = || Fault { kind: ErrorKind::Unreachable, sentence: "the connection to Redis is being made".into() };
        down.or_else(|| links.refused.clone()).or_else(|| (!links.all_up()).then(making))
    }

    /// Records the round trip of a request that Redis can answer at once.
    pub(super) fn on_answer(&self, took: Duration) {
        self.round_trips.lock().on_answer(took);
    }

    pub(super) fn round_trips(&self) -> RoundTrips {
        self.round_trips.lock().clone()
    }

    pub(super) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    pub(super) fn errors(&self) -> BTreeMap<&'static str, u64> {
        ErrorKind::ALL.into_iter().map(|kind| (kind.label(), self.errors[kind as usize].load(Ordering::Relaxed))).collect()
    }

    fn count(&self, kind: ErrorKind) {
        self.errors[kind as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Links {
    fn all_up(&self) -> bool {
        self.refused.is_none() && self.by_purpose.values().all(|state| *state == State::Up)
    }

    fn on_fault(&mut self, fault: &Fault) {
        if self.down_since.is_none() {
            self.down_since = Some(Instant::now());
            warn!("{}; it is tried again until it works", fault.sentence);
        }
    }

    fn on_all_up(&mut self) {
        if let Some(since) = self.down_since.take() {
            info!("connected to Redis again after {:.1?}", since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> Fault {
        Fault { kind: ErrorKind::Unreachable, sentence: "gone".into() }
    }

    #[test]
    fn connected_means_that_all_connections_stand() {
        let monitor = Monitor::default();
        monitor.on_planned(Link::Submit);
        monitor.on_planned(Link::Results);
        assert!(!monitor.connected());
        assert!(!monitor.on_up(Link::Submit));
        assert!(monitor.on_up(Link::Results), "the last one makes the difference");
        assert!(monitor.on_down(Link::Submit, &fault()), "the first one makes the difference");
        assert!(!monitor.on_down(Link::Results, &fault()));
        assert_eq!(monitor.trouble(), Some(fault()));
        assert!(!monitor.on_up(Link::Submit));
        monitor.on_gone(Link::Results);
        assert!(monitor.connected());
        assert_eq!(monitor.reconnects(), 1);
        assert_eq!(monitor.errors()["unreachable"], 2);
    }

    #[test]
    fn redis_that_refuses_writes_is_not_connected_until_it_takes_one() {
        let monitor = Monitor::default();
        monitor.on_planned(Link::Submit);
        monitor.on_up(Link::Submit);
        let full = Fault { kind: ErrorKind::Full, sentence: "full".into() };
        assert!(!monitor.on_written(Some(&full)) && monitor.connected(), "one refusal is the edge of its memory");
        assert!(!monitor.on_written(None));
        assert!(!monitor.on_written(Some(&full)));
        assert!(monitor.on_written(Some(&full)) && !monitor.connected());
        assert_eq!(monitor.trouble(), Some(full.clone()));
        assert!(!monitor.on_written(Some(&full)), "it is no news");
        assert!(monitor.on_written(None) && monitor.connected());
        assert_eq!((monitor.trouble(), monitor.reconnects()), (None, 0));
    }

    #[test]
    fn a_first_connection_is_no_reconnection() {
        let monitor = Monitor::default();
        monitor.on_planned(Link::Worker(0));
        assert!(monitor.trouble().is_some());
        monitor.on_up(Link::Worker(0));
        assert_eq!((monitor.reconnects(), monitor.trouble()), (0, None));
    }
}
