//! Session ids.

use std::fmt;

use ooblex_effects::Chain;
use ooblex_pipeline::TrackId;
use serde::{Serialize, Serializer};

/// Id of a session: 64 random bits, written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl SessionId {
    /// Generates a new id.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Parses the format of [`fmt::Display`].
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// Returns the id of the session's track.
    pub fn track(self) -> TrackId {
        TrackId(self.0)
    }

    /// Returns the track ids of the session's lanes at the broker: one for each effect of a chain.
    /// The first is the id of the track itself.
    pub fn lanes(self) -> impl Iterator<Item = TrackId> {
        (0..Chain::MOST).map(move |lane| self.lane(lane))
    }

    /// Returns the track id of a lane. Ids are random, so two sessions share one only with a
    /// probability of about 2^-60.
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
