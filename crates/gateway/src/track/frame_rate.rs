//! The frame-rate controller of a track: how many decoded frames a second are kept when the machine
//! is short of cores.
//!
//! It is an AIMD controller (additive increase, multiplicative decrease). Every frame has to be
//! decoded, since the next one builds on it; all later steps cost four times as much, and can be
//! saved. The signal is the mean wait of all tracks for permits to compute. Additive steps up and
//! multiplicative steps down bring all tracks to the same rate, so the frames that are kept are
//! fresh and evenly spaced. When hardly any track has waited for a while, the load has left, and
//! all rates return within two seconds. A second limit follows the track's share of the cores.

use std::time::{Duration, Instant};

use crate::cpu::Waits;

/// The lowest rate of a track, in frames a second.
const MIN_FRAME_RATE_FPS: f64 = 2.0;
/// The highest rate, in frames a second: above that of any camera, so it stands for "all frames".
const MAX_FRAME_RATE_FPS: f64 = 60.0;
/// A mean lateness of permits above this lowers the rate.
const LATENESS_LIMIT: Duration = Duration::from_millis(10);
/// A mean lateness of permits above this lowers the rate fast.
const SEVERE_LATENESS_LIMIT: Duration = Duration::from_millis(40);
/// The factor on the rate for each second of late permits.
const STEP_DOWN_RATIO: f64 = 0.6;
/// The factor on the rate for each second of severely late permits.
const FAST_STEP_DOWN_RATIO: f64 = 0.25;
/// The increase of the rate for each second without late permits, in frames a second. It is small
/// because all tracks increase at the same time: thirty tracks that add five each would double the
/// load before the first permit is late.
const STEP_UP_FPS: f64 = 1.0;
/// A mean wait for permits of at most this counts as no wait.
const CALM_WAIT: Duration = Duration::from_millis(2);
/// The load counts as gone when no track has waited for permits for this time.
const CALM_TIME: Duration = Duration::from_millis(300);
/// The factor on the rate for each second after the load has gone.
const FAST_STEP_UP_RATIO: f64 = 7.0;
/// The smallest factor on the share's limit in one report, where far more than the share was used.
const MIN_SHARE_FACTOR: f64 = 0.5;
/// The largest factor on the share's limit in one report, where less than the share was used.
const MAX_SHARE_FACTOR: f64 = 1.25;
/// A share throttles a track when it is enough for less than this fraction of its frames.
const THROTTLED_RATIO: f64 = 0.8;
/// Each permit weighs the time since the last one, up to this.
const MAX_PERMIT_INTERVAL: Duration = Duration::from_millis(100);
/// A frame may arrive earlier than the rate says by this fraction of the interval, since cameras
/// are not exact.
const INTERVAL_TOLERANCE: f64 = 0.5;

/// The frame-rate controller of one track. Times are arguments; feed it with [`Self::on_permit`]
/// and [`Self::on_share`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FrameRateController {
    /// Frames a second that the load of the machine allows.
    rate_fps: f64,
    /// Frames a second that the track's share of the cores allows.
    share_fps: f64,
    /// The time of the last permit.
    last_permit: Option<Instant>,
    /// The time for which no track has waited for permits.
    calm: Duration,
    /// The arrival time from which the next frame is kept.
    due: Option<Instant>,
}

impl FrameRateController {
    /// Starts without limits.
    pub(super) fn new() -> Self {
        Self { rate_fps: MAX_FRAME_RATE_FPS, share_fps: MAX_FRAME_RATE_FPS, last_permit: None, calm: Duration::ZERO, due: None }
    }

    /// Notes a permit to decode, at a time when permits have these mean waits.
    pub(super) fn on_permit(&mut self, now: Instant, waits: Waits) {
        let last = self.last_permit.replace(now).unwrap_or(now);
        let since = now.duration_since(last).min(MAX_PERMIT_INTERVAL);
        self.calm = if waits.waited > CALM_WAIT { Duration::ZERO } else { self.calm + since };
        let seconds = since.as_secs_f64();
        self.rate_fps = match waits.late {
            late if late > SEVERE_LATENESS_LIMIT => self.rate_fps * FAST_STEP_DOWN_RATIO.powf(seconds),
            late if late > LATENESS_LIMIT => self.rate_fps * STEP_DOWN_RATIO.powf(seconds),
            _ if self.calm > CALM_TIME => self.rate_fps * FAST_STEP_UP_RATIO.powf(seconds),
            _ => self.rate_fps + STEP_UP_FPS * seconds,
        };
        self.rate_fps = self.rate_fps.clamp(MIN_FRAME_RATE_FPS, MAX_FRAME_RATE_FPS);
    }

