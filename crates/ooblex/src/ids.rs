//! The identity of a session.

use std::fmt;

use ooblex_effects::Chain;
use ooblex_pipeline::TrackId;
use serde::{Serialize, Serializer};

/// Identity of a session: 16 hexadecimal digits that can not be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl SessionId {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// The track of the session.
    pub fn track(self) -> TrackId {
        TrackId(self.0)
    }

    /// Its lines to the workers: one for each effect of a chain, the first one the track itself.
    pub fn lanes(self) -> impl Iterator<Item = TrackId> {
        (0..Chain::MOST).map(move |lane| self.lane(lane))
    }

    /// Line number `lane`. As ids are random, no two sessions share one but by a chance of 2^-60.
    pub fn lane(self, lane: usize) -> TrackId {
        TrackId(self.0.wrapping_add((lane as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
