//! The outputs of a track: the sessions that receive its pictures, and the encoders that they share.
//! A picture is encoded once for all receivers of a codec and quality. A publisher that gets its own
//! pictures back is one of the receivers. Time is an argument.
//!
//! A receiver never gets a frame that builds on one that it did not get: it begins with a keyframe,
//! and after a frame that it missed it gets nothing before the next one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_codec::EncoderConfig;
use ooblex_pipeline::{DropReason, I420, MediaTime, Size, VideoCodec};

use super::egress::{Egress, NextFrame};
use super::messages::{OutputInput, TrackOutput};
use super::outbox::Outbox;
use super::placement::{Placement, Situation};
use super::shared_bitrate::{SharedBitrate, carries};
use super::shared_encoder::{Quality, Request, SharedEncoder, desired_bps};
use crate::ids::SessionId;
use crate::metrics::Metrics;
use ooblex_config::Video;

/// The time for which a receiver does not count in the bitrate that it shares: until then the
/// estimate of its network is a guess, and nobody is to notice that it joins.
const JOINING_TIME: Duration = Duration::from_secs(5);

/// The outputs of one track.
pub struct Outputs {
    video: Video,
    metrics: Arc<Metrics>,
    /// The size of the camera's pictures. `None` before the first.
    size: Option<Size>,
    /// The timestamp of the last picture.
    last_sent: Option<MediaTime>,
    receivers: Vec<Receiver>,
    /// At most one for each codec and quality: those that receivers have.
    streams: Vec<Stream>,
    is_hurried: bool,
}

/// A session that receives pictures.
struct Receiver {
    session: SessionId,
    codec: VideoCodec,
    egress: Egress,
    placement: Placement,
    joined: Instant,
}

/// An encoder, with the bitrate that its receivers share.
struct Stream {
    encoder: SharedEncoder,
    bitrate: SharedBitrate,
    allowed_bps: u32,
}

/// What was sent of one picture.
#[derive(Debug)]
pub struct Sent {
    /// The timestamp of the picture.
    pub timestamp: MediaTime,
    /// The bytes for all receivers.
    pub bytes: usize,
}

/// The output to one receiver, for statistics.
#[derive(Debug, Clone, Copy)]
pub struct OutputState {
    /// The configuration of the encoder, with the bitrate in force.
    pub config: EncoderConfig,
    /// The size of the picture that was encoded last.
    pub sent_size: Option<Size>,
    /// The estimate of the bandwidth to the receiver, in bits a second.
    pub estimate_bps: Option<u32>,
    /// The encoder takes less time than the operator set.
    pub is_hurried: bool,
}

impl Outputs {
    /// Makes outputs without receivers.
    pub fn new(video: Video, metrics: Arc<Metrics>) -> Self {
        Self { video, metrics, size: None, last_sent: None, receivers: Vec::new(), streams: Vec::new(), is_hurried: false }
    }

    // The receivers

    /// Takes an input for the output to `session`. Returns whether the receiver needs a picture.
    pub fn on_input(&mut self, now: Instant, session: SessionId, input: OutputInput, outbox: &Outbox) -> bool {
        let joining = match &input {
            OutputInput::Start { codec, backlog } => Some((*codec, Egress::new(self.video.clone(), backlog.clone()))),
            OutputInput::Record { backlog } => Some((self.common_codec(), Egress::unlimited(self.video.clone(), backlog.clone()))),
            _ => None,
        };
        if let Some((codec, egress)) = joining {
            self.join(now, session, codec, egress);
            self.tell_sizes(outbox);
            return true;
        }
        let Some(receiver) = self.receivers.iter_mut().find(|receiver| receiver.session == session) else { return false };
        let egress = &mut receiver.egress;
        match input {
            OutputInput::Start { .. } | OutputInput::Record { .. } => {}
            OutputInput::KeyframeWanted => {
                self.want_keyframe(session);
                return true;
            }
            OutputInput::Estimate(bps) => egress.on_estimate(bps),
            OutputInput::BrokenDown(bps) => {
                egress.on_breakdown(now, bps);
                receiver.placement.hasten();
                self.hasten_keyframe(session);
            }
            OutputInput::Feedback(feedback) => egress.on_feedback(&feedback),
            OutputInput::Resumed => {
                egress.on_resumed();
                self.want_keyframe(session);
            }
        }
        false
    }

    fn join(&mut self, now: Instant, session: SessionId, codec: VideoCodec, egress: Egress) {
        self.receivers.retain(|receiver| receiver.session != session);
        self.receivers.push(Receiver { session, codec, egress, placement: Placement::new(), joined: now });
    }

