//! What a session may send: packets and bytes a second. What is beyond is dropped before anything is done for it, so that a session that
//! sends at line rate takes from itself. It has no clock.

use std::time::{Duration, Instant};

/// Told to a session that sends too much at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What every session may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates {
    /// Packets a second.
    pub(crate) packets: u32,
    /// Kilobits a second.
    pub(crate) kbps: u32,
}

/// What one session may still send: as much as in one second, at most, at once.
#[derive(Debug)]
pub(crate) struct RateLimit {
    rates: Rates,
    packets: f64,
    bytes: f64,
    at: Instant,
    told: Option<Instant>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is taken.
    Accept,
    /// It is dropped.
    Refuse,
    /// It is dropped, and the session is to be told that it sends too much.
    RefuseAndNotify,
}

impl RateLimit {
    /// Of a session that has sent nothing.
    pub(crate) fn new(rates: Rates, now: Instant) -> Self {
        let (packets, bytes) = rates.in_a_second();
        Self { rates, packets, bytes, at: now, told: None }
    }

    /// A packet of `bytes` came.
    pub(crate) fn take(&mut self, now: Instant, bytes: usize) -> Decision {
        let decision = self.check(now, bytes);
        if decision == Decision::Accept {
            self.spend(bytes);
        }
        decision
    }

    /// What would become of a packet of `bytes`. It is not charged for yet.
    pub(crate) fn check(&mut self, now: Instant, bytes: usize) -> Decision {
        let (packets, most) = self.rates.in_a_second();
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.packets = (self.packets + elapsed * packets).min(packets);
        self.bytes = (self.bytes + elapsed * most).min(most);
        if self.packets >= 1.0 && self.bytes >= bytes as f64 {
            return Decision::Accept;
        }
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < TELL_EVERY) {
            return Decision::Refuse;
        }
        self.told = Some(now);
        Decision::RefuseAndNotify
    }

    /// Charges for a packet of `bytes`.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.packets -= 1.0;
        self.bytes -= bytes as f64;
    }

    /// A packet of `bytes` was charged for wrongly.
    pub(crate) fn refund(&mut self, bytes: usize) {
        self.packets += 1.0;
        self.bytes += bytes as f64;
    }
}

impl Rates {
    /// Packets and bytes.
    fn in_a_second(self) -> (f64, f64) {
        (f64::from(self.packets), f64::from(self.kbps) * 125.0)
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
