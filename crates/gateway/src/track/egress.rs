//! The egress of a track to one receiver: what its network carries, and which of the compressed
//! frames it may get. It encodes nothing and knows nothing of effects. Time is an argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_pipeline::Size;

use super::loss_control::{EstimateContext, LossControl};
use super::messages::{Backlog, ReceptionFeedback};
use super::shared_encoder::desired_bps;
use ooblex_config::Video;

// Congestion

/// Pictures are left out while more waits to be sent than the bitrate allows in this time, in
/// milliseconds: they would only get old.
const MAX_BACKLOG_MS: u32 = 100;
/// A frame that was encoded for other receivers as well is left out only while more waits than the
/// bitrate allows in this time, in milliseconds: a receiver that misses one needs a keyframe. At 30
/// frames a second the queue of a session holds more than this, at 60 less.
const MAX_SHARED_BACKLOG_MS: u32 = 400;
/// A backlog of at most this size is no congestion at any bitrate: it is two packets.
const SMALL_BACKLOG_BYTES: u32 = 2400;
/// Nothing is sent for this time after the network has broken down, since packets on their way fill
/// it.
const BREAKDOWN_PAUSE: Duration = Duration::from_millis(150);

// Keyframes

/// A receiver that misses frames since its network is too slow has a keyframe at most this often,
/// because each one costs the other receivers bits.
const MISSED_KEYFRAME_INTERVAL: Duration = Duration::from_secs(4);

// Bitrate

/// The weight of the newest second in the mean share of bytes that are sent again.
const RESENT_SMOOTHING: f32 = 0.3;
/// An estimate that grows at once by more than this factor was measured, so earlier losses are out
/// of date.
const MEASURED_GROWTH_RATIO: f64 = 1.5;

/// The estimate that stands for any bitrate.
const UNLIMITED_BPS: u32 = u32::MAX;

/// The egress of one track to one receiver.
pub(super) struct Egress {
    video: Video,
    camera: Option<Size>,
    bitrate: BitrateLimits,
    backlog: Arc<Backlog>,
    /// Nothing is sent before this time.
    quiet_until: Option<Instant>,
    decoding: Decoding,
    /// The bitrate of the encoder of the last frame. `None` before the first.
    sent_bps: Option<u32>,
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

/// The state of the receiver's decoder, which decides whether it can use the next frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decoding {
    /// Its encoder is a new one for it: it decodes nothing before a keyframe.
    Begins,
    /// It has all frames since a keyframe, which was sent at this time.
    Follows { keyframe: Instant },
    /// It has missed frames, and decodes nothing before a keyframe. The last one was sent at this
    /// time.
    Missed { keyframe: Instant },
}

impl Egress {
    pub(super) fn new(video: Video, backlog: Arc<Backlog>) -> Self {
        let loss = LossControl::new(video.min_bitrate_kbps * 1000);
        Self {
            video,
            camera: None,
            bitrate: BitrateLimits { desired_bps: 0, estimate_bps: None, loss, resent: 0.0 },
            backlog,
            quiet_until: None,
            decoding: Decoding::Begins,
            sent_bps: None,
        }
    }

    /// Makes the egress to a receiver without a network, which takes any bitrate.
    pub(super) fn unlimited(video: Video, backlog: Arc<Backlog>) -> Self {
        let mut egress = Self::new(video, backlog);
        egress.bitrate.estimate_bps = Some(UNLIMITED_BPS);
        egress
    }

