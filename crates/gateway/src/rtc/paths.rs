//! The network paths of a session: the addresses that it was heard from, and how much may be sent
//! to an address that is not validated (RFC 9000 §8).
//!
//! A browser may change its address at any time, with a message that anybody on the way could
//! record and send again from a forged address. An address is validated by a packet that only the
//! browser can have made, and that was not seen before. Until then little is sent there, so that
//! nobody can direct a session's video to another machine.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Remote addresses that are remembered for one session.
const MAX_ADDRESSES: usize = 16;
/// Capacity of the token bucket of new addresses of a session. It is refilled by one each
/// [`NEW_ADDRESS_INTERVAL`].
const NEW_ADDRESS_BURST: f64 = 16.0;
/// Time in which one more new address is allowed.
const NEW_ADDRESS_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes that are sent to an address that is not validated: enough for the DTLS handshake, with
/// repetitions.
const MAX_UNVALIDATED_BYTES: u64 = 6 * 1024;
/// Bytes that each byte from an address allows to be sent to it, as in QUIC (RFC 9000 §8).
const AMPLIFICATION_FACTOR: u64 = 3;

/// The remote addresses of one session.
#[derive(Debug)]
pub(super) struct Paths {
    known: Vec<Path>,
    new_addresses: f64,
    refilled_at: Instant,
}

#[derive(Debug)]
struct Path {
    address: SocketAddr,
    is_validated: bool,
    received: u64,
    sent: u64,
    heard: Instant,
}

/// The decision on an address that a session was not heard from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The address is remembered; another may be forgotten in its place.
    Remembered {
        /// The address that is forgotten.
        forgotten: Option<SocketAddr>,
    },
    /// The session has come from too many addresses.
    Refused,
}

impl Paths {
    /// Creates the list without addresses.
    pub(super) fn new(now: Instant) -> Self {
        Self { known: Vec::new(), new_addresses: NEW_ADDRESS_BURST, refilled_at: now }
    }

    /// Decides on a new address that the session is heard from.
    pub(super) fn arrive(&mut self, now: Instant, address: SocketAddr) -> Arrival {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        self.refilled_at = self.refilled_at.max(now);
        self.new_addresses = (self.new_addresses + elapsed.as_secs_f64() / NEW_ADDRESS_INTERVAL.as_secs_f64()).min(NEW_ADDRESS_BURST);
        if self.new_addresses < 1.0 {
            return Arrival::Refused;
        }
        self.new_addresses -= 1.0;
        // An address that is not validated is forgotten first, then the one that was silent for the
        // longest time.
        let oldest = (0..self.known.len()).min_by_key(|n| (self.known[*n].is_validated, self.known[*n].heard));
        let forgotten = oldest.filter(|_| self.known.len() >= MAX_ADDRESSES).map(|n| self.known.remove(n).address);
        self.known.push(Path { address, is_validated: false, received: 0, sent: 0, heard: now });
        Arrival::Remembered { forgotten }
    }

    /// A packet that is not a STUN message came from an address.
    pub(super) fn on_received(&mut self, now: Instant, address: SocketAddr, bytes: usize) {
        if let Some(path) = self.path(address) {
            path.received += bytes as u64;
            path.heard = now;
        }
    }

    /// Validates an address: an authentic packet that is not a replay came from there.
    pub(super) fn validate(&mut self, address: SocketAddr) {
        if let Some(path) = self.path(address) {
            path.is_validated = true;
        }
    }

    /// Returns whether a packet may be sent to an address. `is_reply` means that it answers a
    /// packet that was at least as large.
    pub(super) fn may_send(&mut self, address: SocketAddr, bytes: usize, is_reply: bool) -> bool {
        let Some(path) = self.path(address) else { return is_reply };
        if path.is_validated || is_reply {
            return true;
        }
        let sent = path.sent + bytes as u64;
        let may = sent <= MAX_UNVALIDATED_BYTES + AMPLIFICATION_FACTOR * path.received;
        if may {
            path.sent = sent;
        }
        may
    }

    /// Returns all addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.known.iter().map(|path| path.address)
    }

    fn path(&mut self, address: SocketAddr) -> Option<&mut Path> {
        self.known.iter_mut().find(|path| path.address == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    /// Returns the bytes of packets of this size that may be sent.
    fn sent(paths: &mut Paths, to: u16, bytes: usize) -> usize {
        (0..10_000).filter(|_| paths.may_send(address(to), bytes, false)).count() * bytes
    }

    #[test]
    fn little_is_sent_to_an_address_until_it_has_proven_itself() {
        let now = Instant::now();
        let mut paths = Paths::new(now);
        assert_eq!(paths.arrive(now, address(1)), Arrival::Remembered { forgotten: None });
        assert_eq!(sent(&mut paths, 1, 1024), 6 * 1024);
        assert!(paths.may_send(address(1), 100, true), "what is asked there is answered");
        paths.on_received(now, address(1), 1000);
        assert_eq!(sent(&mut paths, 1, 1000), 3000);
        paths.validate(address(1));
        assert_eq!(sent(&mut paths, 1, 1000), 10_000_000);
    }

    #[test]
    fn nothing_but_replies_is_sent_where_the_session_was_never_heard_from() {
        let mut paths = Paths::new(Instant::now());
        assert!(!paths.may_send(address(1), 1, false) && paths.may_send(address(1), 1, true));
        paths.validate(address(1));
        assert!(!paths.may_send(address(1), 1, false));
    }

    #[test]
    fn one_that_has_proven_itself_is_not_forgotten_for_those_that_have_not() {
        let now = Instant::now();
        let mut paths = Paths::new(now);
        paths.arrive(now, address(1));
        paths.validate(address(1));
        for n in 2..100 {
            let at = now + u32::from(n) * 2 * SECOND;
            let forgotten = (n > 16).then(|| address(n - 15));
            assert_eq!(paths.arrive(at, address(n)), Arrival::Remembered { forgotten }, "{n}");
        }
        assert!(paths.addresses().count() == 16 && paths.addresses().any(|known| known == address(1)));
    }

    #[test]
    fn a_session_that_comes_from_ever_new_addresses_is_refused_most_of_them() {
        let now = Instant::now();
        let mut paths = Paths::new(now);
        let taken = |paths: &mut Paths, at| (0..1000).filter(|n| paths.arrive(at, address(*n)) != Arrival::Refused).count();
        assert_eq!(taken(&mut paths, now), 16);
        assert_eq!(taken(&mut paths, now + 10 * SECOND), 5);
    }
}
