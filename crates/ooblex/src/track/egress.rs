//! The last step of a track: pictures to compressed frames, at the bitrate that the network takes, with keyframes on request
//! and timestamps that only go forward. It knows nothing of effects.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ooblex_codec::{Encoder, EncoderConfig, Scaler, Speed};
use ooblex_pipeline::{EncodedFrame, I420, MediaTime, VideoCodec};
use tracing::warn;

use super::loss_control::{EstimateContext, LossControl};
use super::messages::ReceptionFeedback;
use super::resolution::Resolution;
use crate::config::{Video, Vp8Speed};

/// The browser gets a keyframe that it asks for at most this often.
const KEYFRAME_EVERY: Duration = Duration::from_millis(300);
/// On a narrow network, where the last one still takes its time, it waits longer, but no longer than this: a lost keyframe shall not
/// cost a second.
const KEYFRAME_AFTER_AT_MOST: Duration = Duration::from_millis(800);
/// While more waits to be sent than goes out in this time, pictures are left out: the network would only make them old.
const LONGEST_BACKLOG_MS: u32 = 100;
/// How much one second moves the share of what is sent again.
const RESENT_SMOOTHING: f32 = 0.3;
/// So little does not matter at any bitrate: two packets.
const SMALL_BACKLOG_BYTES: u32 = 2400;
/// An estimate that grows by more than this at once was measured: what earlier losses told is out of date.
const MEASURED: f64 = 1.5;
/// When the network has broken down, nothing is sent for so long: what is on its way fills it.
const BREATH: Duration = Duration::from_millis(150);
/// Bits that a pixel of video is worth at most.
const BITS_PER_PIXEL: f64 = 0.25;
/// The frame rate that bitrates are reckoned with.
const NOMINAL_FPS: f64 = 30.0;
/// Where frames are fewer, each may have so many times the bits, since more has moved. With all that are allowed it would take the encoder
/// longer, and the pacer tens of milliseconds, just when frames are few because there is no time.
const MOST_BITS_PER_FRAME: f64 = 1.5;

/// The encoder of one track with what it goes by.
pub(super) struct Egress {
    video: Video,
    /// `None` until the codec is known.
    encoder: Option<Encoder>,
    /// Of the pictures that come; 0×0 before the first.
    size: (u32, u32),
    resolution: Resolution,
    scaler: Scaler,
    /// Of the picture that went out last.
    sent_size: (u32, u32),
    desired_bps: u32,
    estimate_bps: Option<u32>,
    loss: LossControl,
    /// The share of what is sent that was sent before, lately.
    resent: f32,
    /// Of frames that were handed on and wait to be sent.
    backlog_bytes: Arc<AtomicU32>,
    /// Nothing is sent before.
    quiet_until: Option<Instant>,
    last_sent: Option<MediaTime>,
    keyframe_wanted: bool,
    /// When the last one was made, and how long after that the next one may be.
    last_keyframe: Option<(Instant, Duration)>,
}

impl Egress {
    pub(super) fn new(video: Video, backlog_bytes: Arc<AtomicU32>) -> Self {
        let loss = LossControl::new(video.min_bitrate_kbps * 1000);
        Self {
            video,
            encoder: None,
            size: (0, 0),
            resolution: Resolution::default(),
            scaler: Scaler::new(),
            sent_size: (0, 0),
            desired_bps: 0,
            estimate_bps: None,
            loss,
            resent: 0.0,
            backlog_bytes,
            quiet_until: None,
            last_sent: None,
            keyframe_wanted: false,
            last_keyframe: None,
        }
    }

    /// The codec that the browser wants.
    pub(super) fn start(&mut self, codec: VideoCodec) {
        let speed = self.normal_speed();
        let bitrate_bps = self.video.start_bitrate_kbps * 1000;
        match Encoder::new(EncoderConfig { codec, bitrate_bps, frame_rate: NOMINAL_FPS as f32, speed }) {
            Ok(encoder) => self.encoder = Some(encoder),
            Err(error) => warn!(%error, "no encoder"),
        }
    }

