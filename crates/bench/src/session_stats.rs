//! Measurement of one session: which frames came back, when and in which order, and what their
//! pictures show.
//!
//! It has no clock, no socket and no codec: the session reports sent and received frames, and the
//! decoders report what they read. Frames are identified by the RTP timestamp if the gateway keeps
//! it, and otherwise by the number drawn on the picture.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use super::interval_stats::IntervalStats;

/// Method by which received frames are identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Numbering {
    /// No frame has been identified yet.
    #[default]
    Unknown,
    /// The gateway keeps the RTP timestamps that were sent.
    Timestamp,
    /// The gateway assigns new timestamps, so frames are identified by the number on the decoded
    /// picture.
    Picture,
}

/// Result of a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The frame can be shown.
    Shown {
        /// Index of the source frame in the clip, if the RTP timestamp identifies it.
        source: Option<u16>,
    },
    /// The frame depends on a lost frame: request a keyframe.
    AwaitsKeyframe,
}

/// Result of decoding a received picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Time at which the frame was complete.
    pub(super) arrived: Instant,
    /// Number on the picture; `None` if unreadable.
    pub(super) number: Option<u16>,
    /// Index of the source frame in the clip, according to the RTP timestamp.
    pub(super) source: Option<u16>,
    /// True if the picture is its unprocessed source; `None` if this cannot be decided.
    pub(super) raw: Option<bool>,
}

/// Measurements of one session, and the state that they need.
pub(super) struct SessionStats {
    sent: Arc<Mutex<SentFrames>>,
    numbering: Numbering,
    /// Number of consecutive frames with unknown timestamps.
    unexplained: u32,
    /// True if the pictures of this session are decoded.
    pub(super) decoded: bool,
    /// Sequence number of the newest frame that came back.
    newest: Option<u64>,
    last_ticks: Option<u32>,
    last_latency: Duration,
    awaits_keyframe: bool,
    /// Time at which the picture last changed.
    moved_at: Instant,
    began: Instant,
    first_picture: Option<Duration>,
    slice: IntervalStats,
}

/// The frames that a session, or the publisher of its room, has sent.
#[derive(Default)]
pub(super) struct SentFrames {
    /// The newest ones, up to [`SENT_KEPT`].
    newest: VecDeque<Sent>,
    next_sequence: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    sequence: u64,
    ticks: u32,
    index: u16,
    at: Instant,
}

/// Number of sent frames that are remembered: more than two minutes at 30 frames per second. Older
/// frames are not matched.
const SENT_KEPT: usize = 4096;
/// Number of frames with unknown timestamps after which the gateway is assumed to assign new ones.
const UNEXPLAINED: u32 = 30;
/// Delay after which a sent frame counts as late.
const LATE: Duration = Duration::from_millis(10);
/// Accepted difference between number and timestamp, because a blend of two consecutive pictures
/// may read as either.
const READING_TOLERANCE: u16 = 1;

impl SessionStats {
    /// Creates the statistics of a new session, which receives the frames in `sent`.
    pub(super) fn new(now: Instant, sent: Arc<Mutex<SentFrames>>, decoded: bool) -> Self {
        Self {
            sent,
            numbering: Numbering::Unknown,
            unexplained: 0,
            decoded,
            newest: None,
            last_ticks: None,
            last_latency: Duration::ZERO,
            awaits_keyframe: true,
            moved_at: now,
            began: now,
            first_picture: None,
            slice: IntervalStats::default(),
        }
    }

    /// Restarts the clock when the session has connected.
    pub(super) fn connected(&mut self, now: Instant) {
        (self.began, self.moved_at) = (now, now);
    }

    /// Records a sent frame with its RTP timestamp and its index in the clip.
    pub(super) fn on_sent(&mut self, now: Instant, due: Instant, ticks: u32, index: u16) {
        self.sent.lock().push(now, ticks, index);
        self.slice.frames.sent += 1;
        self.slice.frames.sent_late += u64::from(now.saturating_duration_since(due) > LATE);
    }

