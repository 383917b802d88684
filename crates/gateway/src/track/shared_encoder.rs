//! An encoder of a track, for all receivers of one codec and quality: the bitrate, the size and the
//! keyframes of its frames. It knows no receivers. Time is an argument.

use std::time::{Duration, Instant};

use ooblex_codec::{Encoder, EncoderConfig, Scaler, Speed};
use ooblex_pipeline::{EncodedFrame, I420, MediaTime, Size, VideoCodec};
use tracing::warn;

use super::resolution::Resolution;
use crate::metrics::{EncoderMetrics, RunningEncoder};
use ooblex_config::{Video, Vp8Speed};

// Keyframes

/// The shortest time between two keyframes for one receiver.
const MIN_KEYFRAME_INTERVAL: Duration = Duration::from_millis(300);
/// The upper bound of that time on a narrow network, where the last keyframe still takes its time:
/// a keyframe that is lost must not cost a second.
const MAX_KEYFRAME_INTERVAL: Duration = Duration::from_millis(800);
/// The shortest time between two keyframes for several receivers, whose requests are merged.
const SHARED_KEYFRAME_INTERVAL: Duration = Duration::from_secs(1);

// Bitrate

/// Bits a pixel above which a video does not get better.
const MAX_BITS_PER_PIXEL: f64 = 0.25;
/// The frame rate that bitrates are calculated for, in frames a second.
const NOMINAL_FRAME_RATE_FPS: f64 = 30.0;
/// The largest factor on the bits of a frame where frames are fewer than nominal, since more has
/// moved between two of them. With all bits that are allowed, each frame would take the encoder
/// longer, and the pacer tens of milliseconds, just when frames are few because time is short.
const MAX_BITS_PER_FRAME_RATIO: f64 = 1.5;

/// The shorter side of the smallest picture that is worth to be encoded, in pixels.
const MIN_SIDE_PIXELS: u32 = 120;

/// The quality of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quality {
    /// Pictures of the camera's size, or smaller ones where there are too few bits for them.
    Full,
    /// Pictures of at most half the camera's width and height, for receivers whose network carries
    /// much less than that of the others.
    Half,
}

impl Quality {
    /// Returns the largest size of a picture, where that of the camera is `size`. `None`: too small
    /// to be of use.
    pub(super) fn size(self, size: Size) -> Option<Size> {
        let half = |side: u32| (side / 2).next_multiple_of(2);
        match self {
            Self::Full => Some(size),
            Self::Half => Some(Size::new(half(size.width), half(size.height))).filter(|half| half.shorter_side() >= MIN_SIDE_PIXELS),
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Half => "half",
        }
    }
}

/// An encoder of one track.
pub(super) struct SharedEncoder {
    pub(super) codec: VideoCodec,
    pub(super) quality: Quality,
    video: Video,
    encoder: Encoder,
    sent_size: Option<Size>,
    resolution: Resolution,
    scaler: Scaler,
    keyframes: Keyframes,
    /// Counts the encoder as long as it lives.
    running: RunningEncoder,
}

/// The requirements of the receivers for the next frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// The bitrate that the receivers' networks carry.
    pub(super) allowed_bps: u32,
    /// A receiver needs a keyframe.
    pub(super) needs_keyframe: bool,
    /// There are several receivers.
    pub(super) is_shared: bool,
}

/// The state of keyframes.
#[derive(Default)]
struct Keyframes {
    is_wanted: bool,
    last: Option<LastKeyframe>,
}

struct LastKeyframe {
    at: Instant,
    /// The time until the next keyframe may be made for a single receiver.
    pause: Duration,
}

impl SharedEncoder {
    /// Starts an encoder. `None` if there is none.
    pub(super) fn start(codec: VideoCodec, quality: Quality, video: &Video, metrics: &EncoderMetrics) -> Option<Self> {
        let bitrate_bps = video.start_bitrate_kbps * 1000;
        let config = EncoderConfig { codec, bitrate_bps, frame_rate: NOMINAL_FRAME_RATE_FPS as f32, speed: normal_speed(video) };
        let encoder = Encoder::new(config).inspect_err(|error| warn!(%error, "no encoder")).ok()?;
        Some(Self {
            codec,
            quality,
            video: video.clone(),
            encoder,
            sent_size: None,
            resolution: Resolution::default(),
            scaler: Scaler::new(),
            keyframes: Keyframes::default(),
            running: metrics.start(codec, quality.label()),
        })
    }

