//! The egress of a track to one receiver: pictures become compressed frames, at the bitrate that the network takes,
//! with keyframes on request and timestamps that only increase. It knows nothing of effects. Time
//! is an argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_codec::{Encoder, EncoderConfig, Scaler, Speed};
use ooblex_pipeline::{EncodedFrame, I420, MediaTime, Size, VideoCodec};
use tracing::warn;

use super::loss_control::{EstimateContext, LossControl};
use super::messages::{Backlog, ReceptionFeedback};
use super::resolution::Resolution;
use ooblex_config::{Video, Vp8Speed};

// Keyframes

/// The shortest time between two keyframes.
const MIN_KEYFRAME_INTERVAL: Duration = Duration::from_millis(300);
/// The upper bound of that time on a narrow network, where the last keyframe still takes its time:
/// a keyframe that is lost must not cost a second.
const MAX_KEYFRAME_INTERVAL: Duration = Duration::from_millis(800);

// Congestion

/// Pictures are left out while more waits to be sent than the bitrate allows in this time, in
/// milliseconds: they would only get old.
const MAX_BACKLOG_MS: u32 = 100;
/// A backlog of at most this size is no congestion at any bitrate: it is two packets.
const SMALL_BACKLOG_BYTES: u32 = 2400;
/// Nothing is sent for this time after the network has broken down, since packets on their way fill
/// it.
const BREAKDOWN_PAUSE: Duration = Duration::from_millis(150);

// Bitrate

/// The weight of the newest second in the mean share of bytes that are sent again.
const RESENT_SMOOTHING: f32 = 0.3;
/// An estimate that grows at once by more than this factor was measured, so earlier losses are out
/// of date.
const MEASURED_GROWTH_RATIO: f64 = 1.5;
/// Bits a pixel above which a video does not get better.
const MAX_BITS_PER_PIXEL: f64 = 0.25;
/// The frame rate that bitrates are calculated for, in frames a second.
const NOMINAL_FRAME_RATE_FPS: f64 = 30.0;
/// The largest factor on the bits of a frame where frames are fewer than nominal, since more has
/// moved between two of them. With all bits that are allowed, each frame would take the encoder
/// longer, and the pacer tens of milliseconds, just when frames are few because time is short.
const MAX_BITS_PER_FRAME_RATIO: f64 = 1.5;

/// The egress of one track to one receiver.
pub struct Egress {
    video: Video,
    /// `None` until the codec is known.
    encoder: Option<Encoder>,
    sizes: Sizes,
    bitrate: BitrateLimits,
    keyframes: Keyframes,
    backlog: Arc<Backlog>,
    /// Nothing is sent before this time.
    quiet_until: Option<Instant>,
}

/// The sizes of pictures. `None` before the first.
struct Sizes {
    camera: Option<Size>,
    sent: Option<Size>,
    resolution: Resolution,
    scaler: Scaler,
}

/// The limits of the bitrate.
struct BitrateLimits {
    /// The bitrate above which the picture does not get better.
    desired_bps: u32,
    /// The estimate of the bandwidth. `None`: there is none.
    estimate_bps: Option<u32>,
    loss: LossControl,
    /// The mean share of bytes that were sent before, 0..=1.
    resent: f32,
}

/// The state of keyframes.
#[derive(Default)]
struct Keyframes {
    is_wanted: bool,
    last: Option<LastKeyframe>,
}

struct LastKeyframe {
    at: Instant,
    /// The time until the next keyframe may be made.
    pause: Duration,
}

impl Egress {
    /// Makes an egress without a codec.
    pub fn new(video: Video, backlog: Arc<Backlog>) -> Self {
        let loss = LossControl::new(video.min_bitrate_kbps * 1000);
        Self {
            video,
            encoder: None,
            sizes: Sizes { camera: None, sent: None, resolution: Resolution::default(), scaler: Scaler::new() },
            bitrate: BitrateLimits { desired_bps: 0, estimate_bps: None, loss, resent: 0.0 },
            keyframes: Keyframes::default(),
            backlog,
            quiet_until: None,
        }
    }

