//! The ingest of a track: compressed frames that have arrived, their decoder, and the keyframe
//! requests that losses and refused frames cause.
//!
//! Call [`Ingest::push`] for each frame that arrives, and [`Ingest::decode`] for each frame that
//! [`Ingest::pop`] returns. It knows nothing of effects. Time is an argument.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_codec::{ColourSpace, DecodeError, Decoder, Limits, Rotation, Scaler, Undecodable, rotate};
use ooblex_pipeline::{EncodedFrame, I420, MediaTime, Size, View};
use serde_json::Value;
use tracing::{debug, warn};

use super::messages::TrackOutput;
use super::outbox::Outbox;
use super::stats::TrackStats;
use crate::labels::{ByeReason, Stage};
use crate::metrics::Metrics;
use crate::problem::{Problem, ProblemKind};

/// Decoded frames of one batch that are kept at most, when the thread is behind. Older ones are
/// dropped.
const MAX_BATCH_WHEN_BEHIND: usize = 2;
/// Decoded frames of one batch that are kept at most otherwise: a frame that waited for a lost
/// packet arrives together with all frames after it.
const MAX_BATCH: usize = 4;
/// The thread is behind when a frame has waited for it longer than this.
const BEHIND_AFTER: Duration = Duration::from_millis(10);
/// A frame that has waited longer than this is not decoded; the track restarts with a keyframe.
const MAX_INBOX_WAIT: Duration = Duration::from_secs(1);
/// The shortest time between two keyframe requests to the browser.
const KEYFRAME_REQUEST_INTERVAL: Duration = Duration::from_millis(500);
/// A session ends after this number of keyframe requests that were each followed by a refused
/// frame, with no picture in between. A burst of damaged frames causes one or two requests. Frames
/// that only lack a keyframe are not refused.
const MAX_REFUSED_KEYFRAME_REQUESTS: u32 = 6;
/// The longest time between two frames before which fewer than sixteen may be missing, in units of a
/// 90 kHz clock: a tenth of a second.
const MAX_SHORT_GAP: u64 = 9_000;
/// The longest time by which B-frames go back, in units of a 90 kHz clock: one second.
const MAX_REORDERING: u64 = 90_000;
/// The publisher is told of B-frames when this number of frames were out of order.
const OUT_OF_ORDER_WHEN_TOLD: u32 = 3;

/// A compressed frame that waits for a permit to compute.
pub(super) struct Arrived {
    pub(super) frame: EncodedFrame,
    /// When its last packet arrived.
    pub(super) at: Instant,
    /// The rotation that makes it upright. `None`: as before.
    pub(super) rotation: Option<Rotation>,
    /// The colours that the sender has named beside the bitstream.
    pub(super) colours: Option<ColourSpace>,
    /// Frames before it were lost.
    pub(super) gap: bool,
}

/// A picture of the camera, upright and no larger than allowed.
pub(super) struct Decoded {
    pub(super) picture: I420,
    pub(super) capture: MediaTime,
    /// When the last packet of its frame arrived.
    pub(super) arrived: Instant,
    /// How often the camera was turned before it.
    pub(super) view: View,
    /// Its capture time is earlier than that of a frame before it.
    pub(super) is_out_of_order: bool,
}

/// The ingest of one track.
pub(super) struct Ingest {
    limits: Limits,
    max_size: MaxSize,
    queue: VecDeque<Arrived>,
    /// The decoder of the last frame's codec. `None` before the first frame.
    decoder: Option<Decoder>,
    orientation: Orientation,
    /// When the browser was last asked for a keyframe.
    last_request: Option<Instant>,
    refusals: Refusals,
    order: Order,
    waits: Waits,
    stats: Arc<TrackStats>,
    metrics: Arc<Metrics>,
}

/// The orientation of the camera.
#[derive(Default)]
struct Orientation {
    /// The rotation of the last frame.
    rotation: Rotation,
    /// How the camera was held for the last picture. `None` before the first one.
    held: Option<Held>,
    view: View,
}

/// How a camera is held. A camera may rotate its pictures itself when it is turned, or let the
/// receiver do it, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    rotation: Rotation,
    /// The upright picture is higher than wide.
    is_portrait: bool,
}

/// The maximum size of pictures. Larger ones are scaled down.
struct MaxSize {
    pixels: u64,
    scaler: Scaler,
    /// The size of the last picture before it was scaled, upright.
    received: Option<Size>,
}

