//! Pictures to compressed frames: what both codecs share. Owns the size of the stream, its bitrate and its keyframes on request.
//!
//! Called by the track's driver for each picture that is shown; knows nothing of packets or of how the bitrate was found.

use ooblex_pipeline::{EncodedFrame, I420, MediaTime, VideoCodec};

use crate::cadence::Cadence;
use crate::{CodecError, h264, vp8};

/// Below this no picture is worth sending.
const MIN_BITRATE_BPS: u32 = 30_000;
/// Above this nothing is gained at 1080p; it lies below what H.264 level 3.1, which browsers negotiate, allows (14 Mb/s).
const MAX_BITRATE_BPS: u32 = 12_000_000;

/// What an [`Encoder`] is made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderConfig {
    /// What comes out.
    pub codec: VideoCodec,
    /// Bits a second to aim at; held to 30 kb/s..=12 Mb/s.
    pub bitrate_bps: u32,
    /// Pictures a second to expect, 1..=240 Hz; from then on the rate is measured from the capture times.
    pub frame_rate: f32,
    /// Quality against time.
    pub speed: Speed,
}

/// How much time an encoder takes for a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Speed {
    /// VP8 cpu-used -8; H.264 low complexity.
    #[default]
    Balanced,
    /// VP8 cpu-used -12, H.264 with background detection: up to a third less time, about 1 dB less.
    Fast,
}

/// Encodes one stream, one picture a call, without delay and without dropping pictures.
///
/// Makes itself anew when the size of the pictures changes; a keyframe comes out then.
pub struct Encoder {
    config: EncoderConfig,
    cadence: Cadence,
    /// `None` until the first picture tells the size.
    stream: Option<Stream>,
}

struct Stream {
    width: u32,
    height: u32,
    backend: Backend,
}

enum Backend {
    Vp8(vp8::Encoder),
    H264(Box<h264::Encoder>),
}

/// A picture could not be encoded. The encoder stays usable and starts afresh, with a keyframe, at the next picture.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The codec can not take pictures of this size: H.264 begins at 16x16 and ends at 9.4 megapixels.
    #[error("{} can not encode a picture of {width}x{height}", codec.label())]
    Size {
        /// The stream's codec.
        codec: VideoCodec,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The library could not be set up for this size.
    #[error(transparent)]
    Start(#[from] CodecError),
    /// The library failed on a picture that it should have taken.
    #[error("{library} failed on a picture: {reason}")]
    Failed {
        /// `libvpx` or `openh264`.
        library: &'static str,
        /// What the library said.
        reason: String,
    },
}

/// What a codec is asked to make of a picture, besides the picture.
pub(crate) struct Task {
    /// 90 kHz ticks since the first picture; increases strictly.
    pub(crate) elapsed: u64,
    /// 90 kHz ticks that the picture lasts.
    pub(crate) duration: u64,
    /// Pictures a second, lately.
    pub(crate) frame_rate: f32,
    /// Bits a second, from this picture on.
    pub(crate) bitrate_bps: u32,
    pub(crate) force_keyframe: bool,
}

/// What a codec made of a picture.
pub(crate) struct Output {
    pub(crate) data: Vec<u8>,
    pub(crate) keyframe: bool,
}

impl Encoder {
    /// An encoder; the first picture tells it the size.
    ///
    /// # Errors
    /// [`CodecError::FrameRate`] when the frame rate makes no sense.
    pub fn new(config: EncoderConfig) -> Result<Self, CodecError> {
        if !(1.0..=240.0).contains(&config.frame_rate) {
            return Err(CodecError::FrameRate(config.frame_rate));
        }
        let mut encoder = Self { config, cadence: Cadence::new(config.frame_rate), stream: None };
        encoder.set_bitrate(config.bitrate_bps);
        Ok(encoder)
    }

    /// Encodes a picture. A keyframe comes out when asked for, for the first picture, and when the size changed; else never.
    ///
    /// H.264 knows only even sizes: an odd side grows by one, repeating the picture's edge. `capture` is handed through; its differences also tell the rate
    /// control how fast pictures come, so it should increase.
    ///
    /// `Ok(None)`: the codec left the picture out. It is told not to; the caller loses nothing but this picture.
    ///
    /// # Errors
    /// See [`EncodeError`]; none of them ends the stream.
    pub fn encode(&mut self, picture: &I420, capture: MediaTime, force_keyframe: bool) -> Result<Option<EncodedFrame>, EncodeError> {
        self.cadence.advance(capture);
        let task = Task {
            elapsed: self.cadence.elapsed(),
            duration: self.cadence.mean_step(),
            frame_rate: self.cadence.frame_rate(),
            bitrate_bps: self.config.bitrate_bps,
            force_keyframe,
        };
        let stream = match self.stream.take() {
            Some(stream) if (stream.width, stream.height) == (picture.width(), picture.height()) => stream,
            _ => self.start_stream(picture.width(), picture.height())?,
        };
        // Put back only on success: an encoder that failed is not trusted again.
        let stream = self.stream.insert(stream);
        let output = match &mut stream.backend {
            Backend::Vp8(encoder) => encoder.encode(picture, &task),
            Backend::H264(encoder) => encoder.encode(picture, &task),
        };
        if output.is_err() {
            self.stream = None;
        }
        Ok(output?.map(|Output { data, keyframe }| EncodedFrame { codec: self.config.codec, data, capture, keyframe }))
    }

    /// Aims at another bitrate from the next picture on, without a keyframe; held to 30 kb/s..=12 Mb/s. Cheap when nothing changes.
    pub fn set_bitrate(&mut self, bps: u32) {
        self.config.bitrate_bps = bps.clamp(MIN_BITRATE_BPS, MAX_BITRATE_BPS);
    }

    /// Takes another time for each picture from the next one on. VP8 goes on where it was; H.264 starts anew, with a keyframe.
    pub fn set_speed(&mut self, speed: Speed) {
        if std::mem::replace(&mut self.config.speed, speed) == speed {
            return;
        }
        let goes_on = match self.stream.as_mut().map(|stream| &mut stream.backend) {
            Some(Backend::Vp8(encoder)) => encoder.set_speed(speed),
            Some(Backend::H264(_)) | None => false,
        };
        if !goes_on {
            self.stream = None;
        }
    }

    /// What it was made from, with the bitrate and the speed that are in force.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Pictures a second as they lately came, by their capture times; a pause counts as a fifth of a second.
    pub fn frame_rate(&self) -> f32 {
        self.cadence.frame_rate()
    }

    fn start_stream(&self, width: u32, height: u32) -> Result<Stream, EncodeError> {
        let EncoderConfig { codec, bitrate_bps, speed, .. } = self.config;
        let backend = match codec {
            VideoCodec::Vp8 => Backend::Vp8(vp8::Encoder::new(width, height, bitrate_bps, self.cadence.frame_rate(), speed)?),
            VideoCodec::H264 if h264::can_encode(width, height) => {
                Backend::H264(Box::new(h264::Encoder::new(width, height, bitrate_bps, self.cadence.frame_rate(), speed)?))
            }
            VideoCodec::H264 => return Err(EncodeError::Size { codec, width, height }),
        };
        Ok(Stream { width, height, backend })
    }
}
