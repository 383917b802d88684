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
    /// When the first of those that are down went down, once that was said.
    down_since: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Connecting,
    Up,
    Down(String),
}

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
        if connected && let Some(since) = links.down_since.take() {
            info!("connected to Redis again after {:.1?}", since.elapsed());
        }
        connected && before != Some(State::Up)
    }

    /// A connection broke, or did not come about. Returns whether all stood until now.
    pub(super) fn on_down(&self, link: Link, fault: &Fault) -> bool {
        self.count(fault.kind);
        let mut links = self.lock();
        let connected = links.all_up();
        links.by_purpose.insert(link, State::Down(fault.sentence.clone()));
        if links.down_since.is_none() {
            links.down_since = Some(Instant::now());
            warn!("{}; it is tried again until it works", fault.sentence);
        } else {
            debug!(?link, "{}", fault.sentence);
        }
        connected
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

    /// All connections stand.
    pub(super) fn connected(&self) -> bool {
        self.lock().all_up()
    }

    /// What is wrong with the first connection that does not stand.
    pub(super) fn trouble(&self) -> Option<String> {
        let links = self.lock();
        let mut states = links.by_purpose.values();
        let down = states.find_map(|state| if let State::Down(sentence) = state { Some(sentence.clone()) } else { None });
        down.or_else(|| (!links.all_up()).then(|| "the connection to Redis is being made".into()))
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
        self.by_purpose.values().all(|state| *state == State::Up)
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
        assert_eq!(monitor.trouble().as_deref(), Some("gone"));
        assert!(!monitor.on_up(Link::Submit));
        monitor.on_gone(Link::Results);
        assert!(monitor.connected());
        assert_eq!(monitor.reconnects(), 1);
        assert_eq!(monitor.errors()[0], ("unreachable", 2));
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
