//! The frame path as pure state machines: no clock, no threads, no I/O.
//!
//! [`Track`] is the core: it decides which frames are analysed and which are shown. [`FairSlots`]
//! is the queue in front of the workers. The other types are common to all crates: pictures, the
//! inputs of models, and their results; and how numbers are rounded for output.

mod analysis;
mod drop_reason;
mod frame;
mod ids;
mod job;
mod playout;
mod pool;
mod rounding;
mod sampler;
mod size;
mod slots;
mod track;

pub use analysis::{Analysis, Face, FaceMesh, Mask, ModelInput, Rgb, Thing};
pub use drop_reason::{DropReason, FrameCounts};
pub use frame::{EncodedFrame, I420, MediaTime, VideoCodec};
pub use ids::{EffectName, FrameSeq, TrackId};
pub use job::{Completion, Job, Outcome};
pub use playout::Patience;
pub use pool::Pool;
pub use rounding::round;
pub use sampler::Sampling;
pub use size::Size;
pub use slots::FairSlots;
pub use track::{Admission, Generation, Mode, Release, Track, View};