    /// Makes the encoder take less time than the operator set, at the cost of a coarser picture, or
    /// as much. Returns whether that is a change.
    pub(super) fn set_hurried(&mut self, hurried: bool) -> bool {
        let speed = if hurried { Speed::Fast } else { normal_speed(&self.video) };
        let is_change = self.encoder.config().speed != speed;
        if is_change {
            self.encoder.set_speed(speed);
        }
        is_change
    }

    /// Tells whether the encoder takes less time than the operator set.
    pub(super) fn is_hurried(&self) -> bool {
        self.encoder.config().speed != normal_speed(&self.video)
    }

    /// Makes the next picture a keyframe, unless the last one was less than its pause ago.
    pub(super) fn want_keyframe(&mut self) {
        self.keyframes.is_wanted = true;
    }

    /// Makes the next picture a keyframe that is small enough to be through soon.
    pub(super) fn hasten_keyframe(&mut self) {
        self.resolution.hasten();
        self.keyframes = Keyframes { is_wanted: true, last: None };
    }

    /// Tells whether the next picture would be a keyframe.
    pub(super) fn makes_keyframe(&self, now: Instant, request: Request) -> bool {
        self.keyframes.last.is_none() || self.keyframes.is_due(now, request)
    }

    /// Returns the bitrate that pictures of a size take where `allowed_bps` are allowed.
    pub(super) fn used_bps(&self, size: Size, allowed_bps: u32) -> u32 {
        let useful = useful_bps(desired_bps(&self.video, size), self.encoder.frame_rate()).max(self.video.min_bitrate_kbps * 1000);
        allowed_bps.min(useful)
    }

    /// Compresses a picture.
    pub(super) fn encode(&mut self, now: Instant, picture: &I420, timestamp: MediaTime, request: Request) -> Option<EncodedFrame> {
        let largest = self.quality.size(picture.size())?;
        self.encoder.set_bitrate(self.used_bps(largest, request.allowed_bps));
        let sent = self.resolution.choose(now, largest, request.allowed_bps);
        self.sent_size = Some(sent);
        let smaller = (sent != picture.size()).then(|| self.scaler.scale(picture, sent.width, sent.height));
        self.running.on_encode();
        let is_due = self.keyframes.is_due(now, request);
        let frame = match self.encoder.encode(smaller.as_ref().unwrap_or(picture), timestamp, is_due) {
            Ok(frame) => frame?,
            Err(error) => {
                warn!(%error, "a picture was not encoded");
                return None;
            }
        };
        if frame.keyframe {
            self.keyframes.on_keyframe(now, frame.data.len(), request.allowed_bps);
        }
        Some(frame)
    }

    /// Returns the size of the picture that was sent last. It is smaller than the camera's where
    /// the network carries too few bits.
    pub(super) fn sent_size(&self) -> Option<Size> {
        self.sent_size
    }

    /// Returns the configuration of the encoder, with the bitrate in force.
    pub(super) fn config(&self) -> &EncoderConfig {
        self.encoder.config()
    }
}

impl Keyframes {
    /// Tells whether the next picture is to be a keyframe.
    fn is_due(&self, now: Instant, request: Request) -> bool {
        let pause = |last: &LastKeyframe| if request.is_shared { SHARED_KEYFRAME_INTERVAL } else { last.pause };
        (self.is_wanted || request.needs_keyframe) && self.last.as_ref().is_none_or(|last| now.duration_since(last.at) >= pause(last))
    }

    /// Notes a keyframe. The next one for a single receiver waits for twice the time that this one
    /// takes to be sent, within bounds.
    fn on_keyframe(&mut self, now: Instant, bytes: usize, allowed_bps: u32) {
        let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / f64::from(allowed_bps));
        let pause = (2 * takes).clamp(MIN_KEYFRAME_INTERVAL, MAX_KEYFRAME_INTERVAL);
        *self = Self { is_wanted: false, last: Some(LastKeyframe { at: now, pause }) };
    }
}

fn normal_speed(video: &Video) -> Speed {
    match video.vp8_speed {
        Vp8Speed::Balanced => Speed::Balanced,
        Vp8Speed::Fast => Speed::Fast,
    }
}

/// Returns the bitrate above which pictures of a size do not get better.
pub(super) fn desired_bps(video: &Video, size: Size) -> u32 {
    let useful = size.pixels() * NOMINAL_FRAME_RATE_FPS * MAX_BITS_PER_PIXEL;
    (useful as u32).clamp(video.min_bitrate_kbps * 1000, video.max_bitrate_kbps * 1000)
}