/// Refused frames since the last picture.
#[derive(Default)]
struct Refusals {
    /// Keyframe requests that were followed by a refused frame.
    refused_requests: u32,
    /// The time of the last of these requests.
    last_refused_request: Option<Instant>,
    /// The size of frames that the browser knows to be too large.
    notified_size: Option<Size>,
}

/// The capture times of frames, which go back where the camera's encoder makes B-frames: WebRTC sends
/// frames in the order in which they are decoded.
#[derive(Default)]
struct Order {
    newest: Option<MediaTime>,
    /// Frames whose time went back.
    out_of_order: u32,
}

/// The time that compressed frames have waited for the track's thread since the last report.
#[derive(Default)]
struct Waits {
    sum: Duration,
    frames: u32,
}

impl Ingest {
    /// Makes an ingest that decodes frames within `limits`, and scales those with more than
    /// `max_pixels` down.
    pub(super) fn new(limits: Limits, max_pixels: u64, stats: Arc<TrackStats>, metrics: Arc<Metrics>) -> Self {
        Self {
            limits,
            max_size: MaxSize { pixels: max_pixels, scaler: Scaler::new(), received: None },
            queue: VecDeque::new(),
            decoder: None,
            orientation: Orientation::default(),
            last_request: None,
            refusals: Refusals::default(),
            order: Order::default(),
            waits: Waits::default(),
            stats,
            metrics,
        }
    }

    /// Takes a frame that has arrived.
    pub(super) fn push(&mut self, arrived: Arrived) {
        self.queue.push_back(arrived);
    }

    /// Returns the next frame to decode.
    pub(super) fn pop(&mut self) -> Option<Arrived> {
        self.queue.pop_front()
    }

    /// Returns when the oldest frame that waits arrived.
    pub(super) fn oldest_arrival(&self) -> Option<Instant> {
        self.queue.front().map(|frame| frame.at)
    }

    /// Returns when the first of the frames that wait arrived at `due` or later.
    pub(super) fn arrival_since(&self, due: Instant) -> Option<Instant> {
        self.queue.iter().map(|frame| frame.at).find(|at| *at >= due)
    }

    /// Returns how many frames of the batch that waits are kept at most after they are decoded.
    pub(super) fn max_batch(&self, now: Instant) -> usize {
        let is_behind = self.oldest_arrival().is_some_and(|oldest| now.saturating_duration_since(oldest) > BEHIND_AFTER);
        if is_behind { MAX_BATCH_WHEN_BEHIND } else { MAX_BATCH }
    }

    /// Decodes a frame. A frame that gives no picture for want of an earlier one causes a keyframe
    /// request.
    pub(super) fn decode(&mut self, now: Instant, arrived: Arrived, outbox: &Outbox) -> Option<Decoded> {
        let Arrived { frame, at: arrived, rotation, colours, gap } = arrived;
        self.orientation.on_frame(rotation);
        if self.decoder.as_ref().is_none_or(|decoder| decoder.codec() != frame.codec) {
            let decoder = Decoder::new(frame.codec, self.limits);
            self.decoder = decoder.inspect_err(|error| warn!(session = %outbox.id(), %error, "no decoder")).ok();
        }
        self.metrics.frames.received.inc();
        let decoder = self.decoder.as_mut()?;
        let waited = now.saturating_duration_since(arrived);
        let is_too_old = waited > MAX_INBOX_WAIT;
        if is_too_old || gap && !self.order.is_soon(frame.capture) {
            decoder.frames_lost();
        } else if gap {
            decoder.packets_lost();
        }
        self.stats.on_stage(Stage::Inbox, waited);
        self.waits.sum += waited;
        self.waits.frames += 1;
        if is_too_old {
            self.metrics.frames.lost.inc();
            self.request_keyframe(now, outbox);
            return None;
        }
        decoder.set_colours(colours);
        match decoder.decode(&frame.data) {
            Ok(picture) => picture.map(|picture| {
                (self.refusals.refused_requests, self.refusals.notified_size) = (0, None);
                let picture = self.max_size.apply(picture, self.orientation.rotation);
                let view = self.orientation.view_of(&picture);
                let is_out_of_order = self.order.is_out_of_order(frame.capture);
                if is_out_of_order {
                    self.order.on_out_of_order(outbox);
                }
                Decoded { picture, capture: frame.capture, arrived, view, is_out_of_order }
            }),
            Err(DecodeError::Undecodable { why, .. }) => {
                if why != Undecodable::AwaitsKeyframe {
                    debug!(session = %outbox.id(), %why, "undecodable");
                }
                self.metrics.frames.on_undecodable(&why);
                self.request_keyframe(now, outbox);
                if why.is_refusal() {
                    self.on_refused(&why, outbox);
                }
                None
            }
        }
    }

