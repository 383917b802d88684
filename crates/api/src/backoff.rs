//! The time between two attempts to reach another server: exponential, with an upper bound and
//! jitter, so that many gateways do not return to a restarted server at the same moment.

use std::time::Duration;

/// Upper bound of the first time.
const FIRST: Duration = Duration::from_secs(1);
/// Upper bound of every time.
const MAX: Duration = Duration::from_secs(30);

/// Duration of a connection that counts as a success. A shorter one is a failed attempt.
const LASTING: Duration = Duration::from_secs(10);

/// The attempts that have failed since the last success.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failed: u32,
}

impl Backoff {
    /// Returns the time until the next attempt: between a half and the whole of a bound that doubles.
    /// `least`: the time that the other server asks for, which counts up to [`MAX`]. `random`: from 0
    /// to 1.
    pub(crate) fn next(&mut self, least: Duration, random: f64) -> Duration {
        let bound = MAX.min(FIRST * 2u32.saturating_pow(self.failed.min(16)));
        self.failed = self.failed.saturating_add(1);
        bound.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0).max(least.min(MAX))
    }

    /// A connection has ended, which media could use for this time.
    pub(crate) fn on_end(&mut self, lasted: Duration) {
        if lasted >= LASTING {
            self.failed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_doubles_up_to_a_bound_and_begins_again_after_a_success() {
        let mut backoff = Backoff::default();
        let times: Vec<_> = (0..8).map(|_| backoff.next(Duration::ZERO, 1.0).as_secs()).collect();
        assert_eq!(times, [1, 2, 4, 8, 16, 30, 30, 30]);
        (0..1000).for_each(|_| assert!(backoff.next(Duration::ZERO, 0.5) <= MAX));
        backoff.on_end(LASTING - SECOND);
        assert_eq!(backoff.next(Duration::ZERO, 1.0), MAX);
        backoff.on_end(LASTING);
        assert_eq!(backoff.next(Duration::ZERO, 1.0), SECOND);
    }

    #[test]
    fn jitter_takes_at_most_half_and_what_the_server_asks_for_is_respected_within_the_bound() {
        let next = |least, random| Backoff::default().next(least, random);
        assert_eq!(next(Duration::ZERO, 0.0), SECOND / 2);
        assert_eq!(next(5 * SECOND, 0.0), 5 * SECOND);
        assert_eq!(next(1000 * SECOND, 0.0), MAX);
    }
}