    /// Returns the codec that most receivers have; without receivers the first that is configured.
    fn common_codec(&self) -> VideoCodec {
        let receivers = || self.receivers.iter().filter(|receiver| !receiver.egress.is_abandoned());
        let count = |codec: VideoCodec| receivers().filter(|receiver| receiver.codec == codec).count();
        let codecs = self.video.codecs.iter().copied();
        codecs.rev().max_by_key(|codec| count(*codec)).unwrap_or(VideoCodec::Vp8)
    }

    /// Makes the next frame a keyframe for a receiver that has lost one. A receiver that waits for a
    /// keyframe anyway changes nothing.
    fn want_keyframe(&mut self, session: SessionId) {
        let Some(receiver) = self.receivers.iter().find(|receiver| receiver.session == session) else { return };
        let stream = self.streams.iter_mut().find(|stream| receiver.has(stream));
        if let Some(stream) = stream.filter(|_| receiver.egress.follows()) {
            stream.encoder.want_keyframe();
        }
    }

    /// Makes the next frame a small keyframe at once, if nobody shares the encoder.
    fn hasten_keyframe(&mut self, session: SessionId) {
        let Some(receiver) = self.receivers.iter().find(|receiver| receiver.session == session) else { return };
        let Some(stream) = self.streams.iter_mut().find(|stream| receiver.has(stream)) else { return };
        if self.receivers.iter().filter(|receiver| receiver.has(stream)).count() == 1 {
            stream.encoder.hasten_keyframe();
        }
    }

    /// Returns whether there is no receiver.
    pub(super) fn is_empty(&self) -> bool {
        self.receivers.is_empty()
    }

    /// Tells whether another picture would only get old, for every receiver.
    pub fn are_congested(&self, now: Instant) -> bool {
        let begins = |receiver: &Receiver| !self.streams.iter().any(|stream| receiver.has(stream)) && !receiver.egress.is_congested(now);
        let is_taken = self.streams.iter().any(|stream| stream.plan(now, &self.receivers).is_some()) || self.receivers.iter().any(begins);
        !self.receivers.is_empty() && !is_taken
    }

    /// Notes the size of the camera's next picture. Receivers are told the bitrate that would be of
    /// use when the size has changed.
    pub fn on_size(&mut self, size: Size, outbox: &Outbox) {
        self.size = Some(size);
        self.tell_sizes(outbox);
    }

    fn tell_sizes(&mut self, outbox: &Outbox) {
        let Some(size) = self.size else { return };
        for Receiver { session, egress, .. } in &mut self.receivers {
            if let Some(bps) = egress.on_size(size) {
                outbox.send_to(*session, TrackOutput::DesiredBitrate(bps));
            }
        }
    }

    // The pictures

    /// Compresses a picture once for each codec and quality, and sends it to each receiver that can
    /// take it. A picture without receivers counts as sent. Timestamps only increase: they are those
    /// of the capture, or one more than the last.
    ///
    /// # Errors
    /// When no receiver got the picture.
    pub fn send(
        &mut self,
        now: Instant,
        picture: &I420,
        capture: MediaTime,
        arrived: Instant,
        outbox: &Outbox,
    ) -> Result<Sent, DropReason> {
        self.receivers.retain(|receiver| !receiver.egress.is_abandoned());
        self.place(now, picture.size());
        let timestamp = self.last_sent.map_or(capture, |last| capture.max(MediaTime(last.0 + 1)));
        let mut outcome = if self.receivers.is_empty() { Ok(0) } else { Err(DropReason::Congested) };
        for stream in &mut self.streams {
            let Some(request) = stream.plan(now, &self.receivers) else { continue };
            let Some(frame) = stream.encoder.encode(now, picture, timestamp, request) else {
                outcome = outcome.or(Err(DropReason::EncodeFailed));
                continue;
            };
            let next = NextFrame { keyframe: frame.keyframe, is_shared: request.is_shared };
            for receiver in self.receivers.iter_mut().filter(|receiver| receiver.has(stream)) {
                let output = || TrackOutput::Frame { frame: frame.clone(), arrived };
                if receiver.egress.takes(now, next) && outbox.send_to(receiver.session, output()) {
                    receiver.egress.on_sent(now, frame.keyframe, stream.encoder.config().bitrate_bps);
                    outcome = Ok(outcome.unwrap_or(0) + frame.data.len());
                } else {
                    receiver.egress.on_missed();
                    self.metrics.encoders.on_withheld();
                }
            }
        }
        let bytes = outcome?;
        self.last_sent = Some(timestamp);
        Ok(Sent { timestamp, bytes })
    }

