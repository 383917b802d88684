//! Admission control: limits on the number of sessions in total and per address, on sessions that
//! are not connected yet, on the rate of offers, and on streams of events and pictures.
//!
//! A [`Place`] is reserved before an offer is read, so that concurrent offers cannot exceed a limit
//! together. It is free again when it is dropped. The time is an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::visitor::Visitor;
use ooblex_config as config;
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Addresses whose rate of offers is remembered. For a new one, the address whose last offer is
/// oldest is forgotten.
const MAX_REMEMBERED_ADDRESSES: usize = 4096;
/// Time that clients are asked to wait while the gateway stops.
const DRAINING_RETRY: Duration = Duration::from_secs(5);
/// Time that clients are asked to wait while the gateway is full.
const FULL_RETRY: Duration = Duration::from_secs(10);
/// Time that clients are asked to wait for sessions that are not connected yet, which connect or
/// end within seconds.
const UNCONNECTED_RETRY: Duration = Duration::from_secs(2);
/// Fraction of the HTTP connections, in total and of one address, that may be streams: one in
/// this number.
const CONNECTIONS_PER_STREAM: usize = 4;

/// The limits, and the counts that they apply to.
pub struct Admission {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    sessions: usize,
    of_one: usize,
    unconnected: usize,
    unconnected_of_one: usize,
    offers_per_minute: u32,
    streams: usize,
    streams_of_one: usize,
}

#[derive(Default)]
struct State {
    is_draining: bool,
    all: Count,
    by_visitor: HashMap<Visitor, Count>,
    offers: HashMap<Visitor, Offers>,
    /// Number of open streams of each address that has one.
    streams: HashMap<Visitor, usize>,
}

/// The number of sessions, and of those among them that are not connected yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    sessions: usize,
    unconnected: usize,
}

/// A token bucket of the offers of one address.
#[derive(Debug, Clone, Copy)]
struct Offers {
    left: f64,
    at: Instant,
}

/// The right to one session.
pub struct Place {
    admission: Arc<Admission>,
    visitor: Visitor,
    is_connected: bool,
}

/// The right to one stream of events or pictures.
pub(crate) struct StreamPlace {
    admission: Arc<Admission>,
    visitor: Visitor,
}

impl Admission {
    /// Creates the counts without sessions.
    pub fn new(limits: &config::Limits) -> Self {
        let limits = Limits {
            sessions: limits.sessions,
            of_one: limits.sessions_per_address,
            unconnected: limits.unconnected_sessions,
            unconnected_of_one: limits.unconnected_per_address,
            offers_per_minute: limits.offers_per_minute,
            streams: (limits.connections / CONNECTIONS_PER_STREAM).max(1),
            streams_of_one: (limits.connections_per_address / CONNECTIONS_PER_STREAM).max(1),
        };
        Self { limits, state: Mutex::default() }
    }

    /// Refuses every offer from now on.
    pub fn drain(&self) {
        self.state.lock().is_draining = true;
    }

    /// Returns whether every offer is refused.
    pub fn is_draining(&self) -> bool {
        self.state.lock().is_draining
    }

    /// Checks that the gateway takes new sessions.
    ///
    /// # Errors
    /// When it stops.
    pub(crate) fn check_open(&self) -> Result<(), Problem> {
        self.state.lock().check_open()
    }