    /// Records a complete received frame. `gap` is true if frames before it were lost.
    pub(super) fn on_frame(&mut self, now: Instant, ticks: u32, keyframe: bool, gap: bool) -> Arrival {
        self.slice.frames.gaps += u64::from(gap);
        self.slice.keyframes.received += u64::from(keyframe);
        self.awaits_keyframe = (self.awaits_keyframe || gap) && !keyframe;
        if self.awaits_keyframe {
            self.slice.frames.undecodable += 1;
            return Arrival::AwaitsKeyframe;
        }
        self.slice.frames.shown += 1;
        self.first_picture.get_or_insert(now.saturating_duration_since(self.began));
        let is_newer = |last: u32| (1..1 << 31).contains(&ticks.wrapping_sub(last));
        if self.last_ticks.is_some_and(|last| !is_newer(last)) {
            self.slice.frames.order_errors += 1;
        }
        self.last_ticks = Some(ticks);
        let sent = self.sent.lock().newest.iter().rev().find(|sent| sent.ticks == ticks).copied();
        let Some(sent) = sent else {
            self.on_unexplained(now);
            return Arrival::Shown { source: None };
        };
        self.numbering = Numbering::Timestamp;
        if self.newest.is_none_or(|newest| sent.sequence > newest) {
            self.on_processed(sent, now);
        } else {
            self.slice.frames.repeats += 1;
        }
        Arrival::Shown { source: Some(sent.index) }
    }

    /// Records the result of decoding a picture.
    pub(super) fn on_reading(&mut self, reading: &Reading) {
        if let Some(raw) = reading.raw {
            self.slice.pictures.judged += 1;
            self.slice.pictures.raw += u64::from(raw);
        }
        let Some(number) = reading.number else {
            self.slice.pictures.unreadable += 1;
            return;
        };
        self.slice.pictures.read += 1;
        match self.numbering {
            Numbering::Timestamp => {
                let is_other = |source: u16| number.abs_diff(source) > READING_TOLERANCE;
                self.slice.pictures.mismatched += u64::from(reading.source.is_some_and(is_other));
            }
            Numbering::Picture => self.on_number(number, reading.arrived),
            Numbering::Unknown => {}
        }
    }

    /// Records a message from the gateway's data channel.
    pub(super) fn on_message(&mut self, message: &Value) {
        if message["type"] == "stats" {
            self.slice.gateway.add_report(message);
        }
    }

    /// Begins a measurement: discards the figures, and restarts the measurement of freezes.
    pub(super) fn begin(&mut self, now: Instant) {
        self.moved_at = self.moved_at.max(now);
        self.slice = IntervalStats::default();
    }

    /// Returns the figures since the last call.
    pub(super) fn take(&mut self, now: Instant) -> IntervalStats {
        let still = now.saturating_duration_since(self.moved_at);
        self.slice.longest_freeze = self.slice.longest_freeze.max(still);
        std::mem::take(&mut self.slice)
    }

    /// Returns the current figures, in which the session itself counts datagrams and keyframe
    /// requests.
    pub(super) fn slice_mut(&mut self) -> &mut IntervalStats {
        &mut self.slice
    }

    /// Returns the method by which frames are identified.
    pub(super) fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// Returns the time from the connection to the first picture that could be shown.
    pub(super) fn first_picture(&self) -> Option<Duration> {
        self.first_picture
    }

    fn on_unexplained(&mut self, now: Instant) {
        match self.numbering {
            // A timestamp between two that were sent marks a repeated picture: the gateway had no
            // new one.
            Numbering::Timestamp => self.slice.frames.repeats += 1,
            Numbering::Unknown => {
                self.unexplained += 1;
                if self.unexplained >= UNEXPLAINED {
                    self.numbering = Numbering::Picture;
                }
            }
            // Without timestamps and numbers, every received picture counts as a new one.
            Numbering::Picture if !self.decoded => self.moved(now),
            Numbering::Picture => {}
        }
    }

    /// Matches a number to a sent frame. A number repeats after one cycle of the clip, or after a
    /// requested keyframe. Among the sent frames with this number, those in order take precedence,
    /// and then the one whose latency is closest to the last.
    fn on_number(&mut self, number: u16, arrived: Instant) {
        let is_back = |sent: &Sent| self.newest.is_some_and(|newest| sent.sequence < newest);
        let nearest = {
            let sent = self.sent.lock();
            let of_number = sent.newest.iter().filter(|sent| sent.index == number && sent.at <= arrived);
            of_number.min_by_key(|sent| (is_back(sent), (arrived - sent.at).abs_diff(self.last_latency))).copied()
        };
        let Some(sent) = nearest else { return };
        match self.newest {
            Some(newest) if sent.sequence == newest => self.slice.frames.repeats += 1,
            Some(newest) if sent.sequence < newest => self.slice.frames.order_errors += 1,
            _ => self.on_processed(sent, arrived),
        }
    }