    /// Returns the size of the last picture before it was scaled down, upright. `None` before the
    /// first.
    pub(super) fn received_size(&self) -> Option<Size> {
        self.max_size.received
    }

    /// Asks the browser for a keyframe, unless it was asked less than [`KEYFRAME_REQUEST_INTERVAL`]
    /// ago.
    pub(super) fn request_keyframe(&mut self, now: Instant, outbox: &Outbox) {
        if self.last_request.is_none_or(|last| now.duration_since(last) >= KEYFRAME_REQUEST_INTERVAL) {
            self.last_request = Some(now);
            self.metrics.frames.keyframes.sent.inc();
            outbox.send(TrackOutput::NeedKeyframe);
        }
    }

    /// Returns the mean time that frames have waited for the track's thread since the last call.
    pub(super) fn take_mean_wait(&mut self) -> Duration {
        let Waits { sum, frames } = std::mem::take(&mut self.waits);
        sum.checked_div(frames).unwrap_or_default()
    }

    /// Tells the browser that frames are too large, once for each size. Ends the session of a
    /// camera that answers keyframe requests with refused frames only: it will not send any other,
    /// and each of its keyframes costs time.
    fn on_refused(&mut self, why: &Undecodable, outbox: &Outbox) {
        let refusals = &mut self.refusals;
        if let Undecodable::Size { width, height } = *why
            && refusals.notified_size.replace(Size::new(width, height)) != Some(Size::new(width, height))
        {
            let limit = self.limits.pixels / 1000;
            let detail = format!(
                "frames of {width}x{height} are larger than the {limit} kilopixels that are decoded: send a smaller picture, or raise limits.decode_kilopixels"
            );
            outbox.say_error(&Value::Null, &Problem::new(ProblemKind::TooLarge, detail));
        }
        // Frames that were sent before the request arrived count once, with the first of them.
        if refusals.last_refused_request == self.last_request {
            return;
        }
        refusals.last_refused_request = self.last_request;
        refusals.refused_requests += 1;
        // The session is asked to end once, unless that could not be taken.
        if refusals.refused_requests == MAX_REFUSED_KEYFRAME_REQUESTS {
            let detail = format!(
                "every frame of the camera was refused, though {MAX_REFUSED_KEYFRAME_REQUESTS} keyframes were requested; the last was refused because {why}"
            );
            debug!(session = %outbox.id(), detail, "the session ends");
            outbox.say_error(&Value::Null, &Problem::new(ProblemKind::Undecodable, detail));
            if !outbox.end(ByeReason::Undecodable) {
                refusals.refused_requests = 0;
            }
        }
    }
}

impl Orientation {
    /// Takes the rotation of a frame. `None`: as before.
    fn on_frame(&mut self, rotation: Option<Rotation>) {
        self.rotation = rotation.unwrap_or(self.rotation);
    }

    /// Returns the view of an upright picture, which is another one if the camera was turned before
    /// it.
    fn view_of(&mut self, picture: &I420) -> View {
        let held = Held { rotation: self.rotation, is_portrait: picture.height() > picture.width() };
        if self.held.replace(held).is_some_and(|before| before != held) {
            self.view.0 += 1;
        }
        self.view
    }
}

impl Order {
    /// Returns whether a frame was captured before a frame that came earlier. A time that goes far
    /// back begins a new count.
    fn is_out_of_order(&mut self, capture: MediaTime) -> bool {
        let back = self.newest.map_or(0, |newest| newest.0.saturating_sub(capture.0));
        let is_out_of_order = (1..=MAX_REORDERING).contains(&back);
        if !is_out_of_order {
            self.newest = Some(capture);
        }
        is_out_of_order
    }

    /// Returns whether fewer than sixteen frames can have been captured between the newest one and
    /// this.
    fn is_soon(&self, capture: MediaTime) -> bool {
        self.newest.is_some_and(|newest| capture.0.abs_diff(newest.0) <= MAX_SHORT_GAP)
    }

    /// Tells the publisher of B-frames, once.
    fn on_out_of_order(&mut self, outbox: &Outbox) {
        self.out_of_order += 1;
        if self.out_of_order == OUT_OF_ORDER_WHEN_TOLD {
            let detail = "the camera's encoder makes B-frames, which are sent after later frames and are not shown: turn them off \
                          (OBS: B-frames 0; x264: -bf 0 or -tune zerolatency)";
            warn!(session = %outbox.id(), detail, "frames are out of order");
            outbox.say_error(&Value::Null, &Problem::new(ProblemKind::Unsupported, detail));
        }
    }
}

