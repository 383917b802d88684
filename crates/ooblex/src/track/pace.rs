//! How many of a track's frames go on after they are decoded, when the machine is short of cores.
//!
//! Every frame has to be decoded, since the next one builds on it; what it costs from there on is four times as much, and can be saved. How
//! long tracks wait for their turns tells how short cores are. So each takes more frames as long as all wait little, and fewer when they
//! wait long, by steps that bring all tracks to the same rate: what goes on is fresh, and evenly spaced. When hardly any waits for a while,
//! the load has left, and all are back within two seconds.

use std::time::{Duration, Instant};

use crate::cpu::Waits;

/// Frames a second that every track may have, and the most that a camera sends.
const LEAST: f64 = 2.0;
const MOST: f64 = 60.0;
/// Turns come late when they come so long after there was a frame that goes on, on average.
const LATE: Duration = Duration::from_millis(10);
/// And this is far too late.
const VERY_LATE: Duration = Duration::from_millis(40);
/// What becomes of the rate in a second of late turns, and of very late ones.
const DOWN: f64 = 0.6;
const FAST_DOWN: f64 = 0.25;
/// Frames a second that are added to it in a second of others. Where all fall by a factor and rise by a sum, all come to the same. It is
/// little, because all tracks add it at the same time: thirty that add five each have doubled the load before the first turn is late.
const UP: f64 = 1.0;
/// Turns are hardly waited for when it is no longer than this.
const HARDLY: Duration = Duration::from_millis(2);
/// When that has lasted for so long, the load has left,
const LEFT_AFTER: Duration = Duration::from_millis(300);
/// and this becomes of the rate in a second.
const FAST_UP: f64 = 7.0;
/// What becomes of the most that a share is enough for in a second in which much more of the cores, or less, was used.
const LEAST_FACTOR: f64 = 0.5;
const MOST_FACTOR: f64 = 1.25;
/// Its share holds a track back when it is enough for less than this part of its frames.
const HELD_BACK: f64 = 0.8;
/// Turns count for the time since the last one, but no more than this.
const MOST_AT_ONCE: Duration = Duration::from_millis(100);
/// A frame that comes earlier than the rate says by no more than this part of the interval is in time: cameras are not exact.
const SLACK: f64 = 0.5;

/// The rate of one track.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pace {
    rate: f64,
    /// As many as its share of the cores is enough for.
    most: f64,
    /// The last turn.
    turned: Option<Instant>,
    /// For so long turns have hardly been waited for.
    calm: Duration,
    /// When the next frame goes on.
    due: Option<Instant>,
}

impl Pace {
    /// Nothing is short.
    pub(super) fn new() -> Self {
        Self { rate: MOST, most: MOST, turned: None, calm: Duration::ZERO, due: None }
    }

    /// The track has got its turn on a core, to decode, where turns come like this.
    pub(super) fn on_turn(&mut self, now: Instant, turns: Waits) {
        let last = self.turned.replace(now).unwrap_or(now);
        let since = now.duration_since(last).min(MOST_AT_ONCE);
        self.calm = if turns.waited > HARDLY { Duration::ZERO } else { self.calm + since };
        let seconds = since.as_secs_f64();
        self.rate = match turns.late {
            very if very > VERY_LATE => self.rate * FAST_DOWN.powf(seconds),
            late if late > LATE => self.rate * DOWN.powf(seconds),
            _ if self.calm > LEFT_AFTER => self.rate * FAST_UP.powf(seconds),
            _ => self.rate + UP * seconds,
        };
        self.rate = self.rate.clamp(LEAST, MOST);
    }

    /// In the last second it has used so many cores, and it may use so many. So many frames have gone on.
    pub(super) fn on_share(&mut self, used: f64, allowed: f64, went_on: f64) {
        let factor = (allowed / used.max(f64::EPSILON)).clamp(LEAST_FACTOR, MOST_FACTOR);
        // Whoever uses far too much is to have less from now on than it had, however few that were.
        let most = if factor < HELD_BACK { self.most.min(went_on) } else { self.most };
        self.most = (most * factor).clamp(LEAST, MOST);
    }

    /// Whether its share of the cores is what holds the track back, and not that turns come late: of so many frames a second that its
    /// camera sends. `before`: whether it was.
    pub(super) fn is_held_to_share(&self, camera: f64, before: bool) -> bool {
        self.most < self.rate.min(camera) * if before { 1.0 } else { HELD_BACK }
    }

    /// Frames that come from then on go on; `None`: the first one does.
    pub(super) fn due(&self) -> Option<Instant> {
        let slack = self.interval().mul_f64(SLACK);
        self.due.map(|due| due.checked_sub(slack).unwrap_or(due))
    }