    fn on_processed(&mut self, sent: Sent, arrived: Instant) {
        self.newest = Some(sent.sequence);
        self.last_latency = arrived.saturating_duration_since(sent.at);
        self.slice.latencies_us.push(u32::try_from(self.last_latency.as_micros()).unwrap_or(u32::MAX));
        self.slice.frames.processed += 1;
        self.moved(arrived);
    }

    fn moved(&mut self, at: Instant) {
        let still = at.saturating_duration_since(self.moved_at);
        self.slice.longest_freeze = self.slice.longest_freeze.max(still);
        self.moved_at = self.moved_at.max(at);
    }
}

impl SentFrames {
    fn push(&mut self, at: Instant, ticks: u32, index: u16) {
        if self.newest.len() == SENT_KEPT {
            self.newest.pop_front();
        }
        self.newest.push_back(Sent { sequence: self.next_sequence, ticks, index, at });
        self.next_sequence += 1;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const FRAME: u32 = 3000;

    /// Sends `count` frames of a clip of 100, one every 33 ms; frame n has the timestamp 7 + 3000
    /// n.
    fn sending(count: u32, decoded: bool) -> (SessionStats, Instant) {
        let now = Instant::now();
        let mut tally = SessionStats::new(now, Arc::default(), decoded);
        for n in 0..count {
            let at = now + 33 * n * MS;
            tally.on_sent(at, at, 7 + FRAME * n, (n % 100) as u16);
        }
        (tally, now)
    }

    fn reading(arrived: Instant, number: Option<u16>) -> Reading {
        Reading { arrived, number, source: None, raw: None }
    }

    #[test]
    fn frames_with_their_timestamps_give_latency_and_are_counted_once() {
        let (mut tally, now) = sending(3, false);
        assert_eq!(tally.on_frame(now + 40 * MS, 7, true, false), Arrival::Shown { source: Some(0) });
        assert_eq!(tally.on_frame(now + 83 * MS, 7 + FRAME, false, false), Arrival::Shown { source: Some(1) });
        assert_eq!(tally.numbering(), Numbering::Timestamp);
        let slice = tally.take(now + 100 * MS);
        assert_eq!(
            (slice.frames.sent, slice.frames.shown, slice.frames.processed, slice.frames.repeats, slice.frames.order_errors),
            (3, 2, 2, 0, 0)
        );
        assert_eq!(slice.latencies_us, [40_000, 50_000]);
    }

    #[test]
    fn held_picture_is_a_repeat_and_does_not_end_a_freeze() {
        let (mut tally, now) = sending(30, false);
        tally.on_frame(now + 40 * MS, 7, true, false);
        tally.on_frame(now + 290 * MS, 8, false, false);
        tally.on_frame(now + 540 * MS, 9, false, false);
        tally.on_frame(now + 640 * MS, 7 + 18 * FRAME, false, false);
        let slice = tally.take(now + 650 * MS);
        assert_eq!((slice.frames.shown, slice.frames.processed, slice.frames.repeats, slice.frames.order_errors), (4, 2, 2, 0));
        assert_eq!(slice.longest_freeze, 600 * MS);
    }

    #[test]
    fn a_freeze_that_lasts_is_seen_before_it_ends() {
        let (mut tally, now) = sending(3, false);
        tally.on_frame(now + 40 * MS, 7, true, false);
        assert_eq!(tally.take(now + 1040 * MS).longest_freeze, 1000 * MS);
        tally.begin(now + 1040 * MS);
        assert_eq!(tally.take(now + 1100 * MS).longest_freeze, 60 * MS);
    }

    #[test]
    fn older_frame_after_a_newer_one_is_an_order_error() {
        let (mut tally, now) = sending(5, false);
        tally.on_frame(now + 200 * MS, 7 + 3 * FRAME, true, false);
        tally.on_frame(now + 201 * MS, 7 + 2 * FRAME, false, false);
        let slice = tally.take(now + 202 * MS);
        assert_eq!((slice.frames.processed, slice.frames.order_errors), (1, 1));
    }

    #[test]
    fn timestamps_that_wrap_round_are_in_order() {
        let now = Instant::now();
        let mut tally = SessionStats::new(now, Arc::default(), false);
        for n in 0..3_u32 {
            tally.on_sent(now, now, (u32::MAX - 3000).wrapping_add(n * FRAME), n as u16);
        }
        for n in 0..3_u32 {
            tally.on_frame(now + 10 * MS, (u32::MAX - 3000).wrapping_add(n * FRAME), n == 0, false);
        }
        let slice = tally.take(now + 10 * MS);
        assert_eq!((slice.frames.processed, slice.frames.order_errors), (3, 0));
    }

    #[test]
    fn after_a_loss_nothing_is_shown_until_a_keyframe() {
        let (mut tally, now) = sending(5, false);
        assert_eq!(tally.on_frame(now + 10 * MS, 7, false, false), Arrival::AwaitsKeyframe, "there was none yet");
        tally.on_frame(now + 40 * MS, 7 + FRAME, true, false);
        assert_eq!(tally.on_frame(now + 110 * MS, 7 + 3 * FRAME, false, true), Arrival::AwaitsKeyframe);
        assert!(matches!(tally.on_frame(now + 140 * MS, 7 + 4 * FRAME, true, false), Arrival::Shown { .. }));
        let slice = tally.take(now + 150 * MS);
        assert_eq!((slice.frames.shown, slice.frames.undecodable, slice.frames.gaps), (2, 2, 1));
    }

    /// Returns a session whose gateway assigns new timestamps, after this has been detected.
    fn restamped(decoded: bool) -> (SessionStats, Instant) {
        let (mut tally, now) = sending(250, decoded);
        for n in 0..UNEXPLAINED {
            tally.on_frame(now + n * MS, 500_000 + n, n == 0, false);
        }
        assert_eq!(tally.numbering(), Numbering::Picture);
        tally.begin(now);
        (tally, now)
    }

    #[test]
    fn where_timestamps_are_new_the_numbers_on_pictures_tell() {
        let (mut tally, now) = restamped(true);
        for (at, number) in [(50, 0), (90, 1), (100, 1), (180, 3), (190, 2)] {
            tally.on_reading(&reading(now + at * MS, Some(number)));
        }
        tally.on_reading(&reading(now + 200 * MS, None));
        let slice = tally.take(now + 200 * MS);
        assert_eq!(slice.latencies_us, [50_000, 57_000, 81_000]);
        assert_eq!((slice.frames.processed, slice.frames.repeats, slice.frames.order_errors, slice.pictures.unreadable), (3, 1, 1, 1));
    }

    #[test]
    fn a_number_that_came_round_again_is_the_frame_whose_latency_is_most_like_the_last() {
        let (mut tally, now) = restamped(true);
        for n in 0..230_u32 {
            tally.on_reading(&reading(now + (33 * n + 400) * MS, Some((n % 100) as u16)));
        }
        let slice = tally.take(now);
        assert_eq!((slice.frames.processed, slice.frames.order_errors), (230, 0));
        assert!(slice.latencies_us.iter().all(|us| *us == 400_000));
    }

    #[test]
    fn without_timestamps_and_numbers_a_frame_that_comes_ends_a_freeze() {
        let (mut tally, now) = restamped(false);
        tally.on_frame(now + 500 * MS, 600_000, false, false);
        tally.on_frame(now + 600 * MS, 603_000, false, false);
        let slice = tally.take(now + 600 * MS);
        assert_eq!((slice.frames.shown, slice.frames.processed), (2, 0));
        assert_eq!(slice.longest_freeze, 500 * MS);
    }

    #[test]
    fn picture_under_the_timestamp_of_another_is_noticed() {
        let (mut tally, now) = sending(20, true);
        tally.on_frame(now + 500 * MS, 7 + 9 * FRAME, true, false);
        for (number, raw) in [(9, false), (10, true), (12, false)] {
            let reading = Reading { arrived: now, number: Some(number), source: Some(9), raw: Some(raw) };
            tally.on_reading(&reading);
        }
        let slice = tally.take(now + 500 * MS);
        assert_eq!((slice.pictures.read, slice.pictures.mismatched, slice.pictures.judged, slice.pictures.raw), (3, 1, 3, 1));
    }

    #[test]
    fn what_the_gateway_says_is_added_up() {
        let (mut tally, now) = sending(1, false);
        for (fps, queue) in [(30.0, 2.0), (20.0, 4.0)] {
            tally.on_message(&json!({"type": "stats", "fps_out": fps, "worker_utilisation": 0.5, "stages_ms": {"queue": queue}, "dropped": {"replaced": 3}}));
        }
        tally.on_message(&json!({"type": "ack"}));
        tally.on_message(&json!({"type": "stats", "stages_ms": 3, "dropped": ["x"]}));
        let gateway = tally.take(now).gateway;
        assert_eq!((gateway.reports, gateway.fps_out, gateway.utilisation), (3, 50.0, 1.0));
        assert_eq!(gateway.stages().collect::<Vec<_>>(), [("queue", 3.0)]);
        assert_eq!(gateway.dropped["replaced"], 6);
    }
}
