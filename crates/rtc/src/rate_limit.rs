//! A token bucket that limits the packets and bytes per second of a session. A packet beyond the
//! limit is dropped before any work is done for it, so that a session that sends at line rate harms
//! only itself. The time is an argument.

use std::time::{Duration, Instant};

/// Time between two notifications of a session that sends too much.
const NOTIFICATION_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes per kilobit.
const BYTES_PER_KBIT: f64 = 125.0;

/// The rates at which a token bucket is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates {
    /// Packets per second.
    pub packets: u32,
    /// Kilobits per second.
    pub kbps: u32,
}

/// The token bucket of one session. It holds the packets and bytes of one second.
#[derive(Debug, Clone)]
pub(crate) struct RateLimit {
    rates: Rates,
    packets: f64,
    bytes: f64,
    refilled_at: Instant,
    notified_at: Option<Instant>,
}

/// The decision on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The packet is handled.
    Accept,
    /// The packet is dropped.
    Refuse,
    /// The packet is dropped, and the caller notifies the session that it sends too much.
    RefuseAndNotify,
}

impl RateLimit {
    /// Creates a full bucket.
    pub(crate) fn new(rates: Rates, now: Instant) -> Self {
        let (packets, bytes) = rates.per_second();
        Self { rates, packets, bytes, refilled_at: now, notified_at: None }
    }

    /// Decides on a packet of `bytes`, and charges for it if it is accepted.
    pub(crate) fn take(&mut self, now: Instant, bytes: usize) -> Decision {
        let decision = self.check(now, bytes);
        if decision == Decision::Accept {
            self.spend(bytes);
        }
        decision
    }

    /// Decides on a packet of `bytes` without charging for it.
    pub(crate) fn check(&mut self, now: Instant, bytes: usize) -> Decision {
        let (max_packets, max_bytes) = self.rates.per_second();
        let elapsed = now.saturating_duration_since(self.refilled_at).as_secs_f64();
        self.refilled_at = self.refilled_at.max(now);
        self.packets = (self.packets + elapsed * max_packets).min(max_packets);
        self.bytes = (self.bytes + elapsed * max_bytes).min(max_bytes);
        if self.packets >= 1.0 && self.bytes >= bytes as f64 {
            return Decision::Accept;
        }
        if self.notified_at.is_some_and(|at| now.saturating_duration_since(at) < NOTIFICATION_INTERVAL) {
            return Decision::Refuse;
        }
        self.notified_at = Some(now);
        Decision::RefuseAndNotify
    }

    /// Charges for a packet of `bytes`.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.packets -= 1.0;
        self.bytes -= bytes as f64;
    }

    /// Takes back the charge for a packet of `bytes`.
    pub(crate) fn refund(&mut self, bytes: usize) {
        self.packets += 1.0;
        self.bytes += bytes as f64;
    }
}

impl Rates {
    /// Returns the lower of two limits, for packets and for kilobits.
    pub(crate) fn min(self, other: Self) -> Self {
        Self { packets: self.packets.min(other.packets), kbps: self.kbps.min(other.kbps) }
    }

    /// Returns the packets and bytes per second.
    fn per_second(self) -> (f64, f64) {
        (f64::from(self.packets), f64::from(self.kbps) * BYTES_PER_KBIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { packets: 100, kbps: 80 };
    const MS: Duration = Duration::from_millis(1);

    /// How many packets of `bytes`, one every `every` for `seconds`, are taken.
    fn taken(every: Duration, seconds: u32, bytes: usize) -> usize {
        let now = Instant::now();
        let mut rate_limit = RateLimit::new(RATES, now);
        let count = (Duration::from_secs(seconds.into()).as_nanos() / every.as_nanos()) as u32;
        (0..count).filter(|n| rate_limit.take(now + every * *n, bytes) == Decision::Accept).count()
    }

    #[test]
    fn what_is_within_the_limits_is_taken() {
        assert_eq!(taken(10 * MS, 10, 100), 1000);
    }

    #[test]
    fn more_packets_than_allowed_are_dropped_and_the_rest_is_taken() {
        // A second's worth at once, then a hundred each second.
        assert!((1095..=1105).contains(&taken(MS, 10, 10)));
    }

    #[test]
    fn more_bits_than_allowed_are_dropped_and_the_rest_is_taken() {
        // Ten thousand bytes a second are twenty packets of five hundred.
        assert!((215..=225).contains(&taken(20 * MS, 10, 500)));
    }

    #[test]
    fn a_session_is_told_once_in_a_while() {
        let now = Instant::now();
        let mut rate_limit = RateLimit::new(RATES, now);
        let decisions: Vec<_> = (0..25_000).map(|n| rate_limit.take(now + n * MS, 100)).collect();
        assert_eq!(decisions.iter().filter(|decision| **decision == Decision::RefuseAndNotify).count(), 3);
    }

    #[test]
    fn time_that_goes_back_gives_nothing_away() {
        let now = Instant::now();
        let mut rate_limit = RateLimit::new(RATES, now + 1000 * MS);
        assert!((0..200).filter(|_| rate_limit.take(now, 10) == Decision::Accept).count() == 100);
    }
}