    /// Counts an offer before it is read.
    ///
    /// # Errors
    /// When the gateway stops, or the address makes too many offers.
    pub fn on_offer(&self, now: Instant, visitor: Visitor) -> Result<(), Problem> {
        let mut state = self.state.lock();
        state.check_open()?;
        let per_minute = f64::from(self.limits.offers_per_minute);
        if state.offers.len() >= MAX_REMEMBERED_ADDRESSES && !state.offers.contains_key(&visitor) {
            let oldest = state.offers.iter().min_by_key(|(_, offers)| offers.at).map(|(visitor, _)| *visitor);
            oldest.map(|oldest| state.offers.remove(&oldest));
        }
        let offers = state.offers.entry(visitor).or_insert(Offers { left: per_minute, at: now });
        let elapsed = now.saturating_duration_since(offers.at);
        offers.left = (offers.left + elapsed.as_secs_f64() * per_minute / 60.0).min(per_minute);
        offers.at = offers.at.max(now);
        if offers.left >= 1.0 {
            offers.left -= 1.0;
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - offers.left) * 60.0 / per_minute);
        let detail = format!(
            "this address makes more than the {per_minute} offers a minute that limits.offers_per_minute allows: wait before the next \
             one, or raise it"
        );
        Err(Problem::new(ProblemKind::TooManyOffers, detail).retry_after(wait))
    }

    /// Reserves a place for a session that is not connected yet.
    ///
    /// # Errors
    /// When a limit is reached, which the problem names, or the gateway stops.
    pub fn enter(self: &Arc<Self>, visitor: Visitor) -> Result<Place, Problem> {
        let mut state = self.state.lock();
        state.check_open()?;
        let own = state.by_visitor.get(&visitor).copied().unwrap_or_default();
        let Limits { sessions, of_one, unconnected, unconnected_of_one, .. } = self.limits;
        let (kind, detail, retry) = if state.all.sessions >= sessions {
            let detail = format!("{sessions} sessions are running, as many as limits.sessions allows: try again later, or raise it");
            (ProblemKind::TooManySessions, detail, FULL_RETRY)
        } else if own.sessions >= of_one {
            let detail = format!(
                "this address has {of_one} sessions, as many as limits.sessions_per_address allows: end one, or raise it; if all visitors come \
                 through a proxy, name that in serve.trusted_proxies"
            );
            (ProblemKind::TooManyOfAddress, detail, FULL_RETRY)
        } else if state.all.unconnected >= unconnected {
            let detail = format!(
                "{unconnected} sessions are not connected yet, as many as limits.unconnected_sessions allows: try again in a moment, or raise it"
            );
            (ProblemKind::TooManyUnconnected, detail, UNCONNECTED_RETRY)
        } else if own.unconnected >= unconnected_of_one || (own.unconnected > 0 && 2 * state.all.unconnected >= unconnected) {
            // The second half of the places is for addresses that have none yet, so that a few
            // addresses cannot take them all.
            let detail = format!(
                "this address has {} sessions that are not connected yet, and limits.unconnected_per_address allows {unconnected_of_one}, or one \
                 while half of limits.unconnected_sessions are taken: try again in a moment, or raise them",
                own.unconnected
            );
            (ProblemKind::TooManyUnconnected, detail, UNCONNECTED_RETRY)
        } else {
            state.change(visitor, |count| *count = Count { sessions: count.sessions + 1, unconnected: count.unconnected + 1 });
            return Ok(Place { admission: self.clone(), visitor, is_connected: false });
        };
        Err(Problem::new(kind, detail).retry_after(retry))
    }

    /// Reserves a place for a stream of events or pictures, which holds an HTTP connection for its whole life.
    ///
    /// # Errors
    /// When a limit is reached; the problem names it.
    pub(crate) fn enter_stream(self: &Arc<Self>, visitor: Visitor) -> Result<StreamPlace, Problem> {
        let mut state = self.state.lock();
        let own = state.streams.get(&visitor).copied().unwrap_or_default();
        let Limits { streams, streams_of_one, .. } = self.limits;
        let detail = if own >= streams_of_one {
            format!(
                "this address reads {own} streams of events or pictures, and at most a quarter of limits.connections_per_address may be streams: end one \
                 of them, or raise it"
            )
        } else if state.streams.values().sum::<usize>() >= streams {
            format!(
                "{streams} streams of events or pictures are open, and at most a quarter of limits.connections may be streams: try again later, or raise it"
            )
        } else {
            *state.streams.entry(visitor).or_default() += 1;
            return Ok(StreamPlace { admission: self.clone(), visitor });
        };
        Err(Problem::new(ProblemKind::TooManyReaders, detail).retry_after(FULL_RETRY))
    }
}