    /// Returns whether the receiver has ended.
    pub(super) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.backlog) == 1
    }

    // The network

    /// Notes the size of the camera's next picture. Returns the bitrate that would be of use when
    /// the size has changed.
    pub(super) fn on_size(&mut self, size: Size) -> Option<u32> {
        if self.camera.replace(size) == Some(size) {
            return None;
        }
        let desired_bps = desired_bps(&self.video, size);
        self.bitrate.desired_bps = desired_bps;
        // A fifth more than is sent, so that the estimate leaves room for data beside the picture.
        Some(desired_bps + desired_bps / 5)
    }

    /// Takes an estimate of the bandwidth, in bits a second.
    pub(super) fn on_estimate(&mut self, bps: u32) {
        let BitrateLimits { estimate_bps, loss, .. } = &mut self.bitrate;
        if estimate_bps.is_some_and(|before| f64::from(bps) > MEASURED_GROWTH_RATIO * f64::from(before)) {
            loss.forget();
        }
        *estimate_bps = Some(bps);
    }

    /// Takes an estimate that has fallen so far that frames which were handed on are given up.
    pub(super) fn on_breakdown(&mut self, now: Instant, bps: u32) {
        self.bitrate.loss.forget();
        self.on_estimate(bps);
        self.quiet_until = Some(now + BREAKDOWN_PAUSE);
        self.on_missed();
    }

    /// Notes that the network carries packets again after an outage. Losses of the outage do not
    /// tell its bandwidth.
    pub(super) fn on_resumed(&mut self) {
        self.bitrate.loss.forget();
    }

    /// Takes the feedback on what was sent during the last second.
    pub(super) fn on_feedback(&mut self, feedback: &ReceptionFeedback) {
        let Some(sent_bps) = self.sent_bps else { return };
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
    pub(super) fn is_congested(&self, now: Instant) -> bool {
        self.has_backlog(now, MAX_BACKLOG_MS)
    }

    /// Tells whether even a frame that others get, and that later ones build on, is left out.
    pub(super) fn is_overfull(&self, now: Instant) -> bool {
        self.has_backlog(now, MAX_SHARED_BACKLOG_MS)
    }

    fn has_backlog(&self, now: Instant, max_ms: u32) -> bool {
        if self.quiet_until.is_some_and(|until| now < until) {
            return true;
        }
        self.backlog.bytes() > SMALL_BACKLOG_BYTES.max((u64::from(self.allowed_bps()) * u64::from(max_ms) / 8000) as u32)
    }

    pub(super) fn estimate_bps(&self) -> Option<u32> {
        self.bitrate.estimate_bps.filter(|bps| *bps != UNLIMITED_BPS)
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
    pub(super) fn allowed_bps(&self) -> u32 {
        let unlimited = self.unlimited_bps();
        self.bitrate.loss.limit_bps().map_or(unlimited, |limit| limit.min(unlimited))
    }

    // The frames

    /// Tells whether the receiver takes the next frame. `shared`: the frame is made for others in any
    /// case.
    pub(super) fn takes(&self, now: Instant, frame: NextFrame) -> bool {
        let is_full = if frame.is_shared { self.is_overfull(now) } else { self.is_congested(now) };
        !is_full && (frame.keyframe || self.follows())
    }

    /// Tells whether the receiver has all frames that the next one builds on.
    pub(super) fn follows(&self) -> bool {
        matches!(self.decoding, Decoding::Follows { .. })
    }

    /// Tells whether the receiver has got no frame of its encoder yet.
    pub(super) fn begins(&self) -> bool {
        self.decoding == Decoding::Begins
    }

    /// Tells whether the receiver needs a keyframe and can take one. `has_followers`: others would get
    /// it in place of a smaller frame.
    pub(super) fn needs_keyframe(&self, now: Instant, has_followers: bool) -> bool {
        let is_due = match self.decoding {
            Decoding::Begins => true,
            Decoding::Follows { .. } => false,
            Decoding::Missed { keyframe } => !has_followers || now.saturating_duration_since(keyframe) >= MISSED_KEYFRAME_INTERVAL,
        };
        is_due && !self.is_congested(now)
    }

    /// Notes that a frame was sent, by an encoder of this bitrate.
    pub(super) fn on_sent(&mut self, now: Instant, keyframe: bool, encoder_bps: u32) {
        self.sent_bps = Some(encoder_bps);
        if keyframe {
            self.decoding = Decoding::Follows { keyframe: now };
        }
    }

    /// Notes that the receiver did not get a frame that later ones build on.
    pub(super) fn on_missed(&mut self) {
        if let Decoding::Follows { keyframe } = self.decoding {
            self.decoding = Decoding::Missed { keyframe };
        }
    }

    /// Notes that the next frame is of another encoder.
    pub(super) fn on_other_encoder(&mut self) {
        self.decoding = Decoding::Begins;
    }
}

/// The next frame of an encoder, for one of its receivers.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextFrame {
    pub(super) keyframe: bool,
    /// There are other receivers.
    pub(super) is_shared: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYFRAME: NextFrame = NextFrame { keyframe: true, is_shared: true };
    const DELTA: NextFrame = NextFrame { keyframe: false, is_shared: true };

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

    #[test]
    fn a_frame_that_others_get_as_well_is_left_out_only_when_four_times_as_much_waits() {
        let (backlog, now) = (Arc::new(Backlog::default()), Instant::now());
        let mut egress = Egress::new(Video::default(), backlog.clone());
        egress.on_size(Size::new(640, 480));
        egress.on_estimate(1_000_000);
        egress.on_sent(now, true, 900_000);
        backlog.set(45_000);
        assert!(egress.is_congested(now) && egress.takes(now, DELTA), "400 ms of 900 kbit/s");
        assert!(!egress.takes(now, NextFrame { is_shared: false, ..DELTA }));
        backlog.set(45_001);
        assert!(!egress.takes(now, DELTA) && !egress.takes(now, KEYFRAME));
    }

    #[test]
    fn after_a_frame_that_was_missed_there_is_nothing_before_a_keyframe() {
        let (backlog, start) = (Arc::new(Backlog::default()), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let mut egress = Egress::new(Video::default(), backlog.clone());
        assert!(egress.takes(start, KEYFRAME) && !egress.takes(start, DELTA) && egress.needs_keyframe(start, true), "it begins");
        egress.on_sent(start, true, 900_000);
        assert!(egress.takes(start, DELTA) && !egress.needs_keyframe(start, true));
        egress.on_missed();
        assert!(!egress.takes(at(1000), DELTA) && egress.takes(at(1000), KEYFRAME));
        assert!(egress.needs_keyframe(at(1000), false) && !egress.needs_keyframe(at(3999), true), "others would pay for it");
        assert!(egress.needs_keyframe(at(4000), true));
        backlog.set(1_000_000);
        assert!(!egress.needs_keyframe(at(4000), true), "it could not take one");
        backlog.set(0);
        egress.on_other_encoder();
        assert!(egress.needs_keyframe(at(1000), true) && !egress.takes(at(1000), DELTA));
    }
}
