//! The outputs of a track: one for each session that receives its pictures, with an encoder of its
//! own. A publisher that gets its own pictures back is one of the receivers. Time is an argument.

use std::time::Instant;

use ooblex_pipeline::{DropReason, I420, MediaTime, Size};

use super::egress::Egress;
use super::messages::{OutputInput, TrackOutput};
use super::outbox::Outbox;
use crate::ids::SessionId;
use ooblex_config::Video;

/// The outputs of one track.
pub(super) struct Outputs {
    video: Video,
    /// The size of the camera's pictures. `None` before the first.
    size: Option<Size>,
    /// The timestamp of the last picture.
    last_sent: Option<MediaTime>,
    outputs: Vec<Output>,
}

struct Output {
    receiver: SessionId,
    egress: Egress,
}

/// What was sent of one picture.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) timestamp: MediaTime,
    /// The bytes for all receivers.
    pub(super) bytes: usize,
}

impl Outputs {
    pub(super) fn new(video: Video) -> Self {
        Self { video, size: None, last_sent: None, outputs: Vec::new() }
    }

    /// Takes an input for the output to `receiver`. Returns whether the receiver needs a picture.
    pub(super) fn on_input(&mut self, now: Instant, receiver: SessionId, input: OutputInput, outbox: &Outbox) -> bool {
        if let OutputInput::Start { codec, backlog } = input {
            let mut egress = Egress::new(self.video.clone(), backlog);
            egress.start(codec);
            self.outputs.retain(|output| output.receiver != receiver);
            self.outputs.push(Output { receiver, egress });
            self.tell_sizes(outbox);
            return true;
        }
        let Some(Output { egress, .. }) = self.outputs.iter_mut().find(|output| output.receiver == receiver) else { return false };
        match input {
            OutputInput::Start { .. } => {}
            OutputInput::KeyframeWanted => {
                egress.want_keyframe();
                return true;
            }
            OutputInput::Estimate(bps) => egress.on_estimate(bps),
            OutputInput::BrokenDown(bps) => egress.on_breakdown(now, bps),
            OutputInput::Feedback(feedback) => egress.on_feedback(&feedback),
            OutputInput::Resumed => egress.on_resumed(),
        }
        false
    }

    /// Returns whether there is no receiver.
    pub(super) fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Tells whether another picture would only get old, for every receiver.
    pub(super) fn are_congested(&self, now: Instant) -> bool {
        !self.outputs.is_empty() && self.outputs.iter().all(|output| output.egress.is_congested(now))
    }

    /// Notes the size of the camera's next picture. Receivers are told the bitrate that would be of
    /// use when the size has changed.
    pub(super) fn on_size(&mut self, size: Size, outbox: &Outbox) {
        self.size = Some(size);
        self.tell_sizes(outbox);
    }

    fn tell_sizes(&mut self, outbox: &Outbox) {
        let Some(size) = self.size else { return };
        for Output { receiver, egress } in &mut self.outputs {
            if let Some(bps) = egress.on_size(size) {
                outbox.send_to(*receiver, TrackOutput::DesiredBitrate(bps));
            }
        }
    }

    /// Compresses a picture for each receiver that can take one, and sends it. A picture without
    /// receivers counts as sent. Timestamps only increase: they are those of the capture, or one
    /// more than the last.
    ///
    /// # Errors
    /// When no receiver got the picture.
    pub(super) fn send(
        &mut self,
        now: Instant,
        picture: &I420,
        capture: MediaTime,
        arrived: Instant,
        outbox: &Outbox,
    ) -> Result<Sent, DropReason> {
        self.outputs.retain(|output| !output.egress.is_abandoned());
        let timestamp = self.last_sent.map_or(capture, |last| capture.max(MediaTime(last.0 + 1)));
        let (mut bytes, mut is_sent) = (0, self.outputs.is_empty());
        for Output { receiver, egress } in self.outputs.iter_mut().filter(|output| !output.egress.is_congested(now)) {
            let Some(frame) = egress.encode(now, picture, timestamp) else { continue };
            let length = frame.data.len();
            if outbox.send_to(*receiver, TrackOutput::Frame { frame, arrived }) {
                (bytes, is_sent) = (bytes + length, true);
            } else {
                // The next frame would build on one that was never sent.
                egress.want_keyframe();
            }
        }
        if !is_sent {
            return Err(DropReason::EncodeFailed);
        }
        self.last_sent = Some(timestamp);
        Ok(Sent { timestamp, bytes })
    }

