//! The addresses that a session was heard from, and how much may be sent to one that has not shown yet that it is the browser's.
//!
//! A browser may change its address at any time, by a message that anybody on the way could have kept and can send again from a forged
//! address. Until a packet came from an address that only the browser can have made, and that was not seen before, little is sent there,
//! so that nobody can have a session's video sent to somebody else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Remote addresses that are remembered for one session.
const REMEMBERED: usize = 16;
/// New addresses that a session may come from at once; after that, one each [`NEW_EVERY`].
const NEW_AT_ONCE: f64 = 16.0;
/// See [`NEW_AT_ONCE`].
const NEW_EVERY: Duration = Duration::from_secs(2);
/// Bytes that are sent to an address that has proven nothing: enough for the handshake of DTLS, with repetitions.
const UNPROVEN_BYTES: u64 = 6 * 1024;
/// Each byte from the address allows this many more bytes to it, as in QUIC (RFC 9000, section 8).
const AMPLIFICATION: u64 = 3;

/// The addresses of one session.
#[derive(Debug)]
pub(crate) struct Paths {
    known: Vec<Path>,
    new_left: f64,
    at: Instant,
}

#[derive(Debug)]
struct Path {
    address: SocketAddr,
    is_proven: bool,
    received: u64,
    sent: u64,
    heard: Instant,
}

/// The decision on an address that a session was not heard from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is remembered; another may be forgotten for it.
    Remembered {
        /// That one.
        forgotten: Option<SocketAddr>,
    },
    /// The session comes from too many.
    Refused,
}

impl Paths {
    /// None yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { known: Vec::new(), new_left: NEW_AT_ONCE, at: now }
    }

    /// The session is heard from a new address.
    pub(crate) fn arrive(&mut self, now: Instant, address: SocketAddr) -> Arrival {
        let elapsed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.new_left = (self.new_left + elapsed.as_secs_f64() / NEW_EVERY.as_secs_f64()).min(NEW_AT_ONCE);
        if self.new_left < 1.0 {
            return Arrival::Refused;
        }
        self.new_left -= 1.0;
        // One that has proven nothing is forgotten first, then the one that was silent for longest.
        let oldest = (0..self.known.len()).min_by_key(|n| (self.known[*n].is_proven, self.known[*n].heard));
        let forgotten = oldest.filter(|_| self.known.len() >= REMEMBERED).map(|n| self.known.remove(n).address);
        self.known.push(Path { address, is_proven: false, received: 0, sent: 0, heard: now });
        Arrival::Remembered { forgotten }
    }

    /// A packet other than of STUN came from an address.
    pub(crate) fn on_received(&mut self, now: Instant, address: SocketAddr, bytes: usize) {
        if let Some(path) = self.path(address) {
            path.received += bytes as u64;
            path.heard = now;
        }
    }

    /// Notes that a packet from an address was the browser's own, and new.
    pub(crate) fn prove(&mut self, address: SocketAddr) {
        if let Some(path) = self.path(address) {
            path.is_proven = true;
        }
    }

    /// Returns whether a packet may be sent to an address. `is_reply` means that it answers a packet that was at least as large.
    pub(crate) fn may_send(&mut self, address: SocketAddr, bytes: usize, is_reply: bool) -> bool {
        let Some(path) = self.path(address) else { return is_reply };
        if path.is_proven || is_reply {
            return true;
        }
        let sent = path.sent + bytes as u64;
        let may = sent <= UNPROVEN_BYTES + AMPLIFICATION * path.received;
        if may {
            path.sent = sent;
        }
        may
    }

    /// All of them.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
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

    /// Bytes of packets of `bytes` that may be sent.
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
        paths.prove(address(1));
        assert_eq!(sent(&mut paths, 1, 1000), 10_000_000);
    }

    #[test]
    fn nothing_but_replies_is_sent_where_the_session_was_never_heard_from() {
        let mut paths = Paths::new(Instant::now());
        assert!(!paths.may_send(address(1), 1, false) && paths.may_send(address(1), 1, true));
        paths.prove(address(1));
        assert!(!paths.may_send(address(1), 1, false));
    }

    #[test]
    fn one_that_has_proven_itself_is_not_forgotten_for_those_that_have_not() {
        let now = Instant::now();
        let mut paths = Paths::new(now);
        paths.arrive(now, address(1));
        paths.prove(address(1));
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
