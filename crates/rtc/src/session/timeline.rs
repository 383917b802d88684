//! The timestamps of a line that is sent, across changes of its source: the clocks of two publishers
//! have nothing in common, and a receiver shows nothing that seems older than what it has shown.

use std::time::Instant;

use str0m::media::MediaTime;

/// The timestamps of one line.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Added to the timestamps of the source, modulo 2^64.
    offset: u64,
    last: Option<Last>,
    is_other_source: bool,
}

/// What was placed last.
#[derive(Debug, Clone, Copy)]
struct Last {
    time: u64,
    arrived: Instant,
}

impl Timeline {
    /// What comes from now on is of another source.
    pub(super) fn on_other_source(&mut self) {
        self.is_other_source = true;
    }

    /// Returns the timestamp to send. `arrived`: when `time` arrived at the gateway. The first one of
    /// another source follows the last one after the time that has passed between their arrivals.
    pub(super) fn place(&mut self, arrived: Instant, time: MediaTime) -> MediaTime {
        if std::mem::take(&mut self.is_other_source)
            && let Some(last) = self.last
        {
            let passed = arrived.saturating_duration_since(last.arrived).as_secs_f64() * f64::from(time.frequency().get());
            self.offset = (last.time + (passed as u64).max(1)).wrapping_sub(time.numer());
        }
        let placed = time.numer().wrapping_add(self.offset);
        self.last = Some(Last { time: placed, arrived });
        MediaTime::new(placed, time.frequency())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use str0m::media::Frequency;

    use super::*;

    #[test]
    fn another_source_goes_on_after_the_time_that_has_passed() {
        let (mut timeline, start) = (Timeline::default(), Instant::now());
        let place = |timeline: &mut Timeline, ms: u64, time: u64| {
            timeline.place(start + Duration::from_millis(ms), MediaTime::new(time, Frequency::NINETY_KHZ)).numer()
        };
        assert_eq!([place(&mut timeline, 0, 7_000_000), place(&mut timeline, 33, 7_003_000)], [7_000_000, 7_003_000], "unchanged");
        timeline.on_other_source();
        assert_eq!([place(&mut timeline, 1033, 500), place(&mut timeline, 1066, 3500)], [7_093_000, 7_096_000]);
        timeline.on_other_source();
        assert_eq!(place(&mut timeline, 1066, u64::MAX - 5), 7_096_001, "later at least by a tick");
        assert_eq!(place(&mut timeline, 1099, 2994), 7_099_001);
    }

    #[test]
    fn first_source_keeps_its_timestamps() {
        let mut timeline = Timeline::default();
        timeline.on_other_source();
        assert_eq!(timeline.place(Instant::now(), MediaTime::new(90, Frequency::NINETY_KHZ)).numer(), 90);
    }
}
