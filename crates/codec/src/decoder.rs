//! Compressed frames to pictures: what both codecs share. Owns the rule that after damage nothing is decoded until a keyframe.
//!
//! Called by the track's driver for each frame that came in whole; knows nothing of packets and asks for no keyframe itself.

use std::fmt;

use ooblex_pipeline::{I420, Pool, VideoCodec};

use crate::{CodecError, Limits, h264, vp8};

/// Decodes one stream, one frame a call, without delay.
pub struct Decoder {
    backend: Backend,
    awaits_keyframe: bool,
    /// Of the pictures that come out.
    pool: Pool,
}

enum Backend {
    Vp8(vp8::Decoder),
    H264(Box<h264::Decoder>),
}

/// A frame gave no picture.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The frame is of no use; the caller asks the sender for a keyframe and goes on with the next frame.
    #[error("undecodable {} frame of {bytes} bytes: {why}", codec.label())]
    Undecodable {
        /// The stream's codec.
        codec: VideoCodec,
        /// The frame's length.
        bytes: usize,
        /// What was wrong with it.
        why: Undecodable,
    },
}

/// Why a frame can not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It builds on a picture that was lost, damaged, or never there; only a keyframe helps. Expected after any other error.
    #[error("it builds on a picture that is not there")]
    AwaitsKeyframe,
    /// It announces a picture that is empty, has a side above [`I420::MAX_SIDE`], or has more pixels than [`Limits`] allow. No memory was taken for it.
    #[error("it announces a picture of {width}x{height}")]
    Size {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Its headers say what they must not say, ask for more than [`Limits`] allow, or are of a kind that is not supported. The codec library has
    /// not seen it.
    #[error("its {part} can not be accepted: {why}")]
    Refused {
        /// What of it.
        part: HeaderPart,
        /// The field and its value, or a sentence.
        why: String,
    },
    /// The bitstream is broken.
    #[error("{library} says {reason}")]
    Damaged {
        /// `libvpx` or `openh264`.
        library: &'static str,
        /// What the library said.
        reason: String,
    },
}

impl Undecodable {
    /// All labels.
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

    /// The label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Undecodable::Empty => "empty",
            Undecodable::AwaitsKeyframe => "awaits_keyframe",
            Undecodable::Size { .. } => "size",
            Undecodable::Refused { part, .. } => part.label(),
            Undecodable::Damaged { .. } => "damaged",
        }
    }

    /// Whether the check refused it: not for want of a keyframe, as after losses, and not for what the codec library found in it.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Undecodable::Size { .. } | Undecodable::Refused { .. })
    }
}

/// What of a frame is looked at before it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeaderPart {
    /// A NAL unit of H.264: its type, or how it follows others.
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

impl Decoder {
    /// A decoder that waits for its first keyframe. What asks for more than `limits` is refused before memory is taken for it.
    ///
    /// # Errors
    /// [`CodecError::Start`] when the library can not be set up.
    pub fn new(codec: VideoCodec, limits: Limits) -> Result<Self, CodecError> {
        let backend = match codec {
            VideoCodec::Vp8 => Backend::Vp8(vp8::Decoder::new(limits)?),
            VideoCodec::H264 => Backend::H264(Box::new(h264::Decoder::new(limits)?)),
        };
        Ok(Self { backend, awaits_keyframe: true, pool: Pool::default() })
    }

    /// Decodes one whole frame (`EncodedFrame::data`); the size of the picture may differ from the one before.
    ///
    /// `Ok(None)`: the frame is sound but has no picture (an invisible VP8 frame, H.264 parameter sets alone).
    ///
    /// # Errors
    /// [`DecodeError::Undecodable`] when the frame is damaged, and from then on for every frame until a keyframe is decoded: what builds on
    /// a damaged picture would be silently wrong. The decoder stays usable.
    pub fn decode(&mut self, data: &[u8]) -> Result<Option<I420>, DecodeError> {
        self.decode_or_why(data).map_err(|why| {
            self.awaits_keyframe = true;
            DecodeError::Undecodable { codec: self.codec(), bytes: data.len(), why }
        })
    }

    /// Tells the decoder that frames before the next one were lost: nothing is decoded until a keyframe.
    ///
    /// VP8 does not number its frames in the bitstream, so only the caller can know.
    pub fn frames_lost(&mut self) {
        self.awaits_keyframe = true;
    }

    /// The codec it decodes.
    pub fn codec(&self) -> VideoCodec {
        match self.backend {
            Backend::Vp8(_) => VideoCodec::Vp8,
            Backend::H264(_) => VideoCodec::H264,
        }
    }

    #[cfg(test)]
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    fn decode_or_why(&mut self, data: &[u8]) -> Result<Option<I420>, Undecodable> {
        if data.is_empty() {
            return Err(Undecodable::Empty);
        }
        let keyframe = is_keyframe(self.codec(), data);
        if self.awaits_keyframe && !keyframe && !self.has_only_parameter_sets(data) {
            return Err(Undecodable::AwaitsKeyframe);
        }
        let picture = match &mut self.backend {
            Backend::Vp8(decoder) => decoder.decode(data, &self.pool)?,
            Backend::H264(decoder) => decoder.decode(data, &self.pool)?,
        };
        if keyframe {
            self.awaits_keyframe = false;
        }
        Ok(picture)
    }

    fn has_only_parameter_sets(&self, data: &[u8]) -> bool {
        matches!(self.backend, Backend::H264(_)) && !h264::has_slices(data)
    }
}

/// Whether a frame can be decoded without what came before: a VP8 key frame (RFC 6386 §9.1), or an H.264 access unit with an IDR slice.
///
/// Looks at headers only; damage behind them is found by decoding.
pub fn is_keyframe(codec: VideoCodec, data: &[u8]) -> bool {
    match codec {
        VideoCodec::Vp8 => vp8::is_keyframe(data),
        VideoCodec::H264 => h264::is_keyframe(data),
    }
}
