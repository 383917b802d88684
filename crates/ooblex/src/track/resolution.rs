//! How large the picture goes out: in steps down when the network carries too few bits for its pixels, and up again when it does.
//!
//! A picture of half the size that is clear is better than a whole one of blocks. It looks at bitrates and the clock only.

use std::time::{Duration, Instant};

/// Shares of the picture's width and height, largest first.
const RUNGS: [(u32, u32); 5] = [(1, 1), (3, 4), (1, 2), (3, 8), (1, 4)];
/// With fewer bits for a pixel than this a picture falls apart.
const TOO_FEW: f64 = 0.030;
/// With more than this for each pixel of the next larger picture, that one would be clear.
const ENOUGH: f64 = 0.050;
/// A keyframe that is to be through soon has more than this for each pixel.
const SPARE: f64 = 0.080;
/// How long there must be too few before the picture becomes smaller: estimates dip.
const DOWN_AFTER: Duration = Duration::from_millis(400);
/// How long there must be enough before it becomes larger: each change costs a keyframe.
const UP_AFTER: Duration = Duration::from_secs(3);
/// The shorter side is not made smaller than this.
const MIN_SIDE: u32 = 120;
/// The frame rate that bits are reckoned with.
const NOMINAL_FPS: f64 = 30.0;

/// The step that is in force.
#[derive(Debug, Default)]
pub(super) struct Resolution {
    rung: usize,
    /// Since when a step down would be right.
    short_since: Option<Instant>,
    /// Since when a step up would be right.
    ample_since: Option<Instant>,
    /// The next picture is a keyframe in any case, and should be small.
    at_once: bool,
}

impl Resolution {
    /// The next picture is as small as would be right if there were too few bits for long, and smaller rather than larger.
    pub(super) fn hasten(&mut self) {
        self.at_once = true;
    }

    /// The size at which a picture of `size` goes out, when it may have `bps` bits a second.
    pub(super) fn choose(&mut self, now: Instant, size: (u32, u32), bps: u32) -> (u32, u32) {
        let bits_per_pixel = |rung: usize| {
            let (width, height) = scaled(size, rung);
            f64::from(bps) / (f64::from(width) * f64::from(height) * NOMINAL_FPS)
        };
        let lowest = (0..RUNGS.len()).rev().find(|rung| *rung == 0 || shorter(scaled(size, *rung)) >= MIN_SIDE).unwrap_or(0);
        self.rung = self.rung.min(lowest);
        let is_short = self.rung < lowest && bits_per_pixel(self.rung) < TOO_FEW;
        let is_ample = self.rung > 0 && bits_per_pixel(self.rung - 1) > ENOUGH;
        self.short_since = is_short.then(|| self.short_since.unwrap_or(now));
        self.ample_since = is_ample.then(|| self.ample_since.unwrap_or(now));
        if std::mem::take(&mut self.at_once) {
            self.rung = (self.rung..lowest).find(|rung| bits_per_pixel(*rung) >= SPARE).unwrap_or(lowest);
            (self.short_since, self.ample_since) = (None, None);
            return scaled(size, self.rung);
        }
        let lasts = |since: Option<Instant>, time| since.is_some_and(|since| now.saturating_duration_since(since) >= time);
        if lasts(self.short_since, DOWN_AFTER) {
            // At once to where there are enough: every step in between would cost a keyframe.
            self.rung = (self.rung + 1..lowest).find(|rung| bits_per_pixel(*rung) >= TOO_FEW).unwrap_or(lowest);
            self.short_since = None;
        } else if lasts(self.ample_since, UP_AFTER) {
            self.rung = (0..self.rung).find(|rung| bits_per_pixel(*rung) > ENOUGH).unwrap_or(self.rung - 1);
            self.ample_since = None;
        }
        scaled(size, self.rung)
    }
}

/// Sides are even, as H.264 wants them, save for the picture as it is.
fn scaled((width, height): (u32, u32), rung: usize) -> (u32, u32) {
    let (numerator, denominator) = RUNGS[rung];
    let side = |side: u32| (side * numerator / denominator).next_multiple_of(2).max(2);
    if rung == 0 { (width, height) } else { (side(width), side(height)) }
}

fn shorter((width, height): (u32, u32)) -> u32 {
    width.min(height)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VGA: (u32, u32) = (640, 480);

    /// What is chosen after the same bitrate has been told every 100 ms for so long.
    fn after(resolution: &mut Resolution, start: &mut Instant, ms: u64, size: (u32, u32), kbps: u32) -> (u32, u32) {
        let end = *start + Duration::from_millis(ms);
        let mut chosen = size;
        while *start <= end {
            chosen = resolution.choose(*start, size, kbps * 1000);
            *start += Duration::from_millis(100);
        }
        chosen
    }

    #[test]
    fn picture_keeps_its_size_while_there_are_bits_for_it() {
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        assert_eq!(after(&mut resolution, &mut now, 10_000, VGA, 500), VGA);
        assert_eq!(after(&mut resolution, &mut now, 10_000, (1279, 719), 2500), (1279, 719), "and its odd sides");
    }

    #[test]
    fn too_few_bits_make_it_smaller_in_one_step_and_within_a_second() {
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        assert_eq!(after(&mut resolution, &mut now, 500, VGA, 200), (480, 360));
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        assert_eq!(after(&mut resolution, &mut now, 500, (1280, 720), 250), (640, 360), "two steps at once");
    }

    #[test]
    fn dip_of_a_moment_changes_nothing() {
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        after(&mut resolution, &mut now, 200, VGA, 100);
        assert_eq!(after(&mut resolution, &mut now, 200, VGA, 1000), VGA);
        assert_eq!(after(&mut resolution, &mut now, 300, VGA, 100), VGA, "the time is counted anew");
    }

    #[test]
    fn bits_that_come_back_make_it_as_large_as_they_are_enough_for() {
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        assert_eq!(after(&mut resolution, &mut now, 1000, VGA, 100), (320, 240));
        assert_eq!(after(&mut resolution, &mut now, 2500, VGA, 2000), (320, 240), "not at once");
        assert_eq!(after(&mut resolution, &mut now, 1000, VGA, 400), (480, 360));
        assert_eq!(after(&mut resolution, &mut now, 4000, VGA, 2000), VGA);
    }

    #[test]
    fn breakdown_makes_it_small_at_once_and_not_smaller_than_there_are_bits_for() {
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        after(&mut resolution, &mut now, 1000, VGA, 2000);
        resolution.hasten();
        assert_eq!(resolution.choose(now, VGA, 300_000), (320, 240));
        assert_eq!(after(&mut resolution, &mut now, 1000, VGA, 300), (320, 240), "once");
        resolution.hasten();
        assert_eq!(resolution.choose(now, VGA, 2_000_000), (320, 240), "it never makes it larger");
    }

    #[test]
    fn bitrate_between_the_bounds_leaves_it_where_it_is() {
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        assert_eq!(after(&mut resolution, &mut now, 1000, VGA, 200), (480, 360));
        assert_eq!(after(&mut resolution, &mut now, 60_000, VGA, 400), (480, 360), "enough for this one, too few for the larger one");
    }

    #[test]
    fn small_pictures_are_not_made_smaller() {
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        assert_eq!(after(&mut resolution, &mut now, 5000, (160, 120), 30), (160, 120));
        assert_eq!(after(&mut resolution, &mut now, 5000, (320, 240), 30), (160, 120));
    }
}
