//! Rate limit against guessing of credentials: a token bucket of failed attempts for each address.
//!
//! The caller passes the time; the module has no clock. The number of addresses is bounded: when it
//! is full, the address that would recover first is removed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::visitor::Visitor;

/// Failed attempts that are allowed in a burst.
const BURST: u32 = 10;
/// Time in which one further failed attempt is allowed after a burst.
const REFILL: Duration = Duration::from_secs(5);
/// Largest number of addresses that are tracked.
const MAX_ADDRESSES: usize = 4096;

/// Token buckets of failed attempts, by address.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// Time at which the bucket of an address is full again.
    recovers: HashMap<Visitor, Instant>,
}

impl Throttle {
    /// Returns the time until the credentials of an address are checked again, or `None` if it need
    /// not wait.
    pub(super) fn wait(&self, now: Instant, visitor: Visitor) -> Option<Duration> {
        let recovers = self.recovers.get(&visitor)?.saturating_duration_since(now);
        let wait = recovers.saturating_sub(REFILL * (BURST - 1));
        (!wait.is_zero()).then_some(wait)
    }

    /// Records a failed attempt.
    pub(super) fn on_failure(&mut self, now: Instant, visitor: Visitor) {
        if self.recovers.len() >= MAX_ADDRESSES && !self.recovers.contains_key(&visitor) {
            self.make_room(now);
        }
        let recovers = self.recovers.entry(visitor).or_insert(now);
        *recovers = (*recovers).max(now) + REFILL;
    }

    fn make_room(&mut self, now: Instant) {
        self.recovers.retain(|_, recovers| *recovers > now);
        if self.recovers.len() >= MAX_ADDRESSES {
            let soonest = self.recovers.iter().min_by_key(|(_, recovers)| **recovers).map(|(visitor, _)| *visitor);
            soonest.map(|visitor| self.recovers.remove(&visitor));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visitor::Peer;

    fn visitor(number: u32) -> Visitor {
        Visitor::of(Peer(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()), &axum::http::HeaderMap::new(), &[])
    }

    #[test]
    fn a_burst_is_free_then_attempts_are_spaced() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(throttle.wait(start, visitor(1)), None);
            throttle.on_failure(start, visitor(1));
        }
        assert_eq!(throttle.wait(start, visitor(1)), Some(REFILL));
        assert_eq!(throttle.wait(start, visitor(2)), None, "others are not slowed");
        let later = start + REFILL;
        assert_eq!(throttle.wait(later, visitor(1)), None);
        throttle.on_failure(later, visitor(1));
        assert_eq!(throttle.wait(later, visitor(1)), Some(REFILL));
        assert_eq!(throttle.wait(later + REFILL * BURST, visitor(1)), None, "in the end all is forgotten");
    }

    #[test]
    fn addresses_are_bounded_and_the_worst_are_kept() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        (0..BURST).for_each(|_| throttle.on_failure(now, visitor(0)));
        (1..3 * MAX_ADDRESSES as u32).for_each(|number| throttle.on_failure(now, visitor(number)));
        assert_eq!(throttle.recovers.len(), MAX_ADDRESSES);
        assert!(throttle.wait(now, visitor(0)).is_some());
    }
}