    /// Returns whether the receiver has ended.
    pub(super) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.backlog) == 1
    }

    /// Sets the codec that the receiver wants.
    pub fn start(&mut self, codec: VideoCodec) {
        let speed = self.normal_speed();
        let bitrate_bps = self.video.start_bitrate_kbps * 1000;
        match Encoder::new(EncoderConfig { codec, bitrate_bps, frame_rate: NOMINAL_FRAME_RATE_FPS as f32, speed }) {
            Ok(encoder) => self.encoder = Some(encoder),
            Err(error) => warn!(%error, "no encoder"),
        }
    }

    /// Makes the encoder take less time than the operator set, at the cost of a coarser picture, or
    /// as much. Returns whether that is a change.
    pub(super) fn set_hurried(&mut self, hurried: bool) -> bool {
        let normal = self.normal_speed();
        let speed = if hurried { Speed::Fast } else { normal };
        match &mut self.encoder {
            Some(encoder) if encoder.config().speed != speed => {
                encoder.set_speed(speed);
                true
            }
            _ => false,
        }
    }

    /// Tells whether the encoder takes less time than the operator set.
    pub(super) fn is_hurried(&self) -> bool {
        self.config().is_some_and(|config| config.speed != self.normal_speed())
    }

    /// Notes the size of the camera's next picture. Returns the bitrate that would be of use when
    /// the size has changed.
    pub fn on_size(&mut self, size: Size) -> Option<u32> {
        if self.sizes.camera.replace(size) == Some(size) {
            return None;
        }
        let useful = size.pixels() * NOMINAL_FRAME_RATE_FPS * MAX_BITS_PER_PIXEL;
        let desired_bps = (useful as u32).clamp(self.video.min_bitrate_kbps * 1000, self.video.max_bitrate_kbps * 1000);
        self.bitrate.desired_bps = desired_bps;
        // A fifth more than is sent, so that the estimate leaves room for data beside the picture.
        Some(desired_bps + desired_bps / 5)
    }

    /// Takes an estimate of the bandwidth, in bits a second.
    pub fn on_estimate(&mut self, bps: u32) {
        let BitrateLimits { estimate_bps, loss, .. } = &mut self.bitrate;
        if estimate_bps.is_some_and(|before| f64::from(bps) > MEASURED_GROWTH_RATIO * f64::from(before)) {
            loss.forget();
        }
        *estimate_bps = Some(bps);
    }

    /// Takes an estimate that has fallen so far that frames which were handed on are given up. The
    /// next picture is a keyframe, small enough to be through soon.
    pub fn on_breakdown(&mut self, now: Instant, bps: u32) {
        self.bitrate.loss.forget();
        self.on_estimate(bps);
        self.quiet_until = Some(now + BREAKDOWN_PAUSE);
        self.sizes.resolution.hasten();
        self.keyframes = Keyframes { is_wanted: true, last: None };
    }

    /// Notes that the network carries packets again after an outage. Losses of the outage do not
    /// tell its bandwidth.
    pub fn on_resumed(&mut self) {
        self.bitrate.loss.forget();
        self.want_keyframe();
    }

    /// Takes the feedback on what was sent during the last second.
    pub fn on_feedback(&mut self, feedback: &ReceptionFeedback) {
        let Some(config) = self.config() else { return };
        let sent_bps = config.bitrate_bps;
        self.bitrate.resent += RESENT_SMOOTHING * (feedback.resent + feedback.duplicated - self.bitrate.resent);
        let context = match self.bitrate.estimate_bps {
            None => EstimateContext::None,
            Some(_) if feedback.queued => EstimateContext::StandingQueue,
            Some(_) => EstimateContext::Estimate,
        };
        // Some browsers do not count as lost what came at the second attempt, so their requests for
        // it say more.
        let wanted_bps = self.unlimited_bps();
        self.bitrate.loss.on_report(feedback.lost.max(feedback.resent), sent_bps, wanted_bps, context);
    }

    /// Tells whether another picture would only get old, because of the bytes that wait to be sent.
    pub fn is_congested(&self, now: Instant) -> bool {
        if self.quiet_until.is_some_and(|until| now < until) {
            return true;
        }
        self.backlog.bytes() > SMALL_BACKLOG_BYTES.max((u64::from(self.allowed_bps()) * u64::from(MAX_BACKLOG_MS) / 8000) as u32)
    }

    /// Makes the next picture a keyframe, unless the last one was less than its pause ago.
    pub fn want_keyframe(&mut self) {
        self.keyframes.is_wanted = true;
    }

    /// Compresses a picture.
    pub fn encode(&mut self, now: Instant, picture: &I420, timestamp: MediaTime) -> Option<EncodedFrame> {
        let allowed_bps = self.allowed_bps();
        let encoder = self.encoder.as_mut()?;
        let useful = useful_bps(self.bitrate.desired_bps, encoder.frame_rate()).max(self.video.min_bitrate_kbps * 1000);
        encoder.set_bitrate(allowed_bps.min(useful));
        let smaller = self.sizes.scale(now, picture, allowed_bps);
        let frame = match encoder.encode(smaller.as_ref().unwrap_or(picture), timestamp, self.keyframes.is_due(now)) {
            Ok(frame) => frame?,
            Err(error) => {
                warn!(%error, "a picture was not encoded");
                return None;
            }
        };
        if frame.keyframe {
            self.keyframes.on_keyframe(now, frame.data.len(), allowed_bps);
        }
        Some(frame)
    }

    /// Returns the size of the picture that was sent last. It is smaller than the camera's where
    /// the network carries too few bits.
    pub fn sent_size(&self) -> Option<Size> {
        self.sizes.sent
    }

    pub(super) fn estimate_bps(&self) -> Option<u32> {
        self.bitrate.estimate_bps
    }

    /// Returns the configuration of the encoder, with the bitrate in force.
    pub fn config(&self) -> Option<&EncoderConfig> {
        self.encoder.as_ref().map(Encoder::config)
    }

    fn normal_speed(&self) -> Speed {
        match self.video.vp8_speed {
            Vp8Speed::Balanced => Speed::Balanced,
            Vp8Speed::Fast => Speed::Fast,
        }
    }

    /// Returns the bitrate that is of use and that the network is estimated to carry, less the data
    /// beside the picture.
    fn unlimited_bps(&self) -> u32 {
        let free = 0.9 * (1.0 - self.bitrate.resent.clamp(0.0, 0.5));
        let network = self.bitrate.estimate_bps.map_or(self.video.start_bitrate_kbps * 1000, |bps| (bps as f32 * free) as u32);
        network.min(self.bitrate.desired_bps).max(self.video.min_bitrate_kbps * 1000)
    }

    /// Returns the bitrate that the network may be given: [`Self::unlimited_bps`], and no more than
    /// losses allow.
    fn allowed_bps(&self) -> u32 {
        let unlimited = self.unlimited_bps();
        self.bitrate.loss.limit_bps().map_or(unlimited, |limit| limit.min(unlimited))
    }
}

