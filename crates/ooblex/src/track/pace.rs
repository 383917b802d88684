//! How many of a track's frames go on after they are decoded, when the machine is short of cores.
//!
//! Every frame has to be decoded, since the next one builds on it; what it costs from there on is four times as much, and can be saved. How
//! long tracks wait for their turns tells how short cores are. So each takes more frames as long as all wait little, and fewer when they
//! wait long, by steps that bring all tracks to the same rate: what goes on is fresh, and evenly spaced.

use std::time::{Duration, Instant};

/// Frames a second that every track may have, and the most that a camera sends.
const LEAST: f64 = 2.0;
const MOST: f64 = 60.0;
/// Turns come late when they are waited for so long, on average.
const LATE: Duration = Duration::from_millis(10);
/// And this is far too late.
const VERY_LATE: Duration = Duration::from_millis(40);
/// What becomes of the rate in a second of late turns, and of very late ones.
const DOWN: f64 = 0.6;
const FAST_DOWN: f64 = 0.25;
/// Frames a second that are added to it in a second of others. Where all fall by a factor and rise by a sum, all come to the same.
const UP: f64 = 5.0;
/// Turns count for the time since the last one, but no more than this.
const MOST_AT_ONCE: Duration = Duration::from_millis(100);
/// A frame that comes earlier than the rate says by no more than this part of the interval is in time: cameras are not exact.
const SLACK: f64 = 0.5;

/// The rate of one track.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pace {
    rate: f64,
    /// The last turn.
    turned: Option<Instant>,
    /// When the next frame goes on.
    due: Option<Instant>,
}

impl Pace {
    /// Nothing is short.
    pub(super) fn new() -> Self {
        Self { rate: MOST, turned: None, due: None }
    }

    /// The track has got its turn on a core, to decode, where so long is waited for turns.
    pub(super) fn on_turn(&mut self, now: Instant, waited: Duration) {
        let last = self.turned.replace(now).unwrap_or(now);
        let seconds = now.duration_since(last).min(MOST_AT_ONCE).as_secs_f64();
        self.rate = match waited {
            very if very > VERY_LATE => self.rate * FAST_DOWN.powf(seconds),
            late if late > LATE => self.rate * DOWN.powf(seconds),
            _ => self.rate + UP * seconds,
        };
        self.rate = self.rate.clamp(LEAST, MOST);
    }

    /// A frame was decoded. Whether it goes on.
    pub(super) fn takes(&mut self, now: Instant) -> bool {
        let interval = Duration::from_secs_f64(1.0 / self.rate);
        if self.due.is_some_and(|due| now + interval.mul_f64(SLACK) < due) {
            return false;
        }
        // Evenly, but without making up for frames that did not come.
        let due = self.due.map_or(now, |due| due.max(now.checked_sub(interval.mul_f64(SLACK)).unwrap_or(now)));
        self.due = Some(due + interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_micros(33_333);

    /// Which of so many frames go on, at 30 a second, when each waits for so long.
    fn taken(pace: &mut Pace, start: Instant, frames: u32, waited: Duration) -> Vec<u32> {
        let goes_on = |at: &u32| {
            pace.on_turn(start + FRAME * *at, waited);
            pace.takes(start + FRAME * *at)
        };
        (0..frames).filter(goes_on).collect()
    }

    #[test]
    fn all_go_on_while_there_are_cores() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        assert_eq!(taken(&mut pace, start, 900, Duration::from_millis(3)).len(), 900);
    }

    #[test]
    fn frames_that_come_in_pairs_all_go_on() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        let goes_on = |at: &u32| pace.takes(start + 2 * FRAME * (at / 2) + Duration::from_millis(u64::from(at % 2) * 10));
        assert_eq!((0..600u32).filter(goes_on).count(), 600);
    }

    #[test]
    fn few_go_on_without_cores_yet_some_and_evenly_and_all_again_soon() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        let short = taken(&mut pace, start, 900, Duration::from_millis(200));
        let late: Vec<_> = short.iter().filter(|at| **at >= 300).collect();
        assert_eq!(late.len(), 40, "two a second for twenty seconds");
        assert!(late.windows(2).all(|pair| (14..=16).contains(&(pair[1] - pair[0]))), "{late:?}");
        let again = taken(&mut pace, start + FRAME * 900, 900, Duration::from_millis(1));
        assert_eq!(again.iter().filter(|at| **at >= 180).count(), 720, "all after six seconds");
    }

    #[test]
    fn tracks_that_share_cores_come_to_the_same_rate() {
        let start = Instant::now();
        let mut paces = [60.0, 4.0, 25.0].map(|rate| Pace { rate, turned: None, due: None });
        let mut counts = [0u32; 3];
        let mut queue = Duration::ZERO;
        for frame in 0..3600u32 {
            let (now, waited) = (start + FRAME * frame, queue);
            for (pace, count) in paces.iter_mut().zip(&mut counts) {
                pace.on_turn(now, waited);
                if pace.takes(now) {
                    queue += Duration::from_millis(33);
                    *count += u32::from(frame >= 1800);
                }
            }
            // There is one core, for 30 of the 90 frames a second.
            queue = queue.saturating_sub(FRAME);
        }
        let (least, most, all) = (counts.iter().min(), counts.iter().max(), counts.iter().sum::<u32>());
        assert!(most < least.map(|least| 2 * least).as_ref(), "{counts:?}");
        assert!((1200..=1800).contains(&all), "most of the core is used: {counts:?}");
    }
}
