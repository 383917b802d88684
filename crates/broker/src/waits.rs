//! Measures how long tracks have waited for a result: the age of the queue, as the tracks see it.
//!
//! The frame that waits is always fresh, because a newer one replaces it, but the track keeps its
//! turn (its place in the queue). So the age of the turn shows whether there are enough workers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ooblex_pipeline::TrackId;

/// Times at which tracks began to wait, for all tracks that have had no result since.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    since: HashMap<TrackId, Instant>,
}

impl Waits {
    /// Records that a frame of the track was queued. A frame that replaces another one continues
    /// its wait.
    pub(crate) fn on_submitted(&mut self, track: TrackId, submitted: Instant) {
        self.since.entry(track).or_insert(submitted);
    }

    /// Records that the track got a result, or that none of its frames waits any more.
    pub(crate) fn on_ended(&mut self, track: TrackId) {
        self.since.remove(&track);
    }

    /// Returns the wait of the track that has waited longest; zero if no track waits.
    pub(crate) fn longest(&self, now: Instant) -> Duration {
        self.since.values().min().map_or(Duration::ZERO, |since| now.saturating_duration_since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ages_while_its_frame_is_replaced_and_ends_with_a_result() {
        let (mut waits, start, second) = (Waits::default(), Instant::now(), Duration::from_secs(1));
        assert_eq!(waits.longest(start), Duration::ZERO);
        waits.on_submitted(TrackId(1), start);
        waits.on_submitted(TrackId(1), start + second);
        waits.on_submitted(TrackId(2), start + second);
        assert_eq!(waits.longest(start + 2 * second), 2 * second);
        waits.on_ended(TrackId(1));
        assert_eq!(waits.longest(start + 2 * second), second);
        waits.on_ended(TrackId(2));
        assert_eq!(waits.longest(start + 2 * second), Duration::ZERO);
    }
}
