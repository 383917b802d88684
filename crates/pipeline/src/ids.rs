//! Ids as newtypes, so that an id of one kind cannot be passed for another.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Id of a video track of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TrackId(pub u64);

/// Number of a decoded frame within its track: 0, 1, 2, … in capture order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FrameSeq(pub u64);

/// Name by which an effect is requested, such as `background_blur`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EffectName(Arc<str>);

impl EffectName {
    /// Wraps a name, without a check that such an effect exists.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// Returns the name without the version that distinguishes the names of queues: `glow` for
    /// `glow@1f2e3d4c`.
    pub fn without_version(&self) -> &str {
        self.0.split('@').next().unwrap_or_default()
    }

    /// Returns the name as it is written in requests.
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
