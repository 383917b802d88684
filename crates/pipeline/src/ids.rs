//! Identities. A number of one kind can not be passed for another.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One video line of a session, with its pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TrackId(pub u64);

/// The number of a decoded frame within its track: 0, 1, 2, … in capture order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FrameSeq(pub u64);

/// The name by which an effect is asked for, such as `background_blur`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EffectName(Arc<str>);

impl EffectName {
    /// Wraps a name; whether such an effect exists is for the list of effects to say.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name without what tells versions apart in the names of queues: of `glow@1f2e3d4c` it is `glow`.
    pub fn without_version(&self) -> &str {
        self.0.split('@').next().unwrap_or_default()
    }

    /// The name as it is written in requests.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EffectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for FrameSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
