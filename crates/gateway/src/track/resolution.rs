//! The resolution controller of a track: the size at which pictures are sent. It steps down when
//! the network carries too few bits for their pixels, and up again when it carries enough.
//!
//! A clear picture of half the size is better than a full one of blocks. It looks at bitrates only;
//! time is an argument.

use ooblex_pipeline::Size;

use std::time::{Duration, Instant};

/// The resolution steps, largest first: the sent width and height in eighths of the camera's.
const SCALES_IN_EIGHTHS: [u32; 5] = [8, 6, 4, 3, 2];
/// Below this number of bits a pixel a picture falls apart, and the resolution steps down.
const STEP_DOWN_BITS_PER_PIXEL: f64 = 0.030;
/// Above this number of bits a pixel the next larger picture would be clear, and the resolution
/// steps up.
const STEP_UP_BITS_PER_PIXEL: f64 = 0.050;
/// The bits a pixel that a keyframe has at least when it has to be through soon.
const KEYFRAME_BITS_PER_PIXEL: f64 = 0.080;
/// The time with too few bits before a step down, since estimates dip.
const STEP_DOWN_AFTER: Duration = Duration::from_millis(400);
/// The time with enough bits before a step up, since each change costs a keyframe.
const STEP_UP_AFTER: Duration = Duration::from_secs(3);
/// The lower bound of the shorter side, in pixels.
const MIN_SIDE_PIXELS: u32 = 120;
/// The frame rate that bits a pixel are calculated for, in frames a second.
const NOMINAL_FRAME_RATE_FPS: f64 = 30.0;

/// The resolution controller of one track.
#[derive(Debug, Default)]
pub(super) struct Resolution {
    /// The index of the step in force.
    step: usize,
    /// When there began to be too few bits.
    short_since: Option<Instant>,
    /// When there began to be enough bits for the next larger picture.
    ample_since: Option<Instant>,
    /// The next picture is a keyframe in any case, and has to be through soon.
    is_hastened: bool,
}

impl Resolution {
    /// Makes the next picture as small as a keyframe that has to be through soon, without waiting
    /// for [`STEP_DOWN_AFTER`].
    pub(super) fn hasten(&mut self) {
        self.is_hastened = true;
    }

    /// Returns the size at which a picture of `size` is sent, where the bitrate is `bps`.
    pub(super) fn choose(&mut self, now: Instant, size: Size, bps: u32) -> Size {
        let bits_per_pixel = |step: usize| f64::from(bps) / (scaled(size, step).pixels() * NOMINAL_FRAME_RATE_FPS);
        let lowest = (0..SCALES_IN_EIGHTHS.len())
            .rev()
            .find(|step| *step == 0 || scaled(size, *step).shorter_side() >= MIN_SIDE_PIXELS)
            .unwrap_or(0);
        self.step = self.step.min(lowest);
        let is_short = self.step < lowest && bits_per_pixel(self.step) < STEP_DOWN_BITS_PER_PIXEL;
        let is_ample = self.step > 0 && bits_per_pixel(self.step - 1) > STEP_UP_BITS_PER_PIXEL;
        self.short_since = is_short.then(|| self.short_since.unwrap_or(now));
        self.ample_since = is_ample.then(|| self.ample_since.unwrap_or(now));
        if std::mem::take(&mut self.is_hastened) {
            self.step = (self.step..lowest).find(|step| bits_per_pixel(*step) >= KEYFRAME_BITS_PER_PIXEL).unwrap_or(lowest);
            (self.short_since, self.ample_since) = (None, None);
            return scaled(size, self.step);
        }
        let lasts = |since: Option<Instant>, time| since.is_some_and(|since| now.saturating_duration_since(since) >= time);
        if lasts(self.short_since, STEP_DOWN_AFTER) {
            // One step goes all the way to where there are enough bits, since each step in between
            // would cost a keyframe.
            self.step = (self.step + 1..lowest).find(|step| bits_per_pixel(*step) >= STEP_DOWN_BITS_PER_PIXEL).unwrap_or(lowest);
            self.short_since = None;
        } else if lasts(self.ample_since, STEP_UP_AFTER) {
            self.step = (0..self.step).find(|step| bits_per_pixel(*step) > STEP_UP_BITS_PER_PIXEL).unwrap_or(self.step - 1);
            self.ample_since = None;
        }
        scaled(size, self.step)
    }
}

/// Returns a size at a step. Scaled sides are even, as H.264 requires; the camera's own size stays
/// as it is.
fn scaled(size: Size, step: usize) -> Size {
    let side = |side: u32| (side * SCALES_IN_EIGHTHS[step] / 8).next_multiple_of(2).max(2);
    if step == 0 { size } else { Size::new(side(size.width), side(size.height)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VGA: Size = Size::new(640, 480);

    /// Returns the size that is chosen after `ms` with the same bitrate, told every 100 ms.
    fn after(resolution: &mut Resolution, start: &mut Instant, ms: u64, size: Size, kbps: u32) -> Size {
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
        assert_eq!(after(&mut resolution, &mut now, 10_000, Size::new(1279, 719), 2500), Size::new(1279, 719), "and its odd sides");
    }

    #[test]
    fn too_few_bits_make_it_smaller_in_one_step_and_within_a_second() {
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        assert_eq!(after(&mut resolution, &mut now, 500, VGA, 200), Size::new(480, 360));
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        assert_eq!(after(&mut resolution, &mut now, 500, Size::new(1280, 720), 250), Size::new(640, 360), "two steps at once");
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
        assert_eq!(after(&mut resolution, &mut now, 1000, VGA, 100), Size::new(320, 240));
        assert_eq!(after(&mut resolution, &mut now, 2500, VGA, 2000), Size::new(320, 240), "not at once");
        assert_eq!(after(&mut resolution, &mut now, 1000, VGA, 400), Size::new(480, 360));
        assert_eq!(after(&mut resolution, &mut now, 4000, VGA, 2000), VGA);
    }

    #[test]
    fn breakdown_makes_it_small_at_once_and_not_smaller_than_there_are_bits_for() {
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        after(&mut resolution, &mut now, 1000, VGA, 2000);
        resolution.hasten();
        assert_eq!(resolution.choose(now, VGA, 300_000), Size::new(320, 240));
        assert_eq!(after(&mut resolution, &mut now, 1000, VGA, 300), Size::new(320, 240), "once");
        resolution.hasten();
        assert_eq!(resolution.choose(now, VGA, 2_000_000), Size::new(320, 240), "it never makes it larger");
    }

    #[test]
    fn bitrate_between_the_bounds_leaves_it_where_it_is() {
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        assert_eq!(after(&mut resolution, &mut now, 1000, VGA, 200), Size::new(480, 360));
        assert_eq!(
            after(&mut resolution, &mut now, 60_000, VGA, 400),
            Size::new(480, 360),
            "enough for this one, too few for the larger one"
        );
    }

    #[test]
    fn small_pictures_are_not_made_smaller() {
        let (mut resolution, mut now) = (Resolution::default(), Instant::now());
        assert_eq!(after(&mut resolution, &mut now, 5000, Size::new(160, 120), 30), Size::new(160, 120));
        assert_eq!(after(&mut resolution, &mut now, 5000, Size::new(320, 240), 30), Size::new(160, 120));
    }
}