    /// Notes the cores that the track has used in the last second and may use, and the frames a
    /// second that were kept.
    pub(super) fn on_share(&mut self, used: f64, allowed: f64, kept_fps: f64) {
        let factor = (allowed / used.max(f64::EPSILON)).clamp(MIN_SHARE_FACTOR, MAX_SHARE_FACTOR);
        // A track that uses far more than its share starts from the rate that it had, since its
        // limit may be far above that.
        let share_fps = if factor < THROTTLED_RATIO { self.share_fps.min(kept_fps) } else { self.share_fps };
        self.share_fps = (share_fps * factor).clamp(MIN_FRAME_RATE_FPS, MAX_FRAME_RATE_FPS);
    }

    /// Tells whether the share of the cores limits the track, and not the lateness of permits.
    /// `camera_fps` is the rate of its camera. A track that `was_throttled` stays so until its
    /// share is enough for all frames (hysteresis).
    pub(super) fn is_throttled(&self, camera_fps: f64, was_throttled: bool) -> bool {
        self.share_fps < self.rate_fps.min(camera_fps) * if was_throttled { 1.0 } else { THROTTLED_RATIO }
    }

    /// Returns the arrival time from which frames are kept. `None`: the first one is.
    pub(super) fn due(&self) -> Option<Instant> {
        let slack = self.interval().mul_f64(INTERVAL_TOLERANCE);
        self.due.map(|due| due.checked_sub(slack).unwrap_or(due))
    }

    /// Decides whether a decoded frame that arrived at this time is kept.
    pub(super) fn keeps(&mut self, arrived: Instant) -> bool {
        if self.rate_fps.min(self.share_fps) >= MAX_FRAME_RATE_FPS {
            self.due = None;
            return true;
        }
        let (due, interval) = (self.due(), self.interval());
        if due.is_some_and(|due| arrived < due) {
            return false;
        }
        // The spacing is even, without making up for frames that did not arrive.
        let due = self.due.map_or(arrived, |due| due.max(arrived.checked_sub(interval.mul_f64(INTERVAL_TOLERANCE)).unwrap_or(arrived)));
        self.due = Some(due + interval);
        true
    }

