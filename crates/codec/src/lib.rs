//! Decodes and encodes VP8 and H.264, and converts, rotates and scales pictures.
//!
//! This crate owns the two codec libraries (libvpx, openh264) and all of the workspace's `unsafe`.
//! It knows nothing of RTP, tracks, threads or effects: the owner of a track calls its [`Decoder`]
//! and [`Encoder`] once per frame, on a thread of the owner's choice. Neither holds frames back:
//! each call returns the output of its input. The crate also decides how freed memory returns to
//! the system.
#![warn(missing_docs)]

mod cadence;
mod colour;
pub mod container;
mod decoder;
mod encoder;
mod encoding;
mod h264;
mod jpeg;
mod limits;
mod memory;
mod planes;
mod rotate;
mod scale;
#[cfg(test)]
mod tests;
mod undecodable;
mod vp8;

pub use colour::{ColourMatrix, ColourRange, ColourSpace};
pub use decoder::{DecodeError, Decoder, is_keyframe, keyframe_size};
pub use encoder::{Encoder, EncoderConfig};
pub use encoding::{EncodeError, Speed};
pub use h264::h264_is_accelerated;
pub use jpeg::encode_jpeg;
pub use limits::{H264Level, Limits, UnknownLevel};
pub use memory::{give_back_fragments, give_back_freed_memory};
pub use rotate::{Rotation, rotate};
pub use scale::Scaler;
pub use undecodable::{HeaderPart, Undecodable};

/// A codec could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The codec library refused to start, as it does when memory is short. The caller can only end
    /// the track.
    #[error("{library} could not start its {part}: {reason}")]
    Start {
        /// `libvpx` or `openh264`.
        library: &'static str,
        /// `encoder` or `decoder`.
        part: &'static str,
        /// Error message of the library.
        reason: String,
    },
    /// The frame rate of an [`EncoderConfig`] is not a number in 1..=240 Hz.
    #[error("frame rate {0} is outside 1 to 240 Hz")]
    FrameRate(f32),
}
