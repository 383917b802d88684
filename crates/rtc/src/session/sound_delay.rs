//! Lip sync: sound waits for the pictures that were taken with it, which take longer to return.
//! The time is an argument.
//!
//! A receiver takes packets that come later and later for jitter, against which it delays sound by as
//! much again, for a minute. Therefore the RTP time of a packet is that of its departure: a longer
//! delay is a pause of the source, as with DTX, and a shorter one leaves packets out. Changes are
//! made while nobody speaks, otherwise in small steps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Time by which a receiver plays sound later than it shows a picture that came with it: its jitter
/// buffer and its loudspeaker hold sound, while pictures are shown at once.
const RECEIVER_LEAD: Duration = Duration::from_millis(60);
/// Longest time that sound waits.
const MAX_DELAY: Duration = Duration::from_millis(1500);
/// Packets that wait at most: 2.5 s of the shortest that browsers send, 10 ms.
const MAX_PACKETS: usize = 256;
/// Time over which the ages of pictures are compared.
const WINDOW: Duration = Duration::from_millis(700);
/// Time after the last picture from which on sound does not wait.
const PICTURE_TIMEOUT: Duration = Duration::from_secs(3);
/// Ages of pictures that are kept at most.
const MAX_AGES: usize = 64;
/// The delay becomes longer if it is this much too short.
const TOO_SHORT: Duration = Duration::from_millis(20);
/// The delay becomes shorter if it is this much too long.
const TOO_LONG: Duration = Duration::from_millis(30);
/// Largest change while somebody speaks, and the time between two such changes.
const STEP: Duration = Duration::from_millis(20);
const STEP_INTERVAL: Duration = Duration::from_millis(100);

/// A packet of sound that is held.
pub(super) trait Held {
    /// When it came.
    fn arrived(&self) -> Instant;
    /// Its time in the stream, from any beginning.
    fn time(&self) -> Duration;
    /// It may contain speech.
    fn is_voice(&self) -> bool;
}

/// Packets that wait, and for how long.
#[derive(Debug)]
pub(super) struct SoundDelay<T> {
    packets: VecDeque<T>,
    ages: VecDeque<Picture>,
    delay: Duration,
    /// When the delay was last changed while somebody spoke.
    stepped: Option<Instant>,
}

/// A picture that was sent.
#[derive(Debug, Clone, Copy)]
struct Picture {
    sent: Instant,
    /// Time since its arrival.
    age: Duration,
}

/// The next thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// Nothing is due.
    Wait,
    /// The packet leaves, with an RTP time that is later by this much.
    Send(T, Duration),
    /// The packet is left out, because pictures have become quicker.
    LeaveOut,
}

impl<T: Held> SoundDelay<T> {
    pub(super) fn new() -> Self {
        Self { packets: VecDeque::new(), ages: VecDeque::new(), delay: Duration::ZERO, stepped: None }
    }

    /// Notes a picture that is sent at `now`.
    pub(super) fn on_picture(&mut self, now: Instant, arrived: Instant) {
        if self.ages.len() == MAX_AGES {
            self.ages.pop_front();
        }
        self.ages.push_back(Picture { sent: now, age: now.saturating_duration_since(arrived) });
    }

    /// Takes a packet. Returns false if the oldest one was dropped, because too many wait.
    pub(super) fn push(&mut self, packet: T) -> bool {
        let is_full = self.packets.len() == MAX_PACKETS;
        if is_full {
            self.packets.pop_front();
        }
        self.packets.push_back(packet);
        !is_full
    }

