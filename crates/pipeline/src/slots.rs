//! The waiting room in front of the workers: the newest frame of each track, and whose turn it is.
//!
//! What queues is a track's turn, not its frame. A newer frame takes the place of the one that waits and keeps its turn,
//! so a worker always gets the freshest frame of the track that has waited longest. Knows nothing of workers or time.

use std::collections::{HashMap, VecDeque};

use crate::TrackId;

/// One waiting `J` a track, handed out in turns.
#[derive(Debug)]
pub struct FairSlots<J> {
    turns: VecDeque<TrackId>,
    slots: HashMap<TrackId, J>,
}

impl<J> FairSlots<J> {
    /// No track waits.
    pub fn new() -> Self {
        Self { turns: VecDeque::new(), slots: HashMap::new() }
    }

    /// Lets `job` wait for its track. Returns the older one that it replaces.
    pub fn put(&mut self, track: TrackId, job: J) -> Option<J> {
        let replaced = self.slots.insert(track, job);
        if replaced.is_none() {
            self.turns.push_back(track);
        }
        replaced
    }

    /// The freshest job of the track whose turn it is.
    pub fn take(&mut self) -> Option<J> {
        self.take_if(|_| true)
    }

    /// The freshest job of the track whose turn it is among those whose job is `wanted`. The others keep their turns.
    pub fn take_if(&mut self, wanted: impl Fn(&J) -> bool) -> Option<J> {
        let index = self.turns.iter().position(|track| self.slots.get(track).is_some_and(&wanted))?;
        self.slots.remove(&self.turns.remove(index)?)
    }

    /// Gives up the turn of a track that has ended.
    pub fn remove(&mut self, track: TrackId) -> Option<J> {
        let job = self.slots.remove(&track)?;
        self.turns.retain(|t| *t != track);
        Some(job)
    }

    /// Tracks that wait.
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// Whether no track waits.
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