impl MaxSize {
    /// Returns the picture scaled down to the maximum size, and turned upright.
    fn apply(&mut self, picture: I420, rotation: Rotation) -> I420 {
        let size = picture.size();
        let allowed = size.within(self.pixels);
        let turns = matches!(rotation, Rotation::By90 | Rotation::By270);
        self.received = Some(if turns { Size::new(size.height, size.width) } else { size });
        let picture = if allowed == size { picture } else { self.scaler.scale(&picture, allowed.width, allowed.height) };
        rotate(picture, rotation)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use ooblex_codec::{ColourMatrix, ColourRange, Encoder, EncoderConfig, Speed};
    use ooblex_pipeline::VideoCodec;

    use super::super::outbox::{Recorder, metrics};
    use super::*;

    /// An ingest with literal times in milliseconds, and a camera that sends VP8.
    struct Bench {
        ingest: Ingest,
        outbox: Outbox,
        recorder: Arc<Recorder>,
        camera: Encoder,
        start: Instant,
    }

    impl Bench {
        /// Decodes frames of at most this many pixels, and scales none down.
        fn new(pixels: u64) -> Self {
            Self::scaling(pixels, pixels)
        }

        /// Decodes frames of at most `pixels`, and scales those of more than `max_pixels` down.
        fn scaling(pixels: u64, max_pixels: u64) -> Self {
            let metrics = metrics();
            let stats = Arc::new(TrackStats::new(metrics.clone()));
            let (recorder, outbox) = Recorder::outbox();
            let config = EncoderConfig { codec: VideoCodec::Vp8, bitrate_bps: 300_000, frame_rate: 30.0, speed: Speed::Fast };
            Self {
                ingest: Ingest::new(Limits { pixels, ..Limits::default() }, max_pixels, stats, metrics),
                outbox,
                recorder,
                camera: Encoder::new(config).unwrap(),
                start: Instant::now(),
            }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// Encodes the next frame of the camera, which arrives at this time.
        fn frame(&mut self, ms: u64, width: u32, height: u32, keyframe: bool) -> Arrived {
            let frame = self.camera.encode(&I420::grey(width, height, 90), MediaTime(ms * 90), keyframe).unwrap().unwrap();
            Arrived { frame, at: self.at(ms), rotation: None, colours: None, gap: false }
        }

        /// Decodes a frame at this time. Returns the size of its picture.
        fn decode(&mut self, ms: u64, arrived: Arrived) -> Option<(u32, u32)> {
            let now = self.at(ms);
            let decoded = self.ingest.decode(now, arrived, &self.outbox)?;
            Some((decoded.picture.width(), decoded.picture.height()))
        }

        /// Decodes a keyframe that is larger than allowed.
        fn refuse(&mut self, ms: u64) {
            let frame = self.frame(ms, 320, 240, true);
            assert_eq!(self.decode(ms, frame), None);
        }
    }

    const SMALL: u64 = 160 * 120;

    #[test]
    fn a_turn_of_the_camera_begins_another_view_whoever_rotates_its_pictures() {
        let mut b = Bench::new(SMALL);
        let mut view = |ms: u64, (width, height): (u32, u32), rotation: Option<Rotation>| {
            let frame = Arrived { rotation, ..b.frame(ms, width, height, ms == 0) };
            let decoded = b.ingest.decode(b.at(ms), frame, &b.outbox).unwrap();
            (decoded.view.0, (decoded.picture.width(), decoded.picture.height()))
        };
        assert_eq!(view(0, (160, 120), Some(Rotation::By90)), (0, (120, 160)), "the first one");
        assert_eq!(view(33, (160, 120), None), (0, (120, 160)), "as before");
        assert_eq!(view(66, (80, 60), None), (0, (60, 80)), "only smaller");
        assert_eq!(view(99, (80, 60), Some(Rotation::By270)), (1, (60, 80)), "upside down");
        assert_eq!(view(133, (80, 60), Some(Rotation::None)), (2, (80, 60)));
        assert_eq!(view(166, (60, 80), None), (3, (60, 80)), "turned by the camera");
        assert_eq!(view(199, (120, 160), None), (3, (120, 160)));
    }

    #[test]
    fn b_frames_are_out_of_order_and_the_publisher_is_told_once() {
        let mut b = Bench::new(SMALL);
        let mut out_of_order = |n: u64, capture_ms: u64| {
            let mut frame = b.frame(33 * n, 160, 120, n == 0);
            frame.frame.capture = MediaTime(capture_ms * 90);
            b.ingest.decode(b.at(33 * n), frame, &b.outbox).unwrap().is_out_of_order
        };
        let order = |(n, capture_ms)| out_of_order(n, capture_ms);
        let captures = [0, 99, 33, 66, 198, 132, 165, 297, 231, 264];
        let found: Vec<_> = (0..).zip(captures).map(order).collect();
        assert_eq!(found, [false, false, true, true, false, true, true, false, true, true]);
        let messages = b.recorder.messages();
        assert!(messages.len() == 1 && messages[0].to_string().contains("B-frames"), "{messages:?}");
    }

    #[test]
    fn a_clock_that_begins_anew_is_not_out_of_order() {
        let mut order = Order::default();
        let ms = |ms: u64| MediaTime(ms * 90);
        assert!(!order.is_out_of_order(ms(5000)) && order.is_out_of_order(ms(4000)));
        assert!(!order.is_out_of_order(ms(10)) && !order.is_out_of_order(ms(43)));
        assert!(!order.is_out_of_order(ms(43)), "the same time twice");
        assert!(order.is_soon(ms(143)) && !order.is_soon(ms(144)) && !Order::default().is_soon(ms(0)));
        order.is_out_of_order(ms(5000));
        assert!(!order.is_soon(ms(43)), "the clock of another stream");
    }

    #[test]
    fn frames_leave_the_queue_in_the_order_of_arrival() {
        let mut b = Bench::new(SMALL);
        for ms in [0, 33, 66] {
            let frame = b.frame(ms, 160, 120, ms == 0);
            b.ingest.push(frame);
        }
        assert_eq!(b.ingest.oldest_arrival(), Some(b.at(0)));
        assert_eq!(b.ingest.arrival_since(b.at(30)), Some(b.at(33)));
        assert_eq!(b.ingest.arrival_since(b.at(67)), None);
        let order: Vec<_> = std::iter::from_fn(|| b.ingest.pop()).map(|frame| frame.at).collect();
        assert_eq!(order, [b.at(0), b.at(33), b.at(66)]);
        assert_eq!(b.ingest.oldest_arrival(), None);
    }

    #[test]
    fn a_batch_is_smaller_when_the_oldest_frame_has_waited_too_long() {
        let mut b = Bench::new(SMALL);
        let frame = b.frame(0, 160, 120, true);
        b.ingest.push(frame);
        assert_eq!(b.ingest.max_batch(b.at(10)), MAX_BATCH);
        assert_eq!(b.ingest.max_batch(b.at(11)), MAX_BATCH_WHEN_BEHIND);
    }

    #[test]
    fn after_a_gap_nothing_is_decoded_before_a_keyframe_and_requests_are_rate_limited() {
        let mut b = Bench::new(SMALL);
        let first = b.frame(0, 160, 120, true);
        assert_eq!(b.decode(0, first), Some((160, 120)));
        let lost = Arrived { gap: true, ..b.frame(33, 160, 120, false) };
        assert_eq!(b.decode(33, lost), None);
        assert_eq!(b.recorder.keyframe_requests(), 1);
        for (ms, requests) in [(100, 0), (532, 0), (533, 1), (600, 0)] {
            let frame = b.frame(ms, 160, 120, false);
            assert_eq!((b.decode(ms, frame), b.recorder.keyframe_requests()), (None, requests), "at {ms} ms");
        }
        let keyframe = b.frame(700, 160, 120, true);
        assert_eq!(b.decode(700, keyframe), Some((160, 120)));
        assert_eq!(b.recorder.ends(), [], "a missing keyframe is no refusal");
    }

    #[test]
    fn a_frame_that_waited_too_long_is_not_decoded() {
        let mut b = Bench::new(SMALL);
        let first = b.frame(0, 160, 120, true);
        assert_eq!(b.decode(1000, first), Some((160, 120)));
        let late = b.frame(1000, 160, 120, false);
        assert_eq!(b.decode(2001, late), None);
        assert_eq!(b.recorder.keyframe_requests(), 1);
        let next = b.frame(2001, 160, 120, false);
        assert_eq!(b.decode(2001, next), None, "it builds on the frame that was dropped");
    }

    #[test]
    fn the_rotation_of_a_frame_holds_until_the_next_one() {
        let mut b = Bench::new(SMALL);
        let turned = Arrived { rotation: Some(Rotation::By90), ..b.frame(0, 160, 120, true) };
        assert_eq!(b.decode(0, turned), Some((120, 160)));
        let same = b.frame(33, 160, 120, false);
        assert_eq!(b.decode(33, same), Some((120, 160)));
        let upright = Arrived { rotation: Some(Rotation::None), ..b.frame(66, 160, 120, false) };
        assert_eq!(b.decode(66, upright), Some((160, 120)));
    }

    #[test]
    fn a_picture_beyond_the_maximum_size_is_scaled_down_and_turned() {
        let mut b = Bench::scaling(320 * 240, SMALL);
        let large = b.frame(0, 320, 240, true);
        assert_eq!(b.decode(0, large), Some((160, 120)));
        assert_eq!(b.ingest.received_size(), Some(Size::new(320, 240)));
        let turned = Arrived { rotation: Some(Rotation::By270), ..b.frame(33, 320, 240, false) };
        assert_eq!(b.decode(33, turned), Some((120, 160)));
        assert_eq!(b.ingest.received_size(), Some(Size::new(240, 320)));
        let small = b.frame(66, 120, 160, true);
        assert_eq!(b.decode(66, small), Some((160, 120)), "this size is allowed");
        assert_eq!(b.recorder.messages().len(), 0);
        let beyond = b.frame(700, 322, 240, true);
        assert_eq!(b.decode(700, beyond), None);
    }

    #[test]
    fn colours_are_converted_once_whatever_was_named() {
        let mut b = Bench::new(SMALL);
        let full = Some(ColourSpace { range: ColourRange::Full, matrix: ColourMatrix::Bt601 });
        for (ms, colours, expected) in [(0, None, 90), (33, full, 93), (66, full, 93), (100, None, 90)] {
            let arrived = Arrived { colours, ..b.frame(ms, 160, 120, ms == 0) };
            let decoded = b.ingest.decode(b.at(ms), arrived, &b.outbox).unwrap();
            assert!(decoded.picture.planes()[0][0].abs_diff(expected) <= 1, "at {ms} ms: {}", decoded.picture.planes()[0][0]);
        }
    }

    #[test]
    fn a_size_that_is_too_large_is_told_once() {
        let mut b = Bench::new(SMALL);
        b.refuse(0);
        b.refuse(33);
        let told = b.recorder.messages();
        assert_eq!(told.len(), 1, "{told:?}");
        let detail = told[0]["problem"]["detail"].as_str().unwrap();
        assert!(detail.contains("320x240") && detail.contains("19 kilopixels"), "{detail}");
        let picture = b.frame(66, 160, 120, true);
        assert!(b.decode(66, picture).is_some());
        b.refuse(100);
        assert_eq!(b.recorder.messages().len(), 1, "it is told again after a picture");
    }

    #[test]
    fn six_keyframe_requests_that_refused_frames_follow_end_the_session_once() {
        let mut b = Bench::new(SMALL);
        for request in 0..6 {
            assert_eq!(b.recorder.ends(), []);
            (0..3).for_each(|frame| b.refuse(500 * request + 33 * frame));
        }
        assert_eq!(b.recorder.ends(), [ByeReason::Undecodable]);
        b.refuse(3000);
        assert_eq!(b.recorder.ends(), []);
    }

    #[test]
    fn a_picture_resets_the_count_of_refused_requests() {
        let mut b = Bench::new(SMALL);
        (0..5).for_each(|request| b.refuse(500 * request));
        let picture = b.frame(2500, 160, 120, true);
        assert!(b.decode(2500, picture).is_some());
        (6..11).for_each(|request| b.refuse(500 * request));
        assert_eq!(b.recorder.ends(), []);
    }

    #[test]
    fn an_end_that_could_not_be_taken_is_asked_for_again() {
        let mut b = Bench::new(SMALL);
        b.recorder.is_full.store(true, Ordering::Relaxed);
        (0..12).for_each(|request| b.refuse(500 * request));
        assert_eq!(b.recorder.ends().len(), 2);
    }

    #[test]
    fn the_mean_wait_is_that_since_the_last_call() {
        let mut b = Bench::new(SMALL);
        let first = b.frame(0, 160, 120, true);
        b.decode(10, first);
        let second = b.frame(33, 160, 120, false);
        b.decode(63, second);
        assert_eq!(b.ingest.take_mean_wait(), Duration::from_millis(20));
        assert_eq!(b.ingest.take_mean_wait(), Duration::ZERO);
    }
}