    /// Makes the encoders take less time than the operator set, or as much. Returns whether that is
    /// a change.
    pub(super) fn set_hurried(&mut self, hurried: bool) -> bool {
        let mut is_change = false;
        for output in &mut self.outputs {
            is_change |= output.egress.set_hurried(hurried);
        }
        is_change
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
    pub(super) fn first(&self) -> Option<&Egress> {
        self.outputs.first().map(|output| &output.egress)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ooblex_pipeline::VideoCodec;

    use super::super::messages::Backlog;
    use super::super::outbox::Recorder;
    use super::*;

    const VIEWER: SessionId = SessionId(2);
    const OTHER: SessionId = SessionId(3);

    struct Bench {
        outputs: Outputs,
        recorder: Arc<Recorder>,
        outbox: Outbox,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let (recorder, outbox) = Recorder::outbox();
            Self { outputs: Outputs::new(Video::default()), recorder, outbox, now: Instant::now() }
        }

        /// Begins the output to a receiver, which ends with the backlog that is returned.
        fn join(&mut self, receiver: SessionId, codec: VideoCodec) -> Arc<Backlog> {
            let backlog = Arc::<Backlog>::default();
            let start = OutputInput::Start { codec, backlog: backlog.clone() };
            assert!(self.outputs.on_input(self.now, receiver, start, &self.outbox), "it needs a picture");
            backlog
        }

        /// Sends a picture, and returns its timestamp.
        fn send(&mut self, capture: u64) -> Result<u64, DropReason> {
            let picture = I420::grey(160, 120, 90);
            self.outputs.on_size(picture.size(), &self.outbox);
            self.outputs.send(self.now, &picture, MediaTime(capture), self.now, &self.outbox).map(|sent| sent.timestamp.0)
        }

        /// Returns the codecs and keyframes that were sent since the last call.
        fn frames(&self) -> Vec<(VideoCodec, bool)> {
            self.recorder.frames().into_iter().map(|frame| (frame.codec, frame.keyframe)).collect()
        }
    }

    #[test]
    fn each_receiver_gets_its_codec_and_begins_with_a_keyframe() {
        let mut bench = Bench::new();
        let _first = bench.join(VIEWER, VideoCodec::Vp8);
        bench.send(0).unwrap();
        let second = bench.join(OTHER, VideoCodec::H264);
        bench.send(3000).unwrap();
        let both = [(VideoCodec::Vp8, true), (VideoCodec::Vp8, false), (VideoCodec::H264, true)];
        assert_eq!(bench.frames(), both);
        drop(second);
        bench.send(6000).unwrap();
        assert_eq!(bench.frames(), [(VideoCodec::Vp8, false)], "the other one has ended");
    }

    #[test]
    fn congested_receiver_does_not_hold_up_another_one() {
        let mut bench = Bench::new();
        let (slow, _quick) = (bench.join(VIEWER, VideoCodec::Vp8), bench.join(OTHER, VideoCodec::Vp8));
        slow.set(1_000_000);
        assert!(!bench.outputs.are_congested(bench.now));
        bench.send(0).unwrap();
        assert_eq!(bench.frames().len(), 1);
    }

    #[test]
    fn picture_without_receivers_counts_as_sent() {
        let mut bench = Bench::new();
        assert!(bench.outputs.is_empty() && !bench.outputs.are_congested(bench.now));
        assert_eq!((bench.send(0), bench.frames()), (Ok(0), vec![]));
    }

    #[test]
    fn timestamps_increase_even_if_captures_do_not() {
        let mut bench = Bench::new();
        let _viewer = bench.join(VIEWER, VideoCodec::Vp8);
        assert_eq!([5000, 5000, 3000, 9000].map(|capture| bench.send(capture).unwrap()), [5000, 5001, 5002, 9000]);
    }
}
