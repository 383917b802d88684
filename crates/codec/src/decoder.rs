//! Video decoder, the part that is common to both codecs. Owns the rule that after damage nothing
//! is decoded until a keyframe.
//!
//! The driver of a track calls it for each complete frame. It knows nothing of packets and requests
//! no keyframe itself.

use ooblex_pipeline::{I420, Pool, Size, VideoCodec};

use crate::undecodable::Undecodable;
use crate::{CodecError, ColourSpace, Limits, h264, vp8};

/// Decodes one stream, one frame per call, without delay.
pub struct Decoder {
    backend: Backend,
    awaits_keyframe: bool,
    /// Colours that the sender has named beside the bitstream.
    colours: Option<ColourSpace>,
    /// Memory pool of the decoded pictures.
    pool: Pool,
}

enum Backend {
    Vp8(vp8::Decoder),
    H264(Box<h264::Decoder>),
}

/// A frame could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The frame is useless. The caller requests a keyframe from the sender and continues with the
    /// next frame.
    #[error("undecodable {} frame of {bytes} bytes: {why}", codec.label())]
    Undecodable {
        /// Codec of the stream.
        codec: VideoCodec,
        /// Size of the frame in bytes.
        bytes: usize,
        /// Reason why the frame cannot be decoded.
        why: Undecodable,
    },
}

impl Decoder {
    /// Creates a decoder, which waits for its first keyframe. Frames that ask for more than
    /// `limits` are refused before memory is allocated for them.
    ///
    /// # Errors
    /// [`CodecError::Start`] when the library cannot be set up.
    pub fn new(codec: VideoCodec, limits: Limits) -> Result<Self, CodecError> {
        let backend = match codec {
            VideoCodec::Vp8 => Backend::Vp8(vp8::Decoder::new(limits)?),
            VideoCodec::H264 => Backend::H264(Box::new(h264::Decoder::new(limits)?)),
        };
        Ok(Self { backend, awaits_keyframe: true, colours: None, pool: Pool::default() })
    }

    /// Decodes one complete frame (`EncodedFrame::data`). The size of the picture may differ from
    /// that of the previous one. Its colours are converted to those of [`I420`].
    ///
    /// `Ok(None)` means that the frame is valid but has no picture (an invisible VP8 frame, H.264
    /// parameter sets alone).
    ///
    /// # Errors
    /// [`DecodeError::Undecodable`] when the frame is damaged, and then for every frame until a
    /// keyframe is decoded: pictures that depend on a damaged one would be silently wrong. The
    /// decoder stays usable.
    pub fn decode(&mut self, data: &[u8]) -> Result<Option<I420>, DecodeError> {
        self.decode_or_why(data).map_err(|why| {
            self.awaits_keyframe = true;
            DecodeError::Undecodable { codec: self.codec(), bytes: data.len(), why }
        })
    }

    /// Tells the decoder that frames before the next one were lost: nothing is decoded until a
    /// keyframe.
    ///
    /// VP8 does not number its frames in the bitstream, so only the caller can know.
    pub fn frames_lost(&mut self) {
        self.awaits_keyframe = true;
    }

    /// Tells the decoder that packets before the next frame were lost, which were of few frames or of
    /// none, such as padding. H.264 numbers its pictures, modulo 16 or more: the next one is decoded
    /// if none is missing before it. VP8 does not, so this is [`Decoder::frames_lost`].
    pub fn packets_lost(&mut self) {
        match &mut self.backend {
            Backend::Vp8(_) => self.frames_lost(),
            Backend::H264(decoder) => decoder.packets_lost(),
        }
    }

    /// Sets the colours that the sender has named beside the bitstream, for the next frame and those
    /// after it. `None`: it has named none, and those of the bitstream count. VP8 cannot name any
    /// (RFC 6386 §9.2 has BT.601 only, and no range).
    pub fn set_colours(&mut self, colours: Option<ColourSpace>) {
        self.colours = colours;
    }

    /// Returns the codec of the stream.
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
        let (mut picture, in_bitstream) = match &mut self.backend {
            Backend::Vp8(decoder) => (decoder.decode(data, &self.pool)?, None),
            Backend::H264(decoder) => (decoder.decode(data, &self.pool)?, decoder.colours()),
        };
        if keyframe {
            self.awaits_keyframe = false;
        }
        if let Some(picture) = &mut picture {
            self.colours.or(in_bitstream).unwrap_or_default().convert(picture);
        }
        Ok(picture)
    }

    fn has_only_parameter_sets(&self, data: &[u8]) -> bool {
        matches!(self.backend, Backend::H264(_)) && !h264::has_slices(data)
    }
}

/// Returns whether a frame can be decoded without earlier frames: a VP8 key frame (RFC 6386 §9.1),
/// or an H.264 access unit with an IDR slice.
///
/// Reads headers only; damage behind them is found by decoding.
pub fn is_keyframe(codec: VideoCodec, data: &[u8]) -> bool {
    match codec {
        VideoCodec::Vp8 => vp8::is_keyframe(data),
        VideoCodec::H264 => h264::is_keyframe(data),
    }
}

/// Returns the size of the picture that a keyframe announces. `None`: it is not a
/// keyframe, or larger than any that is decoded.
pub fn keyframe_size(codec: VideoCodec, data: &[u8]) -> Option<Size> {
    match codec {
        VideoCodec::Vp8 => vp8::keyframe_size(data),
        VideoCodec::H264 => h264::keyframe_size(data),
    }
}