impl State {
    fn check_open(&self) -> Result<(), Problem> {
        if !self.is_draining {
            return Ok(());
        }
        let detail = "the gateway is stopping and takes no new sessions: try again in a few seconds";
        Err(Problem::new(ProblemKind::Unavailable, detail).retry_after(DRAINING_RETRY))
    }

    fn change(&mut self, visitor: Visitor, change: impl Fn(&mut Count)) {
        change(&mut self.all);
        let own = self.by_visitor.entry(visitor).or_default();
        change(own);
        if *own == Count::default() {
            self.by_visitor.remove(&visitor);
        }
    }
}

impl Place {
    /// Returns whether the session is one of a pull or push.
    pub(crate) fn is_of_link(&self) -> bool {
        self.visitor.is_own()
    }

    /// The session is connected now.
    pub fn connected(&mut self) {
        if !std::mem::replace(&mut self.is_connected, true) {
            self.admission.state.lock().change(self.visitor, |count| count.unconnected = count.unconnected.saturating_sub(1));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let unconnected = usize::from(!self.is_connected);
        self.admission.state.lock().change(self.visitor, |count| {
            count.sessions = count.sessions.saturating_sub(1);
            count.unconnected = count.unconnected.saturating_sub(unconnected);
        });
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        if let Some(own) = state.streams.get_mut(&self.visitor) {
            *own -= 1;
            if *own == 0 {
                state.streams.remove(&self.visitor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn admission() -> Arc<Admission> {
        let limits = config::Limits {
            sessions: 6,
            sessions_per_address: 4,
            unconnected_sessions: 4,
            unconnected_per_address: 2,
            offers_per_minute: 60,
            ..config::Limits::default()
        };
        Arc::new(Admission::new(&limits))
    }

    fn visitor(last: u8) -> Visitor {
        Visitor::at([192, 0, 2, last].into())
    }

    fn kind(refused: Result<Place, Problem>) -> Option<(ProblemKind, bool)> {
        refused.err().map(|problem| (problem.kind, problem.retry_after.is_some()))
    }

    #[test]
    fn places_that_are_not_connected_are_limited_in_all_and_per_address() {
        let admission = admission();
        let (mut first, second) = (admission.enter(visitor(1)).unwrap(), admission.enter(visitor(1)).unwrap());
        assert_eq!(kind(admission.enter(visitor(1))), Some((ProblemKind::TooManyUnconnected, true)), "two of one address");
        let others = [2, 3].map(|last| admission.enter(visitor(last)).unwrap());
        assert_eq!(kind(admission.enter(visitor(4))), Some((ProblemKind::TooManyUnconnected, true)), "four in all");
        first.connected();
        first.connected();
        let last = admission.enter(visitor(4)).unwrap();
        drop((others, second, last, first));
        let state = admission.state.lock();
        assert!(state.by_visitor.is_empty() && state.all == Count::default(), "nothing is left of them");
    }

    #[test]
    fn the_second_half_of_the_places_is_for_addresses_that_have_none() {
        let limits = config::Limits { unconnected_sessions: 8, unconnected_per_address: 4, ..config::Limits::default() };
        let admission = Arc::new(Admission::new(&limits));
        let mut places: Vec<_> = (0..4).map(|_| admission.enter(visitor(1)).unwrap()).collect();
        places.push(admission.enter(visitor(2)).unwrap());
        assert_eq!(kind(admission.enter(visitor(2))), Some((ProblemKind::TooManyUnconnected, true)), "it has one");
        places.extend((3..6).map(|last| admission.enter(visitor(last)).unwrap()));
        assert_eq!(kind(admission.enter(visitor(6))), Some((ProblemKind::TooManyUnconnected, true)), "all are taken");
        places.drain(..5);
        assert!(admission.enter(visitor(2)).is_ok() && admission.enter(visitor(6)).is_ok());
    }

    #[test]
    fn places_are_limited_in_all_and_per_address() {
        let admission = admission();
        let connected = |visitor| {
            let mut place = admission.enter(visitor)?;
            place.connected();
            Ok::<_, Problem>(place)
        };
        let mut places: Vec<_> = (0..4).map(|_| connected(visitor(1)).unwrap()).collect();
        assert_eq!(kind(connected(visitor(1))), Some((ProblemKind::TooManyOfAddress, true)));
        places.extend((0..2).map(|_| connected(visitor(2)).unwrap()));
        assert_eq!(kind(connected(visitor(3))), Some((ProblemKind::TooManySessions, true)));
        places.pop();
        assert!(connected(visitor(3)).is_ok(), "a place that was left is free at once");
    }

    #[test]
    fn offers_that_come_together_cannot_pass_a_limit_together() {
        let limits =
            config::Limits { unconnected_sessions: 1000, unconnected_per_address: 1000, sessions_per_address: 5, ..Default::default() };
        let admission = Arc::new(Admission::new(&limits));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let admission = admission.clone();
                std::thread::spawn(move || (0..10).filter_map(|_| admission.enter(visitor(1)).ok()).collect::<Vec<_>>())
            })
            .collect();
        let places: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(places.len(), 5);
    }

    #[test]
    fn offers_of_one_address_have_a_rate_and_others_are_not_held_up() {
        let (admission, now) = (admission(), Instant::now());
        let taken = |at, visitor, count| (0..count).filter(|_| admission.on_offer(at, visitor).is_ok()).count();
        assert_eq!(taken(now, visitor(1), 100), 60);
        let refused = admission.on_offer(now, visitor(1)).unwrap_err();
        assert_eq!((refused.status, refused.kind, refused.retry_after), (429, ProblemKind::TooManyOffers, Some(SECOND)));
        assert_eq!(taken(now, visitor(2), 100), 60);
        assert_eq!(taken(now + 10 * SECOND, visitor(1), 100), 10, "one a second");
        assert_eq!(taken(now + 600 * SECOND, visitor(1), 100), 60, "a minute's worth at most");
    }

    #[test]
    fn addresses_that_are_remembered_are_limited() {
        let (admission, now) = (admission(), Instant::now());
        for n in 0..2 * MAX_REMEMBERED_ADDRESSES as u32 {
            let visitor = Visitor::at(std::net::Ipv4Addr::from_bits(n).into());
            assert!(admission.on_offer(now + n * Duration::from_millis(1), visitor).is_ok());
        }
        assert_eq!(admission.state.lock().offers.len(), MAX_REMEMBERED_ADDRESSES);
    }

    #[test]
    fn event_streams_are_limited_in_all_and_per_address() {
        let limits = config::Limits { connections: 12, connections_per_address: 8, ..config::Limits::default() };
        let admission = Arc::new(Admission::new(&limits));
        let refused = |last| admission.enter_stream(visitor(last)).err().map(|problem| (problem.kind, problem.detail));
        let mut first: Vec<_> = (0..2).map(|_| admission.enter_stream(visitor(1)).unwrap()).collect();
        let (kind, detail) = refused(1).unwrap();
        assert_eq!(kind, ProblemKind::TooManyReaders);
        assert!(detail.contains("limits.connections_per_address"), "{detail}");
        let second = admission.enter_stream(visitor(2)).unwrap();
        let (_, detail) = refused(2).unwrap();
        assert!(detail.contains("limits.connections may"), "three in all: {detail}");
        first.pop();
        assert_eq!(refused(2), None, "a stream that ended makes room");
        drop((first, second));
        assert!(admission.state.lock().streams.is_empty(), "nothing is left of them");
    }

    #[test]
    fn a_gateway_that_stops_says_when_to_come_back() {
        let admission = admission();
        admission.drain();
        let offer = admission.on_offer(Instant::now(), visitor(1));
        let link = admission.enter(Visitor::own(1)).map(|_| ());
        for refused in [offer, link, admission.check_open()] {
            let refused = refused.unwrap_err();
            assert_eq!((refused.status, refused.retry_after), (503, Some(DRAINING_RETRY)));
        }
    }
}
