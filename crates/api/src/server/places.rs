//! Connection slots, limited in total and by client address.
//!
//! When all slots are in use, the server closes the connection that has waited longest for its
//! client, or else the oldest stream, and gives its slot to the new one. So idle connections and
//! streams cannot exhaust the server, and health checks succeed. Connections with another response
//! in progress stay open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Capacity;
use super::watch::{Phase, Watch};
use crate::visitor::Visitor;
use ooblex_gateway::metrics::HttpFigures;

/// Largest number of concurrent TLS handshakes of one client.
const HANDSHAKES_PER_ADDRESS: usize = 32;

/// The reason why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// All slots are used by connections that are being answered.
    Full,
    /// The client has reached its limit of connections.
    OfAddress,
    /// The client has too many unfinished TLS handshakes.
    Handshakes,
}

impl Refusal {
    /// Returns the label in metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Refusal::Full => "full",
            Refusal::OfAddress => "address",
            Refusal::Handshakes => "handshakes",
        }
    }

    /// Returns the complete HTTP response for this refusal.
    pub(super) fn answer(self) -> String {
        let (status, detail) = match self {
            Refusal::Full => ("503 Service Unavailable", "the gateway has as many connections as limits.connections allows"),
            Refusal::OfAddress | Refusal::Handshakes => (
                "429 Too Many Requests",
                "this address has as many connections as limits.connections_per_address allows; a proxy belongs in serve.trusted_proxies",
            ),
        };
        let body = format!("{detail}: try again in a moment\n");
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{body}"
        )
    }
}

/// All connection slots of a server.
pub(super) struct Places {
    capacity: Capacity,
    book: Arc<Mutex<Book>>,
    figures: HttpFigures,
}

#[derive(Default)]
struct Book {
    next: u64,
    held: HashMap<u64, Holder>,
}

struct Holder {
    visitor: Visitor,
    watch: Arc<Watch>,
}

/// The slot of one connection; dropping it frees the slot.
pub(super) struct Place {
    number: u64,
    watch: Arc<Watch>,
    book: Arc<Mutex<Book>>,
    figures: HttpFigures,
}

impl Places {
    pub(super) fn new(capacity: Capacity, figures: HttpFigures) -> Self {
        Self { capacity, book: Arc::default(), figures }
    }

    /// Takes a slot for a connection from `address`. `is_tls` is true if the connection begins with
    /// a handshake.
    ///
    /// # Errors
    /// When a limit is reached.
    pub(super) fn take(&self, address: IpAddr, is_tls: bool) -> Result<Place, Refusal> {
        let mut book = self.book.lock();
        let placed = book.place(&self.capacity, address, is_tls);
        let (number, watch) = placed.inspect_err(|refusal| self.figures.on_refused_connection(refusal.label()))?;
        self.figures.set_connections(book.held.len());
        Ok(Place { number, watch, book: self.book.clone(), figures: self.figures.clone() })
    }

    /// Closes the connection that has waited longest for its client, or else the oldest stream.
    pub(super) fn make_room(&self) {
        self.book.lock().displace_longest();
    }
}

impl Book {
    fn place(&mut self, capacity: &Capacity, address: IpAddr, is_tls: bool) -> Result<(u64, Arc<Watch>), Refusal> {
        let visitor = Visitor::at(address);
        if !capacity.exempt.iter().any(|net| net.contains(&address)) {
            let own = || self.held.values().filter(|holder| holder.visitor == visitor);
            if own().count() >= capacity.per_address {
                return Err(Refusal::OfAddress);
            }
            if is_tls && own().filter(|holder| holder.watch.phase() == Phase::Handshake).count() >= HANDSHAKES_PER_ADDRESS {
                return Err(Refusal::Handshakes);
            }
        }
        if self.held.len() >= capacity.connections && !self.displace_longest() {
            return Err(Refusal::Full);
        }
        let watch = Arc::new(Watch::new(if is_tls { Phase::Handshake } else { Phase::Head }));
        let number = self.next;
        self.next += 1;
        self.held.insert(number, Holder { visitor, watch: watch.clone() });
        Ok((number, watch))
    }

