//! The time between pictures as a rate control should see it. Knows no codec and no clock.

use ooblex_pipeline::MediaTime;

/// 90 kHz ticks in one second.
const TICKS_PER_SECOND: f32 = 90_000.0;
/// A pause longer than this counts as this long: else the first picture after it would be given a whole pause's worth of bits at once.
const LONGEST_STEP: u64 = 18_000;
/// Two pictures closer than this count as this far apart, so that media time increases strictly.
const SHORTEST_STEP: u64 = 360;
/// How much one step moves the measured rate.
const SMOOTHING: f32 = 0.05;

/// Turns capture times into steps that increase strictly and never jump.
///
/// A rate control is shown the mean step, not each one: libvpx takes a single missing picture for half the frame rate, comes back from
/// that over a second, and spends almost twice its bitrate when every tenth picture is missing, as after losses. Over time the mean steps
/// add up to the true ones.
#[derive(Debug)]
pub(crate) struct Cadence {
    previous: Option<MediaTime>,
    nominal_step: u64,
    mean_step: f32,
    elapsed: f64,
}

impl Cadence {
    /// `frame_rate`: pictures a second, in 1..=240, until there is something to measure.
    pub(crate) fn new(frame_rate: f32) -> Self {
        let nominal = TICKS_PER_SECOND / frame_rate;
        Self { previous: None, nominal_step: nominal as u64, mean_step: nominal, elapsed: 0.0 }
    }

    /// Takes the capture time of the next picture; [`Cadence::elapsed`] moves on.
    pub(crate) fn advance(&mut self, capture: MediaTime) {
        if let Some(previous) = self.previous.replace(capture) {
            let step = match capture.0.checked_sub(previous.0) {
                Some(step) if step > 0 => step.clamp(SHORTEST_STEP, LONGEST_STEP),
                // Capture times that stand still or go back say nothing about the rate.
                _ => self.nominal_step,
            };
            self.mean_step += SMOOTHING * (step as f32 - self.mean_step);
            self.elapsed += f64::from(self.mean_step);
        }
    }

    /// 90 kHz time of the newest picture, counted from the first one, in even steps.
    pub(crate) fn elapsed(&self) -> u64 {
        self.elapsed as u64
    }

    /// What a picture lately lasted, in 90 kHz ticks.
    pub(crate) fn mean_step(&self) -> u64 {
        self.mean_step as u64
    }

    /// Pictures a second as they lately came.
    pub(crate) fn frame_rate(&self) -> f32 {
        TICKS_PER_SECOND / self.mean_step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_increases_strictly_whatever_the_capture_times_do() {
        let mut cadence = Cadence::new(30.0);
        let mut before = None;
        for capture in [9_000_000, 9_003_000, 9_003_000, 10, 3_010, u64::MAX, 0, 1] {
            cadence.advance(MediaTime(capture));
            assert!(before.is_none_or(|before| cadence.elapsed() > before));
            before = Some(cadence.elapsed());
        }
    }

    #[test]
    fn long_pause_counts_as_a_fifth_of_a_second_and_no_step_jumps() {
        let mut cadence = Cadence::new(30.0);
        cadence.advance(MediaTime(0));
        cadence.advance(MediaTime(900_000));
        assert_eq!(cadence.elapsed(), 3_750, "a twentieth of the way from 3000 to 18000");
    }

    #[test]
    fn time_adds_up_when_pictures_are_missing() {
        let mut cadence = Cadence::new(30.0);
        (0..3000).filter(|frame| ![3, 4, 11].contains(&(frame % 13))).for_each(|frame| cadence.advance(MediaTime(frame * 3_000)));
        assert!(cadence.elapsed().abs_diff(2_999 * 3_000) < 30_000, "{}", cadence.elapsed());
    }

    #[test]
    fn rate_follows_what_comes() {
        let mut cadence = Cadence::new(30.0);
        for frame in 0..120 {
            cadence.advance(MediaTime(frame * 9_000));
        }
        assert!((cadence.frame_rate() - 10.0).abs() < 0.2, "{}", cadence.frame_rate());
    }
}
