//! How the connections to Redis are, and what went wrong on them. It says so in the log once, not once a connection.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::error::{ErrorKind, Fault};
use crate::RoundTrips;

/// A connection, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Link {
    /// We announce ourselves on it.
    Announce,
    /// We hear the others on it.
    Listen,
    /// Frames go out on it.
    Submit,
    /// Results come in on it.
    Results,
    /// One worker of this process takes frames on it.
    Seat(u64),
}

/// The state of all connections, and counters.
#[derive(Default)]
pub(super) struct Monitor {
    links: Mutex<Links>,
    reconnects: AtomicU64,
    errors: [AtomicU64; ErrorKind::ALL.len()],
    last_complaint: Mutex<Option<(Instant, String)>>,
    round_trips: Mutex<RoundTrips>,
    pub(super) late: AtomicU64,
    pub(super) turns_requeued: AtomicU64,
}

#[derive(Default)]
struct Links {
    /// `Some`: what is wrong with it.
    by_purpose: BTreeMap<Link, State>,
    /// Writes that were refused in a row, and the last refusal.
    refusals: u32,
    refused: Option<Fault>,
    /// When the first of those that are down went down, once that was said.
    down_since: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Connecting,
    Up,
    Down(Fault),
}

/// Beats of the announcement (200 ms each) at which Redis refuses to write before frames are held to be lost: where it is only at the
/// edge of its memory, single ones are refused.
const REFUSALS: u32 = 2;

/// An error that repeats is said again after this long.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(10);

impl Monitor {
    /// There is to be such a connection.
    pub(super) fn on_planned(&self, link: Link) {
        self.lock().by_purpose.entry(link).or_insert(State::Connecting);
    }

    /// A connection stands. Returns whether now all do.
    pub(super) fn on_up(&self, link: Link) -> bool {
        let mut links = self.lock();
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

    /// A connection broke, or did not come about. Returns whether all stood until now.
    pub(super) fn on_down(&self, link: Link, fault: &Fault) -> bool {
        self.count(fault.kind);
        let mut links = self.lock();
        let connected = links.all_up();
        links.by_purpose.insert(link, State::Down(fault.clone()));
        links.on_fault(fault);
        debug!(?link, "{}", fault.sentence);
        connected
    }

    /// Redis has taken a write, or has refused it though the connection stands. Returns whether that changes what [`Monitor::connected`] says.
    pub(super) fn on_written(&self, refused: Option<&Fault>) -> bool {
        let mut links = self.lock();
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

    /// The connection is not needed any more.
    pub(super) fn on_gone(&self, link: Link) {
        self.lock().by_purpose.remove(&link);
    }

    /// Something was refused, or was not ours. Counted always, said when it is new or was not said for a while.
    pub(super) fn on_complaint(&self, kind: ErrorKind, sentence: &str) {
        self.count(kind);
        let mut last = self.last_complaint.lock().unwrap_or_else(PoisonError::into_inner);
        let said = last.as_ref().is_some_and(|(at, what)| what == sentence && at.elapsed() < SAY_AGAIN_AFTER);
        if !said {
            warn!("{sentence}");
            *last = Some((Instant::now(), sentence.into()));
        }
    }

    /// All connections stand, and Redis takes writes.
    pub(super) fn connected(&self) -> bool {
        self.lock().all_up()
    }

    /// What is wrong with the first connection that does not stand.
    pub(super) fn trouble(&self) -> Option<Fault> {
        let links = self.lock();
        let mut states = links.by_purpose.values();
        let down = states.find_map(|state| if let State::Down(fault) = state { Some(fault.clone()) } else { None });
        let making = || Fault { kind: ErrorKind::Unreachable, sentence: "the connection to Redis is being made".into() };
        down.or_else(|| links.refused.clone()).or_else(|| (!links.all_up()).then(making))
    }

    /// Redis answered what it could answer at once.
    pub(super) fn on_answer(&self, took: Duration) {
        self.round_trips.lock().unwrap_or_else(PoisonError::into_inner).on_answer(took);
    }

    pub(super) fn round_trips(&self) -> RoundTrips {
        self.round_trips.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    pub(super) fn errors(&self) -> Vec<(&'static str, u64)> {
        ErrorKind::ALL.into_iter().map(|kind| (kind.label(), self.errors[kind as usize].load(Ordering::Relaxed))).collect()
    }

    fn count(&self, kind: ErrorKind) {
        self.errors[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert_eq!(monitor.errors()[0], ("unreachable", 2));
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
        monitor.on_planned(Link::Seat(0));
        assert!(monitor.trouble().is_some());
        monitor.on_up(Link::Seat(0));
        assert_eq!((monitor.reconnects(), monitor.trouble()), (0, None));
    }
}
