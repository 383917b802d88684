//! Session ids.

use std::fmt;

use ooblex_effects::Chain;
use ooblex_pipeline::TrackId;
use serde::{Serialize, Serializer};

/// Identity of a session: 16 hexadecimal digits that cannot be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl SessionId {
    /// Makes a random id.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Parses the format of [`fmt::Display`].
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// Returns the track of the session.
    pub fn track(self) -> TrackId {
        TrackId(self.0)
    }

    /// Returns the branches of the track, one for each effect that a chain may have. The first
    /// branch is the track itself.
    pub fn branches(self) -> impl Iterator<Item = TrackId> {
        (0..Chain::MOST).map(move |index| self.branch(index))
    }

    /// Returns the branch with this index. As session ids are random, two sessions share a branch
    /// with a probability of 2^-60.
    pub fn branch(self, index: usize) -> TrackId {
        TrackId(self.0.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
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