/// Returns the bitrate that is of use at a frame rate, where `desired_bps` is that at the nominal
/// one.
fn useful_bps(desired_bps: u32, frame_rate: f32) -> u32 {
    (f64::from(desired_bps) * (MAX_BITS_PER_FRAME_RATIO * f64::from(frame_rate) / NOMINAL_FRAME_RATE_FPS).min(1.0)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder(codec: VideoCodec, quality: Quality) -> SharedEncoder {
        SharedEncoder::start(codec, quality, &Video::default(), &super::super::outbox::metrics().encoders).unwrap()
    }

    /// The request of one receiver, which has a picture.
    const ONE: Request = Request { allowed_bps: 2_500_000, needs_keyframe: false, is_shared: false };
    const SEVERAL: Request = Request { is_shared: true, ..ONE };

    #[test]
    fn fewer_frames_take_fewer_bits_and_keep_their_size() {
        let mut encoder = encoder(VideoCodec::H264, Quality::Full);
        let request = Request { allowed_bps: 4_500_000, ..ONE };
        let (start, picture) = (Instant::now(), I420::grey(640, 480, 90));
        let mut ticks = 0;
        let mut rate = |seconds: u64, fps: u64| {
            for _ in 0..seconds * fps {
                ticks += 90_000 / fps;
                let frame = encoder.encode(start + Duration::from_micros(ticks * 100 / 9), &picture, MediaTime(ticks), request);
                assert!(frame.is_some() && encoder.sent_size() == Some(Size::new(640, 480)));
            }
            encoder.config().bitrate_bps
        };
        let whole = rate(2, 30);
        assert_eq!(whole, 640 * 480 * 30 / 4, "as many bits as are of use");
        let fewer = rate(20, 6);
        assert!(fewer < whole * 33 / 100 && fewer > whole * 30 / 100, "{fewer:?}");
        assert!(rate(3, 30) > whole * 95 / 100, "all again");
        assert_eq!(rate(10, 60), whole, "more frames are not worth more");
    }

    #[test]
    fn keyframes_wait_for_the_pause_of_the_last_one_unless_the_network_has_broken_down() {
        let mut encoder = encoder(VideoCodec::Vp8, Quality::Full);
        let (start, picture) = (Instant::now(), I420::grey(160, 120, 90));
        let is_keyframe = |encoder: &mut SharedEncoder, ms: u64| {
            encoder.encode(start + Duration::from_millis(ms), &picture, MediaTime(90 * ms), ONE).unwrap().keyframe
        };
        assert!(is_keyframe(&mut encoder, 0), "the first frame is one");
        encoder.want_keyframe();
        assert!(!is_keyframe(&mut encoder, 299));
        assert!(is_keyframe(&mut encoder, 300));
        assert!(!is_keyframe(&mut encoder, 700), "none is wanted");
        encoder.want_keyframe();
        assert!(is_keyframe(&mut encoder, 800));
        encoder.hasten_keyframe();
        assert!(is_keyframe(&mut encoder, 960));
    }

    #[test]
    fn several_receivers_have_at_most_one_keyframe_a_second() {
        let mut encoder = encoder(VideoCodec::Vp8, Quality::Full);
        let (start, picture) = (Instant::now(), I420::grey(160, 120, 90));
        let needing = Request { needs_keyframe: true, ..SEVERAL };
        let mut keyframes = Vec::new();
        for ms in (0..3500).step_by(100) {
            let now = start + Duration::from_millis(ms);
            let announced = encoder.makes_keyframe(now, needing);
            let frame = encoder.encode(now, &picture, MediaTime(90 * ms), needing).unwrap();
            assert_eq!(frame.keyframe, announced);
            keyframes.extend(frame.keyframe.then_some(ms));
        }
        assert_eq!(keyframes, [0, 1000, 2000, 3000]);
    }

    #[test]
    fn half_quality_has_at_most_half_the_sides_and_the_bits_of_that() {
        assert_eq!(Quality::Half.size(Size::new(1278, 718)), Some(Size::new(640, 360)));
        assert_eq!((Quality::Half.size(Size::new(320, 236)), Quality::Half.size(Size::new(320, 240))), (None, Some(Size::new(160, 120))));
        let mut encoder = encoder(VideoCodec::Vp8, Quality::Half);
        let (now, picture) = (Instant::now(), I420::grey(640, 480, 90));
        assert!(encoder.encode(now, &picture, MediaTime(0), SEVERAL).unwrap().keyframe);
        assert_eq!((encoder.sent_size(), encoder.config().bitrate_bps), (Some(Size::new(320, 240)), 576_000));
    }
}
