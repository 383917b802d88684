//! The network paths of a session: the addresses that it was heard from, and how much may be sent
//! to an address that is not validated (RFC 9000 §8).
//!
//! A browser may change its address at any time, with a message that anybody on the way could
//! record and send again from a forged address. An address is validated by a packet that only the
//! browser can have made, and that was not seen before. Until then little is sent there, so that
//! nobody can direct a session's video to another machine.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::rate_limit::{Decision, RateLimit, Rates};
use crate::remote::Remote;
use ooblex_gateway::client_network::client_network;

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

/// Rate limit of the STUN messages of one address of a session: browsers send fewer than twenty per
/// second.
const STUN_RATES: Rates = Rates { packets: 100, kbps: 200 };
/// Rate limit of the STUN messages from addresses that a session was not heard from, in each of
/// [`STRANGER_BUCKETS`]. A browser begins with fewer than twenty per second.
const STRANGER_STUN_RATES: Rates = Rates { packets: 20, kbps: 40 };
/// Token buckets of the addresses that a session was not heard from. An address has one of them, so
/// a flood from one address leaves most addresses alone.
const STRANGER_BUCKETS: usize = 64;

/// The remote addresses of one session.
#[derive(Debug)]
pub(crate) struct Paths {
    known: Vec<Path>,
    /// The token buckets of the STUN messages of other addresses.
    strangers: Vec<RateLimit>,
    /// Chooses a bucket in a way that nobody outside can predict.
    hasher: RandomState,
    new_addresses: f64,
    refilled_at: Instant,
}

#[derive(Debug)]
struct Path {
    address: Remote,
    /// The address of this machine that the browser sends to.
    local: Option<IpAddr>,
    is_validated: bool,
    stun: RateLimit,
    received: u64,
    sent: u64,
    heard: Instant,
}

/// The decision on an address that a session was not heard from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The address is remembered; another may be forgotten in its place.
    Remembered {
        /// The address that is forgotten.
        forgotten: Option<Remote>,
    },
    /// The session has come from too many addresses.
    Refused,
}

