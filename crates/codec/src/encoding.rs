//! Types that the encoders of both codecs share: the task, its result and its errors.

use ooblex_pipeline::VideoCodec;

use crate::CodecError;

/// CPU time that an encoder spends on a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Speed {
    /// VP8 cpu-used -8; H.264 low complexity.
    #[default]
    Balanced,
    /// VP8 cpu-used -12, H.264 with background detection: up to a third less time, about 1 dB less.
    Fast,
}

/// A picture could not be encoded. The encoder stays usable: it restarts with a keyframe at the
/// next picture.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The codec does not support pictures of this size: H.264 supports 16x16 to 9.4 megapixels.
    #[error("{} cannot encode a picture of {width}x{height}", codec.label())]
    Size {
        /// Codec of the stream.
        codec: VideoCodec,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The library could not be set up for this size.
    #[error(transparent)]
    Start(#[from] CodecError),
    /// The library failed on a picture that it should have accepted.
    #[error("{library} failed on a picture: {reason}")]
    Failed {
        /// `libvpx` or `openh264`.
        library: &'static str,
        /// Error message of the library.
        reason: String,
    },
}

/// Parameters for encoding one picture.
pub(crate) struct Task {
    /// Time since the first picture in 90 kHz ticks. It increases strictly.
    pub(crate) elapsed: u64,
    /// Duration of the picture in 90 kHz ticks.
    pub(crate) duration: u64,
    /// Recent frame rate in Hz.
    pub(crate) frame_rate: f32,
    /// Target bitrate from this picture on, in bit/s.
    pub(crate) bitrate_bps: u32,
    pub(crate) force_keyframe: bool,
}

/// Encoded picture.
pub(crate) struct Output {
    pub(crate) data: Vec<u8>,
    pub(crate) keyframe: bool,
}
