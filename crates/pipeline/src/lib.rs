//! The path of a frame as pure state machines: no clock, no threads, no I/O.
#![warn(missing_docs)]

mod analysis;
mod frame;
mod ids;

pub use analysis::{Analysis, Face, Mask, ModelInput, Rgb};
pub use frame::{EncodedFrame, I420, MediaTime, VideoCodec};
pub use ids::{EffectName, FrameSeq, TrackId};