impl Paths {
    /// Creates the list without addresses.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            known: Vec::new(),
            strangers: vec![RateLimit::new(STRANGER_STUN_RATES, now); STRANGER_BUCKETS],
            hasher: RandomState::new(),
            new_addresses: NEW_ADDRESS_BURST,
            refilled_at: now,
        }
    }

    /// Decides whether a STUN message that names the session is verified and handled.
    pub(crate) fn admits_stun(&mut self, now: Instant, source: Remote, bytes: usize) -> bool {
        let limit = match self.known.iter_mut().find(|path| path.address == source) {
            Some(path) => &mut path.stun,
            None => {
                let bucket = self.hasher.hash_one(client_network(source.address.ip())) % STRANGER_BUCKETS as u64;
                &mut self.strangers[bucket as usize]
            }
        };
        limit.take(now, bytes) == Decision::Accept
    }

    /// Decides on a new address that the session is heard from.
    pub(crate) fn arrive(&mut self, now: Instant, address: Remote) -> Arrival {
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
        let stun = RateLimit::new(STUN_RATES, now);
        self.known.push(Path { address, local: None, is_validated: false, stun, received: 0, sent: 0, heard: now });
        Arrival::Remembered { forgotten }
    }

    /// A packet that is not a STUN message came from an address.
    pub(crate) fn on_received(&mut self, now: Instant, address: Remote, bytes: usize) {
        if let Some(path) = self.path(address) {
            path.received += bytes as u64;
            path.heard = now;
        }
    }

    /// A packet came from an address to `local`, an address of this machine. Until the path is
    /// validated, replies leave from there.
    pub(crate) fn on_local(&mut self, address: Remote, local: Option<IpAddr>) {
        if let Some(path) = self.path(address).filter(|path| !path.is_validated) {
            path.local = local;
        }
    }

    /// Validates an address: an authentic packet that is not a replay came from there, to `local`.
    pub(crate) fn validate(&mut self, address: Remote, local: Option<IpAddr>) {
        if let Some(path) = self.path(address) {
            (path.is_validated, path.local) = (true, local);
        }
    }

    /// Returns the address of this machine from which packets to an address leave, if it is known.
    pub(crate) fn local(&self, address: Remote) -> Option<IpAddr> {
        self.known.iter().find(|path| path.address == address)?.local
    }

    /// Returns whether a packet may be sent to an address. `is_reply` means that it answers a
    /// packet that was at least as large.
    pub(crate) fn may_send(&mut self, address: Remote, bytes: usize, is_reply: bool) -> bool {
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
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Remote> {
        self.known.iter().map(|path| path.address)
    }

    fn path(&mut self, address: Remote) -> Option<&mut Path> {
        self.known.iter_mut().find(|path| path.address == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(port: u16) -> Remote {
        Remote::udp(([192, 0, 2, 1], port).into())
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
        paths.validate(address(1), None);
        assert_eq!(sent(&mut paths, 1, 1000), 10_000_000);
    }

    #[test]
    fn packets_leave_from_the_address_that_the_last_authentic_packet_came_to() {
        let [first, second] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(|ip| Some(IpAddr::from(ip)));
        let now = Instant::now();
        let mut paths = Paths::new(now);
        assert_eq!(paths.local(address(1)), None);
        paths.arrive(now, address(1));
        for local in [first, second] {
            paths.on_local(address(1), local);
            assert_eq!(paths.local(address(1)), local);
        }
        paths.validate(address(1), second);
        paths.on_local(address(1), first);
        assert_eq!(paths.local(address(1)), second, "an ICE check of another pair");
        paths.validate(address(1), first);
        assert_eq!(paths.local(address(1)), first);
    }

    /// Returns how many of ten thousand STUN messages are admitted at a time.
    fn admitted(paths: &mut Paths, at: Instant, source: impl Fn(u32) -> Remote) -> usize {
        (0..10_000).filter(|n| paths.admits_stun(at, source(*n), 100)).count()
    }

    #[test]
    fn stun_messages_of_strangers_take_nothing_from_the_addresses_of_a_session() {
        let now = Instant::now();
        let mut paths = Paths::new(now);
        paths.arrive(now, address(1));
        assert_eq!(admitted(&mut paths, now, |n| address(2 + (n % 1000) as u16)), 20, "all ports of one stranger");
        assert_eq!(admitted(&mut paths, now, |_| address(1)), 100);
        let later = now + SECOND;
        let strangers = admitted(&mut paths, later, |n| Remote::udp((std::net::Ipv4Addr::from(n), 4000).into()));
        assert_eq!(strangers, 20 * STRANGER_BUCKETS, "as many as can be verified without harm");
        assert_eq!(admitted(&mut paths, later, |_| address(1)), 100);
    }

    #[test]
    fn a_flood_from_one_address_leaves_most_others_alone() {
        let now = Instant::now();
        let mut paths = Paths::new(now);
        admitted(&mut paths, now, |_| address(1));
        let alone =
            (0..1000).filter(|n| paths.admits_stun(now, Remote::udp(([198, 51, (n / 250) as u8, (n % 250) as u8], 1).into()), 1)).count();
        assert!((900..1000).contains(&alone), "{alone}");
    }

    #[test]
    fn nothing_but_replies_is_sent_where_the_session_was_never_heard_from() {
        let mut paths = Paths::new(Instant::now());
        assert!(!paths.may_send(address(1), 1, false) && paths.may_send(address(1), 1, true));
        paths.validate(address(1), None);
        assert!(!paths.may_send(address(1), 1, false));
    }

    #[test]
    fn one_that_has_proven_itself_is_not_forgotten_for_those_that_have_not() {
        let now = Instant::now();
        let mut paths = Paths::new(now);
        paths.arrive(now, address(1));
        paths.validate(address(1), None);
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