    /// Whether the encoder takes less time than the operator set, at the cost of a coarser picture. Returns whether that changed.
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

    /// Whether the encoder takes less time than the operator set.
    pub(super) fn is_hurried(&self) -> bool {
        self.config().is_some_and(|config| config.speed != self.normal_speed())
    }

    /// Pictures of this size come next. When it changes, returns the bits a second that would be of use.
    pub(super) fn on_size(&mut self, size: (u32, u32)) -> Option<u32> {
        if size == self.size {
            return None;
        }
        self.size = size;
        let useful = f64::from(size.0) * f64::from(size.1) * NOMINAL_FPS * BITS_PER_PIXEL;
        self.desired_bps = (useful as u32).clamp(self.video.min_bitrate_kbps * 1000, self.video.max_bitrate_kbps * 1000);
        // Some more than is sent, so that the estimate leaves room for what goes beside the picture.
        Some(self.desired_bps + self.desired_bps / 5)
    }

    /// Bits a second that the network is thought to carry.
    pub(super) fn on_estimate(&mut self, bps: u32) {
        if self.estimate_bps.is_some_and(|before| f64::from(bps) > MEASURED * f64::from(before)) {
            self.loss.forget();
        }
        self.estimate_bps = Some(bps);
    }

    /// The network carries only this much, all of a sudden, and what was handed on is given up: the next picture stands on its own, and
    /// is small enough to come through soon.
    pub(super) fn on_breakdown(&mut self, now: Instant, bps: u32) {
        self.loss.forget();
        self.on_estimate(bps);
        self.quiet_until = Some(now + BREATH);
        self.resolution.hasten();
        self.keyframe_wanted = true;
        self.last_keyframe = None;
    }

    /// Nothing came through for a while, and now all does: what was lost says nothing of how much that is.
    pub(super) fn on_resumed(&mut self) {
        self.loss.forget();
        self.want_keyframe();
    }

    /// What was sent during the last second has feedback like this.
    pub(super) fn on_feedback(&mut self, feedback: &ReceptionFeedback) {
        let Some(config) = self.config() else { return };
        let sent_bps = config.bitrate_bps;
        self.resent += RESENT_SMOOTHING * (feedback.resent + feedback.duplicated - self.resent);
        let context = match self.estimate_bps {
            None => EstimateContext::None,
            Some(_) if feedback.queued => EstimateContext::StandingQueue,
            Some(_) => EstimateContext::Estimate,
        };
        // Some count what came at the second attempt as not lost, so what they ask for says more.
        self.loss.on_report(feedback.lost.max(feedback.resent), sent_bps, self.unlimited_bps(), context);
    }

    /// Whether so much waits to be sent that another picture would only grow old.
    pub(super) fn is_congested(&self, now: Instant) -> bool {
        if self.quiet_until.is_some_and(|until| now < until) {
            return true;
        }
        let backlog = self.backlog_bytes.load(Ordering::Relaxed);
        backlog > SMALL_BACKLOG_BYTES.max((u64::from(self.allowed_bps()) * u64::from(LONGEST_BACKLOG_MS) / 8000) as u32)
    }