    /// A frame was decoded that came at this time. Whether it goes on.
    pub(super) fn takes(&mut self, came: Instant) -> bool {
        if self.rate.min(self.most) >= MOST {
            self.due = None;
            return true;
        }
        let (due, interval) = (self.due(), self.interval());
        if due.is_some_and(|due| came < due) {
            return false;
        }
        // Evenly, but without making up for frames that did not come.
        let due = self.due.map_or(came, |due| due.max(came.checked_sub(interval.mul_f64(SLACK)).unwrap_or(came)));
        self.due = Some(due + interval);
        true
    }

    fn interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate.min(self.most))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use super::*;
    use crate::cpu::MeanWait;

    const FRAME: Duration = Duration::from_micros(33_333);

    /// Which of so many frames go on, at 30 a second, when each waits for so long.
    fn taken(pace: &mut Pace, start: Instant, frames: u32, waited: Duration) -> Vec<u32> {
        let goes_on = |at: &u32| {
            pace.on_turn(start + FRAME * *at, Waits { waited, late: waited });
            pace.takes(start + FRAME * *at)
        };
        (0..frames).filter(goes_on).collect()
    }

    #[test]
    fn who_needs_much_more_than_its_share_is_held_to_it_until_it_is_enough() {
        let mut pace = Pace::new();
        (0..8).for_each(|_| pace.on_share(0.6, 0.55, 60.0));
        assert!(pace.is_held_to_share(60.0, false) && !pace.is_held_to_share(30.0, false));
        (0..4).for_each(|_| pace.on_share(0.4, 0.55, 30.0));
        assert!(!pace.is_held_to_share(60.0, true));
    }

    #[test]
    fn who_has_no_turns_is_not_held_to_its_share() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        taken(&mut pace, start, 90, Duration::from_millis(30));
        (0..4).for_each(|_| pace.on_share(0.2, 0.18, 10.0));
        assert!(!pace.is_held_to_share(30.0, false));
    }

    #[test]
    fn all_go_on_while_there_are_cores() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        assert_eq!(taken(&mut pace, start, 900, Duration::from_millis(3)).len(), 900);
    }

    #[test]
    fn frames_that_come_together_all_go_on() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        // The way that they came has held them up: four at a time.
        let goes_on = |at: &u32| pace.takes(start + 4 * FRAME * (at / 4));
        assert_eq!((0..600u32).filter(goes_on).count(), 600);
    }

    #[test]
    fn what_came_before_it_was_due_does_not_go_on_however_late_it_is_decoded() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        taken(&mut pace, start, 300, Duration::from_millis(200));
        let due = pace.due().expect("two frames a second");
        assert!(!pace.takes(due - Duration::from_millis(1)) && pace.takes(due));
    }

    #[test]
    fn few_go_on_without_cores_yet_some_and_evenly_and_all_again_soon() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        let short = taken(&mut pace, start, 900, Duration::from_millis(200));
        let late: Vec<_> = short.iter().filter(|at| **at >= 300).collect();
        assert_eq!(late.len(), 40, "two a second for twenty seconds");
        assert!(late.windows(2).all(|pair| (14..=16).contains(&(pair[1] - pair[0]))), "{late:?}");
        let again = taken(&mut pace, start + FRAME * 900, 900, Duration::from_millis(1));
        assert_eq!(again.iter().filter(|at| **at >= 60).count(), 840, "all after two seconds");
    }

    #[test]
    fn it_climbs_slowly_while_turns_are_waited_for_at_all() {
        let (mut pace, start) = (Pace { rate: 4.0, ..Pace::new() }, Instant::now());
        taken(&mut pace, start, 120, Duration::from_millis(4));
        assert!((7.5..8.5).contains(&pace.rate), "{}", pace.rate);
    }

    #[test]
    fn who_uses_more_than_its_share_sends_as_many_frames_on_as_it_is_enough_for() {
        let (mut pace, mut start) = (Pace::new(), Instant::now());
        let mut second = |allowed: f64| {
            let frames = taken(&mut pace, start, 30, Duration::ZERO).len() as f64;
            start += FRAME * 30;
            // All have to be decoded.
            pace.on_share(0.2 + 0.04 * frames, allowed, frames);
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

    /// Tracks of 30 frames a second that share cores, in simulated time: every frame is decoded in a turn, with all that wait of its track,
    /// and the one that goes on is painted in another, after a model had it.
    struct Machine {
        start: Instant,
        free: usize,
        tracks: Vec<Camera>,
        waited: MeanWait,
        late: MeanWait,
        events: BTreeMap<(Duration, u32), Event>,
        count: u32,
        /// Frames that wait to be painted.
        finish: VecDeque<(Duration, usize)>,
        /// Of those that were painted: the track, the time, and the age.
        painted: Vec<(usize, Duration, Duration)>,
    }

    /// A track, and what came of its camera and waits to be decoded.
    struct Camera {
        pace: Pace,
        arrived: Vec<Duration>,
        busy: bool,
    }

    enum Event {
        Arrives(usize),
        Decoded(usize, Option<Duration>),
        Analysed(Duration, usize),
        Painted(Duration, usize),
    }

    impl Machine {
        fn new(cores: usize, tracks: usize) -> Self {
            let mut machine = Self {
                start: Instant::now(),
                free: cores,
                tracks: (0..tracks).map(|_| Camera { pace: Pace::new(), arrived: Vec::new(), busy: false }).collect(),
                waited: MeanWait::default(),
                late: MeanWait::default(),
                events: BTreeMap::new(),
                count: 0,
                finish: VecDeque::new(),
                painted: Vec::new(),
            };
            (0..tracks).for_each(|track| machine.plan(FRAME.mul_f64(track as f64 * 0.618 % 1.0), Event::Arrives(track)));
            machine
        }

        fn plan(&mut self, at: Duration, event: Event) {
            self.count += 1;
            self.events.insert((at, self.count), event);
        }

        /// What takes so long on average takes some more or less: never twice in a row the same.
        fn about(&self, ms: f64) -> Duration {
            Duration::from_secs_f64(ms * (0.7 + 0.8 * (f64::from(self.count) * 0.618 % 1.0)) / 1e3)
        }

        /// Goes on until then, while so many of the tracks have a camera that sends.
        fn run(&mut self, until: Duration, sending: usize) {
            while let Some(((now, _), event)) = self.events.pop_first() {
                if now > until {
                    return self.plan(now, event);
                }
                match event {
                    Event::Arrives(track) => {
                        self.plan(now + FRAME, Event::Arrives(track));
                        if track < sending {
                            self.tracks[track].arrived.push(now);
                        }
                    }
                    Event::Decoded(track, goes_on) => {
                        self.free += 1;
                        self.tracks[track].busy = false;
                        if let Some(came) = goes_on {
                            self.plan(now + self.about(3.0), Event::Analysed(came, track));
                        }
                    }
                    Event::Analysed(came, track) => self.finish.push_back((came, track)),
                    Event::Painted(came, track) => {
                        self.free += 1;
                        self.painted.push((track, now, now - came));
                    }
                }
                self.hand_out(now);
            }
        }

        /// Who is to have the next turn to decode, and from when on its frames go on. Who has none of those comes last.
        fn most_urgent(&self) -> Option<(Duration, usize)> {
            let due = |(at, track): (usize, &Camera)| {
                let (first, last) = (*track.arrived.first().filter(|_| !track.busy)?, *track.arrived.last()?);
                let due = track.pace.due().map_or(first, |due| due.saturating_duration_since(self.start));
                Some((last < due, due, at))
            };
            self.tracks.iter().enumerate().filter_map(due).min().map(|(_, due, at)| (due, at))
        }

        fn hand_out(&mut self, now: Duration) {
            while self.free > 0 {
                if let Some((came, track)) = self.finish.pop_front() {
                    self.free -= 1;
                    self.plan(now + self.about(4.5), Event::Painted(came, track));
                } else if let Some((due, track)) = self.most_urgent() {
                    self.free -= 1;
                    let at = self.start + now;
                    let Camera { pace, arrived, busy } = &mut self.tracks[track];
                    self.waited.on_waited(at, now - arrived[0]);
                    if let Some(came) = arrived.iter().find(|came| **came >= due) {
                        self.late.on_waited(at, now - *came);
                    }
                    pace.on_turn(at, Waits { waited: self.waited.mean(), late: self.late.mean() });
                    let newest = arrived.last().copied().filter(|came| pace.takes(self.start + *came));
                    let frames = std::mem::take(arrived).len();
                    *busy = true;
                    self.plan(now + self.about(0.9 * frames as f64), Event::Decoded(track, newest));
                } else {
                    return;
                }
            }
        }

        /// Frames that each track was given in each of these seconds.
        fn frames(&self, track: usize, seconds: std::ops::Range<u64>) -> Vec<usize> {
            let mine = |second: &u64| self.painted.iter().filter(|(of, at, _)| *of == track && at.as_secs() == *second).count();
            seconds.map(|second| mine(&second)).collect()
        }
    }

    #[test]
    fn three_times_the_load_is_borne_evenly_and_calmly() {
        let mut machine = Machine::new(2, 33);
        machine.tracks.iter_mut().zip([60.0, 4.0, 25.0].into_iter().cycle()).for_each(|(track, rate)| track.pace.rate = rate);
        machine.run(Duration::from_secs(40), 33);
        let each: Vec<usize> = (0..33).map(|track| machine.frames(track, 10..40).iter().sum()).collect();
        let (least, most, all) = (each.iter().min(), each.iter().max(), each.iter().sum::<usize>());
        assert!(most < least.map(|least| least + least / 3).as_ref(), "{each:?}");
        assert!(all > 30 * 150, "{all}: of the 2 cores 1.1 are left for frames of 5 ms");
        let mut ages: Vec<_> = machine.painted.iter().filter(|(_, at, _)| at.as_secs() >= 10).map(|(.., age)| *age).collect();
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