impl Sizes {
    /// Chooses the size at which a picture is sent. Returns the scaled picture if that is not its
    /// own.
    fn scale(&mut self, now: Instant, picture: &I420, allowed_bps: u32) -> Option<I420> {
        let size = picture.size();
        let sent = self.resolution.choose(now, size, allowed_bps);
        self.sent = Some(sent);
        (sent != size).then(|| self.scaler.scale(picture, sent.width, sent.height))
    }
}

impl Keyframes {
    /// Tells whether the next picture is to be a keyframe.
    fn is_due(&self, now: Instant) -> bool {
        self.is_wanted && self.last.as_ref().is_none_or(|last| now.duration_since(last.at) >= last.pause)
    }

    /// Notes a keyframe. The next one waits for twice the time that this one takes to be sent,
    /// within bounds.
    fn on_keyframe(&mut self, now: Instant, bytes: usize, allowed_bps: u32) {
        let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / f64::from(allowed_bps));
        let pause = (2 * takes).clamp(MIN_KEYFRAME_INTERVAL, MAX_KEYFRAME_INTERVAL);
        *self = Self { is_wanted: false, last: Some(LastKeyframe { at: now, pause }) };
    }
}

/// Returns the bitrate that is of use at a frame rate, where `desired_bps` is that at the nominal
/// one.
fn useful_bps(desired_bps: u32, frame_rate: f32) -> u32 {
    (f64::from(desired_bps) * (MAX_BITS_PER_FRAME_RATIO * f64::from(frame_rate) / NOMINAL_FRAME_RATE_FPS).min(1.0)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_frames_take_fewer_bits_and_keep_their_size() {
        let mut egress = Egress::new(Video::default(), Arc::default());
        egress.start(VideoCodec::H264);
        egress.on_estimate(5_000_000);
        assert!(egress.on_size(Size::new(640, 480)).is_some());
        let (start, picture) = (Instant::now(), I420::grey(640, 480, 90));
        let mut ticks = 0;
        let mut rate = |seconds: u64, fps: u64| {
            for _ in 0..seconds * fps {
                ticks += 90_000 / fps;
                let frame = egress.encode(start + Duration::from_micros(ticks * 100 / 9), &picture, MediaTime(ticks));
                assert!(frame.is_some() && egress.sent_size() == Some(Size::new(640, 480)));
            }
            egress.config().map(|config| config.bitrate_bps)
        };
        let whole = rate(2, 30);
        assert_eq!(whole, Some(640 * 480 * 30 / 4), "as many bits as are of use");
        let fewer = rate(20, 6);
        assert!(fewer < whole.map(|bps| bps * 33 / 100) && fewer > whole.map(|bps| bps * 30 / 100), "{fewer:?}");
        assert!(rate(3, 30) > whole.map(|bps| bps * 95 / 100), "all again");
        assert_eq!(rate(10, 60), whole, "more frames are not worth more");
    }

    #[test]
    fn keyframes_wait_for_the_pause_of_the_last_one_unless_the_network_has_broken_down() {
        let mut egress = Egress::new(Video::default(), Arc::default());
        egress.start(VideoCodec::Vp8);
        egress.on_size(Size::new(160, 120));
        let (start, picture) = (Instant::now(), I420::grey(160, 120, 90));
        let is_keyframe =
            |egress: &mut Egress, ms: u64| egress.encode(start + Duration::from_millis(ms), &picture, MediaTime(90 * ms)).unwrap().keyframe;
        assert!(is_keyframe(&mut egress, 0), "the first frame is one");
        egress.want_keyframe();
        assert!(!is_keyframe(&mut egress, 299));
        assert!(is_keyframe(&mut egress, 300));
        assert!(!is_keyframe(&mut egress, 700), "none is wanted");
        egress.want_keyframe();
        assert!(is_keyframe(&mut egress, 800));
        egress.on_breakdown(start + Duration::from_millis(810), 500_000);
        assert!(is_keyframe(&mut egress, 960));
    }

    #[test]
    fn a_backlog_or_a_breakdown_is_congestion() {
        let (backlog, now) = (Arc::new(Backlog::default()), Instant::now());
        let mut egress = Egress::new(Video::default(), backlog.clone());
        egress.on_size(Size::new(640, 480));
        egress.on_estimate(1_000_000);
        assert!(!egress.is_congested(now));
        backlog.set(11_300);
        assert!(egress.is_congested(now), "100 ms of 900 kbit/s are 11,250 bytes");
        backlog.set(11_200);
        assert!(!egress.is_congested(now));
        backlog.set(0);
        egress.on_breakdown(now, 1_000_000);
        assert!(egress.is_congested(now + Duration::from_millis(149)));
        assert!(!egress.is_congested(now + Duration::from_millis(150)));
    }
}