    /// The next picture is to be a keyframe, unless the last one was a moment ago.
    pub(super) fn want_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// Compresses a picture. Its timestamp is that of the capture, unless that would go back.
    pub(super) fn encode(&mut self, now: Instant, picture: &I420, capture: MediaTime) -> Option<EncodedFrame> {
        let timestamp = self.last_sent.map_or(capture, |last| capture.max(MediaTime(last.0 + 1)));
        let may_send_keyframe = self.last_keyframe.is_none_or(|(last, pause)| now.duration_since(last) >= pause);
        let size = (picture.width(), picture.height());
        let allowed_bps = self.allowed_bps();
        let encoder = self.encoder.as_mut()?;
        let useful = useful_bps(self.desired_bps, encoder.frame_rate()).max(self.video.min_bitrate_kbps * 1000);
        encoder.set_bitrate(allowed_bps.min(useful));
        self.sent_size = self.resolution.choose(now, size, allowed_bps);
        let smaller = (self.sent_size != size).then(|| self.scaler.scale(picture, self.sent_size.0, self.sent_size.1));
        let picture = smaller.as_ref().unwrap_or(picture);
        let frame = match encoder.encode(picture, timestamp, self.keyframe_wanted && may_send_keyframe) {
            Ok(frame) => frame?,
            Err(error) => {
                warn!(%error, "a picture was not encoded");
                return None;
            }
        };
        if frame.keyframe {
            self.keyframe_wanted = false;
            let takes = Duration::from_secs_f64(frame.data.len() as f64 * 8.0 / f64::from(allowed_bps));
            self.last_keyframe = Some((now, (2 * takes).clamp(KEYFRAME_EVERY, KEYFRAME_AFTER_AT_MOST)));
        }
        self.last_sent = Some(timestamp);
        Some(frame)
    }

    /// Of the pictures that come.
    pub(super) fn size(&self) -> (u32, u32) {
        self.size
    }

    /// Of the picture that went out last: smaller than those that come where the network carries too few bits for them.
    pub(super) fn sent_size(&self) -> (u32, u32) {
        self.sent_size
    }

    /// The timestamp of the last frame.
    pub(super) fn last_sent(&self) -> Option<MediaTime> {
        self.last_sent
    }

    pub(super) fn estimate_bps(&self) -> Option<u32> {
        self.estimate_bps
    }

    /// What the encoder was made from, with the bitrate in force.
    pub(super) fn config(&self) -> Option<&EncoderConfig> {
        self.encoder.as_ref().map(Encoder::config)
    }

    fn normal_speed(&self) -> Speed {
        match self.video.vp8_speed {
            Vp8Speed::Balanced => Speed::Balanced,
            Vp8Speed::Fast => Speed::Fast,
        }
    }

    /// As much as is of use and the network is thought to carry, less what goes beside the picture.
    fn unlimited_bps(&self) -> u32 {
        let free = 0.9 * (1.0 - self.resent.clamp(0.0, 0.5));
        let network = self.estimate_bps.map_or(self.video.start_bitrate_kbps * 1000, |bps| (bps as f32 * free) as u32);
        network.min(self.desired_bps).max(self.video.min_bitrate_kbps * 1000)
    }

    /// The same, and no more than losses allow: what the network may be given.
    fn allowed_bps(&self) -> u32 {
        let unlimited = self.unlimited_bps();
        self.loss.limit_bps().map_or(unlimited, |limit| limit.min(unlimited))
    }
}

/// Of what would be of use at the nominal frame rate, as much as is at this one.
fn useful_bps(desired_bps: u32, frame_rate: f32) -> u32 {
    (f64::from(desired_bps) * (MOST_BITS_PER_FRAME * f64::from(frame_rate) / NOMINAL_FPS).min(1.0)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_frames_take_fewer_bits_and_keep_their_size() {
        let mut egress = Egress::new(Video::default(), Arc::default());
        egress.start(VideoCodec::H264);
        egress.on_estimate(5_000_000);
        assert!(egress.on_size((640, 480)).is_some());
        let (start, picture) = (Instant::now(), I420::grey(640, 480, 90));
        let mut ticks = 0;
        let mut rate = |seconds: u64, fps: u64| {
            for _ in 0..seconds * fps {
                ticks += 90_000 / fps;
                let frame = egress.encode(start + Duration::from_micros(ticks * 100 / 9), &picture, MediaTime(ticks));
                assert!(frame.is_some() && egress.sent_size() == (640, 480));
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
}