    /// Gives each receiver the quality that its network carries, and each quality the bitrate that
    /// its receivers share. Starts the encoders that are needed, and ends the others.
    fn place(&mut self, now: Instant, size: Size) {
        let Self { receivers, streams, .. } = self;
        streams.retain(|stream| match stream.encoder.quality {
            Quality::Full => receivers.iter().any(|receiver| receiver.codec == stream.encoder.codec),
            Quality::Half => receivers.iter().any(|receiver| receiver.has(stream)),
        });
        for codec in [VideoCodec::Vp8, VideoCodec::H264] {
            if self.receivers.iter().any(|receiver| receiver.codec == codec) {
                self.place_codec(now, codec, size);
            }
        }
    }

    fn place_codec(&mut self, now: Instant, codec: VideoCodec, size: Size) {
        let half_size = Quality::Half.size(size);
        // The half quality serves a receiver well whose network carries less.
        let least_bps = half_size.map_or(0, |size| desired_bps(&self.video, size));
        let Some(full) = self.stream(codec, Quality::Full) else { return };
        let receivers = || self.receivers.iter().filter(move |receiver| receiver.codec == codec);
        let has_joined = |receiver: &&Receiver| now.saturating_duration_since(receiver.joined) >= JOINING_TIME;
        let is_joining = !receivers().any(|receiver| has_joined(&receiver));
        let counted = receivers().filter(|receiver| is_joining || has_joined(receiver));
        let chosen_bps = self.streams[full].choose(counted, least_bps);
        let full_bps = self.streams[full].encoder.used_bps(size, chosen_bps);
        let full_is_unused = !receivers().any(|receiver| receiver.placement.quality() == Quality::Full);
        for receiver in self.receivers.iter_mut().filter(|receiver| receiver.codec == codec) {
            let carries_full = carries(receiver.egress.allowed_bps(), full_bps);
            if receiver.placement.review(now, Situation { carries_full, has_half: half_size.is_some(), full_is_unused }) {
                receiver.egress.on_other_encoder();
            }
        }
        let is_slow = |receiver: &&Receiver| receiver.codec == codec && receiver.placement.quality() == Quality::Half;
        if self.receivers.iter().any(|receiver| is_slow(&receiver))
            && let Some(half) = self.stream(codec, Quality::Half)
        {
            self.streams[half].choose(self.receivers.iter().filter(is_slow), 0);
        }
    }

    /// Returns the index of a stream, which is started if there is none. `None` if it cannot be
    /// started.
    fn stream(&mut self, codec: VideoCodec, quality: Quality) -> Option<usize> {
        let index = self.streams.iter().position(|stream| stream.encoder.codec == codec && stream.encoder.quality == quality);
        index.or_else(|| {
            let mut encoder = SharedEncoder::start(codec, quality, &self.video, &self.metrics.encoders)?;
            encoder.set_hurried(self.is_hurried);
            self.streams.push(Stream { encoder, bitrate: SharedBitrate::default(), allowed_bps: 0 });
            Some(self.streams.len() - 1)
        })
    }

    /// Makes the encoders take less time than the operator set, or as much. Returns whether that is
    /// a change.
    pub(super) fn set_hurried(&mut self, hurried: bool) -> bool {
        self.is_hurried = hurried;
        let mut is_change = false;
        for stream in &mut self.streams {
            is_change |= stream.encoder.set_hurried(hurried);
        }
        is_change
    }

    /// Returns whether a receiver has had no picture yet, and its network could take one.
    pub(super) fn has_waiting(&self, now: Instant) -> bool {
        self.receivers.iter().any(|receiver| receiver.egress.begins() && !receiver.egress.is_congested(now))
    }

    /// Returns the size of the camera's pictures.
    pub(super) fn size(&self) -> Option<Size> {
        self.size
    }

    /// Returns the timestamp of the last picture.
    pub(super) fn last_sent(&self) -> Option<MediaTime> {
        self.last_sent
    }

    /// Returns the output to the first receiver, which the statistics describe.
    pub fn first(&self) -> Option<OutputState> {
        self.receivers.first().and_then(|receiver| self.state(receiver))
    }

    fn state(&self, receiver: &Receiver) -> Option<OutputState> {
        let Stream { encoder, .. } = self.streams.iter().find(|stream| receiver.has(stream))?;
        Some(OutputState {
            config: *encoder.config(),
            sent_size: encoder.sent_size(),
            estimate_bps: receiver.egress.estimate_bps(),
            is_hurried: encoder.is_hurried(),
        })
    }
}

impl Receiver {
    /// Returns whether the receiver gets the frames of a stream.
    fn has(&self, stream: &Stream) -> bool {
        self.codec == stream.encoder.codec && self.placement.quality() == stream.encoder.quality
    }
}

