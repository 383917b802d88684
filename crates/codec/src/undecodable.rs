//! The reasons why a frame cannot be decoded.

use std::fmt;

/// Reason why a frame cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// The frame has no bytes.
    #[error("it is empty")]
    Empty,
    /// The frame depends on a picture that was lost, damaged, or never there. Only a keyframe
    /// helps. Expected after any other error.
    #[error("it builds on a picture that is not there")]
    AwaitsKeyframe,
    /// The frame announces a picture that is empty, has a side above [`I420::MAX_SIDE`](ooblex_pipeline::I420::MAX_SIDE), or has
    /// more pixels than [`Limits`](crate::Limits) allow. No memory was allocated for it.
    #[error("it announces a picture of {width}x{height}")]
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The headers of the frame have invalid values, ask for more than [`Limits`](crate::Limits) allow, or use a
    /// feature that is not supported. The codec library has not seen the frame.
    #[error("its {part} cannot be accepted: {why}")]
    Refused {
        /// Header that was refused.
        part: HeaderPart,
        /// Field and its value, or a sentence.
        why: String,
    },
    /// The bitstream is damaged, as the codec library found.
    #[error("{library} says {reason}")]
    Damaged {
        /// `libvpx` or `openh264`.
        library: &'static str,
        /// Error message of the library.
        reason: String,
    },
}

impl Undecodable {
    /// All labels that [`Undecodable::label`] returns.
    pub const LABELS: [&str; 9] = [
        "empty",
        "awaits_keyframe",
        "size",
        "nal_unit",
        "sequence_parameters",
        "picture_parameters",
        "slice_header",
        "frame_header",
        "damaged",
    ];

    /// Returns the label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Undecodable::Empty => "empty",
            Undecodable::AwaitsKeyframe => "awaits_keyframe",
            Undecodable::Size { .. } => "size",
            Undecodable::Refused { part, .. } => part.label(),
            Undecodable::Damaged { .. } => "damaged",
        }
    }

    /// Returns whether the check before decoding refused the frame. False for a missing keyframe,
    /// as after losses, and for damage that the codec library found.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Undecodable::Size { .. } | Undecodable::Refused { .. })
    }
}

/// Header of a frame that is checked before decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeaderPart {
    /// A NAL unit of H.264: its type, or its place among the others.
    NalUnit,
    /// A sequence parameter set of H.264.
    SequenceParameters,
    /// A picture parameter set of H.264.
    PictureParameters,
    /// The header of a slice of H.264.
    SliceHeader,
    /// The header of a VP8 frame.
    FrameHeader,
}

impl HeaderPart {
    fn label(self) -> &'static str {
        match self {
            HeaderPart::NalUnit => "nal_unit",
            HeaderPart::SequenceParameters => "sequence_parameters",
            HeaderPart::PictureParameters => "picture_parameters",
            HeaderPart::SliceHeader => "slice_header",
            HeaderPart::FrameHeader => "frame_header",
        }
    }
}

impl fmt::Display for HeaderPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeaderPart::NalUnit => "NAL unit",
            HeaderPart::SequenceParameters => "sequence parameter set",
            HeaderPart::PictureParameters => "picture parameter set",
            HeaderPart::SliceHeader => "slice header",
            HeaderPart::FrameHeader => "frame header",
        })
    }
}
