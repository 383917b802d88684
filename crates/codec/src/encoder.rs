//! Video encoder, the part that is common to both codecs. Owns the size of the stream, its bitrate
//! and its keyframes on request.
//!
//! The driver of a track calls it for each picture that is shown. It knows nothing of packets or of
//! how the bitrate was chosen.

use ooblex_pipeline::{EncodedFrame, I420, MediaTime, VideoCodec};

use crate::cadence::Cadence;
use crate::encoding::{EncodeError, Output, Speed, Task};
use crate::{CodecError, h264, vp8};

/// Minimum bitrate: below it no picture is worth sending.
const MIN_BITRATE_BPS: u32 = 30_000;
/// Maximum bitrate: above it nothing is gained at 1080p. It is below the 14 Mbit/s of H.264 level
/// 3.1, which browsers negotiate.
const MAX_BITRATE_BPS: u32 = 12_000_000;

/// Configuration of an [`Encoder`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderConfig {
    /// Codec of the encoded frames.
    pub codec: VideoCodec,
    /// Target bitrate in bit/s, clamped to 30 kbit/s..=12 Mbit/s.
    pub bitrate_bps: u32,
    /// Expected frame rate, 1..=240 Hz. It is the initial value of the rate that is measured from
    /// the capture times.
    pub frame_rate: f32,
    /// Trade-off between quality and CPU time.
    pub speed: Speed,
}

/// Encodes one stream, one picture per call, without delay and without dropping pictures.
///
/// If the size of the pictures changes, the encoder restarts with a keyframe.
pub struct Encoder {
    config: EncoderConfig,
    cadence: Cadence,
    /// `None` if the next picture starts a stream, as at the beginning and after errors.
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

impl Encoder {
    /// Creates an encoder. The first picture sets the size.
    ///
    /// # Errors
    /// [`CodecError::FrameRate`] when the frame rate is not in 1..=240 Hz.
    pub fn new(config: EncoderConfig) -> Result<Self, CodecError> {
        if !(1.0..=240.0).contains(&config.frame_rate) {
            return Err(CodecError::FrameRate(config.frame_rate));
        }
        let mut encoder = Self { config, cadence: Cadence::new(config.frame_rate), stream: None };
        encoder.set_bitrate(config.bitrate_bps);
        Ok(encoder)
    }

    /// Encodes a picture. It becomes a keyframe if `force_keyframe` is set, if it is the first one,
    /// if the size has changed, and if the encoder restarts after an error or
    /// [`Encoder::set_speed`].
    ///
    /// H.264 has only even sizes: an odd side grows by one, repeating the edge of the picture.
    /// `capture` is passed through. Its differences also tell the rate control how fast pictures
    /// arrive, so it should increase.
    ///
    /// `Ok(None)` means that the codec dropped the picture, which it is configured not to do. The
    /// caller loses nothing but this picture.
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
        // The stream is kept only on success: an encoder that failed is not used again.
        let stream = self.stream.insert(stream);
        let output = match &mut stream.backend {
            Backend::Vp8(encoder) => encoder.encode(picture, &task),
            Backend::H264(encoder) => encoder.encode(picture, &task),
        };
        if output.is_err() {
            self.stream = None;
        }
        Ok(output?.map(|Output { data, keyframe }| EncodedFrame { codec: self.config.codec, data: data.into(), capture, keyframe }))
    }

    /// Sets the target bitrate from the next picture on, without a keyframe, clamped to 30
    /// kbit/s..=12 Mbit/s. Cheap when nothing changes.
    pub fn set_bitrate(&mut self, bps: u32) {
        self.config.bitrate_bps = bps.clamp(MIN_BITRATE_BPS, MAX_BITRATE_BPS);
    }

    /// Sets the speed from the next picture on. VP8 continues its stream; H.264 restarts with a
    /// keyframe.
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

    /// Returns the configuration, with the bitrate and the speed that are in force.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Returns the recent frame rate in Hz, a moving average over the capture times. A pause counts
    /// as a fifth of a second.
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
