//! Histogram of the round trips to Redis of requests that it can answer at once.

use std::time::Duration;

/// Upper bounds of the histogram's buckets.
const BOUNDS: [Duration; 10] = [
    Duration::from_micros(200),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// Histogram of round-trip times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoundTrips {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl RoundTrips {
    /// Adds one round trip.
    pub(crate) fn on_answer(&mut self, took: Duration) {
        let bucket = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket] += 1;
        self.sum += took;
    }

    /// Returns the sum of all round-trip times.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns the number of round trips.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the buckets in ascending order: the upper bound in seconds, infinite for the last,
    /// and the number of round trips in this bucket alone.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        bounds.zip(self.counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_trip_falls_into_one_bucket() {
        let mut trips = RoundTrips::default();
        for took in [Duration::from_micros(200), Duration::from_micros(201), Duration::from_secs(9)] {
            trips.on_answer(took);
        }
        let filled: Vec<_> = trips.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0002, 1), (0.0005, 1), (f64::INFINITY, 1)]);
        assert_eq!((trips.count(), trips.sum()), (3, Duration::from_micros(9_000_401)));
    }
}