    /// Returns when [`SoundDelay::next`] will return a packet.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.packets.front().map(|packet| packet.arrived() + self.delay)
    }

    /// Returns what is done at `now`.
    pub(super) fn next(&mut self, now: Instant) -> Next<T> {
        if self.next_due().is_none_or(|due| due > now) {
            return Next::Wait;
        }
        let wanted = self.wanted(now);
        let may_step = self.stepped.is_none_or(|at| now.saturating_duration_since(at) >= STEP_INTERVAL);
        let Some(packet) = self.packets.front() else { return Next::Wait };
        let is_voice = packet.is_voice();
        if !is_voice || may_step {
            let (missing, excess) = (wanted.saturating_sub(self.delay), self.delay.saturating_sub(wanted));
            let length = self.packets.get(1).and_then(|after| after.time().checked_sub(packet.time()));
            if missing >= TOO_SHORT {
                self.delay += if is_voice { missing.min(STEP) } else { missing };
                self.stepped = Some(now);
                if self.next_due().is_none_or(|due| due > now) {
                    return Next::Wait;
                }
            } else if let Some(length) = length.filter(|length| excess >= TOO_LONG && *length <= excess) {
                self.delay -= length;
                self.stepped = Some(now);
                self.packets.pop_front();
                return Next::LeaveOut;
            }
        }
        self.packets.pop_front().map_or(Next::Wait, |packet| Next::Send(packet, self.delay))
    }

    /// Returns the median age of the last pictures, less what the receiver adds to the sound.
    fn wanted(&mut self, now: Instant) -> Duration {
        let since = |picture: &Picture| now.saturating_duration_since(picture.sent);
        while self.ages.front().is_some_and(|picture| since(picture) > if self.ages.len() > 1 { WINDOW } else { PICTURE_TIMEOUT }) {
            self.ages.pop_front();
        }
        let mut ages: Vec<_> = self.ages.iter().map(|picture| picture.age).collect();
        if ages.is_empty() {
            return Duration::ZERO;
        }
        let middle = ages.len() / 2;
        let (_, median, _) = ages.select_nth_unstable(middle);
        median.saturating_sub(RECEIVER_LEAD).min(MAX_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PACKET_MS: u32 = 20;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Packet {
        arrived: Instant,
        ms: u32,
        is_voice: bool,
    }

    impl Held for Packet {
        fn arrived(&self) -> Instant {
            self.arrived
        }

        fn time(&self) -> Duration {
            self.ms * MS
        }

        fn is_voice(&self) -> bool {
            self.is_voice
        }
    }

    /// A packet that left, times in milliseconds.
    #[derive(Debug, Clone, Copy)]
    struct Left {
        came: u32,
        left: u32,
        /// Its time in the stream.
        time: u32,
    }

    /// A session whose sound comes every 20 ms, and whose pictures leave every 33 ms.
    struct Bench {
        sound: SoundDelay<Packet>,
        start: Instant,
        ms: u32,
        is_voice: bool,
        left: Vec<Left>,
        left_out: u32,
    }

    impl Bench {
        fn new(is_voice: bool) -> Self {
            // Some pictures are older than the session.
            let start = Instant::now() + Duration::from_secs(100);
            Self { sound: SoundDelay::new(), start, ms: 0, is_voice, left: Vec::new(), left_out: 0 }
        }

        /// Runs for some time. `picture_ms`: the time that pictures take; `None` without pictures.
        fn run(&mut self, ms: u32, picture_ms: Option<u32>) -> &mut Self {
            for _ in 0..ms {
                let now = self.start + self.ms * MS;
                if let Some(age) = picture_ms.filter(|_| self.ms.is_multiple_of(33)) {
                    self.sound.on_picture(now, now - age * MS);
                }
                if self.ms.is_multiple_of(PACKET_MS) {
                    assert!(self.sound.push(Packet { arrived: now, ms: self.ms, is_voice: self.is_voice }));
                }
                loop {
                    match self.sound.next(now) {
                        Next::Wait => break,
                        Next::LeaveOut => self.left_out += 1,
                        Next::Send(packet, later) => {
                            let time = packet.ms + u32::try_from(later.as_millis()).unwrap();
                            self.left.push(Left { came: packet.ms, left: self.ms, time });
                        }
                    }
                }
                assert!(self.sound.next_due().is_none_or(|due| due > now));
                self.ms += 1;
            }
            self
        }

        /// Returns how long the last packet waited, in milliseconds.
        fn waited(&self) -> u32 {
            self.left.last().map(|last| last.left - last.came).expect("sound has left")
        }
    }

    #[test]
    fn sound_leaves_at_once_without_pictures_or_with_pictures_that_are_as_quick_as_the_receiver() {
        for picture_ms in [None, Some(0), Some(60)] {
            let mut bench = Bench::new(true);
            assert_eq!(bench.run(3000, picture_ms).left.len(), 150);
            assert!(bench.left.iter().all(|packet| packet.left == packet.came && packet.time == packet.came), "{picture_ms:?}");
        }
    }

    #[test]
    fn a_receiver_sees_no_jitter_while_the_delay_follows_the_pictures() {
        for is_voice in [false, true] {
            let mut bench = Bench::new(is_voice);
            for (picture_ms, wanted) in [(400, 340), (100, 40), (700, 640)] {
                bench.run(8000, Some(picture_ms));
                let off = i64::from(bench.waited()) - wanted;
                assert!((-20..=30).contains(&off), "voice {is_voice}, pictures after {picture_ms} ms: {off}");
            }
            assert!(bench.left_out >= 13, "{}", bench.left_out);
            for pair in bench.left.windows(2) {
                let (before, after) = (pair[0], pair[1]);
                assert!(after.came > before.came && after.time > before.time, "in order: {before:?} {after:?}");
                let (took, lasted) = (after.left - before.left, after.time - before.time);
                assert!(took.abs_diff(lasted) <= 1, "it leaves when its time has come: {before:?} {after:?}");
                assert!(!is_voice || lasted <= 2 * PACKET_MS, "{before:?} {after:?}");
            }
        }
    }

    #[test]
    fn in_a_pause_of_speech_the_delay_follows_at_once() {
        let mut bench = Bench::new(false);
        assert_eq!(bench.run(1000, Some(400)).waited(), 340);
        assert_eq!(bench.run(1000, Some(100)).waited(), 60, "20 ms too much are left");
    }

    #[test]
    fn sound_does_not_follow_small_changes() {
        let mut bench = Bench::new(false);
        let before = bench.run(2000, Some(200)).waited();
        assert_eq!(bench.run(2000, Some(215)).run(2000, Some(180)).waited(), before);
    }

    #[test]
    fn sound_stops_to_wait_when_pictures_stop() {
        let mut bench = Bench::new(true);
        let before = bench.run(5000, Some(300)).waited();
        assert_eq!(bench.run(2500, None).waited(), before, "the next picture may come");
        bench.run(5000, None);
        assert!(bench.waited() < 30, "{}", bench.waited());
    }

    #[test]
    fn sound_waits_for_a_limited_time_in_a_limited_number() {
        let mut bench = Bench::new(false);
        assert_eq!(bench.run(20_000, Some(9000)).waited(), 1500);
        let arrived = bench.start + bench.ms * MS;
        let dropped = (0..1000).filter(|ms| !bench.sound.push(Packet { arrived, ms: *ms, is_voice: true })).count();
        assert_eq!((bench.sound.packets.len(), dropped > 700), (MAX_PACKETS, true));
    }
}