    fn displace_longest(&mut self) -> bool {
        let displaceable = self.held.iter().filter_map(|(number, holder)| Some((holder.watch.displacement_rank()?, *number)));
        let Some((_, number)) = displaceable.min() else { return false };
        if let Some(holder) = self.held.remove(&number) {
            holder.watch.displace();
        }
        true
    }
}

impl Place {
    /// Returns the phase of the connection in this slot.
    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut book = self.book.lock();
        book.held.remove(&self.number);
        self.figures.set_connections(book.held.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections: usize, per_address: usize, exempt: &[&str]) -> Places {
        let exempt = exempt.iter().map(|net| net.parse().unwrap()).collect();
        Places::new(Capacity { connections, per_address, exempt }, HttpFigures::default())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_a_limit_of_its_own_and_a_proxy_has_none() {
        let places = places(100, 2, &["10.0.0.0/8"]);
        let first = places.take(ip("203.0.113.7"), false).unwrap();
        let _second = places.take(ip("203.0.113.7"), false).unwrap();
        assert_eq!(places.take(ip("203.0.113.7"), false).err(), Some(Refusal::OfAddress));
        let _other = places.take(ip("203.0.113.8"), false).unwrap();
        drop(first);
        let _again = places.take(ip("203.0.113.7"), false).unwrap();
        let of_the_proxy: Vec<_> = (0..20).map(|_| places.take(ip("10.0.0.2"), false).unwrap()).collect();
        assert_eq!(of_the_proxy.len(), 20);
    }

    #[test]
    fn when_all_places_are_taken_the_longest_wait_gives_way_and_answers_never_do() {
        let places = places(3, 3, &[]);
        let held: Vec<_> = (1..4).map(|n| places.take(IpAddr::from([192, 0, 2, n]), false).unwrap()).collect();
        held[0].watch().enter(Phase::Answering);
        held[1].watch().enter(Phase::Idle);
        let newest = places.take(ip("198.51.100.1"), false).unwrap();
        let numbers = |places: &Places| {
            let mut numbers: Vec<_> = places.book.lock().held.keys().copied().collect();
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(numbers(&places), [0, 1, 3], "the third had waited longest");
        held[1].watch().enter(Phase::Answering);
        newest.watch().enter(Phase::Answering);
        assert_eq!(places.take(ip("198.51.100.2"), false).err(), Some(Refusal::Full));
        drop(newest);
        places.take(ip("198.51.100.2"), false).unwrap();
    }

    #[test]
    fn streams_give_way_when_no_connection_waits_for_its_client() {
        let places = places(3, 3, &[]);
        let held: Vec<_> = (1..4).map(|n| places.take(IpAddr::from([192, 0, 2, n]), false).unwrap()).collect();
        held[0].watch().enter(Phase::Streaming);
        held[1].watch().enter(Phase::Streaming);
        held[2].watch().enter(Phase::Idle);
        let first = places.take(ip("198.51.100.1"), false).unwrap();
        let is_held = |number| places.book.lock().held.contains_key(&number);
        assert!(!is_held(held[2].number) && is_held(held[0].number), "idle connections go first");
        first.watch().enter(Phase::Answering);
        let second = places.take(ip("198.51.100.2"), false).unwrap();
        assert!(!is_held(held[0].number) && is_held(held[1].number), "then the oldest stream");
        second.watch().enter(Phase::Answering);
        let third = places.take(ip("198.51.100.3"), false).unwrap();
        third.watch().enter(Phase::Answering);
        assert_eq!(places.take(ip("198.51.100.4"), false).err(), Some(Refusal::Full));
    }

    #[test]
    fn unfinished_handshakes_of_an_address_are_few() {
        let places = places(1000, 1000, &[]);
        let held: Vec<_> = (0..HANDSHAKES_PER_ADDRESS).map(|_| places.take(ip("203.0.113.7"), true).unwrap()).collect();
        assert_eq!(places.take(ip("203.0.113.7"), true).err(), Some(Refusal::Handshakes));
        held[0].watch().enter(Phase::Head);
        places.take(ip("203.0.113.7"), true).unwrap();
    }
}