    /// Returns the time between two kept frames.
    fn interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate_fps.min(self.share_fps))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use super::*;
    use crate::cpu::MeanWait;

    const FRAME: Duration = Duration::from_micros(33_333);

    /// Returns which frames are kept of a camera of 30 frames a second, when each permit comes
    /// after `waited`.
    fn kept(controller: &mut FrameRateController, start: Instant, frames: u32, waited: Duration) -> Vec<u32> {
        let is_kept = |at: &u32| {
            controller.on_permit(start + FRAME * *at, Waits { waited, late: waited });
            controller.keeps(start + FRAME * *at)
        };
        (0..frames).filter(is_kept).collect()
    }

    #[test]
    fn a_track_that_needs_far_more_than_its_share_is_throttled_until_the_share_is_enough() {
        let mut controller = FrameRateController::new();
        (0..8).for_each(|_| controller.on_share(0.6, 0.55, 60.0));
        assert!(controller.is_throttled(60.0, false) && !controller.is_throttled(30.0, false));
        (0..4).for_each(|_| controller.on_share(0.4, 0.55, 30.0));
        assert!(!controller.is_throttled(60.0, true));
    }

    #[test]
    fn a_track_with_late_permits_is_not_throttled_by_its_share() {
        let (mut controller, start) = (FrameRateController::new(), Instant::now());
        kept(&mut controller, start, 90, Duration::from_millis(30));
        (0..4).for_each(|_| controller.on_share(0.2, 0.18, 10.0));
        assert!(!controller.is_throttled(30.0, false));
    }

    #[test]
    fn all_frames_are_kept_while_there_are_cores() {
        let (mut controller, start) = (FrameRateController::new(), Instant::now());
        assert_eq!(kept(&mut controller, start, 900, Duration::from_millis(3)).len(), 900);
    }

    #[test]
    fn frames_that_arrive_together_are_all_kept() {
        let (mut controller, start) = (FrameRateController::new(), Instant::now());
        // The network has held them up: four arrive at a time.
        let is_kept = |at: &u32| controller.keeps(start + 4 * FRAME * (at / 4));
        assert_eq!((0..600u32).filter(is_kept).count(), 600);
    }

    #[test]
    fn a_frame_that_arrived_before_it_was_due_is_not_kept_however_late_it_is_decoded() {
        let (mut controller, start) = (FrameRateController::new(), Instant::now());
        kept(&mut controller, start, 300, Duration::from_millis(200));
        let due = controller.due().expect("two frames a second");
        assert!(!controller.keeps(due - Duration::from_millis(1)) && controller.keeps(due));
    }

    #[test]
    fn few_frames_are_kept_without_cores_evenly_spaced_and_all_again_soon() {
        let (mut controller, start) = (FrameRateController::new(), Instant::now());
        let short = kept(&mut controller, start, 900, Duration::from_millis(200));
        let late: Vec<_> = short.iter().filter(|at| **at >= 300).collect();
        assert_eq!(late.len(), 40, "two a second for twenty seconds");
        assert!(late.windows(2).all(|pair| (14..=16).contains(&(pair[1] - pair[0]))), "{late:?}");
        let again = kept(&mut controller, start + FRAME * 900, 900, Duration::from_millis(1));
        assert_eq!(again.iter().filter(|at| **at >= 60).count(), 840, "all after two seconds");
    }

    #[test]
    fn the_rate_climbs_slowly_while_permits_are_waited_for_at_all() {
        let (mut controller, start) = (FrameRateController { rate_fps: 4.0, ..FrameRateController::new() }, Instant::now());
        kept(&mut controller, start, 120, Duration::from_millis(4));
        assert!((7.5..8.5).contains(&controller.rate_fps), "{}", controller.rate_fps);
    }

    #[test]
    fn a_track_above_its_share_keeps_as_many_frames_as_the_share_is_enough_for() {
        let (mut controller, mut start) = (FrameRateController::new(), Instant::now());
        let mut second = |allowed: f64| {
            let frames = kept(&mut controller, start, 30, Duration::ZERO).len() as f64;
            start += FRAME * 30;
            // All have to be decoded.
            controller.on_share(0.2 + 0.04 * frames, allowed, frames);
            frames
        };
        assert_eq!(second(0.6) as u32, 30);
        assert!(second(0.6) <= 20.0, "far fewer already in the next second");
        (0..8).for_each(|_| _ = second(0.6));
        let held: Vec<_> = (0..5).map(|_| second(0.6)).collect();
        assert!(held.iter().all(|frames| (8.0..=12.0).contains(frames)), "{held:?}");
        (0..8).for_each(|_| _ = second(f64::INFINITY));
        assert_eq!(second(f64::INFINITY) as u32, 30, "it has all again when the others have left");
    }

    /// Tracks of 30 frames a second that share cores, in simulated time. Every frame is decoded
    /// under a permit, together with all that wait of its track. The frame that is kept is painted
    /// under another permit, after a model has analysed it.
    struct Machine {
        start: Instant,
        free: usize,
        tracks: Vec<Camera>,
        waited: MeanWait,
        late: MeanWait,
        events: BTreeMap<(Duration, u32), Event>,
        count: u32,
        /// Frames that wait to be painted.
        finish: VecDeque<Analysed>,
        /// Frames that were painted.
        painted: Vec<Painted>,
    }

    /// A track, and the arrival times of its frames that wait to be decoded.
    struct Camera {
        controller: FrameRateController,
        arrived: Vec<Duration>,
        busy: bool,
    }

    /// A frame that a model has analysed.
    struct Analysed {
        arrived: Duration,
        track: usize,
    }

    /// A frame that was painted, and its age then.
    struct Painted {
        track: usize,
        at: Duration,
        age: Duration,
    }

    enum Event {
        Arrives { track: usize },
        Decoded { track: usize, kept: Option<Duration> },
        Analysed(Analysed),
        Painted(Analysed),
    }

    impl Machine {
        fn new(cores: usize, tracks: usize) -> Self {
            let mut machine = Self {
                start: Instant::now(),
                free: cores,
                tracks: (0..tracks).map(|_| Camera { controller: FrameRateController::new(), arrived: Vec::new(), busy: false }).collect(),
                waited: MeanWait::default(),
                late: MeanWait::default(),
                events: BTreeMap::new(),
                count: 0,
                finish: VecDeque::new(),
                painted: Vec::new(),
            };
            (0..tracks).for_each(|track| machine.plan(FRAME.mul_f64(track as f64 * 0.618 % 1.0), Event::Arrives { track }));
            machine
        }

        fn plan(&mut self, at: Duration, event: Event) {
            self.count += 1;
            self.events.insert((at, self.count), event);
        }

        /// Varies a duration with this mean, so that it is never the same twice in a row.
        fn about(&self, ms: f64) -> Duration {
            Duration::from_secs_f64(ms * (0.7 + 0.8 * (f64::from(self.count) * 0.618 % 1.0)) / 1e3)
        }

        /// Runs until then, while the cameras of the first `sending` tracks send.
        fn run(&mut self, until: Duration, sending: usize) {
            while let Some(((now, _), event)) = self.events.pop_first() {
                if now > until {
                    return self.plan(now, event);
                }
                match event {
                    Event::Arrives { track } => {
                        self.plan(now + FRAME, Event::Arrives { track });
                        if track < sending {
                            self.tracks[track].arrived.push(now);
                        }
                    }
                    Event::Decoded { track, kept } => {
                        self.free += 1;
                        self.tracks[track].busy = false;
                        if let Some(arrived) = kept {
                            self.plan(now + self.about(3.0), Event::Analysed(Analysed { arrived, track }));
                        }
                    }
                    Event::Analysed(frame) => self.finish.push_back(frame),
                    Event::Painted(frame) => {
                        self.free += 1;
                        self.painted.push(Painted { track: frame.track, at: now, age: now - frame.arrived });
                    }
                }
                self.hand_out(now);
            }
        }

        /// Returns the track that gets the next permit to decode, and the arrival time from which
        /// its frames are kept. Tracks without such a frame come last.
        fn most_urgent(&self) -> Option<(Duration, usize)> {
            let due = |(at, track): (usize, &Camera)| {
                let (first, last) = (*track.arrived.first().filter(|_| !track.busy)?, *track.arrived.last()?);
                let due = track.controller.due().map_or(first, |due| due.saturating_duration_since(self.start));
                Some((last < due, due, at))
            };
            self.tracks.iter().enumerate().filter_map(due).min().map(|(_, due, at)| (due, at))
        }

        fn hand_out(&mut self, now: Duration) {
            while self.free > 0 {
                if let Some(frame) = self.finish.pop_front() {
                    self.free -= 1;
                    self.plan(now + self.about(4.5), Event::Painted(frame));
                } else if let Some((due, track)) = self.most_urgent() {
                    self.free -= 1;
                    let at = self.start + now;
                    let Camera { controller, arrived, busy } = &mut self.tracks[track];
                    self.waited.on_waited(at, now - arrived[0]);
                    if let Some(first) = arrived.iter().find(|arrived| **arrived >= due) {
                        self.late.on_waited(at, now - *first);
                    }
                    controller.on_permit(at, Waits { waited: self.waited.mean(), late: self.late.mean() });
                    let newest = arrived.last().copied().filter(|arrived| controller.keeps(self.start + *arrived));
                    let frames = std::mem::take(arrived).len();
                    *busy = true;
                    self.plan(now + self.about(0.9 * frames as f64), Event::Decoded { track, kept: newest });
                } else {
                    return;
                }
            }
        }

        /// Returns the frames that a track has shown in each of these seconds.
        fn frames(&self, track: usize, seconds: std::ops::Range<u64>) -> Vec<usize> {
            let mine = |second: &u64| self.painted.iter().filter(|frame| frame.track == track && frame.at.as_secs() == *second).count();
            seconds.map(|second| mine(&second)).collect()
        }
    }

    #[test]
    fn three_times_the_load_is_shared_evenly_without_oscillation() {
        let mut machine = Machine::new(2, 33);
        machine.tracks.iter_mut().zip([60.0, 4.0, 25.0].into_iter().cycle()).for_each(|(track, rate)| track.controller.rate_fps = rate);
        machine.run(Duration::from_secs(40), 33);
        let each: Vec<usize> = (0..33).map(|track| machine.frames(track, 10..40).iter().sum()).collect();
        let (least, most, all) = (each.iter().min(), each.iter().max(), each.iter().sum::<usize>());
        assert!(most < least.map(|least| least + least / 3).as_ref(), "{each:?}");
        assert!(all > 30 * 150, "{all}: of the 2 cores 1.1 are left for frames of 5 ms");
        let mut ages: Vec<_> = machine.painted.iter().filter(|frame| frame.at.as_secs() >= 10).map(|frame| frame.age).collect();
        ages.sort();
        let (p50, p95) = (ages[ages.len() / 2], ages[ages.len() * 95 / 100]);
        println!("{all} {each:?} {p50:?} {p95:?}");
        assert!(p95 < Duration::from_millis(45), "p50 {p50:?}, p95 {p95:?}: nothing swings");
    }

    #[test]
    fn who_stays_when_the_load_leaves_has_all_frames_in_two_seconds() {
        let mut machine = Machine::new(2, 33);
        machine.run(Duration::from_secs(20), 33);
        machine.run(Duration::from_secs(30), 1);
        let frames = machine.frames(0, 0..30);
        assert!(frames[10..20].iter().all(|frames| *frames < 12), "{frames:?}");
        assert!(frames[22..].iter().all(|frames| *frames >= 29), "{frames:?}");
    }
}
