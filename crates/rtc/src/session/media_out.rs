//! The media that a session sends: frames one after another, retransmissions and duplicates. Frames
//! that wait can still be dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_pipeline::EncodedFrame;
use str0m::media::Frequency;
use str0m::net::Transmit;
use str0m::stats::MediaEgressStats;
use str0m::{Rtc, RtcError};

use super::audio::HeldSound;
use super::sound_delay::SoundDelay;
use super::timeline::Timeline;
use super::video_line::{MAX_RESENT_SHARE, VideoLine};
use crate::reception::Resent;
use crate::redundancy::Redundancy;
use crate::retransmission::Retransmission;
use ooblex_gateway::track::Backlog;

/// Frames that wait for the frames before them. The track skips pictures long before the queue is
/// full.
const MAX_QUEUED_FRAMES: usize = 16;

/// The time after a request for a keyframe in which others are ignored. The inbox of the track is
/// shared by all its receivers.
const KEYFRAME_REQUEST_INTERVAL: Duration = Duration::from_millis(100);

/// The state of the outgoing media of one session.
pub(super) struct MediaOut {
    queue: FrameQueue,
    /// The sound that waits for the frames.
    pub(super) sound: SoundDelay<HeldSound>,
    backlog: Arc<Backlog>,
    timeline: Timeline,
    resent: Resent,
    pub(super) redundancy: Redundancy,
    /// Retransmissions on the media SSRC; `None` if the library makes them, on an RTX stream.
    pub(super) retransmission: Option<Retransmission>,
    /// When the last request for a keyframe was admitted.
    keyframe_asked_at: Option<Instant>,
}

/// Shares of the bytes that were sent between two reports, 0..=1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SentShares {
    /// Bytes that the browser had requested again.
    pub(super) resent: f32,
    /// Bytes of duplicates, which the browser had not requested.
    pub(super) duplicated: f32,
}

impl MediaOut {
    pub(super) fn new() -> Self {
        Self {
            queue: FrameQueue::default(),
            sound: SoundDelay::new(),
            backlog: Arc::default(),
            timeline: Timeline::default(),
            resent: Resent::default(),
            redundancy: Redundancy::new(MAX_RESENT_SHARE),
            retransmission: None,
            keyframe_asked_at: None,
        }
    }

    /// Tells whether a request of the receiver for a keyframe is handed on.
    pub(super) fn admits_keyframe_request(&mut self, now: Instant) -> bool {
        let is_admitted = self.keyframe_asked_at.is_none_or(|at| now.saturating_duration_since(at) >= KEYFRAME_REQUEST_INTERVAL);
        if is_admitted {
            self.keyframe_asked_at = Some(now);
        }
        is_admitted
    }

    /// Queues a frame. Returns false if it was dropped because it depends on a dropped frame; the
    /// track has to send a keyframe then.
    pub(super) fn push(&mut self, frame: EncodedFrame, arrived: Instant) -> bool {
        self.queue.push(QueuedFrame { frame, arrived })
    }

    /// Hands the next frame to the endpoint if that has sent all others. Returns false if it did
    /// not.
    ///
    /// # Errors
    /// When the WebRTC library fails.
    pub(super) fn write_next(&mut self, now: Instant, rtc: &mut Rtc, video: Option<VideoLine>) -> Result<bool, RtcError> {
        if self.queue.is_empty() || unsent_bytes(rtc, video) > 0 {
            return Ok(false);
        }
        let Some(QueuedFrame { frame, arrived }) = self.queue.pop() else { return Ok(false) };
        self.sound.on_picture(now, arrived);
        let Some((video, writer)) = video.and_then(|video| Some((video, rtc.writer(video.mid)?))) else { return Ok(true) };
        self.resent.on_written(frame.data.len());
        let time = self.timeline.place(arrived, str0m::media::MediaTime::new(frame.capture.0, Frequency::NINETY_KHZ));
        // The browser shows each frame as soon as it is decoded, because a delay disturbs more than
        // a frame that now and then comes late.
        let no_delay = str0m::media::MediaTime::ZERO;
        writer.playout_delay(no_delay, no_delay).write(video.payload_types.media, arrived, time, frame.data)?;
        Ok(true)
    }

    /// Takes note of a datagram that the endpoint sends.
    pub(super) fn on_sent(&mut self, now: Instant, transmit: &Transmit) {
        self.redundancy.on_sent(now, transmit);
        if let Some(retransmission) = &mut self.retransmission {
            retransmission.on_sent(now, transmit);
        }
    }

    /// Returns the next packet that is sent again: a retransmission on the media SSRC, or a
    /// duplicate that is due.
    pub(super) fn next_again(&mut self, now: Instant) -> Option<Transmit> {
        while let Some((retransmission, transmit)) = self.retransmission.as_mut().and_then(|line| line.next().map(|again| (line, again))) {
            if self.redundancy.admits_resent(now, &transmit) {
                retransmission.on_resent(&transmit);
                return Some(transmit);
            }
        }
        self.redundancy.due(now)
    }

    /// Adds the retransmissions that the library does not count, since it does not make them.
    pub(super) fn complete(&self, stats: &mut MediaEgressStats) {
        if let Some(resent) = self.retransmission.as_ref().map(Retransmission::resent) {
            stats.packets += resent.packets;
            stats.bytes += resent.bytes;
        }
    }

