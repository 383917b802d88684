//! Queue in front of the workers: the newest frame of each track, and the order of the tracks.
//!
//! The queue holds the turns of tracks, not frames. A newer frame replaces the one that waits and
//! keeps its turn, so a worker always gets the newest frame of the track that has waited longest.
//! Knows nothing of workers or time.

use std::collections::{HashMap, VecDeque};

use crate::TrackId;

/// Fair queue of tracks with at most one waiting `J` per track.
#[derive(Debug)]
pub struct FairSlots<J> {
    turns: VecDeque<TrackId>,
    slots: HashMap<TrackId, J>,
}

impl<J> FairSlots<J> {
    /// Creates an empty queue.
    pub fn new() -> Self {
        Self { turns: VecDeque::new(), slots: HashMap::new() }
    }

    /// Queues `job` for its track. Returns the older job that it replaces.
    pub fn put(&mut self, track: TrackId, job: J) -> Option<J> {
        let replaced = self.slots.insert(track, job);
        if replaced.is_none() {
            self.turns.push_back(track);
        }
        replaced
    }

    /// Takes the newest job of the track that has waited longest.
    pub fn take(&mut self) -> Option<J> {
        self.take_if(|_| true)
    }

    /// Takes the newest job of the track that has waited longest, among those whose job is
    /// `wanted`. The others keep their turns.
    pub fn take_if(&mut self, wanted: impl Fn(&J) -> bool) -> Option<J> {
        let index = self.turns.iter().position(|track| self.slots.get(track).is_some_and(&wanted))?;
        self.slots.remove(&self.turns.remove(index)?)
    }

    /// Removes a track that has ended, and returns its job.
    pub fn remove(&mut self, track: TrackId) -> Option<J> {
        let job = self.slots.remove(&track)?;
        self.turns.retain(|t| *t != track);
        Some(job)
    }

    /// Returns the number of tracks that wait.
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// Returns whether no track waits.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

impl<J> Default for FairSlots<J> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TrackId = TrackId(1);
    const B: TrackId = TrackId(2);

    #[test]
    fn newer_frame_replaces_the_older_and_keeps_its_turn() {
        let mut slots = FairSlots::new();
        assert_eq!(slots.put(A, "a1"), None);
        assert_eq!(slots.put(B, "b1"), None);
        assert_eq!(slots.put(A, "a2"), Some("a1"));
        assert_eq!(slots.take(), Some("a2"));
        assert_eq!(slots.take(), Some("b1"));
        assert_eq!(slots.take(), None);
    }

    #[test]
    fn greedy_track_takes_turns() {
        let mut slots = FairSlots::new();
        slots.put(A, "a1");
        slots.put(B, "b1");
        assert_eq!(slots.take(), Some("a1"));
        slots.put(A, "a2");
        assert_eq!(slots.take(), Some("b1"));
        assert_eq!(slots.take(), Some("a2"));
    }

    #[test]
    fn tracks_that_are_passed_over_keep_their_turns() {
        let mut slots = FairSlots::new();
        slots.put(A, "a1");
        slots.put(B, "b1");
        assert_eq!(slots.take_if(|job| job.starts_with('b')), Some("b1"));
        assert_eq!(slots.take_if(|job| job.starts_with('b')), None);
        slots.put(B, "b2");
        assert_eq!(slots.take(), Some("a1"));
        assert_eq!(slots.take(), Some("b2"));
    }

    #[test]
    fn ended_track_leaves_nothing_behind() {
        let mut slots = FairSlots::new();
        slots.put(A, "a1");
        slots.put(B, "b1");
        assert_eq!(slots.remove(A), Some("a1"));
        assert_eq!(slots.remove(A), None);
        assert_eq!(slots.len(), 1);
        assert_eq!(slots.take(), Some("b1"));
    }
}