impl Stream {
    /// Chooses and returns the bitrate that these receivers share. Only the fastest of them may lower
    /// it below `least_bps`.
    fn choose<'a>(&mut self, receivers: impl Iterator<Item = &'a Receiver>, least_bps: u32) -> u32 {
        let chosen = self.bitrate.choose(receivers.map(|receiver| receiver.egress.allowed_bps()), least_bps);
        self.allowed_bps = chosen.unwrap_or(self.allowed_bps);
        self.allowed_bps
    }

    /// Returns the request for the next frame. `None` if none of the receivers could take it in time,
    /// so that no frame is made that they would miss.
    fn plan(&self, now: Instant, receivers: &[Receiver]) -> Option<Request> {
        let mine = || {
            receivers.iter().filter(|receiver| receiver.has(self)).map(|receiver| &receiver.egress).filter(|egress| !egress.is_abandoned())
        };
        let is_shared = mine().nth(1).is_some();
        let has_followers = mine().any(|egress| egress.follows() && !egress.is_overfull(now));
        let needs_keyframe = mine().any(|egress| egress.needs_keyframe(now, has_followers));
        let request = Request { allowed_bps: self.allowed_bps, needs_keyframe, is_shared };
        let next = NextFrame { keyframe: self.encoder.makes_keyframe(now, request), is_shared: false };
        mine().any(|egress| egress.takes(now, next)).then_some(request)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashMap};
    use std::sync::atomic::Ordering;

    use ooblex_codec::{Decoder, Limits};
    use ooblex_pipeline::EncodedFrame;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::super::messages::Backlog;
    use super::super::outbox::{Recorded, Recorder, metrics};
    use super::*;

    const VIEWER: SessionId = SessionId(2);
    const OTHER: SessionId = SessionId(3);
    const THIRD: SessionId = SessionId(4);
    const VGA: Size = Size::new(640, 480);
    const TINY: Size = Size::new(160, 120);
    /// The time between two pictures.
    const STEP: Duration = Duration::from_millis(33);

    use VideoCodec::{H264, Vp8};

    struct Bench {
        outputs: Outputs,
        recorder: Arc<Recorder>,
        outbox: Outbox,
        now: Instant,
        picture: I420,
    }

    impl Bench {
        fn new(size: Size) -> Self {
            let (recorder, outbox) = Recorder::outbox();
            let outputs = Outputs::new(Video::default(), metrics());
            Self { outputs, recorder, outbox, now: Instant::now(), picture: I420::grey(size.width, size.height, 90) }
        }

        /// Begins the output to a receiver, which ends with the backlog that is returned.
        fn join(&mut self, receiver: SessionId, codec: VideoCodec) -> Arc<Backlog> {
            let backlog = Arc::<Backlog>::default();
            let start = OutputInput::Start { codec, backlog: backlog.clone() };
            assert!(self.input(receiver, start), "it needs a picture");
            backlog
        }

        fn input(&mut self, receiver: SessionId, input: OutputInput) -> bool {
            self.outputs.on_input(self.now, receiver, input, &self.outbox)
        }

        /// Sends a picture, and returns its timestamp.
        fn send(&mut self, capture: u64) -> Result<u64, DropReason> {
            self.outputs.on_size(self.picture.size(), &self.outbox);
            self.outputs.send(self.now, &self.picture, MediaTime(capture), self.now, &self.outbox).map(|sent| sent.timestamp.0)
        }

        /// Sends a picture every 33 ms for a time. Returns how many frames and keyframes each receiver
        /// got.
        fn play(&mut self, ms: u64) -> BTreeMap<SessionId, Got> {
            self.recorder.take();
            for _ in 0..ms / 33 {
                self.now += STEP;
                _ = self.send(self.outputs.last_sent().map_or(0, |last| last.0 + 2970));
            }
            self.got()
        }

        /// Returns the frames that each receiver got since the last call.
        fn got(&self) -> BTreeMap<SessionId, Got> {
            let mut got = BTreeMap::<_, Got>::new();
            for Recorded { session, output } in self.recorder.take_all() {
                let TrackOutput::Frame { frame, .. } = output else { continue };
                let got = got.entry(session).or_default();
                (got.frames, got.keyframes) = (got.frames + 1, got.keyframes + usize::from(frame.keyframe));
            }
            got
        }

        /// Returns the codecs and keyframes that were sent since the last call.
        fn frames(&self) -> Vec<(VideoCodec, bool)> {
            self.recorder.frames().into_iter().map(|frame| (frame.codec, frame.keyframe)).collect()
        }

        /// Returns the quality of a receiver, and the bitrate of its encoder in kbit/s.
        fn served(&self, session: SessionId) -> (Quality, u32) {
            let receiver = self.outputs.receivers.iter().find(|receiver| receiver.session == session).unwrap();
            (receiver.placement.quality(), self.outputs.state(receiver).unwrap().config.bitrate_bps / 1000)
        }
    }

    #[derive(Debug, Default, Clone, Copy, PartialEq)]
    struct Got {
        frames: usize,
        keyframes: usize,
    }

    #[test]
    fn recording_has_the_codec_of_most_receivers_and_the_best_bitrate() {
        const RECORDING: SessionId = SessionId(9);
        let mut bench = Bench::new(VGA);
        let first = Arc::<Backlog>::default();
        assert!(bench.input(RECORDING, OutputInput::Record { backlog: first.clone() }), "it needs a picture");
        assert!(bench.send(0).is_ok());
        assert_eq!(bench.frames(), [(Vp8, true)], "the first codec of the configuration");
        drop(first);
        let _viewers = [(VIEWER, Vp8), (OTHER, H264), (THIRD, H264)].map(|(viewer, codec)| bench.join(viewer, codec));
        let backlog = Arc::<Backlog>::default();
        bench.input(RECORDING, OutputInput::Record { backlog: backlog.clone() });
        for viewer in [VIEWER, OTHER, THIRD] {
            bench.input(viewer, OutputInput::Estimate(300_000));
        }
        bench.play(20_000);
        let recorded = bench.outputs.receivers.iter().find(|receiver| receiver.session == RECORDING).unwrap();
        assert_eq!((recorded.codec, recorded.egress.allowed_bps()), (H264, desired_bps(&Video::default(), VGA)));
        bench.recorder.loses.store(true, Ordering::Relaxed);
        bench.now += STEP;
        assert!(bench.send(10_000_000).is_err(), "the queue is full");
        bench.recorder.loses.store(false, Ordering::Relaxed);
        let got = bench.play(6000)[&RECORDING];
        assert!(got.keyframes == 1 && got.frames > 30, "it goes on with a keyframe: {got:?}");
    }

    #[test]
    fn each_receiver_gets_its_codec_and_begins_with_a_keyframe() {
        let mut bench = Bench::new(TINY);
        let _first = bench.join(VIEWER, Vp8);
        bench.send(0).unwrap();
        let second = bench.join(OTHER, H264);
        bench.send(3000).unwrap();
        assert_eq!(bench.frames(), [(Vp8, true), (Vp8, false), (H264, true)]);
        drop(second);
        bench.send(6000).unwrap();
        assert_eq!((bench.frames(), bench.outputs.streams.len()), (vec![(Vp8, false)], 1), "the other one has ended");
    }

    #[test]
    fn a_picture_is_encoded_once_for_all_receivers_of_a_codec_and_its_bytes_are_shared() {
        let mut bench = Bench::new(TINY);
        let _backlogs = [(VIEWER, Vp8), (OTHER, Vp8), (THIRD, H264)].map(|(session, codec)| bench.join(session, codec));
        bench.send(0).unwrap();
        let mut frames = bench.recorder.frames().into_iter().filter(|frame| frame.codec == Vp8);
        let (first, second) = (frames.next().unwrap(), frames.next().unwrap());
        assert!(Arc::ptr_eq(&first.data, &second.data));
        let text = bench.outputs.metrics.encode(&Default::default(), 0);
        assert!(
            text.contains(r#"ooblex_pictures_encoded_total{codec="vp8"} 1"#)
                && text.contains(r#"ooblex_pictures_encoded_total{codec="h264"} 1"#)
        );
        assert!(text.contains(r#"ooblex_encoders{codec="vp8",quality="full"} 1"#), "{text}");
        drop(bench.outputs.receivers.drain(..));
        bench.send(3000).unwrap();
        assert!(bench.outputs.metrics.encode(&Default::default(), 0).contains(r#"ooblex_encoders{codec="vp8",quality="full"} 0"#));
    }

    #[test]
    fn viewers_that_join_wait_for_a_keyframe_and_share_it() {
        let mut bench = Bench::new(TINY);
        let _first = bench.join(VIEWER, Vp8);
        assert_eq!(bench.play(3300)[&VIEWER], Got { frames: 100, keyframes: 1 });
        let _second = bench.join(OTHER, Vp8);
        assert_eq!(
            bench.play(33),
            BTreeMap::from([(VIEWER, Got { frames: 1, keyframes: 1 }), (OTHER, Got { frames: 1, keyframes: 1 })]),
            "at once"
        );
        let _third = bench.join(THIRD, Vp8);
        let got = bench.play(990);
        assert_eq!((got[&VIEWER].frames, got.get(&THIRD)), (30, None), "a second after the last one");
        let got = bench.play(33);
        assert_eq!((got[&VIEWER], got[&THIRD]), (Got { frames: 1, keyframes: 1 }, Got { frames: 1, keyframes: 1 }));
    }

    #[test]
    fn requests_of_several_receivers_give_one_keyframe_a_second() {
        let mut bench = Bench::new(TINY);
        let _backlogs = [VIEWER, OTHER].map(|session| bench.join(session, Vp8));
        bench.play(33);
        let mut got = Got::default();
        for _ in 0..100 {
            assert!(bench.input(VIEWER, OutputInput::KeyframeWanted) && bench.input(OTHER, OutputInput::KeyframeWanted));
            let tick = bench.play(33)[&OTHER];
            got = Got { frames: got.frames + tick.frames, keyframes: got.keyframes + tick.keyframes };
        }
        assert_eq!(got, Got { frames: 100, keyframes: 3 });
    }

    #[test]
    fn congested_receiver_does_not_hold_up_another_one() {
        let mut bench = Bench::new(TINY);
        let (slow, _quick) = (bench.join(VIEWER, Vp8), bench.join(OTHER, Vp8));
        slow.set(1_000_000);
        assert!(!bench.outputs.are_congested(bench.now));
        bench.send(0).unwrap();
        assert_eq!(bench.frames().len(), 1);
    }

    #[test]
    fn picture_that_every_receiver_would_get_late_is_not_encoded_so_that_nobody_misses_it() {
        let mut bench = Bench::new(TINY);
        let backlogs = [VIEWER, OTHER].map(|session| bench.join(session, Vp8));
        bench.play(330);
        backlogs.iter().for_each(|backlog| backlog.set(1_000_000));
        assert!(bench.outputs.are_congested(bench.now));
        assert_eq!((bench.play(3300).len(), bench.send(900_000)), (0, Err(DropReason::Congested)));
        backlogs.iter().for_each(|backlog| backlog.set(0));
        assert_eq!(bench.play(330)[&OTHER], Got { frames: 10, keyframes: 0 });
    }

    #[test]
    fn viewer_that_stalls_costs_the_others_a_keyframe_every_four_seconds_at_most() {
        let mut bench = Bench::new(TINY);
        let (slow, _quick) = (bench.join(VIEWER, Vp8), bench.join(OTHER, Vp8));
        bench.play(33);
        let (mut slow_got, mut quick_got) = (Got::default(), Got::default());
        for second in 0..20 {
            slow.set(if second % 2 == 0 { 1_000_000 } else { 0 });
            let got = bench.play(990);
            let add = |sum: Got, more: Option<&Got>| {
                more.map_or(sum, |more| Got { frames: sum.frames + more.frames, keyframes: sum.keyframes + more.keyframes })
            };
            (slow_got, quick_got) = (add(slow_got, got.get(&VIEWER)), add(quick_got, got.get(&OTHER)));
        }
        assert_eq!(quick_got, Got { frames: 600, keyframes: 4 });
        assert!(slow_got.keyframes == 4 && slow_got.frames < 200, "{slow_got:?}");
    }

    #[test]
    fn slow_viewer_gets_the_half_quality_and_lowers_nothing_until_its_network_is_wide_again() {
        let mut bench = Bench::new(VGA);
        let _backlogs = [VIEWER, OTHER].map(|session| bench.join(session, Vp8));
        bench.play(6600);
        assert_eq!((bench.served(VIEWER), bench.served(OTHER)), ((Quality::Full, 2304), (Quality::Full, 2304)));
        bench.input(VIEWER, OutputInput::Estimate(500_000));
        assert_eq!(bench.play(330)[&VIEWER].frames, 10);
        let got = bench.play(990);
        assert_eq!((bench.served(VIEWER), bench.served(OTHER)), ((Quality::Half, 450), (Quality::Full, 2304)));
        assert_eq!((got[&VIEWER], got[&OTHER]), (Got { frames: 30, keyframes: 1 }, Got { frames: 30, keyframes: 0 }));
        bench.input(VIEWER, OutputInput::Estimate(3_000_000));
        bench.play(2970);
        assert_eq!((bench.served(VIEWER).0, bench.outputs.streams.len()), (Quality::Half, 2));
        assert_eq!(bench.play(330)[&OTHER], Got { frames: 10, keyframes: 1 });
        assert_eq!((bench.served(VIEWER), bench.outputs.streams.len()), ((Quality::Full, 2304), 1), "the other encoder has ended");
    }

    #[test]
    fn slow_viewer_that_is_left_alone_gets_the_full_quality_at_its_own_bitrate() {
        let mut bench = Bench::new(VGA);
        let (_slow, quick) = (bench.join(VIEWER, Vp8), bench.join(OTHER, Vp8));
        bench.play(6600);
        bench.input(VIEWER, OutputInput::Estimate(1_000_000));
        bench.play(990);
        assert_eq!(bench.served(VIEWER), (Quality::Half, 576));
        drop(quick);
        assert_eq!(bench.play(66)[&VIEWER], Got { frames: 2, keyframes: 1 });
        assert_eq!((bench.served(VIEWER), bench.outputs.streams.len()), ((Quality::Full, 900), 1));
    }

    #[test]
    fn viewer_that_joins_lowers_nothing_while_its_network_is_not_known() {
        let mut bench = Bench::new(Size::new(1280, 720));
        let _first = bench.join(VIEWER, Vp8);
        bench.input(VIEWER, OutputInput::Estimate(9_000_000));
        bench.play(6600);
        assert_eq!(bench.served(VIEWER), (Quality::Full, 6000));
        let _joins = [OTHER, THIRD].map(|session| bench.join(session, Vp8));
        let got = bench.play(990);
        assert_eq!((bench.served(VIEWER), bench.served(OTHER)), ((Quality::Full, 6000), (Quality::Half, 1728)));
        assert_eq!(
            (got[&VIEWER], got[&THIRD]),
            (Got { frames: 30, keyframes: 0 }, Got { frames: 30, keyframes: 1 }),
            "with the first picture"
        );
        bench.play(6600);
        assert_eq!(bench.served(VIEWER), (Quality::Full, 2500), "two of three carry no more");
    }

    #[test]
    fn breakdown_of_one_network_neither_makes_the_picture_smaller_for_others_nor_a_keyframe() {
        let mut bench = Bench::new(VGA);
        let _backlogs = [VIEWER, OTHER].map(|session| bench.join(session, Vp8));
        bench.play(6600);
        bench.input(VIEWER, OutputInput::BrokenDown(300_000));
        let got = bench.play(165);
        assert_eq!((got[&OTHER], got.get(&VIEWER)), (Got { frames: 5, keyframes: 0 }, Some(&Got { frames: 1, keyframes: 1 })));
        assert_eq!((bench.served(VIEWER).0, bench.served(OTHER)), (Quality::Half, (Quality::Full, 2304)));
        assert!(bench.outputs.streams.iter().any(|stream| stream.encoder.sent_size() == Some(VGA)));
    }

    #[test]
    fn after_a_frame_that_the_sink_lost_there_is_nothing_before_a_keyframe() {
        let mut bench = Bench::new(TINY);
        let _viewer = bench.join(VIEWER, Vp8);
        bench.play(330);
        bench.recorder.loses.store(true, Ordering::Relaxed);
        bench.now += STEP;
        assert_eq!(bench.send(90_000), Err(DropReason::Congested));
        bench.recorder.loses.store(false, Ordering::Relaxed);
        assert_eq!(bench.play(33)[&VIEWER], Got { frames: 1, keyframes: 1 });
    }

    #[test]
    fn when_all_receivers_have_missed_a_frame_they_get_a_keyframe_within_a_second() {
        let mut bench = Bench::new(TINY);
        let _backlogs = [VIEWER, OTHER].map(|session| bench.join(session, Vp8));
        bench.play(330);
        bench.recorder.loses.store(true, Ordering::Relaxed);
        bench.play(33);
        bench.recorder.loses.store(false, Ordering::Relaxed);
        let got = bench.play(990);
        assert_eq!((got[&VIEWER].keyframes, got[&OTHER].keyframes), (1, 1), "nobody pays for it");
    }

    #[test]
    fn viewer_that_has_missed_a_frame_does_not_wait_beside_one_that_has_ended() {
        let mut bench = Bench::new(TINY);
        let (_viewer, other) = (bench.join(VIEWER, Vp8), bench.join(OTHER, Vp8));
        bench.play(330);
        bench.recorder.loses.store(true, Ordering::Relaxed);
        bench.play(33);
        bench.recorder.loses.store(false, Ordering::Relaxed);
        drop(other);
        assert_eq!(bench.play(330)[&VIEWER].keyframes, 1);
    }

    #[test]
    fn slow_viewers_of_whatever_number_do_not_lower_the_full_quality_below_what_the_half_one_needs() {
        let mut bench = Bench::new(VGA);
        let sessions = (2..14).map(SessionId);
        let _backlogs: Vec<_> = sessions.clone().map(|session| bench.join(session, Vp8)).collect();
        sessions.skip(1).for_each(|session| _ = bench.input(session, OutputInput::Estimate(300_000)));
        bench.play(6600);
        assert_eq!((bench.served(VIEWER), bench.served(OTHER)), ((Quality::Full, 2304), (Quality::Half, 270)));
    }

    #[test]
    fn viewer_that_waits_for_its_first_picture_is_known() {
        let mut bench = Bench::new(TINY);
        let _first = bench.join(VIEWER, Vp8);
        bench.play(330);
        assert!(!bench.outputs.has_waiting(bench.now));
        let second = bench.join(OTHER, Vp8);
        bench.play(33);
        assert!(bench.outputs.has_waiting(bench.now), "the last keyframe is too near");
        second.set(1_000_000);
        assert!(!bench.outputs.has_waiting(bench.now), "it could not take one");
        second.set(0);
        bench.play(990);
        assert!(!bench.outputs.has_waiting(bench.now));
    }

    #[test]
    fn picture_without_receivers_counts_as_sent() {
        let mut bench = Bench::new(TINY);
        assert!(bench.outputs.is_empty() && !bench.outputs.are_congested(bench.now));
        assert_eq!((bench.send(0), bench.frames()), (Ok(0), vec![]));
    }

    #[test]
    fn timestamps_increase_even_if_captures_do_not() {
        let mut bench = Bench::new(TINY);
        let _viewer = bench.join(VIEWER, Vp8);
        assert_eq!([5000, 5000, 3000, 9000].map(|capture| bench.send(capture).unwrap()), [5000, 5001, 5002, 9000]);
    }

    /// A receiver with its decoder.
    struct Watching {
        backlog: Arc<Backlog>,
        decoder: Decoder,
        last: Option<MediaTime>,
    }

    impl Watching {
        /// Decodes a frame, which is newer than the one before. Returns the picture.
        fn on_frame(&mut self, frame: &EncodedFrame) -> I420 {
            assert!(self.last.is_none_or(|last| last < frame.capture), "timestamps increase");
            self.last = Some(frame.capture);
            self.decoder.decode(&frame.data).expect("the first frame is a keyframe").expect("each frame is a picture")
        }
    }

    /// Receivers whose networks, decoders and queues do what chance wants. All that decode a frame see
    /// the same picture, so none has missed one on which it builds.
    #[test]
    fn receivers_get_no_frame_that_builds_on_one_they_did_not_get() {
        for (codec, seed) in [(Vp8, 1), (H264, 2), (Vp8, 3), (H264, 4)] {
            let (mut bench, mut random) = (Bench::new(Size::new(320, 240)), SmallRng::seed_from_u64(seed));
            let mut watching = HashMap::new();
            let mut pictures = HashMap::<(MediaTime, u32), Vec<u8>>::new();
            let (mut frames, mut shared, mut qualities) = (0, 0, BTreeSet::new());
            for number in 0..1200_u64 {
                bench.now += STEP;
                let session = SessionId(random.random_range(1..8));
                watching.entry(session).or_insert_with(|| {
                    let (backlog, decoder) = (bench.join(session, codec), Decoder::new(codec, Limits::default()).unwrap());
                    Watching { backlog, decoder, last: None }
                });
                match random.random_range(0..40) {
                    0 if session != SessionId(1) => drop(watching.remove(&session)),
                    1..4 if session != SessionId(1) => watching[&session].backlog.set(random.random_range(0..200_000)),
                    4..12 => watching[&session].backlog.set(0),
                    12 => _ = bench.input(session, OutputInput::KeyframeWanted),
                    13..15 if session != SessionId(1) => {
                        _ = bench.input(session, OutputInput::Estimate(random.random_range(50_000..3_000_000)))
                    }
                    15 => _ = bench.input(session, OutputInput::BrokenDown(random.random_range(50_000..1_000_000))),
                    16 => _ = bench.outputs.set_hurried(number % 2 == 0),
                    _ => {}
                }
                bench.recorder.loses.store(random.random_range(0..60) == 0, Ordering::Relaxed);
                let moved = |at: usize| (((at % 320 + 3 * number as usize) / 9) ^ ((at / 320 + number as usize) / 7)) as u8;
                let [luma, ..] = bench.picture.planes_mut();
                luma.iter_mut().enumerate().for_each(|(at, pixel)| *pixel = 40 + (moved(at) & 0x3f) + random.random_range(0..16));
                _ = bench.send(number * 2970);
                for Recorded { session, output } in bench.recorder.take_all() {
                    let TrackOutput::Frame { frame, .. } = output else { continue };
                    let picture = watching.get_mut(&session).expect("it has not left").on_frame(&frame);
                    let luma = picture.planes()[0].to_vec();
                    frames += 1;
                    qualities.insert(picture.width());
                    if let Some(seen) = pictures.get(&(frame.capture, picture.width())) {
                        shared += 1;
                        assert!(*seen == luma, "{} {seed}: a viewer sees another picture at {number}", codec.label());
                    }
                    pictures.insert((frame.capture, picture.width()), luma);
                }
            }
            println!("{} {seed}: {frames} frames, {shared} of them shared, widths {qualities:?}", codec.label());
            assert!(frames > 2000 && shared > 1000 && qualities.len() > 1, "{frames} frames, {shared} of them shared, {qualities:?}");
        }
    }
}