    /// Drops the frames that wait, and stops duplicates until the next report of losses.
    pub(super) fn drop_waiting(&mut self) {
        self.queue.clear();
        self.redundancy.stop();
    }

    /// The frames come from another track from now on, whose first one is a keyframe.
    pub(super) fn on_other_track(&mut self) {
        self.queue.clear();
        self.backlog = Arc::default();
        self.timeline.on_other_source();
    }

    /// Returns the backlog, which the track reads.
    pub(super) fn backlog(&self) -> Arc<Backlog> {
        self.backlog.clone()
    }

    /// Tells the track how many bytes of frames wait here or in the endpoint.
    pub(super) fn report_backlog(&self, rtc: &mut Rtc, video: Option<VideoLine>) {
        self.backlog.set(self.queue.bytes() + unsent_bytes(rtc, video));
    }

    /// Takes a report of the browser. `sent_bytes`: bytes sent since the beginning, without
    /// duplicates. `lost`: share of packets lost since the last report, if it is known. Returns the
    /// shares since the last report.
    pub(super) fn on_report(&mut self, sent_bytes: u64, lost: Option<f32>) -> SentShares {
        let resent = self.resent.share(sent_bytes);
        self.redundancy.on_loss(lost.unwrap_or(0.0).max(resent));
        SentShares { resent, duplicated: self.redundancy.share(sent_bytes) }
    }
}

fn unsent_bytes(rtc: &mut Rtc, video: Option<VideoLine>) -> usize {
    video.map_or(0, |video| video.unsent_bytes(rtc))
}

/// The frames that wait for those before them.
#[derive(Debug, Default)]
struct FrameQueue {
    frames: VecDeque<QueuedFrame>,
    /// Frames were dropped, and no keyframe has come since.
    needs_keyframe: bool,
}

#[derive(Debug)]
struct QueuedFrame {
    frame: EncodedFrame,
    /// The arrival of the last packet of the frame's source.
    arrived: Instant,
}

impl FrameQueue {
    /// Adds a frame; a full queue is cleared before. Returns false if the frame was dropped because
    /// it depends on a frame that never left. The browser could not tell that from the packets.
    fn push(&mut self, queued: QueuedFrame) -> bool {
        if self.frames.len() == MAX_QUEUED_FRAMES {
            self.clear();
        }
        if self.needs_keyframe && !queued.frame.keyframe {
            return false;
        }
        self.needs_keyframe = false;
        self.frames.push_back(queued);
        true
    }

    fn pop(&mut self) -> Option<QueuedFrame> {
        self.frames.pop_front()
    }

    fn clear(&mut self) {
        self.needs_keyframe |= !self.frames.is_empty();
        self.frames.clear();
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn bytes(&self) -> usize {
        self.frames.iter().map(|queued| queued.frame.data.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use ooblex_pipeline::{MediaTime, VideoCodec};

    use super::*;

    fn frame(number: u64, keyframe: bool) -> QueuedFrame {
        let frame = EncodedFrame { codec: VideoCodec::Vp8, keyframe, capture: MediaTime(number), data: [0; 100].into() };
        QueuedFrame { frame, arrived: Instant::now() }
    }

    fn captures(queue: &mut FrameQueue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|queued| queued.frame.capture.0).collect()
    }

    #[test]
    fn requests_for_keyframes_are_handed_on_ten_times_a_second_at_most() {
        let (mut media_out, start) = (MediaOut::new(), Instant::now());
        let admitted = (0..1000).filter(|ms| media_out.admits_keyframe_request(start + Duration::from_millis(*ms))).collect::<Vec<_>>();
        assert_eq!(admitted, (0..1000).step_by(100).collect::<Vec<_>>());
    }

    #[test]
    fn frames_leave_in_their_order() {
        let mut queue = FrameQueue::default();
        assert!((0..3).all(|n| queue.push(frame(n, n == 0))));
        assert_eq!((queue.bytes(), captures(&mut queue), queue.bytes()), (300, vec![0, 1, 2], 0));
    }

    #[test]
    fn after_a_dropped_frame_only_a_keyframe_is_queued() {
        let mut queue = FrameQueue::default();
        assert!(queue.push(frame(0, true)));
        queue.clear();
        assert!(!queue.push(frame(1, false)) && !queue.push(frame(2, false)));
        assert!(queue.push(frame(3, true)) && queue.push(frame(4, false)));
        assert_eq!(captures(&mut queue), [3, 4]);
    }

    #[test]
    fn empty_queue_that_is_cleared_needs_no_keyframe() {
        let mut queue = FrameQueue::default();
        queue.clear();
        assert!(queue.push(frame(0, false)));
    }

    #[test]
    fn full_queue_is_cleared_for_a_keyframe_and_refuses_other_frames() {
        let mut queue = FrameQueue::default();
        assert!((0..16).all(|n| queue.push(frame(n, n == 0))));
        assert!(!queue.push(frame(16, false)));
        assert!(queue.is_empty());
        assert!(queue.push(frame(17, true)));
        assert_eq!(captures(&mut queue), [17]);
    }

    #[test]
    fn report_tells_the_share_that_was_requested_again() {
        let mut media = MediaOut::new();
        assert_eq!(media.on_report(0, None), SentShares { resent: 0.0, duplicated: 0.0 });
        media.resent.on_written(10_000);
        let shares = media.on_report(12_750, Some(0.1));
        assert!((shares.resent - 0.2).abs() < 0.01 && shares.duplicated == 0.0, "{shares:?}");
    }
}
