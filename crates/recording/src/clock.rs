//! The clock of a stream: the times of its frames on the clock of this machine, which pictures and
//! sound have in common.
//!
//! Times of arrival are common to both, but packets take more or less time through the network. So
//! the distance of two frames is that of their RTP timestamps, and the result follows the arrivals
//! slowly. Where timestamps do not tell the distance, the time of arrival counts. A picture that was
//! made in place of one that did not come has almost the timestamp of the last, and no time of arrival.

use std::time::{Duration, Instant};

/// The distance from the time of arrival above which the timestamps do not count: the sender has
/// begun a new sequence.
const MAX_DEVIATION: Duration = Duration::from_millis(100);
/// The shortest distance of two frames of a sender.
const MIN_DISTANCE: Duration = Duration::from_millis(1);
/// The fraction of the deviation that each frame corrects.
const CORRECTION: u32 = 50;

/// The clock of one stream.
pub(crate) struct StreamClock {
    rate_hz: f64,
    last: Option<Last>,
}

struct Last {
    timestamp: u64,
    at: Instant,
}

struct Passed {
    expected: Instant,
    distance: Duration,
}

impl StreamClock {
    pub(crate) fn new(rate_hz: u32) -> Self {
        Self { rate_hz: rate_hz.into(), last: None }
    }

    /// Returns the time of a frame with this RTP timestamp.
    pub(crate) fn place(&mut self, timestamp: u64, arrived: Instant) -> Instant {
        let at = match self.passed(timestamp) {
            None => arrived,
            Some(Passed { expected, distance }) if distance < MIN_DISTANCE => expected,
            Some(Passed { expected, .. }) => {
                let (early, late) = (expected.saturating_duration_since(arrived), arrived.saturating_duration_since(expected));
                if early.max(late) > MAX_DEVIATION { arrived } else { expected + late / CORRECTION - early / CORRECTION }
            }
        };
        self.last = Some(Last { timestamp, at });
        at
    }

    /// Returns the time that has passed since the last frame, by the timestamps.
    fn passed(&self, timestamp: u64) -> Option<Passed> {
        let Last { timestamp: last, at } = self.last.as_ref()?;
        let distance = Duration::try_from_secs_f64(timestamp.checked_sub(*last)? as f64 / self.rate_hz).ok()?;
        Some(Passed { expected: at.checked_add(distance)?, distance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_distance_of_the_timestamps_and_follow_the_arrivals() {
        let (mut clock, start) = (StreamClock::new(48_000), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut times = Vec::new();
        for packet in 0..1000_u64 {
            // Every other packet takes 20 ms more through the network.
            times.push(clock.place(packet * 960, at(20 * packet + packet % 2 * 20)));
        }
        let steps = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(steps.clone().all(|step| step.abs_diff(Duration::from_millis(20)) < Duration::from_millis(1)), "{:?}", steps.max());
        let mean_delay = times[999] - at(20 * 999);
        assert!(mean_delay.abs_diff(Duration::from_millis(10)) < Duration::from_millis(2), "{mean_delay:?}");
    }

    #[test]
    fn picture_that_was_made_here_moves_no_other() {
        let (mut clock, start) = (StreamClock::new(90_000), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        clock.place(5000, at(0));
        assert!(clock.place(5001, at(900)) < at(1), "it takes the place of the last");
        // The effect took so long that the next picture comes later, although it arrived before.
        assert!(clock.place(7970, at(34)).duration_since(at(33)) < Duration::from_millis(1));
    }

    #[test]
    fn time_of_arrival_counts_where_the_timestamps_tell_no_distance() {
        let (mut clock, start) = (StreamClock::new(90_000), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(clock.place(5000, at(0)), at(0));
        assert_eq!(clock.place(10, at(950)), at(950), "a new sequence");
        assert_eq!(clock.place(u64::MAX, at(1033)), at(1033), "another one");
    }
}
