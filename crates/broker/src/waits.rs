//! How long tracks have waited for a result: the age of the queue as those who stand in it see it.
//!
//! The frame that waits is always fresh, because a newer one takes its place; the turn is not. So it is the turn's age that says
//! whether there are enough workers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ooblex_pipeline::TrackId;

/// Since when each track has waited, without a result in between.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    since: HashMap<TrackId, Instant>,
}

impl Waits {
    /// A frame of the track goes into the queue. One that takes the place of another waits on in its turn.
    pub(crate) fn on_submitted(&mut self, track: TrackId, submitted: Instant) {
        self.since.entry(track).or_insert(submitted);
    }

    /// The track got a result, or nothing of it waits any more.
    pub(crate) fn on_ended(&mut self, track: TrackId) {
        self.since.remove(&track);
    }

    /// How long the track that has waited longest has waited; zero when none does.
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
