//! VP8 and H.264 between compressed frames and pixels, and pictures turned upright and made smaller.
//!
//! Owns the two codec libraries (libvpx, openh264) and all of the workspace's `unsafe`. It knows nothing of RTP, tracks, threads or
//! effects: [`Decoder`] and [`Encoder`] are driven by whoever owns a track, one call a frame, on a thread of the caller's choice.
//! Neither holds frames back: what goes in comes out of the same call. How the memory that they and the pictures take is given back is
//! decided here, too.
#![warn(missing_docs)]

mod cadence;
mod decoder;
mod encoder;
mod h264;
mod limits;
mod memory;
mod planes;
mod rotate;
mod scale;
#[cfg(test)]
mod tests;
mod vp8;

pub use decoder::{DecodeError, Decoder, HeaderPart, Undecodable, is_keyframe};
pub use encoder::{EncodeError, Encoder, EncoderConfig, Speed};
pub use h264::h264_is_accelerated;
pub use limits::{H264Level, Limits, UnknownLevel};
pub use memory::{give_back_fragments, give_back_freed_memory};
pub use rotate::{Rotation, rotate};
pub use scale::Scaler;

/// A codec could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The codec library refused to start, as it does when memory is short; ending this track is all that can be done.
    #[error("{library} could not start its {part}: {reason}")]
    Start {
        /// `libvpx` or `openh264`.
        library: &'static str,
        /// `encoder` or `decoder`.
        part: &'static str,
        /// What the library said.
        reason: String,
    },
    /// The frame rate of an [`EncoderConfig`] is not a number in 1..=240 Hz.
    #[error("frame rate {0} is outside 1 to 240 Hz")]
    FrameRate(f32),
}
