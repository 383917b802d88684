//! The outputs of a track: one for each session that receives its pictures, with an encoder of its
//! own. A publisher that gets its own pictures back is one of the receivers. Time is an argument.

use std::time::Instant;

use ooblex_pipeline::{DropReason, I420, MediaTime};

use super::egress::Egress;
use super::messages::{OutputInput, TrackOutput};
use super::outbox::Outbox;
use super::size::Size;
use crate::ids::SessionId;
use ooblex_config::Video;

/// The outputs of one track.
pub(super) struct Outputs {
    video: Video,
    /// The size of the camera's pictures. `None` before the first.
    size: Option<Size>,
    outputs: Vec<Output>,
}

struct Output {
    receiver: SessionId,
    egress: Egress,
}

/// What was sent of one picture.
pub(super) struct Sent {
    /// The timestamp of the picture, for its first receiver.
    pub(super) timestamp: MediaTime,
    /// The bytes for all receivers.
    pub(super) bytes: usize,
}

impl Outputs {
    pub(super) fn new(video: Video) -> Self {
        Self { video, size: None, outputs: Vec::new() }
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

    /// Compresses a picture for each receiver that can take one, and sends it. A track without
    /// receivers counts as one that has sent its picture.
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
        let mut sent: Option<Sent> = None;
        for Output { receiver, egress } in self.outputs.iter_mut().filter(|output| !output.egress.is_congested(now)) {
            let Some(frame) = egress.encode(now, picture, capture) else { continue };
            let (timestamp, bytes) = (frame.capture, frame.data.len());
            if outbox.send_to(*receiver, TrackOutput::Frame { frame, arrived }) {
                sent.get_or_insert(Sent { timestamp, bytes: 0 }).bytes += bytes;
            } else {
                // The next frame would build on one that was never sent.
                egress.want_keyframe();
            }
        }
        match sent {
            None if self.outputs.is_empty() => Ok(Sent { timestamp: capture, bytes: 0 }),
            sent => sent.ok_or(DropReason::EncodeFailed),
        }
    }

    /// Makes the encoders take less time than the operator set, or as much. Returns whether that is
    /// a change.
    pub(super) fn set_hurried(&mut self, hurried: bool) -> bool {
        self.outputs.iter_mut().fold(false, |changed, output| output.egress.set_hurried(hurried) || changed)
    }

    /// Returns the size of the camera's pictures.
    pub(super) fn size(&self) -> Option<Size> {
        self.size
    }

    /// Returns the timestamp of the last picture that any receiver got.
    pub(super) fn last_sent(&self) -> Option<MediaTime> {
        self.outputs.iter().filter_map(|output| output.egress.last_sent()).max()
    }

    /// Returns the output to the first receiver, which the statistics describe.
    pub(super) fn first(&self) -> Option<&Egress> {
        self.outputs.first().map(|output| &output.egress)
    }
}
